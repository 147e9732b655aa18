//! Changes every byte of a small store in turn and proves what that costs: the frame the byte is in,
//! or the labels of the series it is in, or nothing; counted to the record, for the right reason, and
//! the same at every start.
//!
//! Bytes of the zeroed rest of files, and of one large record, are sampled; with
//! `PENSTOCK_TEST_EXHAUSTIVE=1` all of them are changed, in three ways.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::common::faulty::{FaultyDisk, Plan};
use crate::common::journal::{Image, JournalDisk, Platter, lay_out};
use crate::common::life::repeatable;
use crate::common::{HastyDisk, ack_all, define, labels, scratch};
use wal::{
    Committer, DropReason, Endpoint, LagLimits, RawRecord, RecordKind, Sample, SeriesRef, Store,
    Tail, Tally, Writer,
};

const SEGMENT_BYTES: u64 = 64 << 10;
const NAMES: [&str; 2] = ["one", "two"];
/// Of bytes that are sampled, one in so many.
const EVERY: usize = 64;

/// A frame as it was written.
#[derive(Clone, Debug)]
struct Written {
    file: PathBuf,
    /// Its bytes in the file.
    at: Range<usize>,
    /// What it holds: series and a number of its own.
    records: Vec<(u32, u64)>,
    /// The commit it was part of.
    group: usize,
    /// The run it was part of.
    run: usize,
}

/// A store and what is in it.
struct Small {
    image: Image,
    frames: Vec<Written>,
    /// Per endpoint, the frames behind its older and its newer saved position.
    owed: [[usize; 2]; 2],
}

/// A small store in the making.
struct Making {
    store: Store,
    writer: Writer,
    committer: Committer,
    endpoints: Vec<(Endpoint, Tail)>,
    run: usize,
}

impl Making {
    fn open(dir: &Path, disk: &Arc<JournalDisk>, run: usize) -> Self {
        let store = Store::open(dir, repeatable(disk.clone(), run as u64)).unwrap();
        let endpoint = |name| {
            let endpoint = store.endpoint(name).unwrap();
            let tail = endpoint.tail();
            (endpoint, tail)
        };
        let endpoints = NAMES.map(endpoint).into();
        // Its loss is in the ledger.
        let gone = store.endpoint("gone").unwrap();
        gone.set_limits(LagLimits {
            max_bytes: (run == 1).then_some(2000),
            max_age: None,
        });
        store.endpoints_complete();
        Self {
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            endpoints,
            store,
            run,
        }
    }

    /// Appends requests of one sample per series, and a large record of zeros where asked for, and
    /// commits them together.
    fn commit(&mut self, small: &mut Small, requests: &[(Range<u32>, usize)]) {
        let group = small
            .frames
            .iter()
            .map(|f| f.group)
            .max()
            .map_or(0, |g| g + 1);
        for (series, raw_bytes) in requests {
            let first: usize = small.frames.iter().map(|f| f.records.len()).sum();
            let numbers: Vec<u32> = series.clone().collect();
            let refs = define(&self.store, &numbers).unwrap();
            let sample = |(at, series): (usize, &SeriesRef)| Sample {
                series: *series,
                timestamp_ms: 5,
                value_bits: (first + at) as u64,
            };
            let samples: Vec<_> = refs.iter().enumerate().map(sample).collect();
            let mut bytes = vec![0; *raw_bytes];
            let raw: Vec<_> = (*raw_bytes > 0)
                .then(|| {
                    let number = (first + samples.len()) as u64;
                    bytes[..8].copy_from_slice(&number.to_le_bytes());
                    RawRecord {
                        series: refs[0],
                        kind: RecordKind::Histogram,
                        bytes: &bytes,
                    }
                })
                .into_iter()
                .collect();
            self.writer.append(&samples, &raw).unwrap();
            let all = series.clone().chain(raw.iter().map(|_| series.start));
            let records = all.zip(first as u64..).collect();
            small.frames.push(Written {
                file: PathBuf::new(),
                at: 0..0,
                records,
                group,
                run: self.run,
            });
        }
        self.committer.commit_now().unwrap();
        self.store.keep();
    }

    /// An endpoint reads and acknowledges one more frame, and its position is saved.
    fn ack(&mut self, endpoint: usize) {
        let (endpoint, tail) = &mut self.endpoints[endpoint];
        tail.next().unwrap().unwrap();
        ack_all(endpoint, tail);
        self.store.keep();
    }
}

/// Two runs: the first fills a segment, goes on in a second and is killed, the other is closed.
fn small() -> Small {
    let dir = scratch();
    let disk = JournalDisk::new(dir.path());
    let mut small = Small {
        image: Image::new(),
        frames: Vec::new(),
        owed: [[1, 2], [2, 3]],
    };
    let mut making = Making::open(dir.path(), &disk, 0);
    for at in 0..4 {
        making.commit(&mut small, &[(at * 8..at * 8 + 10, 0)]);
    }
    for endpoint in [0, 0, 1, 1, 1] {
        making.ack(endpoint);
    }
    making.commit(&mut small, &[(30..40, 28_000), (38..46, 28_000)]);
    making.commit(&mut small, &[(40..50, 0), (3..5, 9000)]);
    making.commit(&mut small, &[(0..4, 0), (45..60, 0)]);
    drop(making);
    let mut making = Making::open(dir.path(), &disk, 1);
    making.commit(&mut small, &[(0..5, 0)]);
    making.commit(&mut small, &[(55..64, 0), (20..30, 0)]);
    let store = making.store.clone();
    drop(making);
    store.close();
    drop(store);
    small.image = Platter::whole(&disk.ops());
    place(&mut small, dir.path());
    small
}

/// Finds where the frames stand.
fn place(small: &mut Small, dir: &Path) {
    let store = Store::open(dir, repeatable(Arc::new(HastyDisk), 9)).unwrap();
    let mut tail = store.endpoint("new").unwrap().tail();
    for written in &mut small.frames {
        let frame = tail.next().unwrap().unwrap();
        let (id, at) = (
            frame.position().get() / SEGMENT_BYTES,
            frame.position().get() % SEGMENT_BYTES,
        );
        let bytes = frame.end().bytes_since(frame.position());
        written.file = PathBuf::from(format!("segments/{id:08}.seg"));
        let at = usize::try_from(at).unwrap();
        written.at = at..at + usize::try_from(bytes).unwrap();
    }
    assert!(tail.next().unwrap().is_none());
    assert!(store.lost_bytes().contains_key("max_lag_bytes"));
}

/// The same, as if the files had held other segments before: behind the last frame of a run stand old
/// frames instead of zeros.
fn recycled() -> Small {
    let mut small = small();
    let runs = [0, 1].map(|run| small.frames.iter().rfind(|f| f.run == run).unwrap());
    for last in runs {
        let content = small.image.get_mut(&last.file).unwrap();
        let old: Vec<_> = last.at.clone().map(|at| content.byte(at)).collect();
        for (at, byte) in (last.at.end..content.size()).zip(old.iter().cycle()) {
            content.patch(at as u64, &[*byte]);
        }
        // As `docs/format.md` has it.
        for copy in [0, 2048] {
            content.patch(copy as u64 + 64, &[1]);
            let header: Vec<_> = (0..76).map(|at| content.byte(copy + at)).collect();
            let crc = crc32fast::hash(&header);
            content.patch(copy as u64 + 76, &crc.to_le_bytes());
        }
    }
    small
}

/// What an endpoint gets: a series (none without labels) and a number per record; and what it is
/// told it does not get.
#[derive(PartialEq, Eq, Debug)]
struct Got {
    records: Vec<(Option<u32>, u64)>,
    lost: Tally,
}

/// The series with these labels.
fn number_of(found: &[u8]) -> Option<u32> {
    static ALL: OnceLock<BTreeMap<Vec<u8>, u32>> = OnceLock::new();
    let all = ALL.get_or_init(|| (0..64).map(|n| (labels(n), n)).collect());
    all.get(found).copied()
}

fn get(store: &Store, name: &str) -> Got {
    let endpoint = store.endpoint(name).unwrap();
    let mut tail = endpoint.tail();
    let mut records = Vec::new();
    loop {
        let frame = match tail.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            // A page that cannot be read is asked for again before it is given up.
            Err(error) => {
                assert!(error.to_string().contains("cannot read"), "{error}");
                continue;
            }
        };
        let mut samples = Vec::new();
        let raw = frame.samples(&mut samples).unwrap();
        let guard = store.series().guard();
        let series_of = |series| {
            let found = guard.labels(series);
            let number = number_of(found);
            assert!(number.is_some() || found.is_empty(), "labels of nobody");
            number
        };
        for sample in &samples {
            assert_eq!(sample.timestamp_ms, 5);
            records.push((series_of(sample.series), sample.value_bits));
        }
        for record in raw.map(Result::unwrap) {
            let number = u64::from_le_bytes(record.bytes[..8].try_into().unwrap());
            assert!(record.bytes[8..].iter().all(|&b| b == 0));
            records.push((series_of(record.series), number));
        }
    }
    let lost = tail.take_lost();
    // The account adds up with exactly this.
    let decided = tail.mark().records - endpoint.mark().records;
    assert_eq!(decided, records.len() as u64 + lost.total());
    assert_eq!(decided, endpoint.account().pending);
    Got { records, lost }
}

/// What a changed byte of a segment may cost.
fn frame_at<'s>(small: &'s Small, file: &Path, offset: usize) -> Option<(usize, &'s Written)> {
    let mut frames = small.frames.iter().enumerate();
    frames.find(|(_, frame)| frame.file == file && frame.at.contains(&offset))
}

/// Why it is lost, if that is to be counted at all: nothing tells the end of the last run from a
/// write that was cut off.
fn reason(small: &Small, broken: &Written) -> Option<DropReason> {
    let of_run = |f: &&Written| f.run == broken.run;
    let behind = |f: &&Written| f.file == broken.file && f.at.start > broken.at.start;
    let proved = small
        .frames
        .iter()
        .filter(behind)
        .any(|f| f.group > broken.group);
    let is_end = small.frames.iter().rfind(of_run).unwrap().file == broken.file;
    match (
        is_end && !proved,
        small.frames.last().unwrap().at == broken.at,
    ) {
        (true, true) => None,
        (true, false) => Some(DropReason::Torn),
        _ => Some(DropReason::CorruptFrame),
    }
}

/// Opens the store with some bits changed and judges what is left.
fn check(small: &Small, file: &Path, offset: usize, bits: u8) {
    let dir = scratch();
    let mut image = small.image.clone();
    image.insert(file.to_owned(), image[file].flipped(offset, bits));
    lay_out(&image, dir.path());
    let open = || Store::open(dir.path(), repeatable(Arc::new(HastyDisk), 7)).unwrap();
    let store = open();
    let got = NAMES.map(|name| get(&store, name));
    let lines = store.lost_bytes();
    drop(store);
    for (at, got) in got.iter().enumerate() {
        judge(small, (file, offset), at, got);
    }
    let again = open();
    assert_eq!(NAMES.map(|name| get(&again, name)), got, "the second time");
    assert_eq!(again.lost_bytes(), lines, "the second time");
}

fn judge(small: &Small, (file, offset): (&Path, usize), endpoint: usize, got: &Got) {
    let mut from = small.owed[endpoint][1];
    let records = |from: usize| small.frames[from..].iter().flat_map(|f| &f.records);
    let mut lost = Tally::default();
    let mut missing: &[(u32, u64)] = &[];
    if let Some((at, broken)) = frame_at(small, file, offset) {
        // A byte of padding costs nothing.
        let first = broken.records[0].1;
        if at >= from && !got.records.iter().any(|(_, number)| *number == first) {
            missing = &broken.records;
            if let Some(reason) = reason(small, broken) {
                lost = Tally::of_dropped(reason, missing.len() as u64);
            }
        }
    } else if file == Path::new("positions").join(NAMES[endpoint]) {
        // From the older slot on.
        let most = records(small.owed[endpoint][0]).count();
        if got.records.len() == most {
            from = small.owed[endpoint][0];
        }
    }
    let is_left = |r: &&(u32, u64)| !missing.contains(r);
    let expected: Vec<_> = records(from).filter(is_left).collect();
    let numbers = |all: &mut dyn Iterator<Item = u64>| all.collect::<Vec<_>>();
    let found = numbers(&mut got.records.iter().map(|r| r.1));
    assert_eq!(found, numbers(&mut expected.iter().map(|r| r.1)));
    assert_eq!(got.lost, lost);
    // Labels are right or gone, and gone are those of one series at most.
    let mut without: Vec<u32> = Vec::new();
    for ((series, _), (want, _)) in got.records.iter().zip(expected) {
        match series {
            Some(series) => assert_eq!(series, want),
            None => without.push(*want),
        }
    }
    without.dedup();
    without.sort_unstable();
    without.dedup();
    let in_series = file.starts_with("series");
    assert!(
        without.len() <= usize::from(in_series),
        "{without:?} without labels"
    );
}

/// Changes the bytes of all files under `dir`, a `part`th of them.
fn change_all(small: &Small, dir: &str, part: usize, parts: usize) {
    let exhaustive = std::env::var_os("PENSTOCK_TEST_EXHAUSTIVE").is_some();
    let patterns: &[u8] = if exhaustive {
        &[0x01, 0x80, 0xff]
    } else {
        &[0x10]
    };
    let mut changed = 0;
    let files = small.image.iter().filter(|(path, _)| path.starts_with(dir));
    for (file, content) in files {
        let frames = small.frames.iter().filter(|frame| frame.file == *file);
        let written = frames.map(|frame| frame.at.end + 64).max();
        let dense = |at: usize| {
            if written.is_some_and(|end| at > end) {
                return false;
            }
            let near = at.saturating_sub(16)..at + 16;
            content.byte(at) != 0 || near.clone().any(|at| content.byte(at) != 0)
        };
        for at in (0..content.size()).filter(|at| at % parts == part) {
            if exhaustive || dense(at) || (at / parts).is_multiple_of(EVERY) {
                for &bits in patterns {
                    println!("{} byte {at} bits {bits:#x}", file.display());
                    check(small, file, at, bits);
                    changed += 1;
                }
            }
        }
    }
    println!("{changed} changes");
    assert!(changed > 50);
}

#[test]
fn a_changed_byte_of_a_segment_costs_at_most_its_frame_1_of_2() {
    change_all(&small(), "segments", 0, 2);
}

#[test]
fn a_changed_byte_of_a_segment_costs_at_most_its_frame_2_of_2() {
    change_all(&small(), "segments", 1, 2);
}

#[test]
fn a_changed_byte_of_a_recycled_segment_costs_at_most_its_frame_1_of_2() {
    change_all(&recycled(), "segments", 0, 2);
}

#[test]
fn a_changed_byte_of_a_recycled_segment_costs_at_most_its_frame_2_of_2() {
    change_all(&recycled(), "segments", 1, 2);
}

#[test]
fn a_changed_byte_of_a_chunk_costs_at_most_the_labels_of_its_series() {
    change_all(&small(), "series", 0, 1);
}

#[test]
fn a_changed_byte_of_a_position_costs_nothing() {
    change_all(&small(), "positions", 0, 1);
}

#[test]
fn a_changed_byte_of_the_ledger_costs_nothing() {
    change_all(&small(), "losses", 0, 1);
}

/// Opens the store on a device that cannot read one page; the numbers that are read, and what is said
/// to be lost.
fn without_page(small: &Small, file: &Path, page: u64) -> [Got; 2] {
    let dir = scratch();
    lay_out(&small.image, dir.path());
    let plan = Plan {
        bad: Some((file.to_owned(), page..page + 4096)),
        ..Plan::healthy(false)
    };
    let disk = FaultyDisk::new(dir.path(), plan);
    let store = Store::open(dir.path(), repeatable(disk, 7)).unwrap();
    NAMES.map(|name| get(&store, name))
}

#[test]
fn a_page_that_cannot_be_read_costs_the_frames_in_it() {
    without_each_page(&small());
}

#[test]
fn a_page_of_a_recycled_segment_that_cannot_be_read_costs_the_frames_in_it() {
    without_each_page(&recycled());
}

/// The first page holds both copies of the header: without it the file is left alone.
fn without_each_page(small: &Small) {
    let end = small.frames.last().unwrap();
    let segments = small
        .image
        .iter()
        .filter(|(path, _)| path.starts_with("segments"));
    let pages = segments.flat_map(|(file, content)| {
        let starts = (0..content.size()).step_by(4096);
        starts.map(move |first| (file, content, first))
    });
    for (file, content, first) in pages {
        println!("{} page at {first}", file.display());
        let last = first + 4096;
        // Taken as zeros, which is right where there are only zeros.
        if (first..last).all(|at| content.byte(at) == 0) {
            continue;
        }
        let is_hit = |frame: &Written| {
            let here = frame.at.start.max(first)..frame.at.end.min(last);
            let lost = first == 0 || here.clone().any(|at| content.byte(at) != 0);
            frame.file == *file && lost
        };
        for (at, got) in without_page(small, file, first as u64).iter().enumerate() {
            let owed = &small.frames[small.owed[at][1]..];
            let (hit, whole): (Vec<_>, Vec<_>) = owed.iter().partition(|f| is_hit(f));
            let numbers = whole.iter().flat_map(|f| &f.records).map(|r| r.1);
            let found = got.records.iter().map(|r| r.1);
            assert!(found.eq(numbers), "all that does not touch the page");
            let missing = hit.iter().map(|f| f.records.len() as u64).sum();
            let reason = match first {
                0 => DropReason::MissingSegment,
                _ => DropReason::Unreadable,
            };
            let counted = Tally::of_dropped(reason, missing);
            // Nothing tells what stood where the log ends.
            let is_end = hit.iter().any(|f| f.file == end.file);
            assert!(got.lost == counted || is_end, "{:?}", got.lost);
        }
    }
}
