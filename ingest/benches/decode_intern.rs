//! How many nanoseconds does a sample cost from protobuf bytes to a series ref?
//!
//! 100k Kubernetes-like series of 11 labels (about 321 encoded bytes), one sample each, 2000 series
//! per request. Rows: every prediction right; every prediction the series itself, so it is hashed, looked up
//! and learned; every prediction wrong, in two orders in turn of which one jumps all over memory;
//! what a receiver adds that shares its series with two others (cut the request, and compress what
//! goes to them); prost decode alone; prost decode, sort and map lookup, which is what a plain receiver does. Time is per request; the throughput row is per sample.

#![allow(missing_docs, reason = "criterion's macros")]

mod fleet;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::decode::Batch;
use ingest::decode::remote_write_v1::scan;
use ingest::intern::{Interner, Scratch};
use ingest::proto::{Label, Sample, TimeSeries, WriteRequest};
use ingest::share::split::Splitter;
use prost::Message;
use wal::{SeriesRef, Store, StoreOptions};

const SERIES: usize = 100_000;
const PER_REQUEST: usize = 2_000;

/// The requests of one interval, in the order `order` gives.
fn requests(order: impl Fn(usize) -> usize) -> Vec<Vec<u8>> {
    let series = |at: usize| {
        let timestamp = 1_700_000_000_000;
        let value = f64::from(u32::try_from(at).unwrap_or(0)) * 1.5;
        let samples = vec![Sample { value, timestamp }];
        TimeSeries {
            labels: fleet::labels(at),
            samples,
            ..TimeSeries::default()
        }
    };
    (0..SERIES / PER_REQUEST)
        .map(|request| {
            let places = request * PER_REQUEST..(request + 1) * PER_REQUEST;
            let timeseries = places.map(|at| series(order(at))).collect();
            WriteRequest {
                timeseries,
                metadata: vec![],
            }
            .encode_to_vec()
        })
        .collect()
}

/// The buffers of a shard and the series of a store.
struct Line {
    store: Store,
    batch: Batch,
    fields: Vec<std::ops::Range<usize>>,
    scratch: Scratch,
    previous: SeriesRef,
    _dir: tempfile::TempDir,
}

impl Line {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(dir.path(), StoreOptions::default()).expect("a store");
        Self {
            store,
            batch: Batch::default(),
            fields: Vec::new(),
            scratch: Scratch::default(),
            previous: SeriesRef::NONE,
            _dir: dir,
        }
    }

    fn intern(&mut self, body: &[u8]) -> usize {
        self.batch.clear();
        let table = self.store.series().guard();
        let mut interner = Interner::new(&table, &mut self.scratch, self.previous);
        scan(body, &mut interner, &mut self.batch, &mut self.fields).expect("a valid request");
        self.previous = interner
            .define_new(&mut self.batch)
            .expect("room for the series");
        self.batch.samples.len()
    }

    /// Lets every series of the last request be expected behind itself, where it never is.
    fn forget(&mut self) {
        for sample in &self.batch.samples {
            self.store
                .series()
                .guard()
                .learn(sample.series, sample.series);
        }
        self.previous = SeriesRef::NONE;
    }
}

/// Every series once, but never two neighbours in a row: the step is coprime to the count.
fn scattered(at: usize) -> usize {
    (at * 38_713) % SERIES
}

fn decode_and_intern(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_intern");
    group.throughput(Throughput::Elements(2_000));
    group.measurement_time(Duration::from_secs(4));

    let in_order = requests(|at| at);
    let mut line = Line::new();
    for body in in_order.iter().chain(&in_order) {
        line.intern(body);
    }
    let mut turn = in_order.iter().cycle();
    group.bench_function("predicted", |bencher| {
        bencher.iter(|| turn.next().map(|body| line.intern(black_box(body))));
    });

    let mut turn = in_order.iter().cycle();
    group.bench_function("unpredicted", |bencher| {
        bencher.iter(|| {
            let count = turn.next().map(|body| line.intern(black_box(body)));
            // Forgetting costs a nanosecond or two per series and is counted in.
            line.forget();
            count
        });
    });

    // Two orders in turn: what one teaches is wrong in the other.
    let other = requests(scattered);
    let mut turn = in_order
        .iter()
        .zip(&other)
        .flat_map(|(a, b)| [a, b])
        .cycle();
    group.bench_function("mispredicted", |bencher| {
        bencher.iter(|| turn.next().map(|body| line.intern(black_box(body))));
    });

    let mut splitter = Splitter::default();
    let mut cut = |body: &[u8]| {
        let owner = |key| usize::try_from(key % 3).ok().filter(|owner| *owner < 2);
        let cut = splitter.split((ingest::Message::V1, body), 2, owner);
        cut.expect("a valid request");
        splitter.parts().map(|(_, part)| part.len()).sum::<usize>()
    };
    let mut turn = in_order.iter().cycle();
    group.bench_function("cut_for_three", |bencher| {
        bencher.iter(|| turn.next().map(|body| cut(black_box(body))));
    });

    let mut turn = in_order.iter().cycle();
    let compress = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes);
    group.bench_function("compress_two_thirds", |bencher| {
        let two_thirds = |body: &Vec<u8>| compress(black_box(&body[..body.len() * 2 / 3]));
        bencher.iter(|| turn.next().map(two_thirds));
    });

    let mut turn = in_order.iter().cycle();
    group.bench_function("prost_decode_only", |bencher| {
        bencher.iter(|| {
            turn.next()
                .map(|body| WriteRequest::decode(black_box(body.as_slice())))
        });
    });

    let mut refs: HashMap<Vec<Label>, u32> = HashMap::new();
    let mut turn = in_order.iter().cycle();
    group.bench_function("prost_decode_sort_lookup", |bencher| {
        bencher.iter(|| {
            turn.next()
                .map(|body| prost_intern(black_box(body), &mut refs))
        });
    });
    group.finish();
}

fn prost_intern(body: &[u8], refs: &mut HashMap<Vec<Label>, u32>) -> Vec<(u32, Sample)> {
    let request = WriteRequest::decode(body).expect("a valid request");
    let mut samples = Vec::with_capacity(request.timeseries.len());
    for mut series in request.timeseries {
        series.labels.sort_by(|a, b| a.name.cmp(&b.name));
        let next = u32::try_from(refs.len()).unwrap_or(u32::MAX);
        let series_ref = *refs.entry(series.labels).or_insert(next);
        samples.extend(
            series
                .samples
                .into_iter()
                .map(|sample| (series_ref, sample)),
        );
    }
    samples
}

criterion_group!(benches, decode_and_intern);
criterion_main!(benches);
