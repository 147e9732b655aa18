//! Turns the rules of a relabel component into a stage of the ways that lead through it, with its numbers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use labels::relabel::Rule;

use crate::aliases::Limits;
use crate::tap::Tap;

/// Most aliases where only their age limits them.
const ENTRIES_MAX: usize = 1 << 24;
/// Label bytes an alias may have on average; what has more is fewer.
const BYTES_PER_ENTRY: usize = 1 << 10;

/// A `prometheus.relabel` component on the way to a writer.
#[derive(Debug)]
pub struct Stage {
    name: String,
    pub(super) rules: Arc<[Rule]>,
    pub(super) limits: Limits,
    pub(super) stats: Arc<StageStats>,
    tap: Tap,
}

impl Stage {
    /// A component with these rules, which keeps the results of `entries_max` label sets per shard
    /// thread, or, where that is 0, of those used within `ttl`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        rules: Vec<Rule>,
        entries_max: usize,
        ttl: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            rules: rules.into(),
            limits: limits(entries_max, ttl),
            stats: Arc::default(),
            tap: Tap::default(),
        }
    }

    /// The same component with other rules: its counters go on, and so does whoever listens to it.
    #[must_use]
    pub fn with_rules(&self, rules: Vec<Rule>, entries_max: usize, ttl: Duration) -> Self {
        Self {
            name: self.name.clone(),
            rules: rules.into(),
            limits: limits(entries_max, ttl),
            stats: self.stats.clone(),
            tap: self.tap.clone(),
        }
    }

    /// The component's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> &StageStats {
        &self.stats
    }

    /// Where its samples can be looked at: `LABELS => LABELS`, or `LABELS => dropped`.
    #[must_use]
    pub const fn tap(&self) -> &Tap {
        &self.tap
    }
}

fn limits(entries_max: usize, ttl: Duration) -> Limits {
    let entries = if entries_max == 0 {
        ENTRIES_MAX
    } else {
        entries_max.min(ENTRIES_MAX)
    };
    Limits {
        entries_max: entries,
        bytes_max: entries.saturating_mul(BYTES_PER_ENTRY),
        ttl: (entries_max == 0).then_some(ttl),
    }
}

/// What a relabel component did, over all shard threads and receivers.
#[derive(Default, Debug)]
pub struct StageStats {
    /// Samples, exemplars and histograms that came.
    pub processed: AtomicU64,
    /// Samples, exemplars and histograms that went on.
    pub written: AtomicU64,
    /// Times in which what became of a series was known.
    pub hits: AtomicU64,
    /// Times in which the rules had to run.
    pub misses: AtomicU64,
    /// Label sets given up to make room.
    pub deletes: AtomicU64,
    /// Label sets given up because of their age.
    pub ttl_evictions: AtomicU64,
    /// Label sets whose result is kept.
    pub size: AtomicU64,
}
