//! Turns the compressed body of a request into positions of the log.
//!
//! The synchronous middle of the line: decompress, scan, intern, append, for each store the
//! receiver forwards to. One per shard thread; its buffers are reused from request to request.
//!
//! # Invariants
//! - Nothing is appended unless the whole body is well-formed: the first store's scan comes before
//!   the first append, and later scans of the same bytes cannot fail.
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
use crate::intern::{Interner, RawRecords, Scratch};
use crate::negotiate::{Encoding, Message};
use crate::tenants::{Tenant, Tenants, TooFast, samples_of};

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
    decompressed: Vec<u8>,
    /// What the last request held.
    pub(crate) batch: Batch,
    /// Samples of the last request that its tenant was charged.
    taken: u64,
    scanner: Scanner,
    interning: Scratch,
    records: RawRecords,
}

/// Where a connection's requests go, and what came last on each way.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Places in the list of stores.
    pub(crate) stores: Vec<usize>,
    /// The last series per store.
    pub(crate) previous: Vec<SeriesRef>,
}

impl Route {
    pub(crate) fn new(stores: &[usize]) -> Self {
        Self {
            stores: stores.to_vec(),
            previous: vec![SeriesRef::NONE; stores.len()],
        }
    }
}

impl Appender {
    /// Takes one writer from each store.
    pub(crate) fn new(stores: &[Store]) -> Result<Self, wal::Error> {
        let stores = stores
            .iter()
            .map(|store| Ok((store.clone(), store.writer()?)));
        Ok(Self {
            stores: stores.collect::<Result<_, wal::Error>>()?,
            decompressed: Vec::new(),
            batch: Batch::default(),
            taken: 0,
            scanner: Scanner::default(),
            interning: Scratch::default(),
            records: RawRecords::default(),
        })
    }

    /// Appends a request; `positions` gets one entry per store of the route, to be waited for.
    pub(crate) fn append(
        &mut self,
        request: Incoming<'_>,
        route: &mut Route,
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        positions.clear();
        self.scanner.buffers.repeats.begin(request.now);
        let appended = self.append_to_each(request, route, positions);
        if appended.is_err() {
            if let Some((tenants, tenant)) = request.tenant {
                tenants.give_back(tenant, std::mem::take(&mut self.taken));
            }
            self.scanner.buffers.repeats.forget();
        }
        self.shrink();
        appended
    }

    fn append_to_each(
        &mut self,
        request: Incoming<'_>,
        route: &mut Route,
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        self.batch.clear();
        self.taken = 0;
        let Incoming {
            compressed,
            claimed,
            message,
            encoding,
            ..
        } = request;
        let body = encoding
            .decompress(compressed, claimed, &mut self.decompressed)
            .map_err(Failure::Compression)?;
        if request.series_max > 0 {
            let count = count_series(message, body).map_err(Failure::Malformed)?;
            if count > request.series_max {
                return Err(Failure::TooManySeries(count));
            }
        }
        self.interning.limit(request.labels);
        if route.stores.is_empty() {
            let nowhere = &mut Nowhere::new(request.labels);
            self.scanner.scan(message, body, nowhere, &mut self.batch)?;
            return take(&request, &self.batch).map(|_| ());
        }
        for (place, (at, previous)) in (route.stores.iter().zip(&mut route.previous)).enumerate() {
            self.batch.clear();
            let (store, writer) = &mut self.stores[*at];
            // Until the samples are appended, or a series could be given up under them.
            let series = store.series().guard();
            let mut interner = Interner::new(&series, &mut self.interning, *previous);
            self.scanner.buffers.repeats.store = *at;
            self.scanner
                .scan(message, body, &mut interner, &mut self.batch)?;
            if place == 0 {
                self.taken = take(&request, &self.batch)
                    .inspect_err(|_| refuse(&request, &interner, &self.batch))?;
            }
            let mut pass = (request.tenant).and_then(|(all, tenant)| all.pass(tenant, place));
            if let Some(pass) = &mut pass {
                interner.admit(pass, &mut self.batch);
            }
            *previous = interner.define_new(&mut self.batch).map_err(Failure::Log)?;
            if let Some(pass) = pass {
                pass.settle(self.interning.defined(&self.batch));
            }
            let samples = &self.batch.samples;
            let position = self
                .records
                .with(body, &self.batch, |records| writer.append(samples, records))
                .map_err(Failure::Log)?;
            positions.push(position);
        }
        Ok(())
    }

    /// Whether the log of one of the stores is behind its device.
    pub(crate) fn is_behind(&self, route: &Route) -> bool {
        let writer = |at: &usize| &self.stores[*at].1;
        route.stores.iter().any(|at| writer(at).is_behind())
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
