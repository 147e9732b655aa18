//! Turns what becomes of runs into numbers of the endpoint.
//!
//! # Threads
//! - Relaxed atomics shared by the encoders of an endpoint; each adds to them once per batch.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Why samples were encoded rather than patched into a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Nothing was known of a run that begins with this series, or its labels have changed.
    New,
    /// The run has other series now, or is cut by the end of the batch.
    Sequence,
    /// A value did not have the zero bytes it used to have.
    Values,
    /// A timestamp differs from its neighbour's and did not use to.
    Timestamps,
    /// All the memory for templates is taken.
    Full,
    /// There is no file for another template: the disk is full, or takes none.
    Disk,
    /// There can be no template: few series, several samples of one, unusual timestamps, no labels.
    Unsuited,
}

impl Miss {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Sequence,
        Self::Values,
        Self::Timestamps,
        Self::Full,
        Self::Disk,
        Self::Unsuited,
    ];

    /// As a label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Sequence => "sequence",
            Self::Values => "values",
            Self::Timestamps => "timestamps",
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Unsuited => "unsuited",
        }
    }
}

/// What became of samples and templates, at one moment or between two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TemplateCounts {
    /// Samples patched into a template.
    pub hits: u64,
    /// Samples that were not, by reason (see [`Miss::ALL`]).
    pub misses: [u64; Miss::ALL.len()],
    /// Templates built.
    pub built: u64,
    /// Templates that were not right and are not used.
    pub refused: u64,
    /// Templates removed because they were not used for long.
    pub evicted: u64,
    /// Bytes that templates take now, in memory and in files.
    pub bytes: u64,
    /// Those of them in files.
    pub file_bytes: u64,
}

impl TemplateCounts {
    pub(super) fn miss(&mut self, reason: Miss, samples: usize) {
        self.misses[reason as usize] += samples as u64;
    }
}

/// The live numbers of an endpoint.
#[derive(Debug, Default)]
pub struct TemplateStats {
    hits: AtomicU64,
    misses: [AtomicU64; Miss::ALL.len()],
    built: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
    bytes: AtomicU64,
    file_bytes: AtomicU64,
    /// Encoders that have no file to put templates into.
    troubled: AtomicU64,
}

impl TemplateStats {
    /// Adds what happened since the last time; of bytes, the difference to those of `before`.
    pub(super) fn add(&self, now: &TemplateCounts, before: &TemplateCounts) {
        self.hits.fetch_add(now.hits, Relaxed);
        for (atomic, count) in self.misses.iter().zip(now.misses) {
            atomic.fetch_add(count, Relaxed);
        }
        self.built.fetch_add(now.built, Relaxed);
        self.refused.fetch_add(now.refused, Relaxed);
        self.evicted.fetch_add(now.evicted, Relaxed);
        let more = now.bytes.wrapping_sub(before.bytes);
        self.bytes.fetch_add(more, Relaxed);
        let more = now.file_bytes.wrapping_sub(before.file_bytes);
        self.file_bytes.fetch_add(more, Relaxed);
    }

    /// An encoder has no file to put templates into any more; whether it is the first.
    pub(super) fn trouble_begins(&self) -> bool {
        self.troubled.fetch_add(1, Relaxed) == 0
    }

    /// It has again, or has ended; whether it was the last.
    pub(super) fn trouble_ends(&self) -> bool {
        self.troubled.fetch_sub(1, Relaxed) == 1
    }

    /// All numbers as they are now.
    #[must_use]
    pub fn snapshot(&self) -> TemplateCounts {
        TemplateCounts {
            hits: self.hits.load(Relaxed),
            misses: std::array::from_fn(|i| self.misses[i].load(Relaxed)),
            built: self.built.load(Relaxed),
            refused: self.refused.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            file_bytes: self.file_bytes.load(Relaxed),
        }
    }
}
