//! Turns the write-ahead log of a Prometheus (server or agent, also the one inside Grafana Alloy)
//! into series, samples, exemplars, histograms and metadata.
//!
//! ```text
//! DIR/checkpoint.00000005/00000000    what earlier segments still meant: series, few samples
//! DIR/00000006, 00000007, ...         segments: pages of 32 KiB, each
//!   fragment fragment ... zeros       flags u8 | length u16 | CRC-32C of the data u32 | data
//!     record                          one or more fragments, perhaps compressed
//! flags: 0 zeros to the page's end, 1 whole record, 2 first, 3 middle, 4 last fragment;
//!        + 8 snappy, + 16 zstd        (numbers are big-endian)
//! ```
//!
//! | file | does |
//! |---|---|
//! | `files` | a directory -> checkpoint and segments in order -> events |
//! | `pages` | bytes of a segment -> records, and what cannot be read |
//! | `crc` | CRC-32C |
//! | `compress` | record as stored -> record |
//! | `record` | bytes of a record -> its items |
//! | `histogram` | native histograms in it |
//! | `cursor` | numbers and strings |
//!
//! # Invariants
//! - Records come in the order they were written, each at most once.
//! - Values are bits and stay so: a stale marker is the NaN it was.
//! - Every byte of every file is part of a record, padding, or of a [`Lost`] that was reported.
//!
//! # Failure
//! - A broken fragment loses the record it belongs to and the rest of its page, and reading goes on
//!   with the next page. A record whose checksums hold but that makes no sense is lost alone.
//! - An unfinished record at the end of the last segment is what a crash leaves:
//!   [`Why::TornTail`], in the same event.
//!
//! # Limits
//! - A page, a record as stored and a record decompressed are in memory at a time; a record longer
//!   than [`RECORD_BYTES_MAX`] is lost.

mod compress;
mod crc;
mod cursor;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod histogram;
mod pages;
mod record;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use compress::RECORD_BYTES_MAX;
pub use files::PrometheusWal;
pub use record::{Exemplar, Histogram, Metadata, Record, Sample, Series};

/// What reading came across.
#[derive(Debug)]
pub enum Event<'a> {
    /// A record.
    Record(Record<'a>),
    /// Bytes that are no records any more.
    Lost(Lost),
}

/// Bytes that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The file; the directory for [`Why::MissingSegments`].
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes, as they are on disk.
    pub bytes: u64,
    /// What was found there.
    pub why: Why,
}

/// Why bytes could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The last segment ends inside a record, as after a crash: nothing that was ever complete.
    TornTail,
    /// Another file ends inside a record.
    CutOff,
    /// A fragment does not match its checksum.
    Checksum,
    /// A fragment claims to go beyond its page.
    Length,
    /// There is something where a page is filled up with zeros.
    Padding,
    /// A fragment is of no known type or compression.
    Flags,
    /// A fragment without those before or behind it.
    Incomplete,
    /// A record does not decompress.
    Compression,
    /// A record is longer than [`RECORD_BYTES_MAX`].
    TooLong,
    /// A record of a known type whose content makes no sense.
    Malformed,
    /// A record of a type that is not known here.
    UnknownType,
    /// Segments that must have been there are not.
    MissingSegments,
}

impl Why {
    /// Whether it is no corruption but the usual end of a log that was not closed.
    #[must_use]
    pub const fn is_usual(self) -> bool {
        matches!(self, Self::TornTail)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TornTail => "unfinished record at the end",
            Self::CutOff => "the file ends inside a record",
            Self::Checksum => "checksum does not match",
            Self::Length => "fragment goes beyond its page",
            Self::Padding => "padding is not zero",
            Self::Flags => "unknown fragment type or compression",
            Self::Incomplete => "fragments of a record are missing",
            Self::Compression => "record does not decompress",
            Self::TooLong => "record is too long",
            Self::Malformed => "record is malformed",
            Self::UnknownType => "record is of an unknown type",
            Self::MissingSegments => "segments are missing",
        })
    }
}

/// Why a log cannot be read at all, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are neither segments nor checkpoints.
    #[error("{} holds no segments of a Prometheus WAL", .0.display())]
    NoWal(PathBuf),
    /// A file operation failed.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
    },
}
