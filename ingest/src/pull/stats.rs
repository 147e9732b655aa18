//! Turns what scrapers did into numbers that can be read at any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::scrape::Counts;
use super::target::Target;
use crate::tap::Tap;

/// Why a scrape failed, for counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrapeFailure {
    /// There was no answer, or not a 200.
    Fetch,
    /// The body had more bytes than it may have.
    BodySizeLimit,
    /// The body could not be read.
    Parse,
    /// More samples than the limit.
    SampleLimit,
    /// A label set beyond the limits.
    LabelLimit,
    /// A native histogram with more buckets than it may have.
    BucketLimit,
    /// There are more targets than the limit.
    TargetLimit,
}

impl ScrapeFailure {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Fetch,
        Self::BodySizeLimit,
        Self::Parse,
        Self::SampleLimit,
        Self::LabelLimit,
        Self::BucketLimit,
        Self::TargetLimit,
    ];

    /// The word used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::BodySizeLimit => "body_size_limit",
            Self::Parse => "parse",
            Self::SampleLimit => "sample_limit",
            Self::LabelLimit => "label_limit",
            Self::BucketLimit => "bucket_limit",
            Self::TargetLimit => "target_limit",
        }
    }
}

/// The numbers of one scraper; every thread adds to them, once a scrape.
#[derive(Default, Debug)]
pub struct ScraperStats {
    name: String,
    scrapes: AtomicU64,
    failures: [AtomicU64; ScrapeFailure::ALL.len()],
    samples_followed: AtomicU64,
    samples_parsed: AtomicU64,
    duplicates: AtomicU64,
    stale_markers: AtomicU64,
    start_samples: AtomicU64,
    /// Samples and stale markers that the log did not take.
    dropped: AtomicU64,
    body_bytes: AtomicU64,
    late: AtomicU64,
    moved: AtomicU64,
    pub(crate) tap: Tap,
    targets: Mutex<BTreeMap<u64, Arc<TargetState>>>,
}

/// What scrapers did so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct ScraperSnapshot {
    /// Scrapes that ended, well or not.
    pub scrapes: u64,
    /// Those that failed, by [`ScrapeFailure`].
    pub failures: [u64; ScrapeFailure::ALL.len()],
    /// Samples taken without a parse, as the body was the last one with other values.
    pub samples_followed: u64,
    /// Samples that were parsed.
    pub samples_parsed: u64,
    /// Samples beside another of their series and time, left out.
    pub duplicates: u64,
    /// Stale markers.
    pub stale_markers: u64,
    /// Samples of 0 where a metric began to count.
    pub start_samples: u64,
    /// Samples that the log did not take.
    pub dropped: u64,
    /// Bytes of bodies, decompressed.
    pub body_bytes: u64,
    /// Scrapes that did not begin when they should, as the one before was not over.
    pub late: u64,
    /// Targets that came from, or went to, another process.
    pub moved: u64,
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl ScraperStats {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// The component's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where what is scraped can be looked at.
    #[must_use]
    pub const fn tap(&self) -> &Tap {
        &self.tap
    }

    pub(crate) fn scraped(&self, counts: Counts, body_bytes: usize) {
        add(&self.scrapes, 1);
        add(&self.samples_followed, counts.followed);
        add(&self.samples_parsed, counts.parsed);
        add(&self.duplicates, counts.duplicates);
        add(&self.stale_markers, counts.stale);
        add(&self.start_samples, counts.starts);
        add(&self.body_bytes, body_bytes);
    }

    /// A target is gone, and told to be.
    pub(crate) fn ended(&self, counts: Counts) {
        add(&self.stale_markers, counts.stale);
    }

    pub(crate) fn moved(&self, targets: usize) {
        add(&self.moved, targets);
    }

    pub(crate) fn failed(&self, failure: ScrapeFailure) {
        add(&self.failures[failure as usize], 1);
    }

    pub(crate) fn dropped(&self, samples: usize) {
        add(&self.dropped, samples);
    }

    pub(crate) fn late(&self) {
        add(&self.late, 1);
    }

    /// A sum of everything.
    #[must_use]
    pub fn snapshot(&self) -> ScraperSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut failures = [0; ScrapeFailure::ALL.len()];
        for (sum, counter) in failures.iter_mut().zip(&self.failures) {
            *sum = get(counter);
        }
        ScraperSnapshot {
            scrapes: get(&self.scrapes),
            failures,
            samples_followed: get(&self.samples_followed),
            samples_parsed: get(&self.samples_parsed),
            duplicates: get(&self.duplicates),
            stale_markers: get(&self.stale_markers),
            start_samples: get(&self.start_samples),
            dropped: get(&self.dropped),
            body_bytes: get(&self.body_bytes),
            late: get(&self.late),
            moved: get(&self.moved),
        }
    }

    /// What is scraped now, in no order.
    #[must_use]
    pub fn targets(&self) -> Vec<Arc<TargetState>> {
        self.targets.lock().values().cloned().collect()
    }

    pub(crate) fn keep_targets(&self, targets: BTreeMap<u64, Arc<TargetState>>) {
        *self.targets.lock() = targets;
    }

    pub(crate) fn target(&self, id: u64) -> Option<Arc<TargetState>> {
        self.targets.lock().get(&id).cloned()
    }
}

/// How a target is.
#[derive(Debug)]
pub struct TargetState {
    /// The target.
    pub target: Arc<Target>,
    /// When its last scrape began, in milliseconds since the epoch; 0: never.
    last_scrape_ms: AtomicI64,
    last: Mutex<LastScrape>,
}

/// How the last scrape of a target went.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LastScrape {
    /// Why it failed; none: it did not, or there was none.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Samples exposed.
    pub samples: usize,
}

impl TargetState {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            last_scrape_ms: AtomicI64::new(0),
            last: Mutex::default(),
        }
    }

    pub(crate) fn scraped(&self, time_ms: i64, last: LastScrape) {
        self.last_scrape_ms.store(time_ms, Ordering::Relaxed);
        *self.last.lock() = last;
    }

    /// When its last scrape began, in milliseconds since the epoch; none: it was never scraped.
    #[must_use]
    pub fn last_scrape_ms(&self) -> Option<i64> {
        Some(self.last_scrape_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }

    /// How its last scrape went.
    #[must_use]
    pub fn last(&self) -> LastScrape {
        self.last.lock().clone()
    }

    /// `up`, `down`, or `unknown` before the first scrape.
    #[must_use]
    pub fn health(&self) -> &'static str {
        match (self.last_scrape_ms(), &self.last.lock().error) {
            (None, _) => "unknown",
            (Some(_), None) => "up",
            (Some(_), Some(_)) => "down",
        }
    }
}
