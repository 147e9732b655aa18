//! Turns the small files of `/proc` and `/sys` into texts and numbers.
//!
//! Parsed here and in the collectors, not by a crate: the names of most series are the names in the files, and what
//! reads them into fields leaves out those it does not know.
//!
//! # Limits
//! - [`TEXT_BYTES_MAX`] of a file; more of it is not read.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// More than the interrupts of a machine with hundreds of cores.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Most entries of a directory.
const ENTRIES_MAX: usize = 10_000;

/// Why a collector has nothing, or not everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// This machine does not have what it is about.
    NoData,
    Failed(String),
    /// Of some of it; the rest is as good as ever.
    Partial(String),
}

impl Problem {
    pub(super) fn of(path: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NoData,
            _ => Self::Failed(format!("{}: {error}", path.display())),
        }
    }
}

/// What a file holds.
pub(super) fn text(path: impl AsRef<Path>) -> Result<String, Problem> {
    let path = path.as_ref();
    let failed = |error| Problem::of(path, &error);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut file = file.take(TEXT_BYTES_MAX);
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a file of one line holds; nothing if it cannot be read, as some of `/sys` cannot.
pub(super) fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = text(path).ok()?;
    Some(text.trim().to_owned())
}

/// The number a file of one line holds.
pub(super) fn number(path: impl AsRef<Path>) -> Option<f64> {
    integer(&line(path)?)
}

/// The number a file must hold.
pub(super) fn required(path: impl AsRef<Path>) -> Result<f64, Problem> {
    let path = path.as_ref();
    let text = text(path)?;
    float(text.trim()).ok_or_else(|| odd(path, &text))
}

/// A file holds what it should not.
pub(super) fn odd(path: &Path, text: &str) -> Problem {
    let shown: String = text.chars().take(80).collect();
    Problem::Failed(format!("{} holds {shown:?}", path.display()))
}

pub(super) fn float(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// A decimal number, or a hexadecimal one with `0x`.
pub(super) fn integer(text: &str) -> Option<f64> {
    match text.strip_prefix("0x") {
        Some(digits) => hex(digits),
        #[expect(clippy::cast_precision_loss, reason = "sample values are floats")]
        None => text.parse::<i64>().ok().map(|number| number as f64),
    }
}

/// Hexadecimal digits.
pub(super) fn hex(digits: &str) -> Option<f64> {
    let number = u64::from_str_radix(digits, 16).ok()?;
    Some(crate::telemetry::families::float(number))
}

/// What is in a directory, by name.
pub(super) fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, Problem> {
    let failed = |error| Problem::of(dir, &error);
    let mut found = Vec::new();
    for entry in dir.read_dir().map_err(failed)?.take(ENTRIES_MAX) {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// The entries of a directory whose names are `prefix` and a number, with the digits, by number.
pub(super) fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(String, PathBuf)>, Problem> {
    let mut found = Vec::new();
    for (name, path) in entries(dir)? {
        let digits = name.strip_prefix(prefix).unwrap_or_default();
        if let Ok(number) = digits.parse::<u32>() {
            found.push((number, digits.to_owned(), path));
        }
    }
    found.sort();
    Ok(found
        .into_iter()
        .map(|(_, text, path)| (text, path))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_writes_them() {
        assert_eq!(integer("-1"), Some(-1.0));
        assert_eq!(integer("0x1003"), Some(4099.0));
        assert_eq!(integer("x"), None);
        assert_eq!(hex("0000ffff"), Some(65535.0));
        assert_eq!(hex(""), None);
    }

    #[test]
    fn what_is_not_there_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(text(dir.path().join("none")), Err(Problem::NoData));
        let problem = text(dir.path()).unwrap_err();
        assert!(matches!(problem, Problem::Failed(_)), "{problem:?}");
        std::fs::write(dir.path().join("word"), "word\n").unwrap();
        let problem = required(dir.path().join("word")).unwrap_err();
        assert!(matches!(&problem, Problem::Failed(why) if why.contains("holds \"word")));
        for name in ["cpu10", "cpu2", "cpuidle"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = numbered(dir.path(), "cpu").unwrap();
        let found: Vec<_> = found.iter().map(|(number, _)| number.as_str()).collect();
        assert_eq!(found, ["2", "10"]);
    }
}
