//! Turns a secret, or the file that holds it, into its present text.
//!
//! # Failure
//! - A file that cannot be read fails the attempt, which is then repeated like any other: the
//!   operator can put it right without a restart.
//!
//! # Limits
//! - A file is read at most once per [`REREAD_EVERY`]; sending hundreds of requests per second
//!   does not mean as many reads, and a rotated secret is used within that time.
//! - A file is at most [`FILE_BYTES_MAX`] long.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use wal::SharedClock;

const REREAD_EVERY: Duration = Duration::from_secs(1);
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

/// A secret or where it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretSource {
    /// The secret.
    Text(Secret),
    /// A file that holds it, read again while it is in use; spaces and newlines around it do not
    /// count.
    File(PathBuf),
}

impl Default for SecretSource {
    fn default() -> Self {
        Self::Text(Secret::default())
    }
}

/// Reads one secret as often as it is needed.
pub(super) struct SecretReader {
    source: SecretSource,
    clock: SharedClock,
    last: Mutex<Option<(Duration, Secret)>>,
}

impl SecretReader {
    pub(super) fn new(source: SecretSource, clock: SharedClock) -> Self {
        Self {
            source,
            clock,
            last: Mutex::new(None),
        }
    }

    /// Blocks the thread for one small read, once per second at most.
    pub(super) fn read(&self) -> Result<Secret, String> {
        let path = match &self.source {
            SecretSource::Text(secret) => return Ok(secret.clone()),
            SecretSource::File(path) => path,
        };
        let now = self.clock.monotonic();
        let mut last = self.last.lock();
        if let Some((read_at, secret)) = &*last
            && now.saturating_sub(*read_at) < REREAD_EVERY
        {
            return Ok(secret.clone());
        }
        let content = read_file(path)?;
        let text = std::str::from_utf8(&content)
            .map_err(|_| format!("reading {}: not text", path.display()))?;
        let secret = Secret::from(text.trim());
        *last = Some((now, secret.clone()));
        Ok(secret)
    }
}

/// The content of a small file. Its path is no secret.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let failed = |problem: String| format!("reading {}: {problem}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let bytes = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| failed(error.to_string()))?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::super::clock::ManualClock;
    use super::*;

    #[test]
    fn file_is_trimmed_and_read_again_after_a_second() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (time, clock) = ManualClock::shared();
        let reader = SecretReader::new(SecretSource::File(file.path().into()), clock);
        let text = || reader.read().unwrap().expose().to_owned();
        std::fs::write(file.path(), "one\n").unwrap();
        assert_eq!(text(), "one");
        std::fs::write(file.path(), "two\n").unwrap();
        time.set_ms(999);
        assert_eq!(text(), "one");
        time.set_ms(1000);
        assert_eq!(text(), "two");
    }

    #[test]
    fn missing_or_endless_file_is_a_problem_with_its_path() {
        for (path, problem) in [
            ("/nonexistent/token", "os error"),
            ("/dev/zero", "more than"),
        ] {
            let (_, clock) = ManualClock::shared();
            let reader = SecretReader::new(SecretSource::File(path.into()), clock);
            let message = reader.read().unwrap_err();
            assert!(
                message.contains(path) && message.contains(problem),
                "{message}"
            );
        }
    }
}
