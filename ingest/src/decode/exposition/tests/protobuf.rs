//! Turns families that prost encodes into entries, and histograms into messages prost decodes.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::proto;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(crate) label: Vec<proto::Label>,
    #[prost(message, optional, tag = "2")]
    pub(crate) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(crate) counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    pub(crate) summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub(crate) untyped: Option<Number>,
    #[prost(int64, tag = "6")]
    pub(crate) timestamp_ms: i64,
    #[prost(message, optional, tag = "7")]
    pub(crate) histogram: Option<ClientHistogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Number {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(message, optional, tag = "2")]
    pub(crate) exemplar: Option<ClientExemplar>,
    #[prost(message, optional, tag = "3")]
    pub(crate) start: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Summary {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    #[prost(double, tag = "2")]
    pub(crate) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    pub(crate) start: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Quantile {
    #[prost(double, tag = "1")]
    pub(crate) quantile: f64,
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientHistogram {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    #[prost(double, tag = "2")]
    pub(crate) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) bucket: Vec<Bucket>,
    #[prost(double, tag = "4")]
    pub(crate) count_float: f64,
    #[prost(sint32, tag = "5")]
    pub(crate) schema: i32,
    #[prost(double, tag = "6")]
    pub(crate) zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub(crate) zero_count: u64,
    #[prost(double, tag = "8")]
    pub(crate) zero_count_float: f64,
    #[prost(message, repeated, tag = "9")]
    pub(crate) negative_span: Vec<proto::BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    pub(crate) negative_delta: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "11")]
    pub(crate) negative_count: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) positive_span: Vec<proto::BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub(crate) positive_delta: Vec<i64>,
    #[prost(double, repeated, tag = "14")]
    pub(crate) positive_count: Vec<f64>,
    #[prost(message, optional, tag = "15")]
    pub(crate) start: Option<Timestamp>,
    #[prost(message, repeated, tag = "16")]
    pub(crate) exemplars: Vec<ClientExemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bucket {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<ClientExemplar>,
    #[prost(double, tag = "4")]
    count_float: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClientExemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<proto::Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

const SHAPES: [&str; 6] = [
    "counter",
    "gauge",
    "summary",
    "untyped",
    "histogram",
    "gaugehistogram",
];

pub(crate) fn family(shape: &str, metric: Vec<Metric>) -> MetricFamily {
    let kind = SHAPES.iter().position(|name| *name == shape).unwrap();
    MetricFamily {
        name: "m".into(),
        help: "of m".into(),
        kind: i32::try_from(kind).unwrap(),
        metric,
        unit: String::new(),
    }
}

pub(crate) fn histogram(histogram: ClientHistogram) -> Metric {
    Metric {
        histogram: Some(histogram),
        ..Metric::default()
    }
}

fn label(name: &str, value: &str) -> proto::Label {
    proto::Label {
        name: name.into(),
        value: value.into(),
    }
}

pub(crate) fn at(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos })
}

pub(crate) fn spans(spans: &[(i32, u32)]) -> Vec<proto::BucketSpan> {
    let span = |(offset, length): &(i32, u32)| proto::BucketSpan {
        offset: *offset,
        length: *length,
    };
    spans.iter().map(span).collect()
}

pub(crate) fn body(families: &[MetricFamily]) -> Vec<u8> {
    let mut body = Vec::new();
    for family in families {
        family.encode_length_delimited(&mut body).unwrap();
    }
    body
}

const BOTH: ParseOptions = ParseOptions {
    strict: false,
    skip_created: true,
    classic_histograms: true,
    native_histograms: true,
};

#[track_caller]
fn reads(families: &[MetricFamily], options: ParseOptions, expected: &[&str]) {
    let entries = read(&body(families), Format::Protobuf, options).unwrap();
    assert_eq!(entries, expected);
}

#[test]
fn numbers_are_read() {
    let exemplar = ClientExemplar {
        label: vec![label("id", "x")],
        value: 3.0,
        timestamp: at(5, 1_999_999),
    };
    let counter = Metric {
        label: vec![label("a", "b"), label("c", "")],
        counter: Some(Number {
            value: 1.5,
            exemplar: Some(exemplar),
            start: at(7, 0),
        }),
        timestamp_ms: 9,
        ..Metric::default()
    };
    let empty = family("gauge", vec![]);
    let mut measured = family("gauge", vec![Metric::default()]);
    measured.name = "m_bytes".into();
    measured.unit = "bytes".into();
    let mut total = family("counter", vec![]);
    total.name = "m_bytes_total".into();
    total.unit = "bytes".into();
    total.metric.push(Metric::default());
    let counters = family("counter", vec![counter]);
    reads(
        &[counters, empty, measured, total],
        BOTH,
        &[
            "help m \"of m\"",
            "type m Counter",
            "{__name__=\"m\",a=\"b\",c=\"\"} 1.5 @9 since 7000 # {id=\"x\"} 3.0 Some(5001)",
            "help m_bytes \"of m\"",
            "unit m_bytes bytes",
            "type m_bytes Gauge",
            "{__name__=\"m_bytes\"} 0.0",
            "help m_bytes_total \"of m\"",
            "unit m_bytes_total bytes",
            "type m_bytes_total Counter",
            "{__name__=\"m_bytes_total\"} 0.0",
        ],
    );
}

#[test]
fn summaries_and_classic_histograms_are_read_as_text_would_have_them() {
    let summary = |quantile| Metric {
        label: vec![label("a", "b")],
        summary: Some(Summary {
            count: 3,
            sum: 1.5,
            quantile,
            start: at(1, 0),
        }),
        ..Metric::default()
    };
    let quantile = |quantile, value| Quantile { quantile, value };
    let summaries = vec![
        summary(vec![quantile(0.5, 1.0), quantile(1.0, f64::NAN)]),
        summary(vec![]),
    ];
    let bucket = |bound, count| Bucket {
        count,
        bound,
        ..Bucket::default()
    };
    let open = ClientHistogram {
        count: 4,
        bucket: vec![bucket(1e6, 2)],
        ..ClientHistogram::default()
    };
    let closed = ClientHistogram {
        count_float: 4.5,
        bucket: vec![bucket(f64::INFINITY, 4)],
        ..ClientHistogram::default()
    };
    let histograms = vec![histogram(open), histogram(closed)];
    reads(
        &[
            family("summary", summaries),
            family("histogram", histograms),
        ],
        BOTH,
        &[
            "help m \"of m\"",
            "type m Summary",
            "{__name__=\"m_count\",a=\"b\"} 3.0 since 1000",
            "{__name__=\"m_sum\",a=\"b\"} 1.5 since 1000",
            "{__name__=\"m\",a=\"b\",quantile=\"0.5\"} 1.0 since 1000",
            "{__name__=\"m\",a=\"b\",quantile=\"1.0\"} NaN since 1000",
            "{__name__=\"m_count\",a=\"b\"} 3.0 since 1000",
            "{__name__=\"m_sum\",a=\"b\"} 1.5 since 1000",
            "help m \"of m\"",
            "type m Histogram",
            "{__name__=\"m_count\"} 4.0",
            "{__name__=\"m_sum\"} 0.0",
            "{__name__=\"m_bucket\",le=\"1e+06\"} 2.0",
            "{__name__=\"m_bucket\",le=\"+Inf\"} 4.0",
            "{__name__=\"m_count\"} 4.5",
            "{__name__=\"m_sum\"} 0.0",
            "{__name__=\"m_bucket\",le=\"+Inf\"} 4.0",
        ],
    );
}

/// A histogram with both forms and exemplars in both.
pub(super) fn native_and_classic() -> ClientHistogram {
    let exemplar = |id: &str, timestamp| ClientExemplar {
        label: vec![label("id", id)],
        value: 1.0,
        timestamp,
    };
    ClientHistogram {
        count: 9,
        sum: 4.5,
        schema: 3,
        zero_threshold: 0.5,
        zero_count: 1,
        negative_span: spans(&[(-2, 1)]),
        negative_delta: vec![2],
        positive_span: spans(&[(1, 3), (0, 1), (2, 2), (3, 0)]),
        positive_delta: vec![1, -1, 2, 0, -2, 3],
        bucket: vec![Bucket {
            count: 9,
            bound: 1.0,
            exemplar: Some(exemplar("classic", at(1, 0))),
            ..Bucket::default()
        }],
        exemplars: vec![exemplar("native", at(2, 0)), exemplar("timeless", None)],
        ..ClientHistogram::default()
    }
}

fn only_histogram(body: &[u8]) -> (proto::Histogram, usize) {
    let mut parser = Parser::default();
    parser.start(body, Format::Protobuf, ParseOptions::default());
    loop {
        if let Entry::Histogram(_) = parser.next(body).unwrap().expect("a histogram") {
            let mut message = Vec::new();
            parser.histogram().append_message(77, &mut message);
            let decoded = proto::Histogram::decode(&message[..]).unwrap();
            assert_eq!(decoded.encode_to_vec(), message, "as prost writes it");
            let exemplars = parser.exemplars(body).count();
            return (decoded, exemplars);
        }
    }
}

#[test]
fn a_native_histogram_is_written_without_its_empty_buckets() {
    let body = body(&[family(
        "gaugehistogram",
        vec![histogram(native_and_classic())],
    )]);
    let (message, exemplars) = only_histogram(&body);
    assert_eq!(exemplars, 1, "that of the native form with a time");
    let expected = proto::Histogram {
        count: Some(proto::Count::Int(9)),
        sum: 4.5,
        schema: 3,
        zero_threshold: 0.5,
        zero_count: Some(proto::ZeroCount::Int(1)),
        negative_spans: spans(&[(-2, 1)]),
        negative_deltas: vec![2],
        // 1, 0, 2, 2, then two empty ones further on 0, 3
        positive_spans: spans(&[(1, 1), (1, 2), (3, 1)]),
        positive_deltas: vec![1, 1, 0, 1],
        reset_hint: 3,
        timestamp: 77,
        ..proto::Histogram::default()
    };
    assert_eq!(message, expected);
}

#[test]
fn a_float_histogram_is_written_with_floats() {
    let float = ClientHistogram {
        count_float: 2.5,
        zero_count_float: 0.5,
        positive_span: spans(&[(0, 2)]),
        positive_count: vec![0.0, 2.0],
        negative_span: spans(&[(0, 1)]),
        negative_count: vec![1.0],
        start: at(3, 0),
        ..ClientHistogram::default()
    };
    let (message, _) = only_histogram(&body(&[family("histogram", vec![histogram(float)])]));
    assert_eq!(message.count, Some(proto::Count::Float(2.5)));
    assert_eq!(message.zero_count, Some(proto::ZeroCount::Float(0.5)));
    assert_eq!(message.positive_spans, spans(&[(1, 1)]));
    assert_eq!(message.positive_counts, [2.0]);
    assert_eq!(message.negative_counts, [1.0]);
    assert_eq!(message.reset_hint, 0);
}

#[test]
fn options_say_which_form_of_a_histogram_is_read() {
    let body = body(&[family(
        "histogram",
        vec![
            histogram(native_and_classic()),
            histogram(native_and_classic()),
        ],
    )]);
    let forms = |classic_histograms, native_histograms| {
        let options = ParseOptions {
            classic_histograms,
            native_histograms,
            ..ParseOptions::default()
        };
        let entries = read(&body, Format::Protobuf, options).unwrap();
        let native = entries.iter().filter(|entry| entry.contains("Histogram {"));
        let native = native.count();
        (native, entries.len() - 2 - native)
    };
    // count, sum, the bucket and +Inf of each
    assert_eq!(forms(false, true), (2, 0));
    assert_eq!(forms(true, true), (2, 8));
    assert_eq!(forms(false, false), (0, 8));
    assert_eq!(forms(true, false), (0, 8));
}

#[test]
fn a_histogram_without_observations_is_native_if_it_has_an_empty_span() {
    let empty = ClientHistogram {
        positive_span: spans(&[(0, 0)]),
        ..ClientHistogram::default()
    };
    let (message, _) = only_histogram(&body(&[family("histogram", vec![histogram(empty)])]));
    assert_eq!(message.count, Some(proto::Count::Int(0)));
    assert!(message.positive_spans.is_empty());
}

#[test]
fn wrong_messages_are_refused() {
    let refused = |family: &MetricFamily, expected: &str| {
        let error = read(&body(std::slice::from_ref(family)), Format::Protobuf, BOTH);
        let error = error.expect_err(expected);
        assert!(error.ends_with(expected), "{error}");
    };
    let good = family("gauge", vec![Metric::default()]);
    let mut nameless = good.clone();
    nameless.name.clear();
    refused(&nameless, "metric family without name");
    let mut unknown = good.clone();
    unknown.kind = 6;
    refused(&unknown, "unknown metric type");
    let mut unit = good.clone();
    unit.unit = "s".into();
    refused(&unit, "unit is no suffix of the metric name");
    let mut histogram_family = family("histogram", vec![histogram(native_and_classic())]);
    let one = histogram_family.metric[0].histogram.as_mut().unwrap();
    one.positive_delta.pop();
    refused(
        &histogram_family,
        "buckets of a histogram do not match their spans",
    );
    let one = histogram_family.metric[0].histogram.as_mut().unwrap();
    one.positive_delta = vec![1, -1, 2, 0, -2, 3];
    one.positive_span[2].offset = -3;
    refused(
        &histogram_family,
        "buckets of a histogram do not match their spans",
    );
    let mut bytes = body(&[good]);
    let help = bytes.windows(4).position(|four| four == b"of m").unwrap();
    bytes[help] = 0xff;
    let error = read(&bytes, Format::Protobuf, BOTH).unwrap_err();
    assert_eq!(error, "byte 6: text is not UTF-8");
}

#[test]
fn a_body_cut_anywhere_is_refused_or_ends_with_a_family() {
    let families = [
        family("histogram", vec![histogram(native_and_classic())]),
        family("gauge", vec![Metric::default()]),
    ];
    let first = body(&families[..1]).len();
    let whole = body(&families);
    for end in 0..whole.len() {
        let verdict = read(&whole[..end], Format::Protobuf, BOTH);
        assert_eq!(
            verdict.is_ok(),
            end == 0 || end == first,
            "{end}: {verdict:?}"
        );
    }
}

proptest! {
    /// Spans say the same buckets after the empty ones are gone.
    #[test]
    fn compaction_keeps_every_count(runs in proptest::collection::vec((0i32..4, proptest::collection::vec(0i64..3, 0..5)), 0..6)) {
        let mut counts = BTreeMap::new();
        let (mut index, mut last) = (0i64, 0);
        let mut sent = ClientHistogram { zero_threshold: 1.0, ..ClientHistogram::default() };
        for (offset, run) in &runs {
            index += i64::from(*offset);
            let length = u32::try_from(run.len()).unwrap();
            sent.positive_span.push(proto::BucketSpan { offset: *offset, length });
            for count in run {
                sent.positive_delta.push(count - last);
                last = *count;
                counts.insert(index, *count);
                index += 1;
            }
        }
        counts.retain(|_, count| *count != 0);
        let (message, _) = only_histogram(&body(&[family("histogram", vec![histogram(sent)])]));
        let mut read = BTreeMap::new();
        let (mut index, mut last) = (0i64, 0);
        let mut deltas = message.positive_deltas.iter();
        for (at, span) in message.positive_spans.iter().enumerate() {
            prop_assert!(at == 0 || span.offset > 0);
            index += i64::from(span.offset);
            for _ in 0..span.length {
                last += deltas.next().unwrap();
                read.insert(index, last);
                index += 1;
            }
        }
        prop_assert_eq!(deltas.next(), None);
        prop_assert_eq!(read, counts);
    }
}
