//! Turns certificates and keys, given as text or as files, into their present bytes.
//!
//! # Limits
//! - A file is at most [`FILE_BYTES_MAX`] long.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bundles of all public CA certificates are about 250 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Text that is not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// PEM text or where it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PemSource {
    /// The text.
    Text(Secret),
    /// A file that holds it, read again when it may have changed.
    File(PathBuf),
}

impl PemSource {
    pub(super) const fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Blocks the thread for a read of the file.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => read_file(path),
        }
    }
}

/// The content of a small file. Its path is no secret.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    let bytes = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(format!("holds more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_endless_file_is_a_problem() {
        for (path, problem) in [
            ("/nonexistent/key", "cannot be read"),
            ("/dev/zero", "holds more than"),
        ] {
            let message = PemSource::File(path.into()).read().unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn text_is_not_printed() {
        let shown = format!("{:?}", PemSource::Text("hunter2".into()));
        assert_eq!(shown, "Text((secret))");
    }
}
