//! Turns start times of protobuf bodies into what is in the log then.

use super::{Bench, Rules, brief, zeros};
use crate::decode::exposition::Format;
use crate::decode::exposition::tests::protobuf::{
    ClientHistogram, Metric, Number, Quantile, Summary, at, body, family, histogram, spans,
};

fn native(shape: &str) -> Vec<u8> {
    let native = ClientHistogram {
        count: 3,
        schema: 3,
        zero_threshold: 0.5,
        positive_span: spans(&[(1, 2)]),
        positive_delta: vec![1, 1],
        start: at(20, 0),
        ..ClientHistogram::default()
    };
    body(&[family(shape, vec![histogram(native)])])
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
    let counter = Metric {
        counter: Some(Number {
            value: 5.0,
            start: at(20, 0),
            ..Number::default()
        }),
        ..Metric::default()
    };
    let quantile = Quantile {
        quantile: 0.5,
        value: 7.0,
    };
    let summary = Metric {
        summary: Some(Summary {
            count: 2,
            quantile: vec![quantile],
            start: at(20, 0),
            ..Summary::default()
        }),
        ..Metric::default()
    };
    let all = body(&[
        family("counter", vec![counter]),
        family("summary", vec![summary]),
    ]);
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
        assert_eq!(
            bench
                .scrape_as(&native("histogram"), Format::Protobuf)
                .starts,
            1
        );
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
        assert_eq!(
            bench
                .scrape_as(&native("histogram"), Format::Protobuf)
                .starts,
            0
        );
    }
}

#[test]
fn a_histogram_of_a_gauge_has_no_start() {
    for native_histograms in [false, true] {
        let mut bench = bench(Rules {
            native_histograms,
            ..zeros()
        });
        let scraped = bench.scrape_as(&native("gaugehistogram"), Format::Protobuf);
        assert_eq!((scraped.starts, scraped.error), (0, None));
    }
}
