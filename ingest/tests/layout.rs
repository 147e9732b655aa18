//! Turns layouts that change under senders that do not stop into verdicts: nothing refused, nothing closed,
//! every sample where the layout it was sent under says, or the next.

mod live;
mod moves;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use ingest::{Applied, Layout, Path, ReceiverOptions, Shards, ShardsOptions, Stage};
use labels::relabel::{Action, RuleOptions};
use wal::{IoEngine, Store, StoreOptions, SystemClock};

/// Shards whose layout the test changes.
struct World {
    shards: Shards,
    dir: tempfile::TempDir,
}

impl World {
    fn new(
        engine: IoEngine,
        threads: usize,
        grace: Duration,
        layout: impl FnOnce(&std::path::Path) -> Layout,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = ShardsOptions {
            threads,
            scrape_threads: 1,
            scrape_seed: 0,
            inherited: [].into(),
            engine,
            shutdown_grace: grace,
            clock: SystemClock::shared(),
        };
        let shards = Shards::start(&options, layout(dir.path())).unwrap();
        Self { shards, dir }
    }

    /// Applies a layout of which nothing fails.
    fn apply(&self, layout: Layout) {
        let Applied { failed } = self.shards.apply(layout).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
    }

    fn store(&self, name: &str) -> Store {
        open(self.dir.path(), name, |_| {})
    }

    fn address(&self, receiver: &str) -> SocketAddr {
        self.shards.addresses()[receiver]
    }

    fn connect(&self, receiver: &str) -> Client {
        Client::new(self.address(receiver))
    }

    fn snapshot(&self, receiver: &str) -> ingest::Snapshot {
        self.shards.stats()[receiver].snapshot()
    }

    fn stop(self, stores: &[&Store]) {
        self.shards.stop_accepting();
        for store in stores {
            store.close();
        }
        self.shards.join().unwrap();
    }
}

const GRACE: Duration = Duration::from_secs(20);

fn open(dir: &std::path::Path, name: &str, change: impl FnOnce(&mut StoreOptions)) -> Store {
    let mut options = Setup::new(IoEngine::Portable).store;
    change(&mut options);
    let store = Store::open(&dir.join(name), options).unwrap();
    store.endpoint("reader").unwrap();
    store
}

/// One store, and a receiver that forwards to it.
fn one(engine: IoEngine, grace: Duration) -> (World, Store) {
    let mut first = None;
    let world = World::new(engine, 2, grace, |dir| {
        let store = open(dir, "first", |_| {});
        first = Some(store.clone());
        named(&[("first", &store)], vec![front(vec![Path::plain(0)])])
    });
    (world, first.unwrap())
}

fn named(stores: &[(&str, &Store)], receivers: Vec<ReceiverOptions>) -> Layout {
    let stores = stores.iter();
    Layout {
        stores: stores
            .map(|(id, s)| ((*id).to_owned(), (*s).clone()))
            .collect(),
        receivers,
        scrapers: Vec::new(),
    }
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn receiver(name: &str, paths: Vec<Path>) -> ReceiverOptions {
    let mut receiver = ReceiverOptions::new(name, local(), vec![]);
    receiver.paths = paths;
    receiver.read_timeout = GRACE;
    receiver
}

fn front(paths: Vec<Path>) -> ReceiverOptions {
    receiver("front", paths)
}

fn rules(action: Action, regex: &str, target: &str) -> Vec<labels::relabel::Rule> {
    let rule = RuleOptions {
        action,
        source_labels: vec!["__name__".to_owned()],
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        ..RuleOptions::default()
    };
    vec![rule.build().unwrap()]
}

fn dropping(regex: &str) -> Arc<Stage> {
    let rules = rules(Action::Drop, regex, "");
    Arc::new(Stage::new("stage", rules, 1000, Duration::ZERO))
}

fn through(store: usize, stage: &Arc<Stage>) -> Path {
    Path {
        store,
        stages: vec![stage.clone()],
    }
}

fn values(store: &Store) -> Vec<f64> {
    let all = stored(store).into_iter();
    all.map(|(_, _, value)| value).collect()
}

/// Waits until it is so.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}
