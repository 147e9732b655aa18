//! Reads stores without opening them: the golden one, broken ones, and what a repair makes of those.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{ack_all, define, labels, open, read_all, scratch};
use wal::inspect::{Event, Problem, StoreView, What, repair};
use wal::{DropReason, Position, Sample, SeriesRef};

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Everything a view tells of frames, and all problems.
fn scan(view: &StoreView) -> (Vec<Sample>, Vec<Problem>) {
    let (mut samples, mut problems) = (Vec::new(), view.problems().to_vec());
    let mut scan = view.scan();
    while let Some(event) = scan.next_event() {
        match event {
            Event::Frame(frame) => drop(frame.samples(&mut samples).unwrap()),
            Event::Problem(problem) => problems.push(problem),
        }
    }
    problems.extend_from_slice(view.series().unwrap().problems());
    (samples, problems)
}

#[test]
fn the_golden_store_is_read_as_it_is() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let dir = scratch();
    copy_tree(&golden, dir.path());
    let view = StoreView::open(dir.path()).unwrap();
    let (samples, problems) = scan(&view);
    assert_eq!(problems, []);
    assert_eq!(samples.len(), 20 * 60);
    assert_eq!(view.end().records, 20 * 62);
    assert_eq!(view.segments().len(), 2);
    assert_eq!(
        view.segments()[1].previous_end(),
        Some(Position::new(11_432))
    );
    let position = &view.positions()[0];
    assert_eq!(position.endpoint, "the endpoint");
    assert_eq!(
        (position.records(), position.tally.delivered),
        (5 * 62, 5 * 62)
    );
    let series = view.series().unwrap();
    assert_eq!(series.len(), 60);
    assert_eq!(series.labels(SeriesRef::new(60)), labels(59));
    assert_eq!(series.index_of(SeriesRef::new(61)), None);
    let losses = view.losses().unwrap().losses;
    assert_eq!((losses.len(), losses[0].records), (1, 7));
    // Nothing was made or changed, also no lock.
    assert!(!dir.path().join("LOCK").try_exists().unwrap());
}

const SERIES: u32 = 500;

/// Several segments of 64 KiB in two runs; an endpoint that has nothing.
fn several_segments(dir: &Path) -> Vec<PathBuf> {
    for run in 0..2 {
        let store = open(dir);
        store.endpoint("one").unwrap();
        let refs = define(&store, &(0..SERIES).collect::<Vec<_>>()).unwrap();
        let (mut writer, mut committer) = (store.writer().unwrap(), store.committer().unwrap());
        for n in 0..40 {
            let sample = |&series: &SeriesRef| Sample {
                series,
                timestamp_ms: run * 1000 + n,
                value_bits: u64::MAX,
            };
            let samples: Vec<_> = refs.iter().map(sample).collect();
            while writer.append(&samples, &[]).is_err() {
                committer.commit_now().unwrap();
                store.keep();
            }
            committer.commit_now().unwrap();
        }
        drop((writer, committer));
        store.close();
    }
    let mut paths: Vec<_> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort_unstable();
    assert!(paths.len() > 6, "{paths:?}");
    paths
}

/// Opens a store and tells how many samples its endpoint gets, and what it misses.
fn delivered(dir: &Path) -> (u64, wal::Tally) {
    let store = open(dir);
    let endpoint = store.endpoint("one").unwrap();
    let mut tail = endpoint.tail();
    let read = read_all(&store, &mut tail);
    ack_all(&endpoint, &mut tail);
    let account = endpoint.account();
    assert_eq!(account.pending, 0);
    store.close();
    (u64::try_from(read.len()).unwrap(), account.tally)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Breaks a store, repairs it, and holds what both say against each other.
fn after(damage: impl Fn(&[PathBuf]), expected: &[What]) {
    let dir = scratch();
    let paths = several_segments(dir.path());
    let view = StoreView::open(dir.path()).unwrap();
    let (whole, problems) = scan(&view);
    assert_eq!(problems, []);
    damage(&paths);
    let view = StoreView::open(dir.path()).unwrap();
    let (left, problems) = scan(&view);
    let what: Vec<What> = problems.iter().map(|problem| problem.what).collect();
    assert_eq!(what, expected);
    let lost: u64 = problems.iter().filter_map(|problem| problem.records).sum();
    assert_eq!(u64::try_from(whole.len() - left.len()), Ok(lost));

    let to = dir.path().join("repaired");
    let done = repair(dir.path(), &to).unwrap();
    assert_eq!(done.records_lost, lost);
    let (again, problems) = scan(&StoreView::open(&to).unwrap());
    assert_eq!(again, left);
    assert!(
        problems.iter().all(|p| p.what == What::LostBefore),
        "{problems:?}"
    );
    let (read, tally) = delivered(&to);
    assert_eq!(u64::try_from(left.len()), Ok(read));
    assert_eq!(tally.delivered, read);
    let counted: u64 = DropReason::ALL
        .iter()
        .map(|reason| tally.dropped(*reason))
        .sum();
    assert_eq!(counted, lost, "{tally:?}");
}

#[test]
fn frames_in_the_middle() {
    let damage = |paths: &[PathBuf]| {
        flip(&paths[1], 4096 + 3);
        flip(&paths[1], 20_000);
    };
    after(damage, &[What::Frame, What::FrameBody]);
}

#[test]
fn the_last_frame_of_a_segment_and_its_end() {
    let damage = |paths: &[PathBuf]| {
        let mut bytes = fs::read(&paths[1]).unwrap();
        let last = bytes.len() - 9000;
        bytes[last..].fill(0xee);
        fs::write(&paths[1], bytes).unwrap();
    };
    after(damage, &[What::FrameBody, What::Frame]);
}

#[test]
fn segments_that_are_gone() {
    let damage = |paths: &[PathBuf]| {
        fs::remove_file(&paths[0]).unwrap();
        fs::remove_file(&paths[2]).unwrap();
    };
    after(damage, &[What::MissingSegment, What::MissingSegment]);
}

#[test]
fn both_copies_of_a_header() {
    let damage = |paths: &[PathBuf]| {
        for at in [10, 2048 + 10] {
            flip(&paths[1], at);
        }
    };
    after(damage, &[What::HeaderFromFrames]);
}

#[test]
fn both_copies_of_a_header_and_the_first_frame() {
    let damage = |paths: &[PathBuf]| {
        for at in [10, 2048 + 10, 4096 + 10] {
            flip(&paths[1], at);
        }
    };
    after(damage, &[What::Header, What::MissingSegment]);
}

#[test]
fn a_store_that_is_open_is_not_repaired() {
    let dir = scratch();
    let store = open(dir.path());
    let to = dir.path().join("new");
    let refused = repair(dir.path(), &to).unwrap_err();
    assert!(matches!(refused, wal::Error::Locked { .. }));
    assert!(!to.try_exists().unwrap());
    store.close();
    drop(store);
    repair(dir.path(), &to).unwrap();
    assert!(repair(dir.path(), &to).is_err());
}
