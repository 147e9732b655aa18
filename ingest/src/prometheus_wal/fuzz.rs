//! Turns any bytes into a segment that is read to its end, into a record, and into a compressed one:
//! a fuzzer seldom finds the checksum that leads from the first to the others.
//!
//! # Panics
//! If bytes are neither accounted for nor in order, which is what the fuzzer looks for.

use super::Why;
use super::compress::{Compression, RECORD_BYTES_MAX};
use super::pages::{Pages, Step};
use super::record::Record;

/// Reads `bytes` as a segment, as one record, and as compressed.
///
/// # Panics
/// If a step goes backwards, or the reader does not end.
pub fn reading_ends_in_order(bytes: &[u8]) {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut pages = Pages::new(bytes);
    let mut at = 0;
    loop {
        let range = match pages.step().expect("bytes in memory can be read") {
            Step::End => break,
            Step::Lost(range, _) => range,
            Step::Record(range) => {
                use_all(pages.record());
                range
            }
        };
        assert!(at <= range.start && range.start < range.end && range.end <= length);
        at = range.end;
    }
    use_all(bytes);
    for compression in [Compression::Snappy, Compression::Zstd] {
        if let Ok(record) = compression.expand(bytes, &mut Vec::new()) {
            assert!(record.len() <= RECORD_BYTES_MAX);
        }
    }
}

/// Reads a record and everything that is made of it.
fn use_all(record: &[u8]) {
    let mut out = Vec::new();
    match Record::decode(record) {
        Ok(Record::Series(series)) => {
            for series in series {
                if series.append_canonical(&mut out).is_ok() {
                    assert!(!series.metric_name().is_empty());
                }
            }
        }
        Ok(Record::Exemplars(exemplars)) => {
            for exemplar in exemplars {
                drop(exemplar.message());
            }
        }
        Ok(Record::Metadata(all)) => {
            for metadata in all {
                drop(metadata.message(b"a_count"));
            }
        }
        Ok(_) => {}
        Err(why) => assert!(matches!(why, Why::Malformed | Why::UnknownType)),
    }
}
