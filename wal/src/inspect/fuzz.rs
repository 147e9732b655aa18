//! Bodies of the fuzz targets that read what a disk may hold; `cargo test` runs them on generated
//! input.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::series::Found;
use super::{Event, StoreView};
use crate::chunk::{Record, encode_record};
use crate::header::FILE_HEADER_BYTES;
use crate::progress::{broken_slots, encode_slot, newest_slot, slot_of};
use crate::{NewSeries, Sample, SeriesRef, Store, StoreOptions};

const SALT: u64 = 5;

/// Any bytes are walked to their end; records and holes lie in order and do not overlap. A record
/// behind them is found, unless one with the right checksum reaches into it: bytes that know the salt
/// can be one, bytes that do not cannot.
pub fn series_log_is_walked_to_its_end(data: &[u8]) {
    walk_bytes(data, SALT);
    let unknown = (u64::from(crc32fast::hash(data)) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (last, found) = walk_bytes(data, unknown);
    assert_eq!(found, Some(last));
}

/// Walks `data` with a record behind it; where that stands and where the last one found does.
fn walk_bytes(data: &[u8], salt: u64) -> (usize, Option<usize>) {
    let mut bytes = vec![0; FILE_HEADER_BYTES];
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let last = Record {
        offset: bytes.len(),
        series: SeriesRef::new(9),
        sequence: 1,
        labels: b"labels",
    };
    encode_record(salt, &last, &mut bytes);
    let found = Found::of(&bytes, salt);
    assert!(found.records.is_sorted_by(|a, b| a.2 < b.2));
    assert!(found.holes.is_sorted_by(|a, b| a.0 + a.1 <= b.0));
    let holes: u64 = found.holes.iter().map(|hole| hole.1).sum();
    let walked = (bytes.len() - FILE_HEADER_BYTES) as u64;
    assert!(found.bytes + holes <= walked);
    let word = found.records.last().map(|record| record.2 as usize * 8);
    (last.offset, word)
}

/// Any bytes are slots or none; a slot that checks is found beside them.
pub fn position_slot_is_found_or_not(data: &[u8]) {
    let found = newest_slot(data);
    assert!(found.is_none() || broken_slots(data).len() < 2);
    let progress = found.map_or_else(Default::default, |(_, progress)| progress);
    let sequence = u64::MAX;
    let mut bytes = data.to_vec();
    let at = usize::try_from(slot_of(sequence)).unwrap_or(0);
    let slot = encode_slot(sequence, &progress);
    bytes.resize(bytes.len().max(at + slot.len()), 0);
    bytes[at..at + slot.len()].copy_from_slice(&slot);
    assert_eq!(newest_slot(&bytes), Some((sequence, progress)));
}

/// A store with any bytes written into its files is looked at, opened, and read to its end. Each
/// change is a byte for the file, two for the place, one for how many bytes, and those.
pub fn a_broken_store_opens(data: &[u8]) {
    let mut files = template().clone();
    let mut rest = data;
    while let Some(([file, low, high, len], behind)) = rest.split_first_chunk() {
        let (patch, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        let count = files.len();
        let (_, bytes) = &mut files[usize::from(*file) % count];
        let at = usize::from(u16::from_le_bytes([*low, *high]));
        // Where something is, and a little behind.
        let at = at % bytes.len().clamp(1, 12 << 10);
        for (byte, new) in bytes.iter_mut().skip(at).zip(patch) {
            *byte = *new;
        }
        rest = behind;
    }
    let dir = scratch("run");
    write(&dir, &files);
    look(&dir);
    if let Ok(store) = Store::open(&dir, options()) {
        read_all(&store);
        store.close();
        look(&dir);
    }
    drop(fs::remove_dir_all(&dir));
}

fn look(dir: &Path) {
    let Ok(view) = StoreView::open(dir) else {
        return;
    };
    let mut samples = Vec::new();
    let mut scan = view.scan();
    let mut records = 0;
    while let Some(event) = scan.next_event() {
        if let Event::Frame(frame) = event {
            samples.clear();
            records += frame.samples(&mut samples).map_or(0, Iterator::count);
        }
    }
    assert!(records < 1000);
    let series = view.series().map_or(0, |series| series.len());
    assert!(series < 1000);
    drop(view.losses());
    let to = scratch("repaired");
    if super::repair(dir, &to).is_ok() {
        let fresh = StoreView::open(&to);
        assert!(fresh.is_ok_and(|view| view.problems().iter().all(|p| p.what.is_usual())));
    }
    drop(fs::remove_dir_all(&to));
}

fn read_all(store: &Store) {
    let Ok(endpoint) = store.endpoint("one") else {
        return;
    };
    let mut tail = endpoint.tail();
    while let Ok(Some(_)) = tail.next() {}
}

type Files = Vec<(PathBuf, Vec<u8>)>;

/// A small store, file by file.
fn template() -> &'static Files {
    static TEMPLATE: OnceLock<Files> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = scratch("template");
        for run in 0..2 {
            if let Ok(store) = Store::open(&dir, options()) {
                append(&store, run);
                store.close();
            }
        }
        let mut files = Vec::new();
        read(&dir, Path::new(""), &mut files);
        drop(fs::remove_dir_all(&dir));
        assert!(files.len() >= 5, "segments, a chunk, a position, losses");
        files
    })
}

fn append(store: &Store, run: i64) {
    let (Ok(_), Ok(mut writer)) = (store.endpoint("one"), store.writer()) else {
        return;
    };
    let labels = [b"series a", b"series b"];
    let table = store.series();
    let mut new = labels.map(|labels| NewSeries {
        hash: table.hash(labels),
        labels,
        series: SeriesRef::NONE,
    });
    let defined = table.guard().define(&mut new);
    let committer = store.committer();
    let (Ok(()), Some(mut committer)) = (defined, committer) else {
        return;
    };
    for n in 0..10 {
        let samples = new.each_ref().map(|new| Sample {
            series: new.series,
            timestamp_ms: run * 100 + n,
            value_bits: 7,
        });
        drop(writer.append(&samples, &[]));
        drop(committer.commit_now());
    }
}

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 64 << 10,
        ring_bytes: 64 << 10,
        series_chunk_bytes: 8 << 10,
        series_max: 1000,
        max_disk_bytes: Some(16 << 20),
        manual: true,
        ..StoreOptions::default()
    }
}

/// A directory of this thread, in memory where there is one.
fn scratch(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let dir = parent.join(format!("penstock-fuzz-{process}-{thread:?}-{name}"));
    drop(fs::remove_dir_all(&dir));
    dir
}

fn read(dir: &Path, below: &Path, files: &mut Files) {
    let entries = fs::read_dir(dir.join(below)).into_iter().flatten();
    let mut names: Vec<PathBuf> = entries
        .flatten()
        .map(|e| below.join(e.file_name()))
        .collect();
    names.sort_unstable();
    for name in names {
        match fs::read(dir.join(&name)) {
            Ok(bytes) => files.push((name, bytes)),
            Err(_) => read(dir, &name, files),
        }
    }
}

fn write(dir: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = dir.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        assert!(made.and_then(|()| fs::write(&path, bytes)).is_ok());
    }
    for name in ["series", "segments", "positions", "quarantine"] {
        assert!(fs::create_dir_all(dir.join(name)).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn series_log(data in prop::collection::vec(any::<u8>(), 0..400)) {
            super::series_log_is_walked_to_its_end(&data);
        }

        #[test]
        fn position_slot(data in prop::collection::vec(any::<u8>(), 0..1100)) {
            super::position_slot_is_found_or_not(&data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn store_open(data in prop::collection::vec(any::<u8>(), 0..200)) {
            super::a_broken_store_opens(&data);
        }
    }
}
