//! Turns start times of protobuf bodies into what is in the log then.

use prost::Message;

use super::{Bench, Rules, brief, zeros};
use crate::decode::exposition::Format;
use crate::proto::BucketSpan;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    start: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    start: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    start: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

const START: Option<Timestamp> = Some(Timestamp { seconds: 20 });

fn body(kind: i32, metric: Metric) -> Vec<u8> {
    let metric = vec![metric];
    let name = "m".to_owned();
    MetricFamily { name, kind, metric }.encode_length_delimited_to_vec()
}

fn native(kind: i32) -> Vec<u8> {
    let histogram = Histogram {
        count: 3,
        schema: 3,
        zero_threshold: 0.5,
        positive_span: vec![BucketSpan {
            offset: 1,
            length: 2,
        }],
        positive_delta: vec![1, 1],
        start: START,
    };
    let metric = Metric {
        histogram: Some(histogram),
        ..Metric::default()
    };
    body(kind, metric)
}

/// One whose target was there before, at 16000.
fn bench(rules: Rules) -> Bench {
    let mut bench = Bench::new(rules);
    bench.scrape_as(b"", Format::Protobuf);
    bench.all();
    bench
}

#[test]
fn counters_and_summaries_are_0_at_their_start() {
    let mut bench = bench(zeros());
    let mut all = body(
        0,
        Metric {
            counter: Some(Counter {
                value: 5.0,
                start: START,
            }),
            ..Metric::default()
        },
    );
    let summary = Summary {
        count: 2,
        quantile: vec![Quantile {
            quantile: 0.5,
            value: 7.0,
        }],
        start: START,
    };
    all.extend(body(
        2,
        Metric {
            summary: Some(summary),
            ..Metric::default()
        },
    ));
    assert_eq!(bench.scrape_as(&all, Format::Protobuf).starts, 3);
    let came = bench.came();
    assert_eq!(
        came,
        [
            "m{} 0@20000",
            "m_count{} 0@20000",
            "m_sum{} 0@20000",
            "m{} 5",
            "m_count{} 2",
            "m_sum{} 0",
            "m{quantile=0.5} 7"
        ]
    );
    assert_eq!(bench.scrape_as(&all, Format::Protobuf).starts, 0);
}

#[test]
fn a_native_histogram_is_an_empty_one_of_its_kind_at_its_start() {
    for (native_schema_max, schema) in [(None, 3), (Some(1), 1)] {
        let mut bench = bench(Rules {
            native_histograms: true,
            native_schema_max,
            ..zeros()
        });
        assert_eq!(bench.scrape_as(&native(4), Format::Protobuf).starts, 1);
        let (_, histograms) = bench.everything();
        let told: Vec<_> = histograms.iter().map(brief).collect();
        let m = || "m{}".to_owned();
        assert_eq!(
            told,
            [
                (m(), 20_000, schema, true, 1),
                (m(), bench.time_ms, schema, false, 0)
            ]
        );
        let empty = &histograms[0].1;
        assert!(empty.positive_spans.is_empty() && empty.positive_deltas.is_empty());
        assert_eq!(empty.zero_threshold.to_bits(), 0.5f64.to_bits());
        assert_eq!(bench.scrape_as(&native(4), Format::Protobuf).starts, 0);
    }
}

#[test]
fn a_histogram_of_a_gauge_has_no_start() {
    for native_histograms in [false, true] {
        let mut bench = bench(Rules {
            native_histograms,
            ..zeros()
        });
        let scraped = bench.scrape_as(&native(5), Format::Protobuf);
        assert_eq!((scraped.starts, scraped.error), (0, None));
    }
}
