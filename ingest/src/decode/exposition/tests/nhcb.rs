//! Turns classic histograms into native ones and compares with what Prometheus makes of them.

use super::*;

fn convert(body: &[u8], format: Format, keeps_classic: bool) -> (Vec<String>, Unconverted) {
    let mut parser = Parser::default();
    let mut converter = Converter::default();
    parser.start(body, format, ParseOptions::default());
    converter.start(keeps_classic);
    let mut entries = Vec::new();
    while let Some(entry) = converter.next(&mut parser, body).unwrap() {
        let mut line = match &entry {
            Entry::Histogram(at) => {
                let labels = labels_shown(converter.labels(&parser, body));
                let histogram = converter.histogram(&parser);
                let Buckets {
                    spans,
                    deltas,
                    counts,
                    ..
                } = &histogram.positive;
                assert_eq!(histogram.schema, -53);
                let values = &histogram.custom_values;
                let count = if histogram.is_float {
                    format!("{:?} {counts:?}", histogram.count_float)
                } else {
                    format!("{} {deltas:?}", histogram.count)
                };
                let (at, sum) = (at.timestamp_ms, histogram.sum);
                format!("{labels} {count} {sum:?} {spans:?} {values:?} {at:?}")
            }
            entry => {
                let labels = labels_shown(converter.labels(&parser, body));
                let line = shown(&parser, body, entry);
                assert!(!matches!(entry, Entry::Sample(_)) || line.starts_with(&labels));
                line
            }
        };
        if matches!(entry, Entry::Histogram(_)) {
            for exemplar in converter.exemplars(&parser, body) {
                let labels = labels_shown(exemplar.labels());
                let (value, at) = (exemplar.value, exemplar.timestamp_ms);
                write!(line, " # {labels} {value:?} {at:?}").unwrap();
            }
        }
        entries.push(line);
    }
    (entries, converter.unconverted())
}

#[track_caller]
fn converts(body: &str, expected: &[&str]) {
    let (entries, unconverted) = convert(body.as_bytes(), Format::Text, false);
    assert_eq!(entries, expected);
    assert_eq!(unconverted.count, 0, "{}", unconverted.why);
}

#[test]
fn a_classic_histogram_becomes_one_with_custom_buckets() {
    converts(
        "\
# TYPE a histogram
a_bucket{x=\"1\",le=\"1\"} 2 5
a_bucket{le=\"2\",x=\"1\"} 3 5
a_bucket{x=\"1\",le=\"+Inf\"} 7 5
a_sum{x=\"1\"} 9.5 5
a_count{x=\"1\"} 7 5
a_count{x=\"2\"} 3
a_bucket{x=\"2\",le=\"0.5\"} 3
b 1
# TYPE c gauge
c_bucket{le=\"1\"} 1
",
        &[
            "type a Histogram",
            "{__name__=\"a\",x=\"1\"} 7 [2, -1, 3] 9.5 [(0, 3)] [1.0, 2.0] Some(5)",
            "{__name__=\"a\",x=\"2\"} 3 [3] 0.0 [(0, 1)] [0.5] None",
            "{__name__=\"b\"} 1.0",
            "type c Gauge",
            "{__name__=\"c_bucket\",le=\"1\"} 1.0",
        ],
    );
}

#[test]
fn buckets_may_come_in_any_order_and_twice() {
    converts(
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 7\na_bucket{le=\"2\"} 3\na_bucket{le=\"1\"} 2\n\
            a_bucket{le=\"2.0\"} 99\na_count 7\n",
        &[
            "type a Histogram",
            "{__name__=\"a\"} 7 [2, -1, 3] 0.0 [(0, 3)] [1.0, 2.0] None",
        ],
    );
}

#[test]
fn short_runs_of_empty_buckets_stay_in_an_integer_histogram() {
    let buckets = |counts: &[f64]| {
        let lines = counts.iter().enumerate();
        let lines = lines.map(|(at, count)| format!("a_bucket{{le=\"{at}\"}} {count}\n"));
        let last = counts.last().unwrap();
        let end = format!("a_bucket{{le=\"+Inf\"}} {last}\na_count {last}\na_sum 1\n");
        format!("# TYPE a histogram\n{}{end}", lines.collect::<String>())
    };
    let head = "type a Histogram";
    converts(
        &buckets(&[0.0, 1.0, 1.0, 1.0, 2.0, 2.0]),
        &[
            head,
            "{__name__=\"a\"} 2 [1, -1, 0, 1] 1.0 [(1, 4)] [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] None",
        ],
    );
    converts(
        &buckets(&[1.0, 1.0, 1.0, 1.0, 2.0]),
        &[
            head,
            "{__name__=\"a\"} 2 [1, 0] 1.0 [(0, 1), (3, 1)] [0.0, 1.0, 2.0, 3.0, 4.0] None",
        ],
    );
    converts(
        &buckets(&[0.5, 0.5, 2.0]),
        &[
            head,
            "{__name__=\"a\"} 2.0 [0.5, 1.5] 1.0 [(0, 1), (1, 1)] [0.0, 1.0, 2.0] None",
        ],
    );
    converts(
        &buckets(&[0.0]),
        &[head, "{__name__=\"a\"} 0 [] 1.0 [] [0.0] None"],
    );
}

#[test]
fn the_last_histogram_and_its_exemplars_come_at_the_end() {
    let body = b"# TYPE a histogram\na_bucket{le=\"2\"} 1 # {id=\"2\"} 1.5 3\n\
        a_bucket{le=\"1\"} 1 # {id=\"1\"} 0.5\na_created 4\n# EOF\n";
    let (entries, _) = convert(body, Format::OpenMetrics, false);
    let expected = "{__name__=\"a\"} 1 [1] 0.0 [(0, 1)] [1.0, 2.0] None \
        # {id=\"2\"} 1.5 Some(3000) # {id=\"1\"} 0.5 None";
    assert_eq!(entries, ["type a Histogram", expected]);
}

#[test]
fn classic_samples_are_kept_if_asked_for() {
    let body = b"# TYPE a histogram\na_bucket{le=\"1\"} 1\na_count 1\nb 2\n";
    let (entries, _) = convert(body, Format::Text, true);
    let expected = [
        "type a Histogram",
        "{__name__=\"a_bucket\",le=\"1.0\"} 1.0",
        "{__name__=\"a_count\"} 1.0",
        "{__name__=\"a\"} 1 [1] 0.0 [(0, 1)] [1.0] None",
        "{__name__=\"b\"} 2.0",
    ];
    assert_eq!(entries, expected);
}

#[test]
fn counts_that_do_not_go_together_are_counted_as_not_converted() {
    for (lines, why) in [
        (
            "a_bucket{le=\"1\"} 2\na_bucket{le=\"2\"} 1",
            "counts of buckets are not cumulative",
        ),
        (
            "a_bucket{le=\"2\"} 1\na_bucket{le=\"1\"} 2",
            "counts of buckets are not cumulative",
        ),
        ("a_bucket{le=\"1\"} -1", "negative count of a bucket"),
        ("a_bucket{le=\"1\"} 1\na_count -1", "negative count"),
        (
            "a_bucket{le=\"+Inf\"} 1\na_count 2",
            "count is not that of the +Inf bucket",
        ),
        ("a_sum 1", "neither count nor buckets"),
        (
            "a_bucket{le=\"1\"} NaN\na_count 1\na_bucket{le=\"+Inf\"} NaN",
            "count is not that of the +Inf bucket",
        ),
    ] {
        let body = format!("# TYPE a histogram\n{lines}\nb 1\n");
        let (entries, unconverted) = convert(body.as_bytes(), Format::Text, false);
        assert_eq!(
            entries,
            ["type a Histogram", "{__name__=\"b\"} 1.0"],
            "{lines}"
        );
        assert_eq!((unconverted.count, unconverted.why), (1, why), "{lines}");
    }
}

#[test]
fn a_histogram_that_was_native_already_is_not_converted_again() {
    use prost::Message;

    use super::protobuf::{MetricFamily, family, histogram, native_and_classic};

    let mut other = native_and_classic();
    // Only classic: nothing says that it is native.
    other.positive_span.clear();
    other.positive_delta.clear();
    other.negative_span.clear();
    other.negative_delta.clear();
    (other.zero_threshold, other.zero_count) = (0.0, 0);
    let mut only_classic: MetricFamily = family("histogram", vec![histogram(other)]);
    only_classic.name = "n".into();
    let mut body = Vec::new();
    let both = family("histogram", vec![histogram(native_and_classic())]);
    both.encode_length_delimited(&mut body).unwrap();
    only_classic.encode_length_delimited(&mut body).unwrap();
    let mut parser = Parser::default();
    let mut converter = Converter::default();
    let options = ParseOptions {
        classic_histograms: true,
        ..ParseOptions::default()
    };
    parser.start(&body, Format::Protobuf, options);
    converter.start(false);
    let mut seen = Vec::new();
    while let Some(entry) = converter.next(&mut parser, &body).unwrap() {
        let (_, name) = converter.labels(&parser, &body).next().unwrap();
        match entry {
            Entry::Sample(_) => seen.push(text(name)),
            Entry::Histogram(_) => {
                let schema = converter.histogram(&parser).schema;
                seen.push(format!("{} {schema}", text(name)));
            }
            _ => {}
        }
    }
    assert_eq!(
        seen,
        ["m 3", "m_count", "m_sum", "m_bucket", "m_bucket", "n -53"]
    );
}

#[test]
fn every_captured_classic_histogram_is_converted() {
    if corpus().is_none() {
        return;
    }
    let mut histograms = 0;
    for entry in listed("exposition") {
        let file = entry["file"].as_str().unwrap();
        let format = match entry["format"].as_str().unwrap() {
            "text-0.0.4" => Format::Text,
            "openmetrics-1.0.0" => Format::OpenMetrics,
            _ => continue,
        };
        let body = bytes_of(file);
        let (entries, unconverted) = convert(&body, format, false);
        assert_eq!(unconverted.count, 0, "{file}: {}", unconverted.why);
        let found = entries
            .iter()
            .filter(|line| line.contains("[(0, ") || line.contains("] ["))
            .count();
        let mut parser = Parser::default();
        parser.start(&body, format, ParseOptions::default());
        let mut counts = 0;
        while let Some(entry) = parser.next(&body).unwrap() {
            let is_histogram = parser.state(&body).last_type == Kind::Histogram;
            let is_sample = matches!(entry, Entry::Sample(_));
            counts +=
                usize::from(is_sample && is_histogram && parser.name(&body).ends_with(b"_count"));
        }
        assert_eq!(found, counts, "{file}");
        histograms += found;
    }
    println!("{histograms} histograms");
    assert!(histograms > 100, "only {histograms} histograms");
}
