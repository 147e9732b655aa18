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

use wal::{Position, SeriesRef, Store, Writer};

use crate::decode::labels::LabelSet;
use crate::decode::remote_write_v1::scan;
use crate::decode::snappy::{self, Refused};
use crate::decode::{Batch, Brought, Malformed, NotAllowed, Resolve, Slot};
use crate::intern::{Interner, RawRecords, Scratch};

/// What each buffer keeps between requests: a request of 20000 ordinary samples.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Why a request was not appended.
#[derive(Debug)]
pub(crate) enum Failure {
    Snappy(Refused),
    Malformed(Malformed),
    Log(wal::Error),
}

/// Appends requests to the stores of one shard thread.
#[derive(Debug)]
pub(crate) struct Appender {
    stores: Vec<(Store, Writer)>,
    decompressed: Vec<u8>,
    /// What the last request held.
    pub(crate) batch: Batch,
    fields: Vec<Range<usize>>,
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
            fields: Vec::new(),
            interning: Scratch::default(),
            records: RawRecords::default(),
        })
    }

    /// Appends a request; `positions` gets one entry per store of the route, to be waited for.
    pub(crate) fn append(
        &mut self,
        compressed: &[u8],
        claimed: usize,
        route: &mut Route,
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        positions.clear();
        let appended = self.append_to_each(compressed, claimed, route, positions);
        self.shrink();
        appended
    }

    fn append_to_each(
        &mut self,
        compressed: &[u8],
        claimed: usize,
        route: &mut Route,
        positions: &mut Vec<Position>,
    ) -> Result<(), Failure> {
        self.batch.clear();
        let body = snappy::decompress(compressed, claimed, &mut self.decompressed)
            .map_err(Failure::Snappy)?;
        if route.stores.is_empty() {
            return scan(
                body,
                &mut Nowhere::default(),
                &mut self.batch,
                &mut self.fields,
            )
            .map_err(Failure::Malformed);
        }
        for (at, previous) in route.stores.iter().zip(&mut route.previous) {
            self.batch.clear();
            let (store, writer) = &mut self.stores[*at];
            // Until the samples are appended, or a series could be given up under them.
            let series = store.series().guard();
            let mut interner = Interner::new(&series, &mut self.interning, *previous);
            scan(body, &mut interner, &mut self.batch, &mut self.fields)
                .map_err(Failure::Malformed)?;
            *previous = interner.define_new(&mut self.batch).map_err(Failure::Log)?;
            let samples = &self.batch.samples;
            let position = self
                .records
                .with(body, &self.batch, |records| writer.append(samples, records))
                .map_err(Failure::Log)?;
            positions.push(position);
        }
        Ok(())
    }

    fn shrink(&mut self) {
        if self.decompressed.capacity() > KEPT_BYTES_MAX {
            self.decompressed = Vec::new();
        }
        self.fields.clear();
        self.fields
            .shrink_to(KEPT_BYTES_MAX / size_of::<Range<usize>>());
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
    }
}

/// Resolves for a receiver that forwards to no store: what is not allowed is still refused.
#[derive(Default, Debug)]
struct Nowhere {
    set: LabelSet,
    canonical: Vec<u8>,
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
