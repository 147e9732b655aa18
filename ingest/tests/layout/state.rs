//! Turns changes of a layout into what is kept over them: caches, counters, tenants, limits, who listens.

use std::sync::atomic::Ordering;

use super::*;
use ingest::{Tap, TenantLimits, TenantsOptions};

fn lines(stream: &mut tokio::sync::mpsc::Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| stream.try_recv().ok()).collect()
}

/// On one thread, so that what is remembered is used again.
fn alone(paths: impl FnOnce() -> Vec<Path>) -> (World, Store) {
    let mut first = None;
    let world = World::new(IoEngine::Portable, 1, GRACE, |dir| {
        let store = open(dir, "first", |_| {});
        first = Some(store.clone());
        named(&[("first", &store)], vec![front(paths())])
    });
    (world, first.unwrap())
}

#[test]
fn what_is_known_of_series_stays_unless_the_ways_change() {
    let stage = dropping("nothing");
    let (world, first) = alone(|| vec![through(0, &stage)]);
    let mut client = world.connect("front");
    let counts = |stage: &Stage| {
        let stats = stage.stats();
        [&stats.processed, &stats.misses, &stats.size].map(|one| one.load(Ordering::Relaxed))
    };
    let mut send = || assert_eq!(client.post(&body("up", 1.0)).status, 204);
    send();
    send();
    assert_eq!(counts(&stage), [2, 1, 1]);
    // Other stores and settings, the same ways: at another place in the list, too.
    let other = world.store("other");
    let mut receiver = front(vec![through(1, &stage)]);
    receiver.series_max = 10;
    world.apply(named(
        &[("other", &other), ("first", &first)],
        vec![receiver],
    ));
    send();
    assert_eq!(counts(&stage), [3, 1, 1]);
    // Other rules: the counters go on, what was known is of no use.
    let next = Arc::new(stage.with_rules(rules(Action::Drop, "up", ""), 10, GRACE));
    let receiver = front(vec![through(0, &next)]);
    world.apply(named(&[("first", &first)], vec![receiver]));
    assert_eq!(counts(&next), [3, 1, 0], "nothing is kept");
    send();
    assert_eq!(counts(&next), [4, 2, 1]);
    assert_eq!(counts(&stage), counts(&next));
    assert_eq!(values(&first).len(), 3);
    other.close();
    world.stop(&[&first]);
}

#[test]
fn limits_hold_from_the_next_request_on() {
    let (world, first) = one(IoEngine::Portable, GRACE);
    let mut client = world.connect("front");
    let two = || {
        compressed(
            ["a", "b"]
                .map(|name| series(&[("__name__", name)], 1.0, 1))
                .into(),
        )
    };
    let mut answer_under = |change: &dyn Fn(&mut ReceiverOptions)| {
        let mut receiver = front(vec![Path::plain(0)]);
        change(&mut receiver);
        world.apply(named(&[("first", &first)], vec![receiver]));
        client.post(&two()).status
    };
    assert_eq!(answer_under(&|_| {}), 204);
    assert_eq!(answer_under(&|receiver| receiver.series_max = 1), 400);
    assert_eq!(answer_under(&|receiver| receiver.body_bytes_max = 10), 413);
    assert_eq!(
        answer_under(&|receiver| receiver.messages = vec![ingest::Message::V2]),
        415
    );
    assert_eq!(answer_under(&|_| {}), 204);
    // A connection more than there may be.
    let mut receiver = front(vec![Path::plain(0)]);
    receiver.connections_max = 1;
    world.apply(named(&[("first", &first)], vec![receiver]));
    assert!(world.connect("front").is_closed());
    assert_eq!(world.snapshot("front").connections_refused, 1);
    // Credentials that the open connection never showed.
    assert_eq!(client.post(&two()).status, 204);
    let mut receiver = front(vec![Path::plain(0)]);
    receiver.auth = Some(ingest::secure::AuthOptions {
        bearer_tokens: vec!["token".into()],
        ..ingest::secure::AuthOptions::default()
    });
    world.apply(named(&[("first", &first)], vec![receiver]));
    assert_eq!(client.post(&two()).status, 401);
    world.stop(&[&first]);
}

#[test]
fn tenants_keep_their_series_unless_their_options_change() {
    let options = |series_max| TenantsOptions {
        limits: TenantLimits {
            series_max,
            ..TenantLimits::default()
        },
        ..TenantsOptions::default()
    };
    let (world, first) = one(IoEngine::Portable, GRACE);
    let second = world.store("second");
    let both = [("second", &second), ("first", &first)];
    let apply = |stores: &[(&str, &Store)], paths, series_max| {
        let mut receiver = front(paths);
        receiver.tenants = Some(options(series_max));
        world.apply(named(stores, vec![receiver]));
    };
    let active = || {
        let tenants = world.shards.stats()["front"].tenants().unwrap();
        let all = tenants.snapshot(Duration::ZERO);
        all.first()
            .map_or((0, 0), |one| (one.active_series, one.samples))
    };
    let mut client = world.connect("front");
    let mut send = |name: &str| client.post(&body(name, 1.0)).status;
    apply(&[("first", &first)], vec![Path::plain(0)], 2);
    assert_eq!([send("a"), send("b"), send("c")], [204, 204, 400]);
    assert_eq!(active(), (2, 2));
    // Another way: what is known of the first stays with it.
    apply(&both, vec![Path::plain(0), Path::plain(1)], 2);
    assert_eq!(active(), (2, 2));
    apply(&both, vec![Path::plain(1), Path::plain(0)], 2);
    assert_eq!([send("a"), send("c")], [204, 400]);
    assert_eq!(active(), (2, 3));
    // The other way alone has seen one at most.
    apply(&both, vec![Path::plain(0)], 2);
    assert_eq!([send("c"), send("d"), send("e")], [204, 204, 400]);
    apply(&both, vec![Path::plain(0)], 3);
    assert_eq!(active(), (0, 0), "they begin anew");
    assert_eq!(
        [send("c"), send("d"), send("e"), send("f")],
        [204, 204, 204, 400]
    );
    world.apply(named(&both, vec![front(vec![Path::plain(0)])]));
    assert!(world.shards.stats()["front"].tenants().is_none());
    assert_eq!(send("f"), 204);
    second.close();
    world.stop(&[&first]);
}

#[test]
fn metadata_is_written_to_a_store_that_is_new() {
    use ingest::proto::v2;
    use prost::Message as _;
    let (world, first) = alone(|| vec![Path::plain(0)]);
    let second = world.store("second");
    let request = v2::Request {
        symbols: ["", "__name__", "up", "help"]
            .map(|s| s.as_bytes().to_vec())
            .into(),
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2],
            samples: vec![v2::Sample {
                value_bits: 1,
                timestamp: 1,
                start_timestamp: 0,
            }],
            metadata: Some(v2::Metadata {
                r#type: 1,
                help_ref: 3,
                unit_ref: 0,
            }),
            ..v2::TimeSeries::default()
        }],
    };
    let message = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap();
    let headers = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    let mut client = world.connect("front");
    let mut send = || {
        client.send(&with_head("POST /api/v1/write", headers, &message));
        assert_eq!(client.reply().status, 204);
    };
    send();
    send();
    let count = |store: &Store| store.stats().metadata.load(Ordering::Relaxed);
    assert_eq!(count(&first), 1);
    let both = [("first", &first), ("second", &second)];
    world.apply(named(
        &both,
        vec![front(vec![Path::plain(0), Path::plain(1)])],
    ));
    send();
    assert_eq!(count(&second), 1);
    world.stop(&[&first, &second]);
}

#[test]
fn taps_show_what_comes_what_rules_make_of_it_and_what_is_appended() {
    let change = |regex: &str| rules(Action::Replace, regex, "part");
    let stage = Arc::new(Stage::new("stage", change(".*_(.*)"), 10, GRACE));
    let (world, first) = alone(|| vec![through(0, &stage)]);
    let stats = world.shards.stats()["front"].clone();
    let store = world.shards.tap("first").unwrap();
    assert!(world.shards.tap("second").is_none());
    let subscribe = |tap: &Tap| tap.subscribe(1.0, 10);
    let (mut came, mut made, mut appended) = (
        subscribe(stats.tap()),
        subscribe(stage.tap()),
        subscribe(&store),
    );
    let mut client = world.connect("front");
    let mut send = |name: &str| assert_eq!(client.post(&body(name, 1.5)).status, 204);
    send("a_b");
    assert_eq!(lines(&mut came), [r#"{__name__="a_b"} 1.5 @1700000000000"#]);
    assert_eq!(
        lines(&mut made),
        [r#"{__name__="a_b"} => {__name__="a_b", part="b"}"#]
    );
    let line = r#"{__name__="a_b", part="b"} 1.5 @1700000000000"#;
    assert_eq!(lines(&mut appended), [line]);
    // Who listens goes on listening over a change, also of the rules.
    let next = Arc::new(stage.with_rules(rules(Action::Drop, "a_.*", ""), 10, GRACE));
    let receiver = front(vec![through(0, &next), Path::plain(0)]);
    world.apply(named(&[("first", &first)], vec![receiver]));
    send("a_b");
    assert_eq!(lines(&mut came).len(), 1);
    assert_eq!(lines(&mut made), [r#"{__name__="a_b"} => dropped"#]);
    assert_eq!(
        lines(&mut appended),
        [r#"{__name__="a_b"} 1.5 @1700000000000"#]
    );
    // Also where it goes nowhere.
    world.apply(named(&[], vec![front(vec![])]));
    first.close();
    send("c");
    assert_eq!(lines(&mut came), [r#"{__name__="c"} 1.5 @1700000000000"#]);
    assert!(world.shards.tap("first").is_none());
    drop(store);
    assert!(appended.is_closed(), "the stream ends with the store");
    world.stop(&[]);
}
