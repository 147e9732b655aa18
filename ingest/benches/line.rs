//! What does a sample cost from compressed bytes to its place in the log, on each of the ways it may go?
//!
//! 100k Kubernetes-like series of 11 labels, one sample each, 2000 series per request; a committer syncs
//! beside it. `cargo bench -p ingest --bench line` prints nanoseconds of the appending thread. Instructions
//! per sample without decompression: `valgrind --tool=callgrind --toggle-collect='*append_body*' BINARY CASE
//! ROUNDS` twice with different rounds, and the difference by that of the samples: the first rounds, in
//! which everything is new, are in both.

#![allow(missing_docs, reason = "a bench")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

mod fleet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ingest::proto::{Sample, TimeSeries, WriteRequest, v2};
use ingest::{Line, Message, Path, ReceiverOptions, Stage};
use labels::relabel::{Action, RuleOptions};
use prost::Message as _;
use wal::{Store, StoreOptions};

const SERIES: usize = 100_000;
const PER_REQUEST: usize = 2_000;
const START_MS: i64 = 1_760_000_000_000;
const WARM_UP: i64 = 3;
const ROUNDS: i64 = 20;
/// Most requests whose samples are not yet durable.
const IN_FLIGHT: usize = 8;

const CASES: [&str; 8] = [
    "rw1",
    "rw1-unsorted",
    "rw1-shuffled",
    "rw2",
    "relabel-keep",
    "relabel-change",
    "relabel-drop",
    "two-writers",
];

/// The requests of a round as `case` sends them.
fn requests(case: &str, round: i64) -> Vec<Vec<u8>> {
    let mut targets: Vec<usize> = (0..SERIES / 100).collect();
    if case == "rw1-shuffled" {
        fastrand::Rng::with_seed(round.cast_unsigned()).shuffle(&mut targets);
    }
    let order: Vec<usize> = (targets.iter())
        .flat_map(|target| target * 100..(target + 1) * 100)
        .collect();
    let timestamp = START_MS + round * 15_000;
    let compress = |message: &[u8]| snap::raw::Encoder::new().compress_vec(message).unwrap();
    let of = |places: &[usize]| {
        if case == "rw2" {
            return compress(&second(places, timestamp).encode_to_vec());
        }
        let series = places.iter().map(|&at| {
            let mut labels = fleet::labels(at);
            if case == "rw1-unsorted" {
                labels.reverse();
            }
            let value = at as f64 * 1.5 + round as f64;
            TimeSeries {
                labels,
                samples: vec![Sample { value, timestamp }],
                ..TimeSeries::default()
            }
        });
        let request = WriteRequest {
            timeseries: series.collect(),
            metadata: vec![],
        };
        compress(&request.encode_to_vec())
    };
    order.chunks(PER_REQUEST).map(of).collect()
}

/// A request of remote write 2.0.
fn second(places: &[usize], timestamp: i64) -> v2::Request {
    let mut symbols: Vec<Vec<u8>> = vec![vec![]];
    let mut known = std::collections::HashMap::new();
    let mut number = |text: String| {
        *known.entry(text.clone()).or_insert_with(|| {
            symbols.push(text.into_bytes());
            u32::try_from(symbols.len() - 1).unwrap()
        })
    };
    let series = places.iter().map(|&at| v2::TimeSeries {
        labels_refs: fleet::labels(at)
            .into_iter()
            .flat_map(|label| [number(label.name), number(label.value)])
            .collect(),
        samples: vec![v2::Sample {
            value_bits: (at as f64 * 1.5).to_bits(),
            timestamp,
            start_timestamp: 0,
        }],
        ..v2::TimeSeries::default()
    });
    let timeseries = series.collect();
    v2::Request {
        symbols,
        timeseries,
    }
}

fn stage(action: Action, regex: &str, target: &str) -> Arc<Stage> {
    let rule = RuleOptions {
        action,
        source_labels: vec!["__name__".to_owned()],
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        ..RuleOptions::default()
    };
    let rules = vec![rule.build().unwrap()];
    Arc::new(Stage::new("s", rules, 2 * SERIES, Duration::ZERO))
}

fn paths(case: &str) -> Vec<Path> {
    let through = |stage| {
        vec![Path {
            store: 0,
            stages: vec![stage],
        }]
    };
    match case {
        "relabel-keep" => through(stage(Action::Drop, "nothing", "")),
        "relabel-change" => through(stage(Action::Replace, ".*_([0-9]+)", "metric")),
        "relabel-drop" => through(stage(Action::Drop, ".*[1-9]", "")),
        "two-writers" => vec![Path::plain(0), Path::plain(1)],
        _ => vec![Path::plain(0)],
    }
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

/// Nanoseconds of CPU per sample of so many threads on one store, each with its part of the targets and
/// all at a time: what sharing the series table, the ring and the log costs.
fn measure_threads(threads: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let committing = store.committer().unwrap().spawn_thread().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let receiver = ReceiverOptions::new("r", address, vec![0]);
    let start = std::sync::Barrier::new(threads);
    let part = &|thread: usize| {
        let mut line = Line::new(std::slice::from_ref(&store), &receiver).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut durable = store.durable();
        let (mut cpu, mut samples) = (Duration::ZERO, 0);
        for round in 0..WARM_UP + ROUNDS {
            let bodies = requests("rw1", round);
            let own: Vec<_> = bodies.iter().skip(thread).step_by(threads).collect();
            start.wait();
            let before = thread_cpu();
            let mut in_flight = std::collections::VecDeque::new();
            for body in own {
                let (positions, count) = line.append(body, Message::V1).unwrap();
                in_flight.push_back(positions[0]);
                samples += if round >= WARM_UP { count } else { 0 };
                if in_flight.len() > IN_FLIGHT
                    && let Some(position) = in_flight.pop_front()
                {
                    runtime.block_on(durable.reached(position)).unwrap();
                }
            }
            if round >= WARM_UP {
                cpu += thread_cpu() - before;
            }
        }
        cpu.as_secs_f64() * 1e9 / samples as f64
    };
    let nanos: Vec<f64> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || part(thread)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    store.close();
    committing.join().unwrap();
    nanos.iter().sum::<f64>() / nanos.len() as f64
}

/// CPU time of the appending thread and samples appended, after the warm-up.
fn measure(case: &str, rounds: i64) -> (Duration, usize) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores = dirs
        .each_ref()
        .map(|dir| Store::open(dir.path(), StoreOptions::default()).unwrap());
    let committing = stores
        .each_ref()
        .map(|store| store.committer().unwrap().spawn_thread().unwrap());
    let mut receiver = ReceiverOptions::new("r", SocketAddr::from(([127, 0, 0, 1], 0)), vec![]);
    receiver.paths = paths(case);
    let message = if case == "rw2" {
        Message::V2
    } else {
        Message::V1
    };
    let mut line = Line::new(&stores, &receiver).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut durables = stores.each_ref().map(Store::durable);
    let mut in_flight = std::collections::VecDeque::new();
    let (mut cpu, mut samples) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let bodies = requests(case, round);
        let start = thread_cpu();
        for body in &bodies {
            let (positions, count) = line.append(body, message).unwrap();
            if round >= WARM_UP {
                samples += count;
            }
            in_flight.push_back(positions.to_vec());
            if in_flight.len() > IN_FLIGHT
                && let Some(positions) = in_flight.pop_front()
            {
                for (durable, position) in durables.iter_mut().zip(positions) {
                    runtime.block_on(durable.reached(position)).unwrap();
                }
            }
        }
        if round >= WARM_UP {
            cpu += thread_cpu() - start;
        }
    }
    drop(line);
    for (store, thread) in stores.iter().zip(committing) {
        store.close();
        thread.join().unwrap();
    }
    (cpu, samples)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [case, rounds] = &arguments[..]
        && let Ok(rounds) = rounds.parse::<i64>()
    {
        measure(case, rounds);
        println!("{case}: {} samples", rounds * SERIES as i64);
        return;
    }
    let chosen = arguments.iter().find(|one| !one.starts_with('-'));
    for case in CASES {
        if chosen.is_none_or(|chosen| case.contains(chosen.as_str())) {
            let (cpu, samples) = measure(case, ROUNDS + WARM_UP);
            let nanos = cpu.as_secs_f64() * 1e9 / samples as f64;
            println!("{case:16} {nanos:6.1} ns per sample");
        }
    }
    for threads in [1, 2] {
        let case = format!("rw1-{threads}-threads");
        if chosen.is_none_or(|chosen| case.contains(chosen.as_str())) {
            let nanos = measure_threads(threads);
            println!("{case:16} {nanos:6.1} ns per sample of each");
        }
    }
}
