//! What a sample costs on its way into the log and out of it again.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wal::{NewSeries, Sample, SeriesRef, Store, StoreOptions};

const SERIES: u32 = 100_000;
const PER_REQUEST: usize = 2000;

/// About 320 bytes, like the labels of a container metric.
fn labels(n: u32) -> Vec<u8> {
    let pod = n / 200;
    format!(
        "{n:08} container_memory_working_set_bytes namespace-{} pod-{pod:032x} {:x>220}",
        pod % 40,
        ""
    )
    .into_bytes()
}

fn define(store: &Store, numbers: std::ops::Range<u32>) -> Vec<SeriesRef> {
    let table = store.series();
    let labels: Vec<_> = numbers.map(labels).collect();
    let mut refs = Vec::new();
    for labels in labels.chunks(PER_REQUEST) {
        let mut new: Vec<_> = labels
            .iter()
            .map(|labels| NewSeries {
                hash: table.hash(labels),
                labels,
                series: SeriesRef::NONE,
            })
            .collect();
        table.guard().define(&mut new).unwrap();
        refs.extend(new.iter().map(|new| new.series));
    }
    refs
}

fn open(dir: &tempfile::TempDir) -> (Store, std::thread::JoinHandle<()>) {
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    store.endpoints_complete();
    let committer = store.committer().unwrap().spawn_thread().unwrap();
    (store, committer)
}

fn append(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = open(&dir);
    let refs = define(&store, 0..SERIES);
    let mut writer = store.writer().unwrap();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(PER_REQUEST as u64));
    let mut round = 0;
    group.bench_function("2000 samples into the ring", |b| {
        b.iter_batched(
            || {
                round += 1;
                let start = round * PER_REQUEST % refs.len();
                let timestamp_ms = 1_700_000_000_000 + i64::try_from(round / 50 * 15_000).unwrap();
                let sample = |(at, &series)| Sample {
                    series,
                    timestamp_ms,
                    value_bits: f64::from(u32::try_from(at + round).unwrap()).to_bits(),
                };
                refs[start..start + PER_REQUEST]
                    .iter()
                    .enumerate()
                    .map(sample)
                    .collect::<Vec<_>>()
            },
            |samples| {
                // A ring that is full for a moment is the disk's time, not ours.
                while writer.append(&samples, &[]).is_err_and(|e| e.is_full()) {
                    std::thread::yield_now();
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    store.close();
    committer.join().unwrap();
}

fn tail(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = open(&dir);
    let endpoint = store.endpoint("bench").unwrap();
    let refs = define(&store, 0..SERIES);
    let mut writer = store.writer().unwrap();
    for (round, refs) in refs.chunks(PER_REQUEST).enumerate() {
        let sample = |&series| Sample {
            series,
            timestamp_ms: 1_700_000_000_000,
            value_bits: round as u64,
        };
        writer
            .append(&refs.iter().map(sample).collect::<Vec<_>>(), &[])
            .unwrap();
    }
    store.close();
    committer.join().unwrap();
    let mut group = c.benchmark_group("tail");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    let mut samples = Vec::new();
    group.bench_function("100k samples out of the log", |b| {
        b.iter(|| {
            let mut tail = endpoint.tail();
            let mut count = 0;
            while let Some(frame) = tail.next().unwrap() {
                samples.clear();
                frame.samples(&mut samples).unwrap();
                count += samples.len();
            }
            assert_eq!(count, refs.len());
        });
    });
    group.finish();
}

fn series(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (store, committer) = open(&dir);
    let mut group = c.benchmark_group("series");
    group.throughput(Throughput::Elements(PER_REQUEST as u64));
    let mut next = 0;
    group.bench_function("define 2000 new", |b| {
        b.iter(|| {
            let end = next + u32::try_from(PER_REQUEST).unwrap();
            define(&store, next..end);
            next = end;
        });
    });
    let known: Vec<_> = (0..u32::try_from(PER_REQUEST).unwrap())
        .map(labels)
        .collect();
    group.bench_function("find 2000 known", |b| {
        let table = store.series();
        b.iter(|| {
            known
                .iter()
                .filter(|l| table.guard().find(table.hash(l), l).is_some())
                .count()
        });
    });
    group.finish();
    store.close();
    committer.join().unwrap();
}

criterion_group!(benches, append, tail, series);
criterion_main!(benches);
