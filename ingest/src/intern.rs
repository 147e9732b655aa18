//! Turns label bytes into series refs of one store: predicted first, then looked up, then defined.
//!
//! Senders repeat themselves: after series A came series B last time, so B's bytes are compared
//! with what follows A now, and nearly always that is the whole work. Only when it is not are the
//! labels hashed and looked up, and only when they are unknown are they parsed and checked.
//!
//! # Invariants
//! - A ref is given out only for label bytes that equal the stored ones, or whose canonical form
//!   does. A wrong guess costs time, never a wrong series.
//! - After [`Interner::define_new`] no sample and no exemplar or histogram of the batch is without
//!   ref.
//! - The table learns only what it did not predict, so steady traffic writes nothing shared.
//!
//! # Failure
//! - [`Interner::define_new`] may fail (full disk, too many series): the batch must be dropped.
//!   Series defined on the way stay; that harms nothing.

mod admit;

use std::mem;
use std::ops::Range;

use wal::{NewSeries, SeriesGuard, SeriesRef};

use crate::aliases::Aliases;
use crate::append::Door;
use crate::decode::labels::{LabelLimits, LabelSet, SHOWN_BYTES_MAX};
use crate::decode::{Batch, Brought, Malformed, NotAllowed, RecordAt, Resolve, Slot};
use crate::paths::{Derived, Front, What};

/// A series to be defined when the whole request has been read.
#[derive(Debug)]
struct Pending {
    hash: u64,
    /// Its canonical label bytes in [`Scratch::arena`].
    labels: Range<usize>,
    brought: Brought,
}

/// Buffers of the interner; owned by a shard thread, reused from request to request.
#[derive(Default, Debug)]
pub struct Scratch {
    set: LabelSet,
    arena: Vec<u8>,
    pending: Vec<Pending>,
}

impl Scratch {
    /// What label sets may be from now on.
    pub(crate) fn limit(&mut self, limits: LabelLimits) {
        self.set.limits = limits;
    }

    /// Gives memory back after a request with very many new series.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.arena.clear();
        self.pending.clear();
        self.arena.shrink_to(bytes_max);
        self.pending.shrink_to(bytes_max / size_of::<Pending>());
    }
}

/// What labels that come unsorted stand for: the bytes as they were sent are an alias of the series,
/// so that they are sorted once and not each time.
#[derive(Debug)]
pub(crate) struct Unsorted<'s> {
    pub(crate) aliases: &'s mut Aliases,
    /// The series of each alias.
    pub(crate) derived: &'s mut Derived,
    /// The alias before this one on the connection; 0 at its start.
    pub(crate) previous: u32,
    /// Whether the series before this one was found by its alias: the next will be too.
    pub(crate) is_likely: bool,
}

impl Unsorted<'_> {
    /// The series of this alias, if it still has one; the next prediction goes on from there.
    fn follow(&mut self, alias: u32, table: &SeriesGuard<'_>) -> Option<SeriesRef> {
        let identity = self.aliases.identity(alias);
        let What::Series(series, _) = self.derived.known(alias, identity, table) else {
            return None;
        };
        self.aliases.learn(self.previous, alias);
        self.previous = alias;
        self.is_likely = true;
        Some(series)
    }

    fn predicted(&mut self, series: &[u8], table: &SeriesGuard<'_>) -> Option<(SeriesRef, usize)> {
        let (alias, length) = self.aliases.predicted(self.previous, series)?;
        Some((self.follow(alias, table)?, length))
    }

    fn find(&mut self, labels: &[u8], table: &SeriesGuard<'_>) -> Option<SeriesRef> {
        let alias = self.aliases.find(labels)?;
        self.follow(alias, table)
    }

    /// Remembers that these labels are that series.
    fn remember(&mut self, labels: &[u8], series: SeriesRef, table: &SeriesGuard<'_>) {
        let known = self.aliases.find(labels);
        if known.is_none() && !self.aliases.is_worth_keeping() {
            return;
        }
        let alias = known.unwrap_or_else(|| self.aliases.insert(labels));
        let (identity, record) = (self.aliases.identity(alias), table.record(series));
        (self.derived).remember(alias, identity, What::Series(series, record));
        self.aliases.learn(self.previous, alias);
        self.previous = alias;
    }
}

/// Resolves the series of one request in one store.
#[derive(Debug)]
pub struct Interner<'s> {
    table: &'s SeriesGuard<'s>,
    scratch: &'s mut Scratch,
    /// The series before this request, on the same connection.
    before: SeriesRef,
    /// The series before this one; `None` behind one that has no ref yet.
    previous: Option<SeriesRef>,
    unsorted: Option<Unsorted<'s>>,
}

impl<'s> Interner<'s> {
    /// Resolves in `table`, which must be held until the samples are appended; `before` is the last
    /// series of the connection's last request.
    pub fn new(table: &'s SeriesGuard<'s>, scratch: &'s mut Scratch, before: SeriesRef) -> Self {
        scratch.arena.clear();
        scratch.pending.clear();
        Self {
            table,
            scratch,
            before,
            previous: Some(before),
            unsorted: None,
        }
    }

    /// Remembers labels that come unsorted.
    pub(crate) fn with(self, unsorted: Unsorted<'s>) -> Self {
        Self {
            unsorted: Some(unsorted),
            ..self
        }
    }

    /// The last alias, for the connection's next request.
    pub(crate) fn previous_alias(&self) -> u32 {
        self.unsorted
            .as_ref()
            .map_or(0, |unsorted| unsorted.previous)
    }

    /// Defines the series that were new and gives what they brought its ref. Returns the last
    /// series of the request.
    ///
    /// # Errors
    ///
    /// The store could not define them; the batch must not be used.
    pub fn define_new(self, batch: &mut Batch) -> Result<SeriesRef, wal::Error> {
        if self.scratch.pending.is_empty() {
            return Ok(self.previous.unwrap_or(self.before));
        }
        let arena = &self.scratch.arena;
        let labels = |range: &Range<usize>| arena.get(range.clone()).unwrap_or_default();
        let mut new: Vec<NewSeries<'_>> = self
            .scratch
            .pending
            .iter()
            .map(|pending| NewSeries {
                hash: pending.hash,
                labels: labels(&pending.labels),
                series: SeriesRef::NONE,
            })
            .collect();
        self.table.define(&mut new)?;
        for (pending, defined) in self.scratch.pending.iter().zip(&new) {
            pending.brought.assign(defined.series, batch);
        }
        debug_assert!(batch.samples.iter().all(|sample| !sample.series.is_none()));
        Ok(self.learn_all(batch))
    }

    /// Learns the order of the request's samples, now that all have refs.
    fn learn_all(&self, batch: &Batch) -> SeriesRef {
        let mut previous = self.before;
        for sample in &batch.samples {
            if sample.series != previous {
                self.table.learn(previous, sample.series);
                previous = sample.series;
            }
        }
        previous
    }

    /// A series that was found the slow way.
    fn found(&mut self, series: SeriesRef) -> Slot {
        if let Some(previous) = self.previous {
            self.table.learn(previous, series);
        }
        self.previous = Some(series);
        Slot::Known(series)
    }

    /// The series of the alias that is expected next, if labels came unsorted before.
    fn predicted_unsorted(&mut self, series: &[u8]) -> Option<(SeriesRef, usize)> {
        let (found, length) = self.unsorted.as_mut()?.predicted(series, self.table)?;
        self.previous = Some(found);
        Some((found, length))
    }

    /// Parses and checks the labels, and finds the series by its canonical form or notes it as new.
    fn unknown(
        &mut self,
        body: &[u8],
        fields: &[Range<usize>],
        brought: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed> {
        let Scratch {
            set,
            arena,
            pending,
        } = &mut *self.scratch;
        set.read(body, fields)?;
        let start = arena.len();
        if let Err(reason) = set.append_canonical(body, arena) {
            return Ok(Err(NotAllowed {
                reason,
                shown: set.show(body, SHOWN_BYTES_MAX),
            }));
        }
        let labels = start..arena.len();
        let canonical = arena.get(start..).unwrap_or_default();
        let hash = self.table.hash(canonical);
        if let Some(series) = self.table.find(hash, canonical) {
            if let (Some(unsorted), [field]) = (&mut self.unsorted, fields) {
                let labels = body.get(field.clone()).unwrap_or_default();
                unsorted.remember(labels, series, self.table);
            }
            arena.truncate(start);
            return Ok(Ok(self.found(series)));
        }
        pending.push(Pending {
            hash,
            labels,
            brought: brought.clone(),
        });
        self.previous = None;
        Ok(Ok(Slot::New))
    }
}

impl Door for Interner<'_> {
    fn identity(&self, number: u32) -> u64 {
        self.table.record(SeriesRef::new(number))
    }

    #[inline]
    fn is_still(&mut self, number: u32, identity: u64) -> bool {
        Front::is_still(self.table, number, identity)
    }

    fn forget_new(&mut self) {
        self.scratch.arena.clear();
        self.scratch.pending.clear();
        self.previous = Some(self.before);
    }
}

impl Resolve for Interner<'_> {
    #[inline]
    fn predicted(&mut self, series: &[u8]) -> Option<(SeriesRef, usize)> {
        if let Some(unsorted) = &mut self.unsorted
            && mem::take(&mut unsorted.is_likely)
        {
            return self.predicted_unsorted(series);
        }
        let guess = self.table.predicted(self.previous?);
        let labels = self.table.labels(guess);
        // A label more behind the equal bytes is another label set.
        if labels.is_empty()
            || !series.starts_with(labels)
            || series.get(labels.len()) == Some(&crate::decode::labels::LABEL_TAG)
            || !self.table.confirm(guess)
        {
            return None;
        }
        self.previous = Some(guess);
        Some((guess, labels.len()))
    }

    fn resolve(
        &mut self,
        body: &[u8],
        fields: &[Range<usize>],
        brought: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed> {
        if let [field] = fields {
            let labels = body.get(field.clone()).unwrap_or_default();
            // An entry per sample or exemplar: the same series several times in a row. Not
            // learned, or the prediction of what follows it would be lost each time.
            if let Some(previous) = self.previous
                && !labels.is_empty()
                && self.table.labels(previous) == labels
                && self.table.confirm(previous)
            {
                return Ok(Ok(Slot::Known(previous)));
            }
            if let Some(series) = self.table.find(self.table.hash(labels), labels) {
                return Ok(Ok(self.found(series)));
            }
            if let Some(unsorted) = &mut self.unsorted
                && let Some(series) = unsorted.find(labels, self.table)
            {
                self.previous = Some(series);
                return Ok(Ok(Slot::Known(series)));
            }
        }
        self.unknown(body, fields, brought)
    }
}

/// Borrowed records of a batch, in a buffer whose memory outlives the borrow.
#[derive(Default, Debug)]
pub struct RawRecords(Vec<wal::RawRecord<'static>>);

impl RawRecords {
    /// Calls `with` with these records of a batch.
    pub fn with<T>(
        &mut self,
        (body, batch): (&[u8], &Batch),
        records_at: &[RecordAt],
        with: impl FnOnce(&[wal::RawRecord<'_>]) -> T,
    ) -> T {
        let mut records: Vec<wal::RawRecord<'_>> = mem::take(&mut self.0);
        records.extend(records_at.iter().map(|record| wal::RawRecord {
            series: record.series,
            kind: record.kind,
            bytes: batch.bytes(body, &record.bytes),
        }));
        let result = with(&records);
        records.clear();
        // Collecting an empty vector of one lifetime into another reuses its memory.
        self.0 = records
            .into_iter()
            .map(|_| unreachable!("the vector is empty"))
            .collect();
        result
    }

    /// Gives memory back after a request with very many records.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.0
            .shrink_to(bytes_max / size_of::<wal::RawRecord<'_>>());
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use wal::{Store, StoreOptions};

    use super::*;
    use crate::decode::labels::Reason;
    use crate::decode::remote_write_v1::scan;
    use crate::proto;

    struct Bench {
        store: Store,
        scratch: Scratch,
        batch: Batch,
        previous: SeriesRef,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new(series_max: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = StoreOptions {
                segment_bytes: 64 << 10,
                ring_bytes: 64 << 10,
                series_chunk_bytes: 1 << 20,
                series_max,
                ..StoreOptions::default()
            };
            let store = Store::open(dir.path(), options).unwrap();
            let previous = SeriesRef::NONE;
            let (scratch, batch) = (Scratch::default(), Batch::default());
            Self {
                store,
                scratch,
                batch,
                previous,
                _dir: dir,
            }
        }

        /// Interns a request of one sample per name; the refs in order.
        fn intern(&mut self, names: &[&str]) -> Result<Vec<u32>, wal::Error> {
            let series: Vec<_> = names.iter().map(|name| vec![("__name__", *name)]).collect();
            self.intern_labels(&series)
        }

        fn intern_labels(&mut self, all: &[Vec<(&str, &str)>]) -> Result<Vec<u32>, wal::Error> {
            let label = |&(name, value): &(&str, &str)| proto::Label {
                name: name.to_owned(),
                value: value.to_owned(),
            };
            let timeseries = all
                .iter()
                .map(|labels| proto::TimeSeries {
                    labels: labels.iter().map(label).collect(),
                    samples: vec![proto::Sample {
                        value: 1.0,
                        timestamp: 1_700_000_000_000,
                    }],
                    ..Default::default()
                })
                .collect();
            let body = proto::WriteRequest {
                timeseries,
                metadata: vec![],
            }
            .encode_to_vec();
            self.batch.clear();
            let table = self.store.series().guard();
            let mut interner = Interner::new(&table, &mut self.scratch, self.previous);
            scan(&body, &mut interner, &mut self.batch, &mut Vec::new()).unwrap();
            self.previous = interner.define_new(&mut self.batch)?;
            Ok(self
                .batch
                .samples
                .iter()
                .map(|sample| sample.series.get())
                .collect())
        }

        /// The chain of predictions from `after` on.
        fn chain(&self, after: u32, length: usize) -> Vec<u32> {
            let mut at = SeriesRef::new(after);
            let mut chain = Vec::new();
            for _ in 0..length {
                at = self.store.series().guard().predicted(at);
                chain.push(at.get());
            }
            chain
        }
    }

    #[test]
    fn new_series_get_refs_and_their_order_is_learned_at_once() {
        let mut bench = Bench::new(100);
        assert_eq!(bench.intern(&["a", "b", "c"]).unwrap(), [1, 2, 3]);
        assert_eq!(bench.chain(0, 3), [1, 2, 3]);
        assert_eq!(bench.intern(&["a", "b", "c"]).unwrap(), [1, 2, 3]);
        assert_eq!(bench.chain(0, 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn another_order_is_found_and_learned() {
        let mut bench = Bench::new(100);
        bench.intern(&["a", "b", "c"]).unwrap();
        assert_eq!(bench.intern(&["c", "a", "b"]).unwrap(), [3, 1, 2]);
        assert_eq!(bench.chain(3, 2), [1, 2]);
        assert_eq!(bench.intern(&["a", "new", "b"]).unwrap(), [1, 4, 2]);
        assert_eq!(bench.chain(1, 2), [4, 2]);
    }

    #[test]
    fn a_guess_that_is_only_the_beginning_of_the_labels_is_no_hit() {
        let mut bench = Bench::new(100);
        let short = vec![("__name__", "up")];
        let long = vec![("__name__", "up"), ("zone", "z")];
        bench.intern_labels(std::slice::from_ref(&short)).unwrap();
        bench.previous = SeriesRef::NONE;
        assert_eq!(
            bench.intern_labels(std::slice::from_ref(&long)).unwrap(),
            [2]
        );
        assert_eq!(bench.store.series().len(), 2);
    }

    #[test]
    fn entries_of_the_same_series_in_a_row_keep_the_prediction() {
        let mut bench = Bench::new(100);
        bench.intern(&["a", "b"]).unwrap();
        assert_eq!(bench.intern(&["a", "a", "b", "b"]).unwrap(), [1, 1, 2, 2]);
        assert_eq!(bench.chain(1, 2), [2, 1]);
    }

    #[test]
    fn a_new_series_named_twice_is_defined_once() {
        let mut bench = Bench::new(100);
        assert_eq!(bench.intern(&["a", "b", "a"]).unwrap(), [1, 2, 1]);
        assert_eq!(bench.store.series().len(), 2);
    }

    #[test]
    fn unsorted_labels_are_the_same_series() {
        let mut bench = Bench::new(100);
        let sorted = vec![("__name__", "up"), ("a", "1"), ("b", "2")];
        let mut unsorted = sorted.clone();
        unsorted.reverse();
        unsorted.push(("empty", ""));
        let all = [unsorted.clone(), sorted, unsorted];
        assert_eq!(bench.intern_labels(&all).unwrap(), [1, 1, 1]);
        assert_eq!(bench.intern_labels(&all).unwrap(), [1, 1, 1]);
    }

    #[test]
    fn a_refused_series_leaves_its_neighbours_alone() {
        let mut bench = Bench::new(100);
        let all = [
            vec![("__name__", "a")],
            vec![("x", "y")],
            vec![("__name__", "b")],
        ];
        for _ in 0..2 {
            assert_eq!(bench.intern_labels(&all).unwrap(), [1, 2]);
            assert_eq!(
                bench.batch.refused.series[Reason::MissingMetricName.index()],
                1
            );
        }
        assert_eq!(bench.chain(1, 2), [2, 1]);
    }

    #[test]
    fn too_many_series_are_an_error_and_known_ones_go_on() {
        let mut bench = Bench::new(2);
        assert!(bench.intern(&["a", "b", "c"]).unwrap_err().is_full());
        assert_eq!(bench.intern(&["a", "b"]).unwrap(), [1, 2]);
    }

    #[test]
    fn borrowed_records_reuse_their_memory() {
        let mut records = RawRecords::default();
        let at = RecordAt {
            series: SeriesRef::new(1),
            kind: wal::RecordKind::Exemplar,
            bytes: 1..3,
        };
        let batch = Batch {
            records: vec![at; 10],
            ..Batch::default()
        };
        let place = |records: &mut RawRecords, body: &[u8]| {
            records.with((body, &batch), &batch.records, |records| {
                assert_eq!(records.len(), 10);
                assert_eq!(records[9].bytes, &body[1..3]);
                records.as_ptr().addr()
            })
        };
        let first = place(&mut records, b"abcd");
        assert_eq!(place(&mut records, b"efgh"), first);
    }
}
