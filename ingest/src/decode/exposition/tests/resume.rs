//! Turns bodies that are entered at every line into comparisons with reading them through.

use super::*;

fn each_line(body: &[u8], format: Format, options: ParseOptions) {
    let mut whole = Parser::default();
    let mut other = Parser::default();
    whole.start(body, format, options);
    loop {
        // It knows nothing of the lines before.
        other.start(body, format, options);
        let at = whole.at();
        let state = whole.state(body);
        other.resume(at, state);
        let expected = whole.next(body).unwrap();
        let entry = other.next(body).unwrap();
        assert_eq!(other.at(), whole.at());
        let (Some(expected), Some(entry)) = (expected, entry) else {
            return;
        };
        assert_eq!(shown(&other, body, &entry), shown(&whole, body, &expected));
        if let (Entry::Sample(at), Entry::Sample(other_at)) = (&expected, &entry) {
            assert_eq!(other.family(body), whole.family(body));
            assert_eq!(at.line_at, other_at.line_at);
            assert_eq!(at.value_at, other_at.value_at);
            assert_eq!(at.line_at.end, whole.at());
            let value = float::parse(&body[at.value_at.clone()]).unwrap();
            assert_eq!(value.to_bits(), at.value.to_bits());
        }
    }
}

#[test]
fn a_body_can_be_entered_at_any_line() {
    let body = "\
# HELP a \\\\
# TYPE \"a\" histogram
a_bucket{le=\"1\"} 1
{\"a_bucket\",le=\"\\n\"} 1
# HELP b x
b{quantile=\"1\",le=\"1\"} 1
# TYPE c summary
c{quantile=\"1\"} 1
";
    each_line(body.as_bytes(), Format::Text, ParseOptions::default());
    let body = "\
# TYPE a counter
a_total{x=\"1\"} 1 # {b=\"\\n\"} 2
a_created{x=\"2\"} 2
a_total{x=\"2\"} 1
a_total{x=\"3\"} 1
a_created{x=\"3\"} 3
# EOF
";
    let samples = ParseOptions {
        skip_created: false,
        ..ParseOptions::default()
    };
    each_line(body.as_bytes(), Format::OpenMetrics, samples);
}

#[test]
fn captured_bodies_can_be_entered_at_any_line() {
    if corpus().is_none() {
        return;
    }
    for entry in listed("exposition") {
        let file = entry["file"].as_str().unwrap();
        let format = match entry["format"].as_str().unwrap() {
            "text-0.0.4" => Format::Text,
            "openmetrics-1.0.0" => Format::OpenMetrics,
            _ => continue,
        };
        each_line(&bytes_of(file), format, ParseOptions::default());
    }
}
