//! Segment files that become the next ones: when, when not, and that what they held is never read again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::{HastyDisk, ack_all, define, open, options, read_all, scratch};
use wal::fs::SystemDisk;
use wal::inspect::{Event, StoreView, first_problem};
use wal::{Endpoint, RawRecord, RecordKind, Sample, SeriesRef, Store, StoreOptions, Tail, Writer};

const SEGMENT_BYTES: u64 = 64 << 10;

/// A store that is driven round by round.
struct Driven {
    store: Store,
    writer: Writer,
    committer: wal::Committer,
    endpoint: Endpoint,
    tail: Tail,
    refs: Vec<SeriesRef>,
    /// Values written so far.
    written: u64,
}

impl Driven {
    fn open(dir: &Path, options: StoreOptions) -> Self {
        let store = Store::open(dir, options).unwrap();
        let endpoint = store.endpoint("one").unwrap();
        store.endpoints_complete();
        let numbers: Vec<u32> = (0..500).collect();
        Self {
            refs: define(&store, &numbers).unwrap(),
            writer: store.writer().unwrap(),
            committer: store.committer().unwrap(),
            tail: endpoint.tail(),
            endpoint,
            store,
            written: 0,
        }
    }

    /// A request of random bytes, so that a segment takes a dozen.
    fn append(&mut self) {
        let mut random = fastrand::Rng::with_seed(self.written);
        let samples: Vec<_> = (self.refs.iter().zip(self.written..))
            .map(|(&series, number)| Sample {
                series,
                timestamp_ms: i64::try_from(number).unwrap(),
                value_bits: random.u64(..),
            })
            .collect();
        self.written += samples.len() as u64;
        self.writer.append(&samples, &[]).unwrap();
        self.committer.commit_now().unwrap();
    }

    fn deliver(&mut self) {
        read_all(&self.store, &mut self.tail);
        ack_all(&self.endpoint, &mut self.tail);
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.append();
            self.deliver();
            self.store.keep();
        }
    }

    /// Several segments are delivered at a time, so that one is left over.
    fn leave_spare(&mut self) {
        for _ in 0..60 {
            self.append();
            self.store.keep();
        }
        self.deliver();
        self.store.keep();
    }
}

/// The files with this extension by name, and what stands behind the names.
fn files(dir: &Path, extension: &str) -> BTreeMap<String, u64> {
    std::fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension() == Some(extension.as_ref()))
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().ino())
        })
        .collect()
}

/// What a killed process leaves.
fn copy(dir: &Path) -> tempfile::TempDir {
    let to = scratch();
    for sub in ["series", "segments", "positions", "quarantine"] {
        std::fs::create_dir_all(to.path().join(sub)).unwrap();
        for entry in std::fs::read_dir(dir.join(sub)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.path().join(sub).join(entry.file_name())).unwrap();
        }
    }
    to
}

/// The first timestamp that is still owed and how many are, in order and without loss.
fn owed(dir: &Path) -> (i64, usize) {
    let store = open(dir);
    let mut tail = store.endpoint("one").unwrap().tail();
    let all = read_all(&store, &mut tail);
    let first = all.first().map_or(-1, |sample| sample.1);
    for (at, sample) in (first..).zip(&all) {
        assert_eq!(sample.1, at);
    }
    assert_eq!(tail.take_lost().total(), 0);
    assert_eq!(store.lost_bytes(), BTreeMap::new());
    (first, all.len())
}

fn quarantined(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("quarantine")).unwrap().count()
}

#[test]
fn a_delivered_segment_becomes_the_next_one_and_what_it_held_is_not_read_again() {
    let dir = scratch();
    let mut driven = Driven::open(dir.path(), options(Arc::new(HastyDisk)));
    let mut inodes = BTreeSet::new();
    for _ in 0..200 {
        driven.rounds(1);
        inodes.extend(files(dir.path(), "seg").into_values());
        assert!(files(dir.path(), "spare").len() <= 1);
    }
    let newest = files(dir.path(), "seg").into_keys().next_back().unwrap();
    assert!(newest.as_str() > "00000012.seg", "{newest}");
    assert!(inodes.len() <= 5, "{} files for {newest}", inodes.len());
    // Old frames are behind the log's end, in files prepared, and in the spare.
    let delivered = driven.written;
    for undelivered in 0..30 {
        let killed = copy(dir.path());
        assert_eq!(first_problem(killed.path()).unwrap(), None);
        let view = StoreView::open(killed.path()).unwrap();
        assert_eq!(view.problems(), []);
        let first = i64::try_from(delivered).unwrap();
        let expected = match undelivered {
            0 => (-1, 0),
            _ => (first, undelivered * driven.refs.len()),
        };
        assert_eq!(owed(killed.path()), expected);
        assert_eq!(quarantined(killed.path()), 0);
        assert!(files(killed.path(), "spare").is_empty());
        driven.append();
        driven.store.keep();
    }
}

#[test]
fn a_stop_leaves_no_file_for_the_next_segment() {
    let dir = scratch();
    let mut driven = Driven::open(dir.path(), options(Arc::new(HastyDisk)));
    driven.leave_spare();
    assert_eq!(files(dir.path(), "spare").len(), 1);
    let Driven {
        store, committer, ..
    } = driven;
    drop(committer);
    store.close();
    assert!(files(dir.path(), "spare").is_empty());
    assert_eq!(first_problem(dir.path()).unwrap(), None);
}

#[test]
fn a_segment_that_somebody_reads_is_not_used_again() {
    let dir = scratch();
    let mut driven = Driven::open(dir.path(), options(Arc::new(HastyDisk)));
    // The end of its file is never read by this one, which has acknowledged everything.
    let behind = driven.store.endpoint("behind").unwrap();
    let mut reader = behind.tail();
    driven.append();
    let first = files(dir.path(), "seg")["00000000.seg"];
    reader.next().unwrap().unwrap();
    for _ in 0..60 {
        driven.append();
        driven.deliver();
        let mut end = behind.tail();
        read_all(&driven.store, &mut end);
        ack_all(&behind, &mut end);
        driven.store.keep();
    }
    let now = files(dir.path(), "seg");
    assert!(!now.contains_key("00000000.seg"));
    assert!(
        now.values().all(|inode| *inode != first),
        "its file is gone"
    );
    drop(reader);
}

#[test]
fn who_looks_from_outside_takes_what_is_used_again_for_gone() {
    let dir = scratch();
    // Larger than what is read at a time.
    let options = StoreOptions {
        segment_bytes: 2 << 20,
        ..options(Arc::new(HastyDisk))
    };
    let mut driven = Driven::open(dir.path(), options);
    let append = |driven: &mut Driven| {
        let bytes = vec![7; 20_000];
        let record = RawRecord {
            series: SeriesRef::NONE,
            kind: RecordKind::Metadata,
            bytes: &bytes,
        };
        driven.writer.append(&[], &[record]).unwrap();
        driven.committer.commit_now().unwrap();
        driven.store.keep();
    };
    for _ in 0..250 {
        append(&mut driven);
    }
    let view = StoreView::open(dir.path()).unwrap();
    let mut scan = view.scan();
    assert!(matches!(scan.next_event(), Some(Event::Frame(_))));
    let first = files(dir.path(), "seg")["00000000.seg"];
    while !files(dir.path(), "seg")
        .values()
        .skip(1)
        .any(|file| *file == first)
    {
        driven.deliver();
        append(&mut driven);
    }
    for _ in 0..400 {
        driven.deliver();
        append(&mut driven);
    }
    let mut seen = 0;
    while let Some(event) = scan.next_event() {
        assert!(matches!(event, Event::Frame(_)), "{event:?}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn without_room_for_another_segment_none_is_kept() {
    let dir = scratch();
    let mut driven = Driven::open(dir.path(), options(Arc::new(HastyDisk)));
    driven.leave_spare();
    assert_eq!(files(dir.path(), "spare").len(), 1);
    let limits = |max| {
        let mut live = driven.store.live_options();
        live.max_disk_bytes = Some(max);
        driven.store.change(live).unwrap();
    };
    // What there is now, and nothing beyond.
    limits(driven.store.disk_bytes().0 + SEGMENT_BYTES - 1);
    driven.store.keep();
    assert!(files(dir.path(), "spare").is_empty());
}

/// Kills a store whose newest segment is a recycled one with so many frames, flips a byte of the last frame,
/// and opens it again: the directory, the file, and the frame's bytes as they were then.
fn rotten_end(frames: usize, at: u64) -> (tempfile::TempDir, String, u64, Vec<u8>) {
    let dir = scratch();
    // One that gives space back.
    let mut driven = Driven::open(dir.path(), options(Arc::new(SystemDisk)));
    while driven
        .store
        .stats()
        .segments_recycled
        .load(Ordering::Relaxed)
        < 4
    {
        driven.rounds(1);
    }
    // The segments prepared since are recycled ones too.
    let id = driven.endpoint.mark().position.get() / SEGMENT_BYTES;
    let mut in_it = 0;
    while in_it < frames {
        driven.append();
        let end = driven.store.durable().position();
        in_it += usize::from(end.get() / SEGMENT_BYTES > id);
    }
    let mut tail = driven.store.endpoint("new").unwrap().tail();
    let mut last = 0..0;
    while let Some(frame) = tail.next().unwrap() {
        last = frame.position().get()..frame.end().get();
    }
    let name = format!("{:08}.seg", last.start / SEGMENT_BYTES);
    let killed = copy(dir.path());
    let path = killed.path().join("segments").join(&name);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let offset = last.start % SEGMENT_BYTES;
    let mut bytes = vec![0; usize::try_from(last.end - last.start).unwrap()];
    file.read_exact_at(&mut bytes, offset).unwrap();
    let flipped = usize::try_from(at).unwrap();
    bytes[flipped] ^= 4;
    file.write_all_at(&bytes[flipped..=flipped], offset + at)
        .unwrap();
    let mut header = [0; 68];
    file.read_exact_at(&mut header, 0).unwrap();
    assert_eq!(header[64], 1, "{name} is a recycled one");
    drop(Store::open(killed.path(), options(Arc::new(SystemDisk))).unwrap());
    (killed, name, offset, bytes)
}

#[test]
fn what_cannot_be_read_at_the_end_stays_where_it_is() {
    for at in [12, 300] {
        let (dir, name, offset, bytes) = rotten_end(3, at);
        let file = std::fs::File::open(dir.path().join("segments").join(name)).unwrap();
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, offset).unwrap();
        assert!(found == bytes, "byte {at}");
    }
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_kept_aside() {
    for at in [12, 300] {
        let (dir, name, offset, bytes) = rotten_end(1, at);
        assert!(!files(dir.path(), "seg").contains_key(&name));
        let kept = std::fs::read_dir(dir.path().join("quarantine")).unwrap();
        let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1);
        let kept = std::fs::read(&kept[0]).unwrap();
        let offset = usize::try_from(offset).unwrap();
        // What a frame is padded with is not told from the zeros behind it.
        let written = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        assert!(kept[offset..] == bytes[..written], "byte {at}");
    }
}
