//! Turns many connections, several stores, and stops at bad moments into verdicts on the shards.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::*;
use ingest::{Error, Path, ReceiverOptions, Shards, ShardsOptions};
use wal::{IoEngine, Store, StoreOptions, SystemClock};

#[test]
fn concurrent_connections_lose_and_mix_up_nothing() {
    for engine in engines() {
        let running = Setup::new(engine).start();
        std::thread::scope(|scope| {
            for sender in 0..8i32 {
                let running = &running;
                scope.spawn(move || {
                    let mut client = running.connect();
                    let sender = sender.to_string();
                    for round in 0..30i32 {
                        // Half of the series are everybody's, half only this sender's.
                        let all = (0..40).map(|at| {
                            let who = if at % 2 == 0 { "all" } else { &sender };
                            let labels =
                                [("__name__", "up"), ("at", &*format!("{at}")), ("by", who)];
                            series(&labels, f64::from(at), i64::from(round))
                        });
                        assert_eq!(client.post(&compressed(all.collect())).status, 204);
                    }
                });
            }
        });
        let marks = running.stores[0].watermarks();
        assert_eq!(marks.durable, marks.appended);
        assert_eq!(running.stores[0].series().len(), 20 + 8 * 20);
        let mut seen: HashMap<(Vec<u8>, i64), usize> = HashMap::new();
        for (labels, time, value) in stored(&running.stores[0]) {
            let at = format!(
                "at\x12{}{value}",
                if value < 10.0 { '\x01' } else { '\x02' }
            );
            let found = labels
                .windows(at.len())
                .any(|window| window == at.as_bytes());
            assert!(found, "a value of another series: {value}");
            *seen.entry((labels, time)).or_default() += 1;
        }
        assert_eq!(seen.len(), (20 + 8 * 20) * 30);
        assert!(seen.values().all(|times| *times == 1 || *times == 8));
        running.stop();
    }
}

#[test]
fn a_receiver_of_two_stores_answers_when_both_are_durable() {
    for engine in engines() {
        let mut setup = Setup::new(engine);
        setup.stores = 2;
        setup.receiver.paths = vec![Path::plain(1), Path::plain(0)];
        let running = setup.start();
        assert_eq!(running.connect().post(&body("up", 1.0)).status, 204);
        for store in &running.stores {
            let marks = store.watermarks();
            assert_eq!(marks.durable, marks.appended);
            assert_eq!(stored(store).len(), 1);
        }
        assert_eq!(running.snapshot().samples, 1);
        running.stop();
    }
}

#[test]
fn a_receiver_without_store_checks_counts_and_drops() {
    for engine in engines() {
        let mut setup = Setup::new(engine);
        setup.receiver.paths = vec![];
        let running = setup.start();
        let mut client = running.connect();
        assert_eq!(client.post(&body("up", 1.0)).status, 204);
        let nameless = compressed(vec![series(&[("a", "b")], 1.0, 1)]);
        assert_eq!(client.post(&nameless).status, 400);
        let numbers = running.snapshot();
        assert_eq!((numbers.samples, numbers.dropped_items), (1, 1));
        assert_eq!(stored(&running.stores[0]), vec![]);
        running.stop();
    }
}

/// Whatever the system thinks of their ports.
#[test]
fn connections_are_spread_evenly_over_the_shards() {
    for engine in engines() {
        let running = Setup::new(engine).start();
        let open = |running: &Running| -> Vec<u64> {
            let stats = &running.shards.stats()["front"];
            stats.by_shard().map(|(open, _)| open).collect()
        };
        let mut clients: Vec<Client> = Vec::new();
        for count in 1..=12 {
            // One after the other: shards that accept at the same moment may choose the same.
            let mut client = running.connect();
            assert_eq!(client.post(&body("up", 1.0)).status, 204);
            clients.push(client);
            assert_eq!(open(&running).iter().sum::<u64>(), count);
        }
        assert_eq!(open(&running), [6, 6]);
        let samples: Vec<u64> = (running.shards.stats()["front"].by_shard())
            .map(|(_, samples)| samples)
            .collect();
        assert_eq!(samples, [6, 6]);
        drop(clients);
        running.until(|numbers| numbers.connections_open == 0);
        while open(&running) != [0, 0] {
            std::thread::yield_now();
        }
        running.stop();
    }
}

#[test]
fn stopping_lets_a_request_in_flight_finish_and_closes_idle_connections() {
    for engine in engines() {
        let running = Setup::new(engine).start();
        let request = post(&body("up", 1.0));
        let mut idle = running.connect();
        assert_eq!(idle.post(&body("up", 1.0)).status, 204);
        let mut busy = running.connect();
        busy.send(&request[..request.len() - 1]);
        running.until(|numbers| numbers.in_flight_bytes > 0);
        std::thread::scope(|scope| {
            let stopping = scope.spawn(|| running.shards.stop_accepting());
            assert!(idle.is_closed());
            busy.send(&request[request.len() - 1..]);
            let reply = busy.reply();
            assert_eq!(reply.status, 204);
            assert!(busy.is_closed());
            stopping.join().unwrap();
        });
        assert_eq!(stored(&running.stores[0]).len(), 2);
        running.stop();
    }
}

#[test]
fn stopping_closes_a_request_that_outlasts_the_grace() {
    for engine in engines() {
        let mut setup = Setup::new(engine);
        setup.grace = Duration::from_millis(30);
        let running = setup.start();
        let request = post(&body("up", 1.0));
        let mut busy = running.connect();
        busy.send(&request[..request.len() - 1]);
        running.until(|numbers| numbers.in_flight_bytes > 0);
        running.shards.stop_accepting();
        assert!(busy.is_closed());
        let cut_off = ingest::STATUS_CODES
            .iter()
            .position(|code| *code == ingest::CUT_OFF);
        assert_eq!(running.snapshot().requests[cut_off.unwrap()], 1);
        running.stop();
    }
}

#[test]
fn a_taken_address_fails_the_start() {
    let running = Setup::new(IoEngine::Portable).start();
    let address = running.shards.addresses()["front"];
    let options = ShardsOptions {
        threads: 1,
        scrape_threads: 1,
        scrape_seed: 0,
        inherited: [].into(),
        engine: IoEngine::Portable,
        shutdown_grace: Duration::ZERO,
        clock: SystemClock::shared(),
    };
    let receiver = ReceiverOptions::new("second", address, vec![]);
    let error = Shards::start(&options, layout(&[], vec![receiver])).unwrap_err();
    assert!(error.is_address_taken());
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    running.stop();
}

#[test]
fn settings_that_make_no_sense_fail_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let local = ([127, 0, 0, 1], 0).into();
    for (threads, to) in [(0, vec![0]), (1, vec![1])] {
        let options = ShardsOptions {
            threads,
            scrape_threads: 1,
            scrape_seed: 0,
            inherited: [].into(),
            engine: IoEngine::Portable,
            shutdown_grace: Duration::ZERO,
            clock: SystemClock::shared(),
        };
        let receivers = vec![ReceiverOptions::new("r", local, to)];
        let layout = layout(std::slice::from_ref(&store), receivers);
        let error = Shards::start(&options, layout).unwrap_err();
        assert!(matches!(error, Error::Options(_)), "{error}");
    }
    store.close();
}
