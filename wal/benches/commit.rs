//! What it takes until one appended request is durable: by engine, and by what the file was before.
//!
//! The wall time is the latency; the CPU time of this process per commit, kernel workers included, is printed
//! behind each row.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench"
)]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use wal::{
    Endpoint, IoEngine, NewSeries, Sample, SeriesRef, Store, StoreOptions, Tail, Tally, Writer,
};

const PER_REQUEST: u32 = 2000;

/// One request after the other, on the thread that commits where that is io_uring.
struct Line {
    store: Store,
    writer: Writer,
    samples: Vec<Sample>,
    delivered: Option<(Endpoint, Tail)>,
}

impl Line {
    /// With an endpoint that has everything at once, files are used again.
    fn new(store: Store, recycles: bool) -> Self {
        let delivered = recycles.then(|| {
            let endpoint = store.endpoint("one").unwrap();
            let tail = endpoint.tail();
            (endpoint, tail)
        });
        if !recycles {
            // Away, so that nothing is reclaimed.
            drop(store.endpoint("away").unwrap());
        }
        store.endpoints_complete();
        let samples = define(&store);
        Self {
            writer: store.writer().unwrap(),
            store,
            samples,
            delivered,
        }
    }

    async fn commit(&mut self) {
        for sample in &mut self.samples {
            sample.timestamp_ms += 15_000;
            sample.value_bits = sample.value_bits.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let end = self.writer.append(&self.samples, &[]).unwrap();
        self.store.durable().reached(end).await.unwrap();
        if let Some((endpoint, tail)) = &mut self.delivered {
            while tail.next().unwrap().is_some() {}
            let mark = tail.mark();
            let delivered = mark.records - endpoint.mark().records;
            endpoint.ack(mark, Tally::of_delivered(delivered));
        }
    }
}

fn define(store: &Store) -> Vec<Sample> {
    let table = store.series();
    let labels: Vec<_> = (0..PER_REQUEST).map(|n| n.to_le_bytes()).collect();
    let mut new: Vec<_> = labels
        .iter()
        .map(|labels| NewSeries {
            hash: table.hash(labels),
            labels,
            series: SeriesRef::NONE,
        })
        .collect();
    table.guard().define(&mut new).unwrap();
    let sample = |(at, new): (u64, &NewSeries<'_>)| Sample {
        series: new.series,
        timestamp_ms: 1_700_000_000_000,
        value_bits: 2 * at + 1,
    };
    (0..).zip(&new).map(sample).collect()
}

/// User and system time of this process: hundredths of a second, fields 14 and 15 of its `stat`.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    let fields = behind_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn commit(c: &mut Criterion) {
    let uring = tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap();
    let thread = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut group = c.benchmark_group("commit");
    group.sample_size(20);
    for engine in [IoEngine::Uring, IoEngine::Portable] {
        for recycles in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let options = StoreOptions {
                // So that all files there are were written to before it is measured.
                segment_bytes: 4 << 20,
                ring_bytes: 4 << 20,
                ..StoreOptions::default()
            };
            let store = Store::open(dir.path(), options).unwrap();
            let mut line = Line::new(store.clone(), recycles);
            let committer = store.committer().unwrap();
            let file = if recycles { "used again" } else { "new" };
            let name = format!("{engine:?}, {file}");
            let mut commits = 0_u32;
            let mut began = Duration::ZERO;
            let mut run = |one: &mut dyn FnMut(&mut Line)| {
                for _ in 0..2000 {
                    one(&mut line);
                }
                began = cpu();
                group.bench_function(name.as_str(), |b| {
                    b.iter(|| {
                        commits += 1;
                        one(&mut line);
                    });
                });
            };
            if engine == IoEngine::Uring {
                uring.block_on(async { drop(tokio_uring::spawn(committer.run_uring())) });
                run(&mut |line| uring.block_on(line.commit()));
            } else {
                drop(committer.spawn_thread().unwrap());
                run(&mut |line| thread.block_on(line.commit()));
            }
            let spent = cpu() - began;
            println!("{name}: {:?} of CPU time a commit", spent / commits.max(1));
            drop(line);
            if engine == IoEngine::Uring {
                // Its task ends with the next turn of the runtime.
                let ending = store.clone();
                std::thread::scope(|scope| {
                    let end = scope.spawn(move || ending.close());
                    uring.block_on(async { store.durable().ended().await });
                    end.join().unwrap();
                });
            } else {
                store.close();
            }
        }
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
