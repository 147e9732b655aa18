//! Turns any bytes into bodies that have to be read or refused, never more.
//!
//! What comes out is looked at: every range lies in the body, errors point into it, and a body
//! entered at any of its lines goes on the same.

use super::{Converter, Entry, Format, LineState, ParseOptions, Parser, SampleAt, float};

/// Reads a body in one format under every option.
///
/// # Panics
///
/// If what comes out contradicts itself.
pub fn a_body_is_read_or_refused(body: &[u8], format: Format) {
    let mut parser = Parser::default();
    for options in 0..8u8 {
        let options = ParseOptions {
            strict: options & 1 != 0,
            skip_created: options & 2 != 0,
            classic_histograms: options & 4 != 0,
            native_histograms: options & 2 != 0,
        };
        parser.start(body, format, options);
        let mut at = 0;
        loop {
            match parser.next(body) {
                Ok(Some(entry)) => look(&parser, body, &entry, format),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.offset <= body.len(), "{error}");
                    assert_eq!(parser.next(body), Err(error), "an error stays");
                    break;
                }
            }
            assert!(parser.at() >= at && parser.at() <= body.len());
            at = parser.at();
        }
    }
    converted(&mut parser, body, format);
    if format != Format::Protobuf {
        resumed(body, format);
    }
}

fn look(parser: &Parser, body: &[u8], entry: &Entry, format: Format) {
    match entry {
        Entry::Help { family, text } => {
            let all = [parser.bytes(body, *family), parser.bytes(body, *text)];
            assert!(all.iter().all(|text| std::str::from_utf8(text).is_ok()));
        }
        Entry::Sample(at) => {
            labels(parser, body);
            if format != Format::Protobuf {
                value(body, at);
            }
        }
        Entry::Histogram(_) => {
            labels(parser, body);
            let histogram = parser.histogram();
            for buckets in [&histogram.positive, &histogram.negative] {
                let lengths = buckets.spans.iter().map(|(_, length)| u64::from(*length));
                let count = buckets.deltas.len() + buckets.counts.len();
                assert_eq!(lengths.sum::<u64>(), u64::try_from(count).unwrap_or(0));
            }
        }
        Entry::Type { .. } | Entry::Unit { .. } | Entry::Comment => {}
    }
}

fn labels(parser: &Parser, body: &[u8]) {
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    assert!(
        parser
            .labels(body)
            .all(|(name, value)| is_text(name) && is_text(value))
    );
    let mut exemplars = parser
        .exemplars(body)
        .flat_map(|exemplar| exemplar.labels());
    assert!(exemplars.all(|(name, value)| is_text(name) && is_text(value)));
}

fn value(body: &[u8], at: &SampleAt) {
    let token = body.get(at.value_at.clone()).unwrap_or_default();
    let value = float::parse(token).map(f64::to_bits);
    assert_eq!(value, Some(at.value.to_bits()));
    assert!(at.line_at.start <= at.value_at.start && at.value_at.end <= at.line_at.end);
}

fn converted(parser: &mut Parser, body: &[u8], format: Format) {
    let mut converter = Converter::default();
    converter.start(false);
    parser.start(body, format, ParseOptions::default());
    let mut message = Vec::new();
    while let Ok(Some(entry)) = converter.next(parser, body) {
        if let Entry::Histogram(_) = entry {
            message.clear();
            converter.histogram(parser).append_message(1, &mut message);
            assert!(converter.labels(parser, body).next().is_some());
        }
    }
}

/// Reads on from every line, in a parser that knows nothing but the state there.
fn resumed(body: &[u8], format: Format) {
    // Start times are those of lines around.
    let options = ParseOptions {
        skip_created: false,
        ..ParseOptions::default()
    };
    let (mut through, mut entered) = (Parser::default(), Parser::default());
    through.start(body, format, options);
    loop {
        entered.start(body, format, options);
        let state: LineState<'_> = through.state(body);
        entered.resume(through.at(), state);
        let (expected, found) = (through.next(body), entered.next(body));
        match (&expected, &found) {
            (Ok(Some(Entry::Sample(expected))), Ok(Some(Entry::Sample(found)))) => {
                assert_eq!(expected.value.to_bits(), found.value.to_bits());
                assert_eq!(expected.line_at, found.line_at);
                assert!(through.labels(body).eq(entered.labels(body)));
                assert_eq!(through.family(body), entered.family(body));
            }
            (Ok(Some(_)), Ok(Some(_))) => {}
            _ => {
                assert_eq!(expected, found);
                return;
            }
        }
    }
}
