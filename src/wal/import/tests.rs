//! Records as they come, and what is in the store then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ingest::prometheus_wal::Record;
use ingest::proto;
use wal::{Clock, Store};

use super::*;

const STALE: u64 = 0x7ff0_0000_0000_0002;
/// Room for one batch, so that it is full most of the time.
const RING_BYTES: usize = 2 << 20;

fn options() -> StoreOptions {
    StoreOptions {
        ring_bytes: RING_BYTES,
        segment_bytes: 1 << 20,
        series_chunk_bytes: 64 << 10,
        ..StoreOptions::default()
    }
}

fn import(dir: &Path) -> Import {
    let target = Target::open(dir, options()).unwrap();
    Import::new(Some(target), None, None)
}

/// What the store holds, in order: labels as text, time, and float bits or kind.
fn stored(dir: &Path) -> Vec<(String, i64, String)> {
    let store = Store::open(dir, options()).unwrap();
    let mut tail = store.endpoint("test").unwrap().tail();
    let mut all = Vec::new();
    while let Some(frame) = tail.next().unwrap() {
        let mut samples = Vec::new();
        let raw = frame.samples(&mut samples).unwrap();
        for sample in samples {
            let bits = format!("{:x}", sample.value_bits);
            all.push((labels(&store, sample.series), sample.timestamp_ms, bits));
        }
        for record in raw {
            let record = record.unwrap();
            let time = match record.kind {
                RecordKind::Histogram => proto::Histogram::decode(record.bytes).unwrap().timestamp,
                RecordKind::Exemplar => proto::Exemplar::decode(record.bytes).unwrap().timestamp,
                RecordKind::Metadata | RecordKind::StartedSample => 0,
            };
            all.push((
                labels(&store, record.series),
                time,
                format!("{:?}", record.kind),
            ));
        }
    }
    all
}

fn labels(store: &Store, series: SeriesRef) -> String {
    let series = proto::TimeSeries::decode(store.series().guard().labels(series)).unwrap();
    let labels = series.labels.into_iter().map(|label| label.value);
    labels.collect::<Vec<_>>().join(",")
}

/// A record of type 1 that defines `reference` with two labels.
fn series(reference: u8, name: &str, other: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0, reference, 2];
    for text in ["a", other, "__name__", name] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A record of this type with one item at this time, below 64.
fn item(kind: u8, reference: u8, time: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0, reference];
    bytes.extend([0; 8]);
    bytes.extend([0, time * 2]);
    bytes.extend(rest);
    bytes
}

fn sample(reference: u8, time: u8) -> Vec<u8> {
    item(2, reference, time, &[0x7f, 0xf0, 0, 0, 0, 0, 0, 2])
}

fn histogram(reference: u8, time: u8) -> Vec<u8> {
    item(7, reference, time, &[0; 24])
}

fn take(import: &mut Import, records: &[Vec<u8>]) {
    for bytes in records {
        import.record(&Record::decode(bytes).unwrap()).unwrap();
    }
}

fn entry(labels: &str, time: i64, what: &str) -> (String, i64, String) {
    (labels.to_owned(), time, what.to_owned())
}

#[test]
fn a_ref_stands_for_what_it_was_last_defined_as() {
    let dir = tempfile::tempdir().unwrap();
    let mut import = import(dir.path());
    let records = [
        series(1, "up", "x"),
        sample(1, 1),
        series(1, "up", "y"),
        sample(1, 2),
        // And another ref for labels that are known already.
        series(2, "up", "x"),
        sample(2, 3),
    ];
    take(&mut import, &records);
    import.finish(Ok(())).unwrap();
    assert!(import.summary.is_complete());
    let stale = format!("{STALE:x}");
    let expected = [
        entry("up,x", 1, &stale),
        entry("up,y", 2, &stale),
        entry("up,x", 3, &stale),
    ];
    assert_eq!(stored(dir.path()), expected);
}

#[test]
fn a_series_that_changes_its_kind_keeps_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut import = import(dir.path());
    let exemplar = item(4, 1, 4, &[0; 9]);
    let records = [
        series(1, "up", "x"),
        sample(1, 1),
        histogram(1, 2),
        sample(1, 3),
        exemplar,
    ];
    take(&mut import, &records);
    import.finish(Ok(())).unwrap();
    let stored = stored(dir.path());
    let times: Vec<i64> = stored.iter().map(|(_, time, _)| *time).collect();
    assert_eq!(times, [1, 2, 3, 4]);
    assert_eq!(stored[1].2, "Histogram");
    assert_eq!(stored[3].2, "Exemplar");
}

#[test]
fn metadata_is_kept_once_per_family() {
    let dir = tempfile::tempdir().unwrap();
    let mut import = import(dir.path());
    let metadata = |reference, help| vec![6, reference, 5, 1, 4, b'H', b'E', b'L', b'P', 1, help];
    let records = [
        series(1, "rpc_sum", "x"),
        series(2, "rpc_count", "x"),
        metadata(1, b'a'),
        metadata(2, b'a'),
        metadata(1, b'b'),
    ];
    take(&mut import, &records);
    import.finish(Ok(())).unwrap();
    assert_eq!(import.summary.metadata, 2);
    let expected = [entry("", 0, "Metadata"), entry("", 0, "Metadata")];
    assert_eq!(stored(dir.path()), expected);
}

#[test]
fn what_is_not_imported_is_counted_under_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::open(dir.path(), options()).unwrap();
    let mut import = Import::new(Some(target), Some(10), Some(20));
    let mut records = vec![series(1, "up", "x"), series(2, "", "x"), vec![3]];
    records.extend([9, 10, 19, 20].map(|time| sample(1, time)));
    records.extend([sample(2, 15), sample(3, 15)]);
    take(&mut import, &records);
    import.finish(Ok(())).unwrap();
    assert_eq!(stored(dir.path()).len(), 2);
    let summary = import.summary;
    assert!(!summary.is_complete());
    let skipped: Vec<_> = summary
        .skipped()
        .iter()
        .map(|(reason, n)| (*reason, *n))
        .collect();
    let expected = [
        ("missing_metric_name", 1),
        ("out_of_range", 2),
        ("series_not_allowed", 1),
        ("tombstones", 1),
        ("unknown_series", 1),
    ];
    assert_eq!(skipped, expected);
    assert_eq!((summary.series, summary.samples), (1, 2));
}

#[test]
fn a_ring_that_is_full_most_of_the_time_only_takes_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut import = import(dir.path());
    take(&mut import, &[series(1, "up", "x")]);
    let mut many = item(2, 1, 0, &[0; 8]);
    for _ in 0..1000 {
        // One millisecond later each: differences are to the head, two bytes of varint.
        let time = u16::try_from(many.len() / 12).unwrap() * 2;
        let [high, low] = [time >> 7, time & 0x7f].map(|part| u8::try_from(part).unwrap());
        many.extend([0, low | 0x80, high]);
        many.extend(fastrand::u64(..).to_le_bytes());
    }
    for _ in 0..400 {
        take(&mut import, std::slice::from_ref(&many));
    }
    import.finish(Ok(())).unwrap();
    assert_eq!(import.summary.samples, 400_400);
    assert_eq!(stored(dir.path()).len(), 400_400);
}

/// Runs ahead whenever somebody looks, so that patience ends soon.
#[derive(Debug, Default)]
struct HastyClock(AtomicU64);

impl Clock for HastyClock {
    fn unix_ms(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(100 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn a_full_disk_ends_the_import_and_keeps_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let limit = options().disk_bytes_least();
    let small = StoreOptions {
        max_disk_bytes: Some(limit),
        clock: Arc::new(HastyClock::default()),
        ..options()
    };
    let target = Target::open(dir.path(), small).unwrap();
    let mut import = Import::new(Some(target), None, None);
    take(&mut import, &[series(1, "up", "x")]);
    let long = "x".repeat(1000);
    let mut exemplar = item(4, 1, 1, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'a', 0xe8, 7]);
    exemplar.extend(long.as_bytes());
    let exemplar = Record::decode(&exemplar).unwrap();
    let mut appended = Ok(());
    while appended.is_ok() {
        appended = import.record(&exemplar);
    }
    let error = import.finish(appended).unwrap_err().to_string();
    assert!(error.contains("disk full or quota reached"), "{error}");
    assert!(stored(dir.path()).len() > 1000);
}
