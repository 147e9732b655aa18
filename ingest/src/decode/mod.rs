//! Turns request bodies into batches: samples by series ref, everything else as its wire bytes.
//!
//! | file | does |
//! |---|---|
//! | `snappy` | body -> protobuf bytes |
//! | `wire` | protobuf bytes -> keys, varints, spans |
//! | `remote_write_v1` | the scanner: a `WriteRequest` -> a [`Batch`] |
//! | `labels` | label fields -> canonical label bytes, or why not |
//! | `records` | exemplar, histogram and metadata bytes -> verdict |
//!
//! What a series is called is not decided here: the scanner hands label bytes to a [`Resolve`]
//! and gets a ref. That is [`crate::intern`] on the line and a plain list in the tests.

pub mod labels;
pub(crate) mod records;
pub mod remote_write_v1;
pub(crate) mod snappy;
pub(crate) mod wire;

use std::ops::Range;

pub use wire::Malformed;

use labels::Reason;
use wal::{RecordKind, Sample, SeriesRef};

/// What one request holds, in the order it came. Reused from request to request.
#[derive(Default, Debug)]
pub struct Batch {
    /// Float samples.
    pub samples: Vec<Sample>,
    /// Exemplars, histograms, metadata.
    pub records: Vec<RecordAt>,
    /// What is not stored.
    pub refused: Refusals,
}

impl Batch {
    /// Forgets the last request but keeps the buffers.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.records.clear();
        self.refused.clear();
    }
}

/// A record whose bytes are a range of the decompressed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordAt {
    /// The series; none for metadata.
    pub series: SeriesRef,
    /// What the bytes are.
    pub kind: RecordKind,
    /// Where they are.
    pub bytes: Range<usize>,
}

/// What one series brought: ranges of [`Batch::samples`] and [`Batch::records`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brought {
    /// Its samples.
    pub samples: Range<usize>,
    /// Its exemplars and histograms.
    pub records: Range<usize>,
}

impl Brought {
    /// Whether there is nothing to store.
    fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.records.is_empty()
    }

    /// Samples, exemplars and histograms together.
    fn count(&self) -> usize {
        self.samples.len() + self.records.len()
    }

    /// Gives everything the series brought its ref.
    pub(crate) fn assign(&self, series: SeriesRef, batch: &mut Batch) {
        for sample in batch
            .samples
            .get_mut(self.samples.clone())
            .unwrap_or_default()
        {
            sample.series = series;
        }
        for record in batch
            .records
            .get_mut(self.records.clone())
            .unwrap_or_default()
        {
            record.series = series;
        }
    }
}

/// What is known about a series after looking at its labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// Its ref.
    Known(SeriesRef),
    /// It is new; the resolver keeps what it [`Brought`] and assigns the ref later.
    New,
}

/// A series whose labels are not allowed.
#[derive(PartialEq, Eq, Debug)]
pub struct NotAllowed {
    /// Why.
    pub reason: Reason,
    /// Its labels, for a person.
    pub shown: String,
}

/// Gives series their refs.
pub trait Resolve {
    /// If `series` (a `TimeSeries` message) begins with exactly the labels that are expected next:
    /// their ref and how many bytes they take.
    fn predicted(&mut self, series: &[u8]) -> Option<(SeriesRef, usize)>;

    /// The series with the label fields at `fields` of `body`.
    ///
    /// # Errors
    ///
    /// Outer: the fields are no labels. Inner: they are, but not ones that may be stored.
    fn resolve(
        &mut self,
        body: &[u8],
        fields: &[Range<usize>],
        brought: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed>;
}

/// Counts of what was refused, per reason, and the first of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Refusals {
    /// Series (or metadata messages) per [`Reason::index`].
    pub series: [u64; Reason::ALL.len()],
    /// Samples, exemplars, histograms and metadata per [`Reason::index`].
    pub items: [u64; Reason::ALL.len()],
    /// The first refused: its labels, for a person, and the reason.
    pub first: Option<(String, Reason)>,
}

impl Refusals {
    /// Whether everything was stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn clear(&mut self) {
        if !self.is_empty() {
            *self = Self::default();
        }
    }

    pub(crate) fn add(&mut self, not_allowed: NotAllowed, items: usize) {
        let at = not_allowed.reason.index();
        self.series[at] += 1;
        self.items[at] += u64::try_from(items).unwrap_or(u64::MAX);
        if self.first.is_none() {
            self.first = Some((not_allowed.shown, not_allowed.reason));
        }
    }
}
