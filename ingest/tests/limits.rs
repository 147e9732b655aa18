//! Turns requests beyond a receiver's limits into refusals, and those within them into samples.

use crate::common::*;
use ingest::{LabelLimits, Reason};
use wal::IoEngine;

fn request(series_count: usize) -> Vec<u8> {
    let names = (0..series_count).map(|at| format!("s{at}"));
    let all = names.map(|name| series(&[("__name__", &name)], 1.0, 1));
    compressed(all.collect())
}

#[test]
fn a_request_of_too_many_series_is_refused_whole_and_one_of_as_many_is_stored() {
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.series_max = 3;
    let running = setup.start();
    let mut client = running.connect();
    let reply = client.post(&request(4));
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(
        reply.text.contains("4 series, more than the limit of 3"),
        "{reply:?}"
    );
    assert_eq!(stored(&running.stores[0]), vec![]);
    assert_eq!(running.stores[0].series().len(), 0, "nothing is defined");
    assert_eq!(client.post(&request(3)).status, 204);
    assert_eq!(stored(&running.stores[0]).len(), 3);
    running.stop();
}

#[test]
fn label_sets_beyond_a_limit_are_refused_alone_and_named() {
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.labels = LabelLimits {
        labels_max: 3,
        name_bytes_max: 8,
        value_bytes_max: 5,
    };
    let running = setup.start();
    let mut client = running.connect();
    let all = compressed(vec![
        series(&[("__name__", "good")], 1.0, 1),
        series(
            &[("__name__", "a"), ("b", "1"), ("c", "1"), ("d", "1")],
            1.0,
            1,
        ),
        series(&[("__name__", "b"), ("too_long_name", "1")], 1.0, 1),
        series(&[("__name__", "c"), ("a", "too long")], 1.0, 1),
        series(&[("__name__", "fine"), ("a", "1"), ("b", "1")], 1.0, 1),
    ]);
    for round in 1..=2 {
        let reply = client.post(&all);
        assert_eq!(reply.status, 400);
        for reason in [
            Reason::LabelLimit,
            Reason::LabelNameLengthLimit,
            Reason::LabelValueLengthLimit,
        ] {
            let part = format!("{reason}: 1 series with 1 samples");
            assert!(reply.text.contains(&part), "{}", reply.text);
            assert_eq!(running.snapshot().refused_series[reason.index()], round);
        }
        assert_eq!(
            stored(&running.stores[0]).len(),
            2 * usize::try_from(round).unwrap()
        );
    }
    running.stop();
}

#[test]
fn limits_hold_for_a_receiver_that_forwards_to_nothing() {
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.paths.clear();
    setup.receiver.series_max = 2;
    setup.receiver.labels.value_bytes_max = 2;
    let running = setup.start();
    let mut client = running.connect();
    assert_eq!(client.post(&request(3)).status, 400);
    let long = compressed(vec![series(&[("__name__", "long")], 1.0, 1)]);
    let reply = client.post(&long);
    assert!(
        reply.text.contains("label_value_length_limit: 1"),
        "{reply:?}"
    );
    assert_eq!(client.post(&request(2)).status, 204);
    running.stop();
}

/// Above half of the bytes that may be in flight, whoever has more than its share is refused and a newcomer
/// is not.
#[test]
fn a_connection_beyond_its_share_makes_room_for_another() {
    let mut setup = Setup::new(IoEngine::Portable);
    setup.receiver.in_flight_bytes_max = 100_000;
    let running = setup.start();
    let mut large = running.connect();
    large.send(b"POST /api/v1/write HTTP/1.1\r\nContent-Length: 90000\r\n\r\n");
    large.send(&[0; 60_000]);
    running.until(|now| now.in_flight_bytes == 60_000);
    let request = post(&body("up", 1.0));
    let (last, rest) = request.split_last().unwrap();
    let mut small = running.connect();
    small.send(rest);
    running.until(|now| now.in_flight_bytes > 60_000);
    large.send(&[0; 30_000]);
    let reply = large.reply();
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.text.contains("more than its share"), "{reply:?}");
    assert_eq!(header(&reply.head, "retry-after"), Some("1"));
    small.send(&[*last]);
    assert_eq!(small.reply().status, 204);
    assert_eq!(large.post(&body("up", 1.0)).status, 204);
    running.stop();
}
