//! Turns remote-write 2.0 exchanges with a real receiver and a real store into verdicts.

use crate::common::*;
use ingest::Message as Accepted;
use ingest::proto::v2::{Exemplar, Histogram, Metadata, Request, Sample, TimeSeries};
use prost::Message;
use wal::{RecordKind, SeriesRef};

const CONTENT_TYPE: &str =
    "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";

fn post_v2(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    let symbols = ["", "__name__", "up", "job", "j", "trace", "is it up"];
    let request = Request {
        symbols: symbols.map(|s| s.as_bytes().to_vec()).to_vec(),
        timeseries,
    };
    let body = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap();
    with_head("POST /api/v1/write", CONTENT_TYPE, &body)
}

fn up(samples: usize) -> TimeSeries {
    let sample = |at| Sample {
        value_bits: 1f64.to_bits(),
        timestamp: 1_700_000_000_000 + i64::try_from(at).unwrap(),
        start_timestamp: 0,
    };
    TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: (0..samples).map(sample).collect(),
        ..Default::default()
    }
}

fn written(reply: &Reply) -> [Option<&str>; 3] {
    ["samples", "histograms", "exemplars"].map(|what| {
        let name = format!("x-prometheus-remote-write-{what}-written");
        header(&reply.head, &name)
    })
}

fn exchange(running: &Running, request: &[u8]) -> Reply {
    let mut client = running.connect();
    client.send(request);
    client.reply()
}

#[test]
fn both_protocols_name_the_same_series_and_v2_is_told_what_was_written() {
    for engine in engines() {
        let running = Setup::new(engine).start();
        let labels = [("__name__", "up"), ("job", "j")];
        let v1 = exchange(&running, &post(&compressed(vec![series(&labels, 1.0, 5)])));
        assert_eq!((v1.status, written(&v1)), (204, [None; 3]));
        let mut sender = up(2);
        sender.samples[1].start_timestamp = 7;
        sender.exemplars.push(Exemplar {
            labels_refs: vec![5, 4],
            ..Default::default()
        });
        let histogram = TimeSeries {
            samples: vec![],
            histograms: vec![Histogram::default()],
            ..up(0)
        };
        let reply = exchange(&running, &post_v2(vec![sender, histogram]));
        assert_eq!(reply.status, 204);
        assert_eq!(written(&reply), [Some("2"), Some("1"), Some("1")]);
        assert_eq!(running.stores[0].series().len(), 1);
        let numbers = running.snapshot();
        assert_eq!(
            (numbers.samples, numbers.histograms, numbers.exemplars),
            (3, 1, 1)
        );
        running.stop();
    }
}

#[test]
fn a_partial_error_stores_the_rest_and_counts_it() {
    for engine in engines() {
        let running = Setup::new(engine).start();
        let nameless = TimeSeries {
            labels_refs: vec![3, 4],
            ..up(1)
        };
        let dangling = TimeSeries {
            labels_refs: vec![1, 99],
            ..up(2)
        };
        let reply = exchange(&running, &post_v2(vec![up(3), nameless, dangling]));
        assert_eq!(reply.status, 400);
        assert_eq!(written(&reply), [Some("3"), Some("0"), Some("0")]);
        for part in [
            "missing_metric_name: 1 series with 1 samples",
            "invalid_label_refs: 1 series with 2 samples",
        ] {
            assert!(reply.text.contains(part), "{}", reply.text);
        }
        assert_eq!(stored(&running.stores[0]).len(), 3);
        running.stop();
    }
}

#[test]
fn a_failure_behind_the_negotiation_says_that_nothing_was_written() {
    for engine in engines() {
        let mut setup = Setup::new(engine);
        setup.receiver.body_bytes_max = 1000;
        let running = setup.start();
        let zeros = [Some("0"); 3];
        let broken = with_head("POST /api/v1/write", CONTENT_TYPE, b"no snappy");
        let reply = exchange(&running, &broken);
        assert_eq!((reply.status, written(&reply)), (400, zeros));
        let large = with_head("POST /api/v1/write", CONTENT_TYPE, &[0; 2000]);
        let reply = exchange(&running, &large);
        assert_eq!((reply.status, written(&reply)), (413, zeros));
        running.stores[0].close();
        let reply = exchange(&running, &post_v2(vec![up(1)]));
        assert_eq!((reply.status, written(&reply)), (503, zeros));
        let unread = with_head("POST /nowhere", CONTENT_TYPE, b"");
        assert_eq!(written(&exchange(&running, &unread)), [None; 3]);
        running.stop();
    }
}

#[test]
fn a_receiver_of_one_message_answers_415_to_the_other() {
    for engine in engines() {
        let mut setup = Setup::new(engine);
        setup.receiver.messages = vec![Accepted::V1];
        let running = setup.start();
        let reply = exchange(&running, &post_v2(vec![up(1)]));
        assert_eq!((reply.status, written(&reply)), (415, [None; 3]));
        assert!(
            reply.text.contains("only prometheus.WriteRequest"),
            "{}",
            reply.text
        );
        assert_eq!(exchange(&running, &post(&body("up", 1.0))).status, 204);
        running.stop();
    }
}

#[test]
fn metadata_is_in_the_log_once_with_its_series() {
    for engine in engines() {
        let mut setup = Setup::new(engine);
        setup.threads = 1;
        let running = setup.start();
        let described = TimeSeries {
            metadata: Some(Metadata {
                r#type: 2,
                help_ref: 6,
                unit_ref: 0,
            }),
            ..up(1)
        };
        for _ in 0..3 {
            let reply = exchange(
                &running,
                &post_v2(vec![described.clone(), described.clone()]),
            );
            assert_eq!(reply.status, 204);
        }
        assert_eq!(running.snapshot().metadata, 6);
        let endpoint = running.stores[0].endpoint("reader").unwrap();
        let mut tail = endpoint.tail();
        let mut found = Vec::new();
        while let Some(frame) = tail.next().unwrap() {
            for record in frame.samples(&mut Vec::new()).unwrap() {
                let record = record.unwrap();
                assert_eq!(record.kind, RecordKind::Metadata);
                assert_eq!(record.series, SeriesRef::new(1));
                let metadata = ingest::proto::MetricMetadata::decode(record.bytes).unwrap();
                found.push((metadata.metric_family_name, metadata.r#type, metadata.help));
            }
        }
        assert_eq!(found, [("up".to_owned(), 2, "is it up".to_owned())]);
        running.stop();
    }
}
