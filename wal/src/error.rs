//! Says what went wrong in the log, one variant per thing a caller does differently.

use std::io;
use std::path::PathBuf;

/// Why an operation of the log failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
    },
    /// Another process owns the store.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file was written by a newer Penstock.
    #[error("{} has format version {version}, this Penstock reads up to {supported}", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// Both copies of a file header are broken.
    #[error("{} has no valid header", path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
    },
    /// Something cannot be read, and the recovery is strict.
    #[error("{}: {what} (recovery is strict)", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
    /// The log cannot take more now: try again later.
    #[error("the log is full: {reason}")]
    Full {
        /// What is at its limit.
        reason: FullReason,
    },
    /// One request needs more room than the log has at once.
    #[error("{bytes} bytes do not fit the log at once (limit {limit})")]
    TooLarge {
        /// What the request needs.
        bytes: u64,
        /// What there is.
        limit: u64,
    },
    /// A write or sync failed before: nothing is acknowledged any more.
    #[error("the log has failed: {0}")]
    Poisoned(String),
    /// The store was closed.
    #[error("the log is closed")]
    Closed,
    /// A frame checks but its body makes no sense.
    #[error("malformed frame body at {at}: {what}")]
    Malformed {
        /// Byte offset in the body.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
    /// All writer slots are taken.
    #[error("no more than {limit} writers at a time")]
    TooManyWriters {
        /// How many there may be.
        limit: usize,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Options(String),
}

/// What is at its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FullReason {
    /// The disk is slower than the senders.
    Ring,
    /// No segment is prepared: disk full, quota reached, or preparing takes too long.
    Segments,
    /// No room for more series records.
    Series,
    /// Writing fails; it is tried again and again.
    Device,
}

impl std::fmt::Display for FullReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ring => "the disk is slower than the senders",
            Self::Segments => "no segment is free (disk full or quota reached)",
            Self::Series => "no room for new series",
            Self::Device => "writing to the disk fails",
        })
    }
}

impl Error {
    /// Whether the same call may succeed later, when the log has room again.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the log acknowledges nothing any more.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned(_) | Self::Closed)
    }

    /// Whether the request can never fit.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }

    /// The same, unless a disk without space is behind it: that is "full", not broken.
    pub(crate) fn or_full(self, reason: FullReason) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match &self {
            Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded) => {
                Self::Full { reason }
            }
            _ => self,
        }
    }

    /// A closure that names the file of a failed operation.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }
}
