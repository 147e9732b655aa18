//! Turns bodies, small ones here and the corpus where it is, into verdicts on the parsers.

mod allocations;
mod corpus;
mod floats;
mod golden;
mod nhcb;
pub(crate) mod protobuf;
mod resume;
mod verdicts;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(pieces in proptest::collection::vec(piece(), 0..24)) {
        let body = pieces.concat();
        for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
            fuzz::a_body_is_read_or_refused(&body, format);
        }
    }
}

/// Pieces that bodies are made of, and others.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"# TYPE a ",
        b"# TYPE a histogram\n",
        b"# TYPE a summary\n",
        b"# TYPE a counter\n",
        b"# HELP a ",
        b"# UNIT a_s s\n",
        b"# EOF\n",
        b"# ",
        b"\n",
        b" ",
        b"\t",
        b"a",
        b"a_total",
        b"a_created",
        b"a_bucket",
        b"{",
        b"}",
        b"le=\"1\"",
        b"le=\"+Inf\"",
        b"quantile=\"0.5\"",
        b"\"x y\"",
        b"=",
        b",",
        b"\"",
        b"\\",
        b"\\n",
        b" 1\n",
        b" 1.5e3",
        b" NaN\n",
        b" # {b=\"c\"} 1 2\n",
        b"\0",
        b"\xff",
        b"\xc3\xa4",
        b"a_bucket{le=\"2\"} 3\n",
        b"a_count 3\n",
        b"\x0a\x01m",
    ];
    prop_oneof![
        4 => proptest::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

/// What a body was read as, for a person to compare.
pub(super) fn read(
    body: &[u8],
    format: Format,
    options: ParseOptions,
) -> Result<Vec<String>, String> {
    let mut parser = Parser::default();
    parser.start(body, format, options);
    let mut read = Vec::new();
    loop {
        match parser.next(body) {
            Ok(Some(entry)) => read.push(shown(&parser, body, &entry)),
            Ok(None) => return Ok(read),
            Err(error) => return Err(error.to_string()),
        }
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn labels_shown<'b>(labels: impl Iterator<Item = (&'b [u8], &'b [u8])>) -> String {
    let labels: Vec<_> = labels
        .map(|(name, value)| format!("{}={:?}", text(name), text(value)))
        .collect();
    format!("{{{}}}", labels.join(","))
}

/// One line per entry.
pub(super) fn shown(parser: &Parser, body: &[u8], entry: &Entry) -> String {
    let bytes = |span| text(parser.bytes(body, span));
    match entry {
        Entry::Help { family, text } => format!("help {} {:?}", bytes(*family), bytes(*text)),
        Entry::Type { family, kind } => format!("type {} {kind:?}", bytes(*family)),
        Entry::Unit { family, unit } => format!("unit {} {}", bytes(*family), bytes(*unit)),
        Entry::Comment => "comment".into(),
        Entry::Sample(at) => {
            let mut line = format!("{} {:?}", labels_shown(parser.labels(body)), at.value);
            if let Some(timestamp) = at.timestamp_ms {
                write!(line, " @{timestamp}").unwrap();
            }
            if let Some(start) = at.start_ms {
                write!(line, " since {start}").unwrap();
            }
            for exemplar in parser.exemplars(body) {
                let labels = labels_shown(exemplar.labels());
                write!(
                    line,
                    " # {labels} {:?} {:?}",
                    exemplar.value, exemplar.timestamp_ms
                )
                .unwrap();
            }
            line
        }
        Entry::Histogram(at) => {
            let labels = labels_shown(parser.labels(body));
            format!("{labels} {:?} {:?}", parser.histogram(), at.timestamp_ms)
        }
    }
}

/// Where captured bodies are, if they are here.
pub(crate) fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let path = given
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"));
    let has = path.join("manifest.json").try_exists().unwrap_or(false);
    if !has {
        println!("skipped: no corpus of captured bodies (PENSTOCK_CORPUS)");
    }
    has.then_some(path)
}

/// The bytes of a file of the corpus, without compression.
pub(crate) fn bytes_of(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(corpus().unwrap().join(file)).unwrap();
    if !file.ends_with(".gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut plain)
        .unwrap();
    plain
}

pub(super) fn json_of(file: &str) -> Value {
    serde_json::from_slice(&bytes_of(file)).unwrap()
}

/// The entries of the manifest of one folder.
pub(crate) fn listed(folder: &str) -> Vec<Value> {
    let manifest = json_of("manifest.json");
    let all = manifest["entries"].as_array().unwrap().clone();
    let is_inside =
        |entry: &Value| entry["file"].as_str().unwrap().split('/').next() == Some(folder);
    all.into_iter().filter(is_inside).collect()
}

/// Labels as the corpus has them, sorted and without empty ones.
pub(super) fn label_map<'b>(
    labels: impl Iterator<Item = (&'b [u8], &'b [u8])>,
) -> BTreeMap<String, String> {
    labels
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}
