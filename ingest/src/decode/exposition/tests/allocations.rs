//! Turns the second reading of a body into a count of allocations, which is none.

use prost::Message as _;

use super::protobuf::{family, histogram, native_and_classic};
use super::*;

fn text_body() -> Vec<u8> {
    let mut body = String::from("# HELP a \\\\\n# TYPE a histogram\n");
    for at in 0..200 {
        writeln!(body, "a_bucket{{x=\"{at}\\n\",le=\"1\"}} {at}.{at}e-7").unwrap();
        writeln!(
            body,
            "a_bucket{{x=\"{at}\\n\",le=\"3e7\"}} {at}12345678901234567890"
        )
        .unwrap();
    }
    body.into_bytes()
}

fn openmetrics_body() -> Vec<u8> {
    let mut body = String::from("# TYPE a counter\n# UNIT a \n");
    for at in 0..200 {
        writeln!(body, "a_total{{x=\"{at}\"}} {at} # {{id=\"\\\\{at}\"}} 1 2").unwrap();
        writeln!(body, "a_created{{x=\"{at}\"}} 2").unwrap();
    }
    body.push_str("# EOF\n");
    body.into_bytes()
}

fn protobuf_body() -> Vec<u8> {
    let metric = vec![histogram(native_and_classic()); 100];
    family("histogram", metric).encode_length_delimited_to_vec()
}

fn pull(parser: &mut Parser, converter: &mut Converter, body: &[u8], format: Format) -> usize {
    let mut bytes = 0;
    for strict in [false, true] {
        let options = ParseOptions {
            strict,
            classic_histograms: true,
            ..ParseOptions::default()
        };
        parser.start(body, format, options);
        converter.start(strict);
        while let Some(_entry) = converter.next(parser, body).unwrap() {
            let labels = converter.labels(parser, body);
            bytes += labels
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>();
            bytes += converter.exemplars(parser, body).count();
        }
    }
    bytes
}

#[test]
fn a_body_read_again_allocates_nothing() {
    let mut parser = Parser::default();
    let mut converter = Converter::default();
    let bodies = [
        (text_body(), Format::Text),
        (openmetrics_body(), Format::OpenMetrics),
        (protobuf_body(), Format::Protobuf),
    ];
    let mut round = || {
        let bodies = bodies.iter();
        bodies
            .map(|(body, format)| pull(&mut parser, &mut converter, body, *format))
            .sum::<usize>()
    };
    let first = round();
    let profiler = dhat::Profiler::builder().testing().build();
    let second = round();
    let blocks = dhat::HeapStats::get().total_blocks;
    drop(profiler);
    assert_eq!(first, second);
    // The threads of the test harness may allocate; one for each body would be too many.
    assert!(blocks < 3, "{blocks} allocations");
}
