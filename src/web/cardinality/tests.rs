//! Series with known labels, counted.

use labels::wire::put_bytes;
use wal::{NewSeries, StoreOptions};

use super::*;

/// Canonical bytes of labels that are sorted.
fn encoded(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put_bytes(&mut label, 0x0a, name.as_bytes());
        put_bytes(&mut label, 0x12, value.as_bytes());
        put_bytes(&mut all, 0x0a, &label);
    }
    all
}

fn open(dir: &std::path::Path) -> Store {
    let options = StoreOptions {
        manual: true,
        ..StoreOptions::default()
    };
    Store::open(dir, options).unwrap()
}

fn define(store: &Store, all: &[Vec<u8>]) {
    let table = store.series();
    let mut new: Vec<NewSeries<'_>> = all
        .iter()
        .map(|labels| NewSeries {
            hash: table.hash(labels),
            labels,
            series: SeriesRef::NONE,
        })
        .collect();
    table.guard().define(&mut new).unwrap();
}

#[test]
fn metrics_labels_and_pairs_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all: Vec<Vec<u8>> = (0..100)
        .map(|n| {
            let metric = if n < 70 { "up" } else { "down" };
            let (pod, zone) = (format!("p{n}"), format!("z{}", n % 3));
            encoded(&[("__name__", metric), ("pod", &pod), ("zone", &zone)])
        })
        .collect();
    define(&store, &all);
    let told = count(store.series(), 5000).told(2);
    assert_eq!(
        told,
        json!({
            "series": 100,
            "takenAt": 5.0,
            "metrics": [{"name": "up", "series": 70}, {"name": "down", "series": 30}],
            "labels": [
                {"name": "pod", "values": 100, "series": 100},
                {"name": "zone", "values": 3, "series": 100},
            ],
            "pairs": [
                {"name": "zone", "value": "z0", "series": 34},
                {"name": "zone", "value": "z1", "series": 33},
            ],
            "isApproximate": false,
        })
    );
    store.close();
}

#[tokio::test]
async fn a_walk_is_told_for_a_while_and_then_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let clock = Arc::new(Hand::default());
    let shared: SharedClock = clock.clone();
    let walks = Walks::default();
    let series = async || walks.of("a", &store, &shared).await.unwrap().series;
    assert_eq!(series().await, 0);
    define(&store, &[encoded(&[("__name__", "up")])]);
    clock.advance(29);
    assert_eq!(series().await, 0);
    clock.advance(1);
    assert_eq!(series().await, 1);
    store.close();
}

/// A clock that a test turns.
#[derive(Debug, Default)]
struct Hand(std::sync::atomic::AtomicU64);

impl Hand {
    fn advance(&self, seconds: u64) {
        self.0
            .fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
    }
}

impl wal::Clock for Hand {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn unix_ms(&self) -> i64 {
        0
    }
}
