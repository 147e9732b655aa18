//! Turns small bodies into the entries that are written down beside them.

use super::*;

#[track_caller]
fn reads(format: Format, options: ParseOptions, body: &str, expected: &[&str]) {
    let entries = read(body.as_bytes(), format, options).unwrap();
    assert_eq!(entries, expected);
}

#[track_caller]
fn refuses(format: Format, options: ParseOptions, cases: &[(&str, &str)]) {
    for (body, expected) in cases {
        let error = read(body.as_bytes(), format, options).expect_err(body);
        assert_eq!(error, *expected, "{body:?}");
    }
}

fn usual() -> ParseOptions {
    ParseOptions::default()
}

fn strict() -> ParseOptions {
    ParseOptions {
        strict: true,
        ..usual()
    }
}

#[test]
fn prometheus_text_is_read() {
    let body = "\
# HELP requests Served so far,\\nsince the start \\\\ \\\"all\\\"
# TYPE requests counter

requests{path=\"/a\",code=\"200\",} 17 1700000000000
 requests { path = \"/b\" code = \"500\" } +1e2
#comment
# a comment too
\t#  TYPE  lat summary
lat{quantile=\"1\"} NaN
lat_sum -0.5
other{le=\"1\"} 1
# TYPE h histogram
h_bucket{le=\"1\"} 1
h_bucket{le=\"1e6\"} 1
h_bucket{le=\"+Inf\"} 1
h_bucket{le=\"x\"} 1
x{le=\"010\",le2=\"1\"} Inf
# HELP x
y-1
a:b{c=\"q\\\"\\\\\\n\\t\nz\"}3";
    reads(
        Format::Text,
        usual(),
        body,
        &[
            "help requests \"Served so far,\\nsince the start \\\\ \\\\\\\"all\\\\\\\"\"",
            "type requests Counter",
            "{__name__=\"requests\",path=\"/a\",code=\"200\"} 17.0 @1700000000000",
            "{__name__=\"requests\",path=\"/b\",code=\"500\"} 100.0",
            "comment",
            "comment",
            "type lat Summary",
            "{__name__=\"lat\",quantile=\"1.0\"} NaN",
            "{__name__=\"lat_sum\"} -0.5",
            "{__name__=\"other\",le=\"1\"} 1.0",
            "type h Histogram",
            "{__name__=\"h_bucket\",le=\"1.0\"} 1.0",
            "{__name__=\"h_bucket\",le=\"1e+06\"} 1.0",
            "{__name__=\"h_bucket\",le=\"+Inf\"} 1.0",
            "{__name__=\"h_bucket\",le=\"x\"} 1.0",
            "{__name__=\"x\",le=\"10.0\",le2=\"1\"} inf",
            "help x \"\"",
            "{__name__=\"y\"} -1.0",
            "{__name__=\"a:b\",c=\"q\\\"\\\\\\n\\\\t\\nz\"} 3.0",
        ],
    );
}

#[test]
fn names_in_quotes_are_read() {
    let body = "\
# TYPE \"my.\\\"name\" gauge
{\"my.\\\"name\",\"a b\"=\"c\"} 1
{d=\"e\",\"näme\"} 2
{\"only\"} 3
";
    let expected = [
        "type my.\"name Gauge",
        "{__name__=\"my.\\\"name\",a b=\"c\"} 1.0",
        "{__name__=\"näme\",d=\"e\"} 2.0",
        "{__name__=\"only\"} 3.0",
    ];
    reads(Format::Text, usual(), body, &expected);
    reads(
        Format::OpenMetrics,
        usual(),
        &format!("{body}# EOF\n"),
        &expected,
    );
}

#[test]
fn a_nul_at_the_beginning_of_a_line_ends_text() {
    reads(
        Format::Text,
        usual(),
        "a 1\n\0\0\0",
        &["{__name__=\"a\"} 1.0"],
    );
    reads(Format::Text, usual(), "#\0\n", &["comment"]);
    reads(Format::Text, usual(), "\n \n\t", &[]);
}

#[test]
fn wrong_text_is_refused_where_it_is_wrong() {
    refuses(
        Format::Text,
        usual(),
        &[
            ("a", "line 1, byte 1: expected a value"),
            (
                "a 1\n\nb{c='d'} 1\n",
                "line 3, byte 9: expected a label value in double quotes, found \"\\'d\\'} 1\\n\"",
            ),
            (
                "a{b} 1",
                "line 1, byte 3: expected an equals sign, found \"} 1\"",
            ),
            (
                "a{,b=\"c\"} 1",
                "line 1, byte 2: expected a label name, found \",b=\\\"c\\\"} 1\"",
            ),
            (
                "a{b=\"c} 1\n",
                "line 1, byte 4: expected a closing quote behind this one, found \"\\\"c} 1\\n\"",
            ),
            (
                "a x\n",
                "line 1, byte 2: expected a decimal number, Inf or NaN, found \"x\\n\"",
            ),
            (
                "a 1 -2\n",
                "line 1, byte 4: expected a timestamp or the end of the line, found \"-2\\n\"",
            ),
            (
                "a 1 2 3\n",
                "line 1, byte 6: expected the end of the line, found \"3\\n\"",
            ),
            (
                "a 1 99999999999999999999\n",
                "line 1, byte 4: timestamp out of range, found \"99999999999999999999\\n\"",
            ),
            (
                "{a=\"b\"} 1\n",
                "line 1, byte 0: expected a metric name, found \"{a=\\\"b\\\"} 1\\n\"",
            ),
            (
                "{\"a\",\"b\"} 1\n",
                "line 1, byte 8: the metric has two names, found \"} 1\\n\"",
            ),
            (
                "a{\"b\"} 1\n",
                "line 1, byte 5: the metric has two names, found \"} 1\\n\"",
            ),
            (
                "1a 1\n",
                "line 1, byte 0: expected a metric name, found \"1a 1\\n\"",
            ),
            (
                "# TYPE a blah\n",
                "line 1, byte 8: expected counter, gauge, histogram, summary or untyped, found \" blah\\n\"",
            ),
            (
                "# HELP \n",
                "line 1, byte 7: expected a metric name, found \"\\n\"",
            ),
        ],
    );
    let invalid = read(b"a{b=\"\xff\"} 1\n", Format::Text, usual());
    assert!(invalid.unwrap_err().contains("quoted text is not UTF-8"));
    let invalid = read(b"# HELP a \xff\n", Format::Text, usual());
    assert!(invalid.unwrap_err().contains("help is not UTF-8"));
}

#[test]
fn openmetrics_is_read() {
    let body = "\
# TYPE served_bytes counter
# UNIT served_bytes bytes
# HELP served_bytes \\\"all\\\"
served_bytes_total{a=\"1\"} 17 1.5 # {id=\"x\\\"\",b=\"\"} 3 1700000000.1239
served_bytes_created{a=\"1\"} 12.5
served_bytes_total{a=\"2\"} 4 # {} 1
# TYPE h histogram
h_bucket{le=\"1\"} 0
h_bucket{le=\"+Inf\"} 1
h_sum 3
h_count 1
h_created 5
# TYPE s gauge
s_created 2
# EOF
";
    let mut expected = vec![
        "type served_bytes Counter",
        "unit served_bytes bytes",
        "help served_bytes \"\\\"all\\\"\"",
        "{__name__=\"served_bytes_total\",a=\"1\"} 17.0 @1500 since 12500 # {id=\"x\\\"\",b=\"\"} 3.0 Some(1700000000123)",
        "{__name__=\"served_bytes_total\",a=\"2\"} 4.0 # {} 1.0 None",
        "type h Histogram",
        "{__name__=\"h_bucket\",le=\"1.0\"} 0.0 since 5000",
        "{__name__=\"h_bucket\",le=\"+Inf\"} 1.0 since 5000",
        "{__name__=\"h_sum\"} 3.0 since 5000",
        "{__name__=\"h_count\"} 1.0 since 5000",
        "type s Gauge",
        "{__name__=\"s_created\"} 2.0",
    ];
    reads(Format::OpenMetrics, usual(), body, &expected);
    let as_samples = ParseOptions {
        skip_created: false,
        ..usual()
    };
    let entries = read(body.as_bytes(), Format::OpenMetrics, as_samples).unwrap();
    expected[3] = "{__name__=\"served_bytes_created\",a=\"1\"} 12.5";
    assert_eq!(entries[4], expected[3]);
    assert_eq!(entries.len(), expected.len() + 2);
    assert!(entries.iter().all(|entry| !entry.contains("since")));
}

#[test]
fn a_start_time_is_that_of_the_same_metric() {
    let body = "\
# TYPE a counter
a_created{x=\"0\"} 7
a_total{x=\"0\"} 1
a_total{x=\"1\"} 1
a_total{x=\"2\"} 2
a_created{x=\"2\"} 9
a_total{x=\"3\"} 3
{\"a_total\",x=\"4\"} 4
{\"a_created\",x=\"4\"} 8
# TYPE b counter
a_created{x=\"3\"} 5
# EOF";
    reads(
        Format::OpenMetrics,
        usual(),
        body,
        &[
            "type a Counter",
            "{__name__=\"a_total\",x=\"0\"} 1.0 since 7000",
            "{__name__=\"a_total\",x=\"1\"} 1.0",
            "{__name__=\"a_total\",x=\"2\"} 2.0 since 9000",
            "{__name__=\"a_total\",x=\"3\"} 3.0",
            "{__name__=\"a_total\",x=\"4\"} 4.0 since 8000",
            "type b Counter",
        ],
    );
}

#[test]
fn wrong_openmetrics_is_refused_where_it_is_wrong() {
    refuses(
        Format::OpenMetrics,
        usual(),
        &[
            ("", "line 1, byte 0: expected # EOF at the end of the body"),
            (
                "a 1\n",
                "line 2, byte 4: expected # EOF at the end of the body",
            ),
            (
                "a 1\n\n# EOF",
                "line 2, byte 4: expected a metric name, found \"\\n# EOF\"",
            ),
            (
                "# EOF\na 1",
                "line 2, byte 6: data behind # EOF, found \"a 1\"",
            ),
            (
                "#comment\n# EOF",
                "line 1, byte 0: expected # HELP, # TYPE, # UNIT, # EOF or a metric name, found \"#comment\\n# EOF\"",
            ),
            (
                "# TYPE a untyped\n# EOF",
                "line 1, byte 9: expected a metric type, found \"untyped\\n# EOF\"",
            ),
            (
                "# UNIT a s\n# EOF",
                "line 1, byte 7: unit is no suffix of the metric name, found \"a s\\n# EOF\"",
            ),
            (
                "a  1\n# EOF",
                "line 1, byte 1: expected a space and a value, found \"  1\\n# EOF\"",
            ),
            (
                "a{b=\"1\"c=\"2\"} 1\n# EOF",
                "line 1, byte 7: expected a comma or a closing brace, found \"c=\\\"2\\\"} 1\\n# EOF\"",
            ),
            (
                "a 1 NaN\n# EOF",
                "line 1, byte 4: timestamp is not finite, found \"NaN\\n# EOF\"",
            ),
            (
                "a 1 # {\"b\"} 1\n# EOF",
                "line 1, byte 7: expected a label name with a value, found \"\\\"b\\\"} 1\\n# EOF\"",
            ),
            (
                "a 1 # {}\n# EOF",
                "line 1, byte 8: expected a space and the value of the exemplar, found \"\\n# EOF\"",
            ),
        ],
    );
}

/// Lines that Prometheus takes, and what the specification has against them.
const NOT_STRICT: [(&str, &str); 25] = [
    ("a{b=\"c\",} 1", "a comma behind the last label"),
    ("a{b=\"c\",b=\"c\"} 1", "a label is there twice"),
    (
        "# TYPE a counter\n# TYPE a counter",
        "repeated line of metadata",
    ),
    (
        "# TYPE a counter\na_total 1\n# HELP a x",
        "metadata behind samples of its family",
    ),
    (
        "# TYPE a_created gauge\n# TYPE a counter",
        "the names of two metric families clash",
    ),
    (
        "# TYPE a info\na 1",
        "the names of two metric families clash",
    ),
    (
        "# TYPE a_x info\n# UNIT a_x x",
        "a unit is not allowed for this metric type",
    ),
    ("# TYPE a counter\na_total -1", "value is negative"),
    ("# TYPE a counter\na_total NaN", "value is not a number"),
    ("# TYPE a info\na_info 2", "value of an info is not 1"),
    (
        "# TYPE a stateset\na{a=\"x\"} 2",
        "value of a state is neither 0 nor 1",
    ),
    (
        "# TYPE a stateset\na 1",
        "a label that the metric type needs is missing",
    ),
    (
        "# TYPE a summary\na{quantile=\"2\"} 1",
        "the value of le or quantile is out of range",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"1\"} 1",
        "histogram without +Inf bucket",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1.5",
        "count is no integer",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"2\"} 1\na_bucket{le=\"1\"} 1",
        "buckets are out of order",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"2\"} 1",
        "counts of buckets are out of order",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_count 2\na_sum 1",
        "count of a histogram is not that of its +Inf bucket",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_count 1",
        "histogram with only one of sum and count",
    ),
    (
        "# TYPE a histogram\na_bucket{le=\"-1\"} 0\na_bucket{le=\"+Inf\"} 1\na_count 1\na_sum 1",
        "sum of a histogram with negative buckets",
    ),
    (
        "# TYPE a gaugehistogram\na_bucket{le=\"+Inf\"} 1\na_gcount 1\na_gsum -1",
        "negative sum of a histogram without negative buckets",
    ),
    (
        "a{b=\"1\"} 1\na{b=\"2\"} 1\na{b=\"1\"} 1",
        "samples of a metric do not stand together",
    ),
    ("a 1 2\na 1 1", "timestamps go backwards"),
    (
        "a 1 2\na 1",
        "only some samples of a metric have timestamps",
    ),
    ("a 1 # {b=\"c\"} 1", "an exemplar where none is allowed"),
];

#[test]
fn strict_wants_what_prometheus_lets_pass() {
    for (lines, expected) in NOT_STRICT {
        let body = format!("{lines}\n# EOF\n");
        read(body.as_bytes(), Format::OpenMetrics, usual()).expect(lines);
        let error = read(body.as_bytes(), Format::OpenMetrics, strict()).expect_err(lines);
        assert!(
            error.contains(&format!(": {expected}")),
            "{lines:?}: {error}"
        );
    }
    let long = "x".repeat(128);
    let body = format!("# TYPE a counter\na_total 1 # {{b=\"{long}\"}} 1\n# EOF\n");
    let error = read(body.as_bytes(), Format::OpenMetrics, strict()).unwrap_err();
    assert!(error.contains("longer than 128 characters"), "{error}");
}

#[test]
fn an_error_stays_and_the_next_body_is_read_afresh() {
    let mut parser = Parser::default();
    parser.start(b"# TYPE a histogram\n1", Format::Text, usual());
    parser.next(b"# TYPE a histogram\n1").unwrap();
    let error = parser.next(b"# TYPE a histogram\n1").unwrap_err();
    assert_eq!((error.line, error.offset), (Some(2), 19));
    assert_eq!(parser.next(b"# TYPE a histogram\n1"), Err(error));
    let body = b"b{le=\"1\"} 1";
    parser.start(body, Format::Text, usual());
    let entry = parser.next(body).unwrap().unwrap();
    assert_eq!(
        shown(&parser, body, &entry),
        "{__name__=\"b\",le=\"1\"} 1.0"
    );
}

#[test]
fn a_sample_belongs_to_the_family_of_its_metadata() {
    let body = b"# HELP a of a\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 2\na 3\nab 4\n\
        # TYPE c_total counter\nc_total 1\n# HELP d of d\nc_total 1\nd 2\n";
    let mut parser = Parser::default();
    parser.start(body, Format::Text, usual());
    let mut families = Vec::new();
    while let Some(entry) = parser.next(body).unwrap() {
        if matches!(entry, Entry::Sample(_)) {
            let family = parser.family(body);
            let shown = family.map(|family| (text(family.name), family.kind, text(family.help)));
            families.push(shown);
        }
    }
    let a = || Some(("a".to_owned(), Kind::Histogram, "of a".to_owned()));
    let c = Some(("c_total".to_owned(), Kind::Counter, String::new()));
    let d = Some(("d".to_owned(), Kind::Unknown, "of d".to_owned()));
    assert_eq!(families, [a(), a(), a(), None, c, None, d]);
}
