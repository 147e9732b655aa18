//! Turns request bodies into batches: samples by series ref, everything else as its wire bytes.
//!
//! | file | does |
//! |---|---|
//! | `snappy`, `zstd` | body -> protobuf bytes |
//! | `wire` | protobuf bytes -> keys, varints, spans |
//! | `remote_write_v1` | the scanner: a `WriteRequest` -> a [`Batch`] |
//! | `remote_write_v2` | the scanner of remote write 2.0: a `Request` -> a [`Batch`] |
//! | `symbols` | the symbol table of 2.0 -> ranges |
//! | `written` | label references of 2.0 -> label fields |
//! | `metadata` | metadata of every series of 2.0 -> a record per family and minute |
//! | `labels` | label fields -> canonical label bytes, or why not |
//! | `records` | exemplar, histogram and metadata bytes -> verdict |
//! | `exposition` | scrape bodies -> samples and metadata, in a module of its own |
//!
//! What a series is called is not decided here: the scanner hands label bytes to a [`Resolve`]
//! and gets a ref. That is [`crate::intern`] on the line and a plain list in the tests.

pub mod exposition;
pub mod labels;
pub mod metadata;
pub(crate) mod records;
pub mod remote_write_v1;
pub mod remote_write_v2;
pub(crate) mod snappy;
pub(crate) mod symbols;
pub(crate) mod wire;
pub(crate) mod written;
pub mod zstd;

use std::ops::Range;

pub use wire::Malformed;

use labels::Reason;
use wire::{Cursor, DEPTH_MAX, Wire};

use crate::negotiate::Message;
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
    /// Records that were written out because the log has another form for them than the request.
    /// Their ranges go on behind the body's last byte.
    pub made: Vec<u8>,
    /// The length of the body, where it has records in `made`.
    pub body_bytes: usize,
}

impl Batch {
    /// The bytes of a record: received or made.
    #[must_use]
    pub fn bytes<'b>(&'b self, body: &'b [u8], at: &Range<usize>) -> &'b [u8] {
        if let Some(received) = body.get(at.clone()) {
            return received;
        }
        let made = |offset: usize| offset.checked_sub(self.body_bytes);
        let made = made(at.start).zip(made(at.end));
        made.and_then(|(start, end)| self.made.get(start..end))
            .unwrap_or_default()
    }

    /// How many samples, histograms and exemplars there are.
    #[must_use]
    pub fn written(&self) -> Written {
        let mut written = Written {
            samples: self.samples.len(),
            ..Written::default()
        };
        for record in &self.records {
            match record.kind {
                RecordKind::StartedSample => written.samples += 1,
                RecordKind::Histogram => written.histograms += 1,
                RecordKind::Exemplar => written.exemplars += 1,
                RecordKind::Metadata => {}
            }
        }
        written
    }

    /// Forgets the last request but keeps the buffers.
    pub fn clear(&mut self) {
        self.made.clear();
        self.body_bytes = 0;
        self.samples.clear();
        self.records.clear();
        self.refused.clear();
    }
}

/// What a remote-write 2.0 sender is told that was written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Float samples.
    pub samples: usize,
    /// Native histograms.
    pub histograms: usize,
    /// Exemplars.
    pub exemplars: usize,
}

impl Written {
    /// Adds what else was written.
    pub(crate) fn add(&mut self, more: Self) {
        self.samples += more.samples;
        self.histograms += more.histograms;
        self.exemplars += more.exemplars;
    }
}

/// A record whose bytes are a range of the decompressed request, or behind its end of
/// [`Batch::made`].
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

/// How many series a request of this message holds. Only keys and lengths are looked at.
///
/// # Errors
///
/// The bytes are no such message.
pub(crate) fn count_series(message: Message, body: &[u8]) -> Result<usize, Malformed> {
    let series = match message {
        Message::V1 => 1,
        Message::V2 => 5,
    };
    let mut request = Cursor::over(body, 0..body.len());
    let mut count = 0;
    while !request.is_done() {
        let key = request.key()?;
        if key.number == series {
            key.expect(Wire::Bytes)?;
            count += 1;
        }
        request.skip(key, DEPTH_MAX)?;
    }
    Ok(count)
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

    /// One item more of the series refused last.
    pub(crate) fn add_item(&mut self, reason: Reason) {
        self.items[reason.index()] += 1;
    }

    /// Adds what was refused elsewhere.
    pub(crate) fn extend(&mut self, other: &mut Self) {
        let Some(first) = other.first.take() else {
            return;
        };
        self.first.get_or_insert(first);
        let each = |sums: &mut [u64], more: &[u64]| {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += more;
            }
        };
        each(&mut self.series, &other.series);
        each(&mut self.items, &other.items);
    }
}
