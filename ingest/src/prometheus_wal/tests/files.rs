//! Directories as Prometheus leaves them: made here, and real ones.
//!
//! The corpus is at `PENSTOCK_CORPUS`, else beside the workspace; where there is none, the test
//! that wants it says so and passes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::*;
use super::records::Field::{Fixed, Varint};
use super::records::record;
use super::{Segment, read};

/// Sample records by time, and losses, of a whole directory.
fn events(dir: &Path) -> (Vec<i64>, Vec<Lost>) {
    let mut wal = PrometheusWal::open(dir).unwrap();
    let (mut times, mut losses) = (Vec::new(), Vec::new());
    while let Some(event) = wal.next_event().unwrap() {
        match event {
            Event::Record(Record::Samples(samples)) => {
                times.extend(samples.iter().map(|sample| sample.timestamp_ms));
            }
            Event::Record(other) => panic!("{other:?}"),
            Event::Lost(lost) => losses.push(lost),
        }
    }
    (times, losses)
}

/// A segment with a sample at each of `times`.
fn write_segment(path: &Path, times: &[u64], cut: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let one = |time: &u64| record(2, &[Fixed(1), Fixed(*time), Varint(0), Varint(0), Fixed(0)]);
    let records: Vec<_> = times.iter().map(one).collect();
    let bytes = Segment::of(&records).0;
    fs::write(path, &bytes[..bytes.len() - cut]).unwrap();
}

#[test]
fn the_newest_checkpoint_and_what_is_behind_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let wal = dir.path().join("wal");
    write_segment(&wal.join("checkpoint.00000002/00000000"), &[1], 0);
    write_segment(&wal.join("checkpoint.00000010/00000000"), &[2], 0);
    write_segment(&wal.join("checkpoint.00000010/00000001"), &[3], 0);
    write_segment(&wal.join("checkpoint.00000011.tmp/00000000"), &[4], 0);
    write_segment(&wal.join("00000010"), &[5], 0);
    write_segment(&wal.join("00000011"), &[6], 0);
    write_segment(&wal.join("00000012"), &[7, 8], 0);
    for dir in [dir.path(), &wal] {
        assert_eq!(events(dir), (vec![2, 3, 6, 7, 8], vec![]));
    }
}

#[test]
fn cut_segments_and_gaps_are_told_from_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    write_segment(&dir.path().join("00000000"), &[1, 2], 1);
    write_segment(&dir.path().join("00000002"), &[3, 4], 1);
    let (times, losses) = events(dir.path());
    assert_eq!(times, [1, 3]);
    let whys: Vec<_> = losses.iter().map(|lost| lost.why).collect();
    assert_eq!(whys, [Why::CutOff, Why::MissingSegments, Why::TornTail]);
    assert_eq!(losses[2].file, dir.path().join("00000002"));
    assert_eq!((losses[2].offset, losses[2].bytes), (34, 33));
}

#[test]
fn a_directory_without_segments_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = PrometheusWal::open(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::NoWal(_)), "{refused}");
    let refused = PrometheusWal::open(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
}

/// Real logs, if they are here.
fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("PENSTOCK_CORPUS").map(PathBuf::from);
    let path = given
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"));
    let has = path.join("manifest.json").try_exists().unwrap_or(false);
    has.then_some(path)
}

/// Counts as the corpus has them: records and items by type, and the range of time, which is
/// without exemplars.
#[derive(Default, PartialEq, Eq, Debug)]
struct Counts {
    records: BTreeMap<String, u64>,
    items: BTreeMap<String, u64>,
    times: Option<(i64, i64)>,
}

impl Counts {
    fn of(bytes: &[u8]) -> Self {
        let mut counts = Self::default();
        let (records, losses) = read(bytes);
        assert!(
            losses.iter().all(|(_, _, why)| why.is_usual()),
            "{losses:?}"
        );
        for bytes in records {
            counts.add(bytes[0], &Record::decode(&bytes).unwrap());
        }
        counts
    }

    fn add(&mut self, kind: u8, record: &Record<'_>) {
        let times: Vec<i64> = match record {
            Record::Series(all) => vec![0; all.len()],
            Record::Samples(all) => all.iter().map(|sample| sample.timestamp_ms).collect(),
            Record::Exemplars(all) => vec![0; all.len()],
            Record::Histograms(all) => all.iter().map(|one| one.message.timestamp).collect(),
            other => panic!("{other:?}"),
        };
        let name = match kind {
            1 => "series",
            2 => "samples",
            4 => "exemplars",
            7 => "histogram_samples",
            9 => "custom_buckets_histogram_samples",
            _ => panic!("type {kind}"),
        };
        let count = u64::try_from(times.len()).unwrap();
        *self.records.entry(name.to_owned()).or_default() += 1;
        *self.items.entry(name.to_owned()).or_default() += count;
        for time in times.into_iter().filter(|time| *time != 0) {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
    }

    fn expected(entry: &Value) -> Self {
        let map = |key: &str| serde_json::from_value(entry[key].clone()).unwrap();
        let time = |key: &str| entry[key].as_i64();
        Self {
            records: map("records"),
            items: map("items"),
            times: time("min_t").zip(time("max_t")),
        }
    }
}

#[test]
fn real_logs_hold_what_prometheus_reads_in_them() {
    let Some(corpus) = corpus() else {
        println!("skipped: no corpus of real logs (PENSTOCK_CORPUS)");
        return;
    };
    let mut files = 0;
    for entry in fs::read_dir(corpus.join("wal")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let expected: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for entry in expected.as_array().unwrap() {
            let file = entry["file"].as_str().unwrap();
            let bytes = fs::read(corpus.join(file)).unwrap();
            assert_eq!(Counts::of(&bytes), Counts::expected(entry), "{file}");
            files += 1;
        }
        let dir = path.to_string_lossy().replace(".expected.json", "");
        every_ref_is_known(Path::new(&dir));
    }
    println!("{files} files");
    assert!(files >= 5, "only {files}");
}

/// Refs are made known before they are used.
fn every_ref_is_known(dir: &Path) {
    let mut wal = PrometheusWal::open(dir).unwrap();
    let mut known = std::collections::HashSet::new();
    let mut used = 0;
    while let Some(event) = wal.next_event().unwrap() {
        match event {
            Event::Record(Record::Series(all)) => known.extend(all.iter().map(|s| s.reference)),
            Event::Record(Record::Samples(all)) => {
                used += all.len();
                assert!(all.iter().all(|sample| known.contains(&sample.reference)));
            }
            Event::Record(_) => {}
            Event::Lost(lost) => assert!(lost.why.is_usual(), "{lost:?}"),
        }
    }
    assert!(used > 10_000, "only {used} in {}", dir.display());
}
