//! Turns the compressed body of a request into positions of the log.
//!
//! The synchronous middle of the line: decompress, scan and intern once, then append to each store the
//! receiver forwards to. One per shard thread; its buffers are reused from request to request.
//!
//! # Invariants
//! - Nothing is appended unless the whole body is well-formed: the scan comes before the first append.
//!
//! # Failure
//! - Bad bytes: nothing happened. A store that takes no more: stores before it have the request
//!   already, and get it again when the sender retries (at least once, never less).
//!
//! # Limits
//! - Buffers larger than [`KEPT_BYTES_MAX`] are given back after the request that needed them.

use std::ops::Range;
use std::time::Duration;

use wal::{Position, Sample, SeriesRef};

use crate::decode::labels::{LabelLimits, LabelSet};
use crate::decode::snappy::Refused;
use crate::decode::{
    Batch, Brought, Malformed, NotAllowed, RecordAt, Resolve, Slot, count_series, remote_write_v1,
    remote_write_v2,
};
use crate::intern::{Interner, RawRecords, Scratch, Unsorted};
use crate::negotiate::{Encoding, Message};
use crate::paths::{Front, Mapped, Paths, Spare, ToAliases, Way, some_labels};
use crate::tap::{Tap, append_record, append_sample};
use crate::tenants::{Activity, Pass, Tenant, Tenants, TooFast, samples_of};

/// What each buffer keeps between requests: a request of 20000 ordinary samples.
pub(crate) const KEPT_BYTES_MAX: usize = 8 << 20;

/// Why a request was not appended.
#[derive(Debug)]
pub(crate) enum Failure {
    Compression(Refused),
    Malformed(Malformed),
    Log(wal::Error),
    /// More series than a request may have.
    TooManySeries(usize),
    /// More samples than the tenant may send now.
    TooFast(TooFast),
}

/// What holds for everything of a request or scrape.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Context<'r> {
    pub(crate) labels: LabelLimits,
    /// Who sends it, where that matters.
    pub(crate) tenant: Option<(&'r Tenants, &'r Tenant)>,
    /// Monotonic time.
    pub(crate) now: Duration,
    /// Where somebody listens to what comes.
    pub(crate) tap: Option<&'r Tap>,
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'r> {
    pub(crate) compressed: &'r [u8],
    /// The length it claims to decompress to.
    pub(crate) claimed: usize,
    pub(crate) message: Message,
    pub(crate) encoding: Encoding,
    /// Most series, 0 for any number.
    pub(crate) series_max: usize,
    pub(crate) context: Context<'r>,
}

/// What gives series their numbers, at the front of the ways of a receiver.
pub(crate) trait Door: Resolve {
    /// See [`Front::identity`].
    fn identity(&self, number: u32) -> u64;
    /// Whether the number still stands for the labels that have this identity. It does until the samples are
    /// appended, if so.
    fn is_still(&mut self, number: u32, identity: u64) -> bool;
    /// Forgets what it said was new.
    fn forget_new(&mut self);
}

/// Something that has samples.
pub(crate) trait Source {
    /// The bytes that records of the batch are ranges of.
    fn body(&self) -> &[u8];
    /// Puts everything it has into the batch.
    fn scan(&mut self, door: &mut impl Door, batch: &mut Batch) -> Result<(), Failure>;
    /// Has the last word, now that every series has its number.
    fn settle(&mut self, _front: &impl Front, _batch: &mut Batch) {}
}

/// The decompressed body of a request.
struct Received<'r> {
    message: Message,
    body: &'r [u8],
    scanner: &'r mut Scanner,
}

impl Source for Received<'_> {
    fn body(&self) -> &[u8] {
        self.body
    }

    fn scan(&mut self, door: &mut impl Door, batch: &mut Batch) -> Result<(), Failure> {
        self.scanner.scan(self.message, self.body, door, batch)
    }
}

/// The scanners and their buffers.
#[derive(Default, Debug)]
struct Scanner {
    fields: Vec<Range<usize>>,
    buffers: remote_write_v2::Buffers,
}

impl Scanner {
    fn scan(
        &mut self,
        message: Message,
        body: &[u8],
        resolve: &mut impl Resolve,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        match message {
            Message::V1 => remote_write_v1::scan(body, resolve, batch, &mut self.fields),
            Message::V2 => remote_write_v2::scan(body, resolve, batch, &mut self.buffers),
        }
        .map_err(Failure::Malformed)
    }
}

/// Appends requests to the stores of one shard thread.
#[derive(Default, Debug)]
pub(crate) struct Appender {
    decompressed: Vec<u8>,
    scanner: Scanner,
    line: Line,
}

/// From the numbers of series to positions in the log.
#[derive(Default, Debug)]
pub(crate) struct Line {
    /// What the last request held.
    pub(crate) batch: Batch,
    /// Samples of the last request that its tenant was charged.
    taken: u64,
    interning: Scratch,
    spare: Spare,
    mapped: Mapped,
    records: RawRecords,
}

/// What came last on a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Route {
    /// The number of the ways it went: the rest means nothing to others.
    paths: u64,
    /// The last series of the front, and the last alias.
    previous: SeriesRef,
    previous_alias: u32,
}

impl Route {
    /// Forgets what came last if that went other ways.
    fn go(&mut self, paths: &Paths) {
        if self.paths != paths.number {
            *self = Self {
                paths: paths.number,
                ..Self::default()
            };
        }
    }
}

impl Appender {
    /// Appends a request; `positions` gets one entry per path of the receiver, to be waited for.
    pub(crate) fn append(
        &mut self,
        request: Incoming<'_>,
        (paths, route): (&mut Paths, &mut Route),
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        self.line.begin(positions);
        self.scanner
            .buffers
            .repeats
            .begin(paths.number, request.context.now);
        let body = (request.encoding)
            .decompress(request.compressed, request.claimed, &mut self.decompressed)
            .map_err(Failure::Compression);
        let appended = body.and_then(|body| {
            check_series(&request, body)?;
            let mut received = Received {
                message: request.message,
                body,
                scanner: &mut self.scanner,
            };
            self.line
                .append(&mut received, request.context, (paths, route), positions)
        });
        if appended.is_err() {
            self.line.give_back(request.context);
            self.scanner.buffers.repeats.forget();
        }
        self.shrink();
        appended
    }

    /// What the last request held.
    pub(crate) const fn batch(&self) -> &Batch {
        &self.line.batch
    }

    /// Whether the log of one of the stores is behind its device.
    pub(crate) fn is_behind(paths: &Paths) -> bool {
        let stores = paths.stores.iter();
        stores
            .into_iter()
            .any(|own| own.writer.borrow().is_behind())
    }

    fn shrink(&mut self) {
        if self.decompressed.capacity() > KEPT_BYTES_MAX {
            self.decompressed = Vec::new();
        }
        self.scanner.fields.clear();
        self.scanner
            .fields
            .shrink_to(KEPT_BYTES_MAX / size_of::<Range<usize>>());
        self.scanner.buffers.shrink(KEPT_BYTES_MAX);
        self.line.shrink();
    }

    /// Forgets the last request and gives back what it took beyond the ordinary.
    pub(crate) fn finish(&mut self) {
        self.line.finish();
    }

    /// Metadata of the last request that was known and not written again.
    pub(crate) fn metadata_held_back(&self) -> usize {
        self.scanner.buffers.repeats.held_back
    }

    /// What was appended did not become durable: metadata is to be written again.
    pub(crate) fn forget_metadata(&mut self) {
        self.scanner.buffers.repeats.forget();
    }
}

fn check_series(request: &Incoming<'_>, body: &[u8]) -> Result<(), Failure> {
    if request.series_max > 0 {
        let count = count_series(request.message, body).map_err(Failure::Malformed)?;
        if count > request.series_max {
            return Err(Failure::TooManySeries(count));
        }
    }
    Ok(())
}

impl Line {
    /// Forgets what came last.
    pub(crate) fn begin(&mut self, positions: &mut Vec<Position>) {
        positions.clear();
        self.batch.clear();
        self.taken = 0;
    }

    /// Appends what a source has to the stores of all ways; `positions` gets one entry per way.
    pub(crate) fn append(
        &mut self,
        source: &mut impl Source,
        context: Context<'_>,
        (paths, route): (&mut Paths, &mut Route),
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        route.go(paths);
        self.interning.limit(context.labels);
        self.spare.limit(context.labels);
        positions.resize(paths.ways.len(), Position::default());
        paths.aliases.begin(context.now);
        let appended = if paths.ways.is_empty() {
            self.nowhere(source, context)
        } else if let Some(front) = paths.front {
            self.through_store((source, context), (&mut *paths, front), route, positions)
        } else {
            self.through_aliases((source, context), paths, route, positions)
        };
        paths.report();
        appended
    }

    /// What was charged for a request that was not appended.
    fn give_back(&mut self, context: Context<'_>) {
        if let Some((tenants, tenant)) = context.tenant {
            tenants.give_back(tenant, std::mem::take(&mut self.taken));
        }
    }

    /// Checks and counts what goes to no store.
    fn nowhere(&mut self, source: &mut impl Source, context: Context<'_>) -> Result<(), Failure> {
        let mut nowhere = Nowhere::new(context);
        source.scan(&mut nowhere, &mut self.batch)?;
        take(context, &self.batch)?;
        if let Some(tap) = context.tap {
            nowhere.show(tap, &self.batch.samples);
        }
        Ok(())
    }

    /// The straight path: from the bytes to the refs of the first writer without rules, and on.
    fn through_store(
        &mut self,
        (source, context): (&mut impl Source, Context<'_>),
        (paths, front): (&mut Paths, usize),
        route: &mut Route,
        positions: &mut [Position],
    ) -> Result<(), Failure> {
        let way = &paths.ways[front];
        let own = way.store.clone();
        // Until the samples are appended, or a series could be given up under them.
        let series = own.store.series().guard();
        let unsorted = Unsorted {
            aliases: &mut paths.aliases,
            derived: &mut paths.unsorted,
            previous: route.previous_alias,
            is_likely: route.previous_alias != 0,
        };
        let mut interner =
            Interner::new(&series, &mut self.interning, route.previous).with(unsorted);
        source.scan(&mut interner, &mut self.batch)?;
        route.previous_alias = interner.previous_alias();
        self.taken =
            take(context, &self.batch).inspect_err(|_| refuse(context, &interner, &self.batch))?;
        let activity = way.activity.clone();
        let mut pass = pass(context, activity.as_deref());
        if let Some(pass) = &mut pass {
            interner.admit(pass, &mut self.batch);
        }
        route.previous = interner.define_new(&mut self.batch).map_err(Failure::Log)?;
        if let Some(pass) = pass {
            pass.settle(self.interning.defined(&self.batch));
        }
        source.settle(&series, &mut self.batch);
        let body = source.body();
        let all = (&self.batch, &*self.batch.samples, &*self.batch.records);
        if let Some(tap) = context.tap {
            show(tap, &series, body, all);
        }
        if own.tap.is_on() {
            show(&own.tap, &series, body, all);
        }
        let mut writer = own.writer.borrow_mut();
        let samples = &self.batch.samples;
        positions[front] = self
            .records
            .with((body, &self.batch), &self.batch.records, |records| {
                writer.append(samples, records)
            })
            .map_err(Failure::Log)?;
        drop(writer);
        for (number, way) in paths.ways.iter_mut().enumerate() {
            if number != front {
                // Whose series these are was asked at the front.
                positions[number] = self.append_mapped(body, &series, way, None)?;
            }
        }
        Ok(())
    }

    /// Rules stand before every writer: what was sent has no ref in any store.
    fn through_aliases(
        &mut self,
        (source, context): (&mut impl Source, Context<'_>),
        paths: &mut Paths,
        route: &mut Route,
        positions: &mut [Position],
    ) -> Result<(), Failure> {
        let mut to_aliases = ToAliases {
            aliases: &mut paths.aliases,
            spare: &mut self.spare,
            previous: route.previous_alias,
        };
        source.scan(&mut to_aliases, &mut self.batch)?;
        route.previous_alias = to_aliases.previous;
        self.taken = take(context, &self.batch).inspect_err(|_| {
            if let Some((tenants, tenant)) = context.tenant {
                some_labels(&paths.aliases, &self.batch, |labels, items| {
                    tenants.refused(tenant, labels, items);
                });
            }
        })?;
        source.settle(&paths.aliases, &mut self.batch);
        let body = source.body();
        if let Some(tap) = context.tap {
            let all = (&self.batch, &*self.batch.samples, &*self.batch.records);
            show(tap, &paths.aliases, body, all);
        }
        for (number, way) in paths.ways.iter_mut().enumerate() {
            let activity = way.activity.clone();
            let pass = pass(context, activity.as_deref());
            positions[number] = self.append_mapped(body, &paths.aliases, way, pass)?;
        }
        Ok(())
    }

    /// Appends the batch to the store of a way, as the series its rules make of those of the front.
    fn append_mapped(
        &mut self,
        body: &[u8],
        front: &impl Front,
        way: &mut Way,
        pass: Option<Pass<'_>>,
    ) -> Result<Position, Failure> {
        let own = &*way.store;
        let series = own.store.series().guard();
        let ways = (&mut way.derived, &mut way.rules);
        self.mapped
            .map((front, &self.batch), ways, &series, pass)
            .map_err(Failure::Log)?;
        self.batch.refused.extend(&mut self.mapped.refused);
        let Mapped {
            samples, records, ..
        } = &self.mapped;
        let position = self
            .records
            .with((body, &self.batch), records, |records| {
                own.writer.borrow_mut().append(samples, records)
            })
            .map_err(Failure::Log)?;
        way.rules.show(front, &self.batch);
        if own.tap.is_on() {
            show(&own.tap, &series, body, (&self.batch, samples, records));
        }
        Ok(position)
    }

    fn shrink(&mut self) {
        self.interning.shrink(KEPT_BYTES_MAX);
        self.records.shrink(KEPT_BYTES_MAX);
        self.mapped.shrink(KEPT_BYTES_MAX);
    }

    /// Forgets the last batch and gives back what it took beyond the ordinary.
    pub(crate) fn finish(&mut self) {
        self.shrink();
        self.batch.clear();
        self.batch
            .samples
            .shrink_to(KEPT_BYTES_MAX / size_of::<Sample>());
        self.batch
            .records
            .shrink_to(KEPT_BYTES_MAX / size_of::<RecordAt>());
        self.batch.made.shrink_to(KEPT_BYTES_MAX);
    }
}

/// Charges the tenant of a request its samples.
fn take(context: Context<'_>, batch: &Batch) -> Result<u64, Failure> {
    let Some((tenants, tenant)) = context.tenant else {
        return Ok(0);
    };
    let taken = tenants.take(tenant, batch, context.now);
    taken.map_err(Failure::TooFast)?;
    Ok(samples_of(batch))
}

/// What of a request its tenant may send on a way.
fn pass<'r>(context: Context<'r>, activity: Option<&'r Activity>) -> Option<Pass<'r>> {
    let ((tenants, tenant), activity) = context.tenant.zip(activity)?;
    Some(tenants.pass(tenant, activity))
}

/// Shows somebody who listens some of these samples and records of a request.
#[cold]
fn show(
    tap: &Tap,
    front: &impl Front,
    body: &[u8],
    (batch, samples, records): (&Batch, &[Sample], &[RecordAt]),
) {
    let mut labels = Vec::new();
    tap.show(samples.len() + records.len(), |at, out| {
        labels.clear();
        let mut has_labels = |series: SeriesRef| front.labels(series.get(), &mut labels).is_ok();
        if let Some(sample) = samples.get(at) {
            let is_there = has_labels(sample.series);
            append_sample(out, &labels, sample);
            return is_there;
        }
        let Some(record) = records.get(at - samples.len()) else {
            return false;
        };
        let is_there = !record.series.is_none() && has_labels(record.series);
        is_there && append_record(out, &labels, record.kind, batch.bytes(body, &record.bytes))
    });
}

/// Counts by its labels what a tenant was not allowed to send.
fn refuse(context: Context<'_>, interner: &Interner<'_>, batch: &Batch) {
    if let Some((tenants, tenant)) = context.tenant {
        interner.some_labels(batch, |labels, items| {
            tenants.refused(tenant, labels, items);
        });
    }
}

/// Series of a request that goes nowhere whose labels are kept for who listens.
const NOWHERE_SERIES_MAX: usize = 1000;

/// Resolves for a receiver that forwards to no store: what is not allowed is still refused.
#[derive(Default, Debug)]
struct Nowhere {
    set: LabelSet,
    canonical: Vec<u8>,
    /// The samples of the first series and their labels, if somebody listens.
    seen: Option<Vec<(Range<usize>, Vec<u8>)>>,
}

impl Nowhere {
    fn new(context: Context<'_>) -> Self {
        let mut nowhere = Self::default();
        nowhere.set.limits = context.labels;
        nowhere.seen = context.tap.map(|_| Vec::new());
        nowhere
    }

    fn show(&self, tap: &Tap, samples: &[Sample]) {
        let seen = self.seen.as_deref().unwrap_or_default();
        tap.show(samples.len(), |at, out| {
            let labels = seen.iter().find(|(range, _)| range.contains(&at));
            let found = labels.zip(samples.get(at));
            if let Some(((_, labels), sample)) = found {
                append_sample(out, labels, sample);
            }
            found.is_some()
        });
    }
}

impl Resolve for Nowhere {
    fn predicted(&mut self, _: &[u8]) -> Option<(SeriesRef, usize)> {
        None
    }

    fn resolve(
        &mut self,
        body: &[u8],
        fields: &[Range<usize>],
        brought: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed> {
        self.set.read(body, fields)?;
        self.canonical.clear();
        let checked = self.set.append_canonical(body, &mut self.canonical);
        if let Some(seen) = &mut self.seen
            && seen.len() < NOWHERE_SERIES_MAX
        {
            seen.push((brought.samples.clone(), self.canonical.clone()));
        }
        Ok(checked
            .map(|()| Slot::Known(SeriesRef::NONE))
            .map_err(|reason| {
                let shown = self.set.show(body, 200);
                NotAllowed { reason, shown }
            }))
    }
}

/// Nothing is known of a series that goes nowhere.
impl Door for Nowhere {
    fn identity(&self, _: u32) -> u64 {
        0
    }

    fn is_still(&mut self, _: u32, _: u64) -> bool {
        false
    }

    fn forget_new(&mut self) {}
}

#[cfg(test)]
mod tests;
