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

use wal::{Position, SeriesRef, Store, Writer};

use crate::decode::labels::{LabelLimits, LabelSet};
use crate::decode::snappy::Refused;
use crate::decode::{
    Batch, Brought, Malformed, NotAllowed, Resolve, Slot, count_series, remote_write_v1,
    remote_write_v2,
};
use crate::intern::{Interner, RawRecords, Scratch, Unsorted};
use crate::negotiate::{Encoding, Message};
use crate::options::ReceiverOptions;
use crate::paths::{Front, Mapped, Paths, Spare, ToAliases, Way, some_labels};
use crate::tenants::{Pass, Tenant, Tenants, TooFast, samples_of};

/// What each buffer keeps between requests: a request of 20000 ordinary samples.
const KEPT_BYTES_MAX: usize = 8 << 20;

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
    pub(crate) labels: LabelLimits,
    /// Who sends it, where that matters.
    pub(crate) tenant: Option<(&'r Tenants, &'r Tenant)>,
    /// Monotonic time.
    pub(crate) now: Duration,
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
#[derive(Debug)]
pub(crate) struct Appender {
    stores: Vec<(Store, Writer)>,
    /// By the number of the receiver.
    receivers: Vec<Paths>,
    decompressed: Vec<u8>,
    /// What the last request held.
    pub(crate) batch: Batch,
    /// Samples of the last request that its tenant was charged.
    taken: u64,
    scanner: Scanner,
    interning: Scratch,
    spare: Spare,
    mapped: Mapped,
    records: RawRecords,
}

/// Where a connection's requests come in, and what came last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The number of the receiver.
    receiver: usize,
    /// The last series of the front, and the last alias.
    previous: SeriesRef,
    previous_alias: u32,
}

impl Route {
    /// A connection to the receiver of this number.
    pub(crate) const fn new(receiver: usize) -> Self {
        Self {
            receiver,
            previous: SeriesRef::NONE,
            previous_alias: 0,
        }
    }
}

impl Appender {
    /// Takes one writer from each store.
    pub(crate) fn new(stores: &[Store], receivers: &[ReceiverOptions]) -> Result<Self, wal::Error> {
        let stores = stores
            .iter()
            .map(|store| Ok((store.clone(), store.writer()?)));
        Ok(Self {
            stores: stores.collect::<Result<_, wal::Error>>()?,
            receivers: receivers.iter().map(Paths::new).collect(),
            decompressed: Vec::new(),
            batch: Batch::default(),
            taken: 0,
            scanner: Scanner::default(),
            interning: Scratch::default(),
            spare: Spare::default(),
            mapped: Mapped::default(),
            records: RawRecords::default(),
        })
    }

    /// Appends a request; `positions` gets one entry per path of the receiver, to be waited for.
    pub(crate) fn append(
        &mut self,
        request: Incoming<'_>,
        route: &mut Route,
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        positions.clear();
        self.batch.clear();
        self.taken = 0;
        self.scanner
            .buffers
            .repeats
            .begin(route.receiver, request.now);
        // Lent, so that what it needs of the rest can be lent beside it.
        let mut decompressed = std::mem::take(&mut self.decompressed);
        let appended = (request.encoding)
            .decompress(request.compressed, request.claimed, &mut decompressed)
            .map_err(Failure::Compression)
            .and_then(|body| self.append_body((request, body), route, positions));
        self.decompressed = decompressed;
        if appended.is_err() {
            if let Some((tenants, tenant)) = request.tenant {
                tenants.give_back(tenant, std::mem::take(&mut self.taken));
            }
            self.scanner.buffers.repeats.forget();
        }
        self.shrink();
        appended
    }

    fn append_body(
        &mut self,
        (request, body): (Incoming<'_>, &[u8]),
        route: &mut Route,
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        if request.series_max > 0 {
            let count = count_series(request.message, body).map_err(Failure::Malformed)?;
            if count > request.series_max {
                return Err(Failure::TooManySeries(count));
            }
        }
        self.interning.limit(request.labels);
        self.spare.limit(request.labels);
        // Lent, as above.
        let mut receivers = std::mem::take(&mut self.receivers);
        let paths = &mut receivers[route.receiver];
        positions.resize(paths.ways.len(), Position::default());
        paths.aliases.begin(request.now);
        let appended = if paths.ways.is_empty() {
            let nowhere = &mut Nowhere::new(request.labels);
            (self.scanner)
                .scan(request.message, body, nowhere, &mut self.batch)
                .and_then(|()| take(&request, &self.batch))
                .map(drop)
        } else if let Some(front) = paths.front {
            self.through_store((request, body), (&mut *paths, front), route, positions)
        } else {
            self.through_aliases((request, body), paths, route, positions)
        };
        paths.report();
        self.receivers = receivers;
        appended
    }

    /// The straight path: from the bytes to the refs of the first writer without rules, and on.
    fn through_store(
        &mut self,
        (request, body): (Incoming<'_>, &[u8]),
        (paths, front): (&mut Paths, usize),
        route: &mut Route,
        positions: &mut [Position],
    ) -> Result<(), Failure> {
        let at = paths.ways[front].store;
        let store = self.stores[at].0.clone();
        // Until the samples are appended, or a series could be given up under them.
        let series = store.series().guard();
        let unsorted = Unsorted {
            aliases: &mut paths.aliases,
            derived: &mut paths.unsorted,
            previous: route.previous_alias,
            is_likely: route.previous_alias != 0,
        };
        let mut interner =
            Interner::new(&series, &mut self.interning, route.previous).with(unsorted);
        (self.scanner).scan(request.message, body, &mut interner, &mut self.batch)?;
        route.previous_alias = interner.previous_alias();
        self.taken = take(&request, &self.batch)
            .inspect_err(|_| refuse(&request, &interner, &self.batch))?;
        let mut pass = (request.tenant).and_then(|(all, tenant)| all.pass(tenant, front));
        if let Some(pass) = &mut pass {
            interner.admit(pass, &mut self.batch);
        }
        route.previous = interner.define_new(&mut self.batch).map_err(Failure::Log)?;
        if let Some(pass) = pass {
            pass.settle(self.interning.defined(&self.batch));
        }
        let writer = &mut self.stores[at].1;
        let samples = &self.batch.samples;
        positions[front] = self
            .records
            .with((body, &self.batch), &self.batch.records, |records| {
                writer.append(samples, records)
            })
            .map_err(Failure::Log)?;
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
        (request, body): (Incoming<'_>, &[u8]),
        paths: &mut Paths,
        route: &mut Route,
        positions: &mut [Position],
    ) -> Result<(), Failure> {
        let mut to_aliases = ToAliases {
            aliases: &mut paths.aliases,
            spare: &mut self.spare,
            previous: route.previous_alias,
        };
        (self.scanner).scan(request.message, body, &mut to_aliases, &mut self.batch)?;
        route.previous_alias = to_aliases.previous;
        self.taken = take(&request, &self.batch).inspect_err(|_| {
            if let Some((tenants, tenant)) = request.tenant {
                some_labels(&paths.aliases, &self.batch, |labels, items| {
                    tenants.refused(tenant, labels, items);
                });
            }
        })?;
        for (number, way) in paths.ways.iter_mut().enumerate() {
            let pass = (request.tenant).and_then(|(all, tenant)| all.pass(tenant, number));
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
        let (store, writer) = &mut self.stores[way.store];
        let series = store.series().guard();
        let ways = (&mut way.derived, &mut way.rules);
        self.mapped
            .map((front, &self.batch), ways, &series, pass)
            .map_err(Failure::Log)?;
        self.batch.refused.extend(&mut self.mapped.refused);
        let Mapped {
            samples, records, ..
        } = &self.mapped;
        self.records
            .with((body, &self.batch), records, |records| {
                writer.append(samples, records)
            })
            .map_err(Failure::Log)
    }

    /// Whether the log of one of the stores is behind its device.
    pub(crate) fn is_behind(&self, route: &Route) -> bool {
        let ways = &self.receivers[route.receiver].ways;
        ways.iter().any(|way| self.stores[way.store].1.is_behind())
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
        self.interning.shrink(KEPT_BYTES_MAX);
        self.records.shrink(KEPT_BYTES_MAX);
        self.mapped.shrink(KEPT_BYTES_MAX);
    }

    /// Forgets the last request and gives back what it took beyond the ordinary.
    pub(crate) fn finish(&mut self) {
        self.batch.clear();
        self.batch
            .samples
            .shrink_to(KEPT_BYTES_MAX / size_of::<wal::Sample>());
        self.batch
            .records
            .shrink_to(KEPT_BYTES_MAX / size_of::<crate::decode::RecordAt>());
        self.batch.made.shrink_to(KEPT_BYTES_MAX);
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

/// The line of one connection without its socket, for benches: compressed bodies to positions.
#[doc(hidden)]
#[derive(Debug)]
pub struct Line {
    appender: Appender,
    route: Route,
    positions: Vec<Position>,
}

#[doc(hidden)]
impl Line {
    /// A line of its own to these stores, as the receiver says.
    ///
    /// # Errors
    /// A store has no more writers.
    pub fn new(stores: &[Store], receiver: &ReceiverOptions) -> Result<Self, wal::Error> {
        Ok(Self {
            appender: Appender::new(stores, std::slice::from_ref(receiver))?,
            route: Route::new(0),
            positions: Vec::new(),
        })
    }

    /// Appends a request compressed by snappy. The positions, one per path, and the number of samples.
    ///
    /// # Errors
    /// Why it was not appended, as text.
    pub fn append(
        &mut self,
        compressed: &[u8],
        message: Message,
    ) -> Result<(&[Position], usize), String> {
        let refused = |refused| format!("{refused:?}");
        let encoding = Encoding::Snappy;
        let request = Incoming {
            compressed,
            claimed: (encoding.claimed_length(compressed, KEPT_BYTES_MAX)).map_err(refused)?,
            message,
            encoding,
            now: Duration::ZERO,
            series_max: 0,
            labels: LabelLimits::default(),
            tenant: None,
        };
        self.appender
            .append(request, &mut self.route, &mut self.positions)
            .map_err(|failure| format!("{failure:?}"))?;
        let count = self.appender.batch.samples.len();
        self.appender.finish();
        Ok((&self.positions, count))
    }
}

/// Charges the tenant of a request its samples.
fn take(request: &Incoming<'_>, batch: &Batch) -> Result<u64, Failure> {
    let Some((tenants, tenant)) = request.tenant else {
        return Ok(0);
    };
    let taken = tenants.take(tenant, batch, request.now);
    taken.map_err(Failure::TooFast)?;
    Ok(samples_of(batch))
}

/// Counts by its labels what a tenant was not allowed to send.
fn refuse(request: &Incoming<'_>, interner: &Interner<'_>, batch: &Batch) {
    if let Some((tenants, tenant)) = request.tenant {
        interner.some_labels(batch, |labels, items| {
            tenants.refused(tenant, labels, items);
        });
    }
}

/// Resolves for a receiver that forwards to no store: what is not allowed is still refused.
#[derive(Default, Debug)]
struct Nowhere {
    set: LabelSet,
    canonical: Vec<u8>,
}

impl Nowhere {
    fn new(limits: LabelLimits) -> Self {
        let mut nowhere = Self::default();
        nowhere.set.limits = limits;
        nowhere
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
        _: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed> {
        self.set.read(body, fields)?;
        self.canonical.clear();
        let checked = self.set.append_canonical(body, &mut self.canonical);
        Ok(checked
            .map(|()| Slot::Known(SeriesRef::NONE))
            .map_err(|reason| {
                let shown = self.set.show(body, 200);
                NotAllowed { reason, shown }
            }))
    }
}

#[cfg(test)]
mod tests;
