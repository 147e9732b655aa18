//! What does a sample cost that goes out with the same series as before, and what if some are not
//! the same?
//!
//! One sample per series (`fleet`) and interval, 2000 per batch, in ref order. Where intervals follow each
//! other, a batch is in the cache when it is encoded, as it has just been taken from its queue; templates
//! are where the interval before left them.

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

mod fleet;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shipper::batch::Batch;
use shipper::encode::{Miss, RemoteWriteV1, TemplateStats};

use fleet::{METRICS_PER_TARGET, PER_BATCH, Table, batches, sample};
use wal::Sample;

/// Different series in all.
const LABELS: u32 = 1_000_000;
const BYTES_MAX: usize = 64 << 20;
/// Intervals before anything is measured: all is seen twice and most counters have crossed the
/// number of bytes that they began with.
const WARM_INTERVALS: u32 = 8;

/// How the intervals of a fleet differ from each other.
#[derive(Clone, Copy)]
struct Fleet {
    series: u32,
    per_batch: usize,
    /// Of how many targets one is replaced by another in every interval.
    churn_one_of: Option<u32>,
    /// Of how many series one is absent, another every time.
    absent_one_of: Option<u32>,
}

impl Fleet {
    const fn steady(series: u32) -> Self {
        Self {
            series,
            per_batch: PER_BATCH,
            churn_one_of: None,
            absent_one_of: None,
        }
    }

    /// The target that has the place of another in an interval; those that went come again when all
    /// have been there, after hundreds of intervals.
    fn target(&self, target: u32, interval: u32) -> u32 {
        let targets = self.series / METRICS_PER_TARGET;
        let replaced = self.churn_one_of.map_or(0, |of| {
            // every target has its turn once in `of` intervals
            (interval + target % of) / of % (LABELS / self.series)
        });
        target + replaced * targets
    }

    fn batches(&self, interval: u32) -> Vec<Batch> {
        let mut samples = Vec::new();
        self.fill(interval, &mut samples);
        batches(&samples, self.per_batch)
    }

    /// The samples of an interval, in memory that is there.
    fn fill(&self, interval: u32, samples: &mut Vec<Sample>) {
        samples.clear();
        let mut rng = fastrand::Rng::with_seed(u64::from(interval));
        for target in 0..self.series / METRICS_PER_TARGET {
            let first = self.target(target, interval) * METRICS_PER_TARGET;
            for series in first..first + METRICS_PER_TARGET {
                if self.absent_one_of.is_some_and(|of| rng.u32(..of) == 0) {
                    continue;
                }
                samples.push(sample(series, interval));
            }
        }
    }
}

/// Encodes an interval; bytes of its bodies.
fn encode(encoder: &mut RemoteWriteV1, batches: &[Batch], table: &Table) -> usize {
    let mut bytes = 0;
    for batch in batches {
        encoder.set_generation(0);
        bytes += encoder
            .encode(batch, |one| table.of(one))
            .unwrap()
            .body
            .len();
    }
    bytes
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn measure(criterion: &mut Criterion, name: &str, fleet: Fleet, table: &Table) {
    let mut group = criterion.benchmark_group("template");
    group.throughput(Throughput::Elements(u64::from(fleet.series)));
    group.sample_size(20);
    let mut plain = RemoteWriteV1::new();
    let stats = Arc::new(TemplateStats::default());
    let dir = std::env::temp_dir();
    let mut templated = RemoteWriteV1::new().with_templates(&dir, BYTES_MAX, Arc::clone(&stats));
    let (mut wire, mut plain_wire) = (0, 0);
    for interval in 0..WARM_INTERVALS {
        let batches = fleet.batches(interval);
        wire = encode(&mut templated, &batches, table);
        plain_wire = encode(&mut plain, &batches, table);
    }
    let series = f64::from(fleet.series);
    let before = stats.snapshot();
    println!(
        "{name}: {:.1} bytes per sample, plain {:.1}, {:.3} of it; {:.1} bytes of memory per series",
        wire as f64 / series,
        plain_wire as f64 / series,
        wire as f64 / plain_wire as f64,
        before.bytes as f64 / series,
    );
    let mut interval = WARM_INTERVALS;
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut took, mut samples) = (Duration::ZERO, Vec::new());
            for _ in 0..iterations {
                interval += 1;
                fleet.fill(interval, &mut samples);
                for samples in samples.chunks(fleet.per_batch) {
                    let batch = batches(samples, fleet.per_batch);
                    let start = now();
                    black_box(encode(&mut templated, &batch, table));
                    took += now() - start;
                }
            }
            took
        });
    });
    let now = stats.snapshot();
    let hits = now.hits - before.hits;
    let misses = Miss::ALL.map(|reason| {
        let missed = now.misses[reason as usize] - before.misses[reason as usize];
        (reason.as_str(), missed)
    });
    let built = now.built - before.built;
    println!(
        "{name}: {hits} hits, {misses:?}, {built} built, {} bytes",
        now.bytes
    );
    group.finish();
}

/// What the first and the second interval cost: encoding alone, and with building.
fn build(criterion: &mut Criterion, table: &Table) {
    let fleet = Fleet::steady(100_000);
    let batches = fleet.batches(0);
    let mut group = criterion.benchmark_group("template");
    group.throughput(Throughput::Elements(u64::from(fleet.series)));
    group.sample_size(10);
    let mut plain = RemoteWriteV1::new();
    group.bench_function("plain_100k", |bencher| {
        bencher.iter(|| black_box(encode(&mut plain, &batches, table)));
    });
    let dir = std::env::temp_dir();
    let templated = || RemoteWriteV1::new().with_templates(&dir, BYTES_MAX, Arc::default());
    group.bench_function("first_sighting_100k", |bencher| {
        let encode = |mut encoder| encode(&mut encoder, &batches, table);
        bencher.iter_batched(templated, encode, BatchSize::PerIteration);
    });
    let seen = || {
        let mut encoder = templated();
        encode(&mut encoder, &batches, table);
        encoder
    };
    group.bench_function("second_sighting_builds_100k", |bencher| {
        let encode = |mut encoder| encode(&mut encoder, &batches, table);
        bencher.iter_batched(seen, encode, BatchSize::PerIteration);
    });
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let table = Table::new(LABELS);
    build(criterion, &table);
    let steady = Fleet::steady(100_000);
    for (name, fleet) in [
        ("steady_100k", steady),
        ("steady_1m", Fleet::steady(1_000_000)),
        (
            "batches_cut_anywhere_100k",
            Fleet {
                per_batch: 1937,
                ..steady
            },
        ),
        (
            // 1 % a minute
            "one_target_of_400_replaced_100k",
            Fleet {
                churn_one_of: Some(400),
                ..steady
            },
        ),
        (
            "one_series_of_1000_absent_100k",
            Fleet {
                absent_one_of: Some(1000),
                ..steady
            },
        ),
        (
            "one_series_of_100_absent_100k",
            Fleet {
                absent_one_of: Some(100),
                ..steady
            },
        ),
    ] {
        measure(criterion, name, fleet, &table);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
