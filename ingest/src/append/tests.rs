//! Turns requests that come again and again into the number of allocations they take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use labels::relabel::{Action, RuleOptions};
use prost::Message as _;
use wal::{Store, StoreOptions};

use super::*;
use crate::Line;
use crate::options::{Path, ReceiverOptions};
use crate::paths::Stage;
use crate::proto::{self, v2};

const SERIES: usize = 500;
const REQUESTS: usize = 100;

fn timeseries(at: usize, round: i64) -> proto::TimeSeries {
    let label = |name: &str, value: String| proto::Label {
        name: name.to_owned(),
        value,
    };
    proto::TimeSeries {
        labels: vec![
            label("__name__", format!("metric_{}", at % 50)),
            label("instance", format!("10.0.0.{}:9100", at / 50)),
            label("job", "node".to_owned()),
        ],
        samples: vec![proto::Sample {
            value: 1.5,
            timestamp: 1_700_000_000_000 + round * 15_000,
        }],
        ..proto::TimeSeries::default()
    }
}

fn compressed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

fn v1(round: i64, is_sorted: bool) -> Vec<u8> {
    let mut all: Vec<_> = (0..SERIES).map(|at| timeseries(at, round)).collect();
    if !is_sorted {
        all.iter_mut().for_each(|series| series.labels.reverse());
    }
    let request = proto::WriteRequest {
        timeseries: all,
        metadata: vec![],
    };
    compressed(&request.encode_to_vec())
}

fn v2(round: i64) -> Vec<u8> {
    let mut symbols = vec![vec![]];
    let mut number = |text: &str| {
        let found = symbols.iter().position(|symbol| symbol == text.as_bytes());
        let at = found.unwrap_or_else(|| {
            symbols.push(text.as_bytes().to_vec());
            symbols.len() - 1
        });
        u32::try_from(at).unwrap()
    };
    let timeseries = (0..SERIES).map(|at| {
        let series = timeseries(at, round);
        let refs = series.labels.iter();
        v2::TimeSeries {
            labels_refs: refs
                .flat_map(|label| [number(&label.name), number(&label.value)])
                .collect(),
            samples: vec![v2::Sample {
                value_bits: 1.5_f64.to_bits(),
                timestamp: series.samples[0].timestamp,
                start_timestamp: 0,
            }],
            ..v2::TimeSeries::default()
        }
    });
    let timeseries = timeseries.collect();
    let request = v2::Request {
        symbols,
        timeseries,
    };
    compressed(&request.encode_to_vec())
}

/// Blocks allocated for so many requests after some that taught everything.
fn blocks(paths: Vec<Path>, message: Message, body: impl Fn(i64) -> Vec<u8>) -> u64 {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores = dirs.each_ref().map(|dir| {
        let options = StoreOptions {
            segment_bytes: 8 << 20,
            ring_bytes: 32 << 20,
            series_chunk_bytes: 1 << 20,
            ..StoreOptions::default()
        };
        Store::open(dir.path(), options).unwrap()
    });
    let mut receiver = ReceiverOptions::new("r", SocketAddr::from(([127, 0, 0, 1], 0)), vec![]);
    receiver.paths = paths;
    let mut line = Line::new(&stores, &receiver).unwrap();
    let bodies: Vec<_> = (0..8).map(body).collect();
    let (first, rest) = bodies.split_at(4);
    for body in first {
        assert_eq!(line.append(body, message).unwrap().1, SERIES);
    }
    let profiler = dhat::Profiler::builder().testing().build();
    for body in rest.iter().cycle().take(REQUESTS) {
        line.append(body, message).unwrap();
    }
    let blocks = dhat::HeapStats::get().total_blocks;
    drop(profiler);
    blocks
}

fn stage() -> Arc<Stage> {
    let rule = RuleOptions {
        action: Action::Drop,
        source_labels: vec!["__name__".to_owned()],
        regex: "metric_[0-3]".to_owned(),
        ..RuleOptions::default()
    };
    let rules = vec![rule.build().unwrap()];
    Arc::new(Stage::new("s", rules, 1000, Duration::ZERO))
}

#[test]
fn what_comes_again_allocates_nothing() {
    let plain = || vec![Path::plain(0)];
    let relabeled = |store| Path {
        store,
        stages: vec![stage()],
    };
    let v1_sorted = |round| v1(round, true);
    for (what, blocks) in [
        ("in order", blocks(plain(), Message::V1, v1_sorted)),
        ("2.0", blocks(plain(), Message::V2, v2)),
        (
            "unsorted",
            blocks(plain(), Message::V1, |round| v1(round, false)),
        ),
        (
            "to two writers",
            blocks(vec![Path::plain(0), Path::plain(1)], Message::V1, v1_sorted),
        ),
        (
            "relabeled",
            blocks(vec![relabeled(0), relabeled(1)], Message::V1, v1_sorted),
        ),
    ] {
        // The store's own threads may allocate; one for each request would be too many.
        assert!(
            blocks < REQUESTS as u64 / 2,
            "{blocks} allocations for {REQUESTS} requests of {SERIES} series, {what}"
        );
    }
}
