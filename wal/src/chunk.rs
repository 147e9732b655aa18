//! Turns label sets into checksummed series records of a chunk file and back.
//!
//! # On disk
//! `docs/format.md`, "Series chunk: records". A record's crc covers the chunk's salt and the
//! record's offset, so that label bytes crafted by a sender never pass for a record.
//!
//! # Failure
//! [`walk`] skips what does not check to the next record that does, and says how many bytes that
//! cost. Broken bytes are left as they are: the next record goes behind them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

use crate::bytes::{align_8, get_u32, get_u64, next_nonzero, put_u32, put_u64};
use crate::fs::{Disk, DiskFile};
use crate::header::{FILE_HEADER_BYTES, FileHeader, SERIES_MAGIC};
use crate::reader::read_header_page;
use crate::{Error, SeriesRef, sys};

/// Bytes in front of a record's labels.
pub(crate) const RECORD_HEADER_BYTES: usize = 24;

pub(crate) mod field {
    //! Offsets of a record's fields.
    pub(crate) const CRC: usize = 0;
    pub(crate) const LABEL_BYTES: usize = CRC + 4;
    pub(crate) const REF: usize = LABEL_BYTES + 4;
    pub(crate) const SEQUENCE: usize = REF + 8;
    pub(crate) const LABELS: usize = SEQUENCE + 8;
}

const _: () = assert!(field::LABELS == RECORD_HEADER_BYTES);

/// One chunk file, mapped.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) file: DiskFile,
    pub(crate) header: FileHeader,
    map: Mmap,
    /// Offset behind the last record written. Written by the one who appends, Release.
    pub(crate) written: AtomicU64,
    /// Offset up to which records are durable.
    pub(crate) synced: AtomicU64,
    /// Bytes of records that no series points to any more.
    pub(crate) dead_bytes: AtomicU64,
}

/// A record that checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) offset: usize,
    pub(crate) series: SeriesRef,
    pub(crate) sequence: u64,
    pub(crate) labels: &'a [u8],
}

/// What a walk through a chunk found besides records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WalkEnd {
    /// Where the next record may be written.
    pub(crate) end: usize,
    /// Bytes between and behind records that do not check.
    pub(crate) broken_bytes: usize,
}

impl Chunk {
    /// Makes the file, its header and its name durable.
    ///
    /// # Errors
    /// What the system said; no file is left behind then.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        header: FileHeader,
    ) -> Result<Self, Error> {
        let file = create_with_header(disk, path, &header)?;
        let map = sys::map_file(file.file()).map_err(Error::io("map", path))?;
        Ok(Self::new(file, header, map))
    }

    /// Opens and maps a chunk.
    ///
    /// # Errors
    /// What the system said, or what is wrong with the header.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self, Error> {
        let file = disk.open(path).map_err(Error::io("open", path))?;
        let page = read_header_page(disk, &file).map_err(Error::io("read", path))?;
        let header = FileHeader::decode(&page, SERIES_MAGIC, path)?;
        let map = sys::map_file(file.file()).map_err(Error::io("map", path))?;
        Ok(Self::new(file, header, map))
    }

    const fn new(file: DiskFile, header: FileHeader, map: Mmap) -> Self {
        Self {
            file,
            header,
            map,
            written: AtomicU64::new(FILE_HEADER_BYTES as u64),
            synced: AtomicU64::new(FILE_HEADER_BYTES as u64),
            dead_bytes: AtomicU64::new(0),
        }
    }

    /// Lets go of the memory of records nobody asks for any more.
    pub(crate) fn let_go(&self) {
        sys::let_go(&self.map);
    }

    /// Bytes of records written so far, dead ones included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.written.load(Ordering::Acquire) - FILE_HEADER_BYTES as u64
    }

    /// A record at this offset counts for nothing any more.
    pub(crate) fn bury(&self, offset: usize) {
        let bytes = record_bytes(self.labels_at(offset).len()) as u64;
        self.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The file's bytes, as far as they are written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The labels of the record at `offset`, which must be one that was written or walked.
    #[inline]
    pub(crate) fn labels_at(&self, offset: usize) -> &[u8] {
        let len = get_u32(&self.map, offset + field::LABEL_BYTES) as usize;
        &self.map[offset + field::LABELS..offset + field::LABELS + len]
    }
}

/// Makes a file of its full size with its header, and its name, durable.
///
/// # Errors
/// What the system said; the file is removed then (should that fail too, the next try removes it, or
/// recovery).
pub(crate) fn create_with_header(
    disk: &Arc<dyn Disk>,
    path: &Path,
    header: &FileHeader,
) -> Result<DiskFile, Error> {
    let mut created = disk.create(path, header.file_bytes);
    // Names found at the start are not given out again: this one is of a try that failed.
    if matches!(&created, Err(e) if e.kind() == io::ErrorKind::AlreadyExists) {
        disk.remove(path).map_err(Error::io("remove", path))?;
        created = disk.create(path, header.file_bytes);
    }
    let file = created.map_err(Error::io("create", path))?;
    let made = disk
        .write_all_at(&file, &header.encode(), 0)
        .and_then(|()| disk.sync(&file))
        .and_then(|()| disk.sync_dir(path.parent().unwrap_or(path)));
    if let Err(source) = made {
        if let Err(e) = disk.remove(path) {
            tracing::warn!(path = %path.display(), error = %e, "cannot remove a half-made file");
        }
        return Err(Error::io("prepare", path)(source));
    }
    Ok(file)
}

/// Bytes a record with this many label bytes takes.
pub(crate) const fn record_bytes(label_bytes: usize) -> usize {
    align_8(RECORD_HEADER_BYTES + label_bytes)
}

/// Appends a record that will stand at `offset` to `out`.
pub(crate) fn encode_record(salt: u64, record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + record_bytes(record.labels.len()), 0);
    let bytes = &mut out[start..];
    let len = u32::try_from(record.labels.len()).expect("label bytes are limited far below 4 GiB");
    put_u32(bytes, field::LABEL_BYTES, len);
    put_u32(bytes, field::REF, record.series.get());
    put_u64(bytes, field::SEQUENCE, record.sequence);
    bytes[field::LABELS..field::LABELS + record.labels.len()].copy_from_slice(record.labels);
    let end = field::LABELS + record.labels.len();
    let crc = record_crc(salt, record.offset, &bytes[field::LABEL_BYTES..end]);
    put_u32(bytes, field::CRC, crc);
}

fn record_crc(salt: u64, offset: usize, rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&(offset as u64).to_le_bytes());
    crc.update(rest);
    crc.finalize()
}

/// The record at `offset`, if one checks there.
fn decode_record(bytes: &[u8], salt: u64, offset: usize) -> Option<Record<'_>> {
    let head = bytes.get(offset..offset + RECORD_HEADER_BYTES)?;
    let series = SeriesRef::new(get_u32(head, field::REF));
    let end = (offset + field::LABELS).checked_add(get_u32(head, field::LABEL_BYTES) as usize)?;
    let labels = bytes.get(offset + field::LABELS..end)?;
    let crc = record_crc(salt, offset, &bytes[offset + field::LABEL_BYTES..end]);
    (!series.is_none() && crc == get_u32(head, field::CRC)).then(|| Record {
        offset,
        series,
        sequence: get_u64(head, field::SEQUENCE),
        labels,
    })
}

/// Calls `found` for every record that checks at or behind offset `from`, in file order.
pub(crate) fn walk<'a>(
    bytes: &'a [u8],
    from: usize,
    salt: u64,
    mut found: impl FnMut(Record<'a>),
) -> WalkEnd {
    let mut end = from;
    let mut broken_bytes = 0;
    let mut at = end;
    while at + RECORD_HEADER_BYTES <= bytes.len() {
        let Some(record) = decode_record(bytes, salt, at) else {
            match next_nonzero(bytes, at) {
                // Skip a word of what is broken, or straight to the next word that holds anything.
                Some(next) => at = next.max(at + 8),
                None => break,
            }
            continue;
        };
        broken_bytes += at - end;
        at += record_bytes(record.labels.len());
        end = at;
        found(record);
    }
    broken_bytes += at.saturating_sub(end);
    WalkEnd {
        end: at,
        broken_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk_of(labels: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = vec![0; FILE_HEADER_BYTES];
        let mut offsets = Vec::new();
        for (at, labels) in labels.iter().enumerate() {
            let offset = bytes.len();
            let series = SeriesRef::new(u32::try_from(at).unwrap() + 1);
            encode_record(
                5,
                &Record {
                    offset,
                    series,
                    sequence: at as u64,
                    labels,
                },
                &mut bytes,
            );
            offsets.push(offset);
        }
        bytes.resize(bytes.len() + 4096, 0);
        (bytes, offsets)
    }

    fn refs(bytes: &[u8]) -> (Vec<u32>, WalkEnd) {
        let mut refs = Vec::new();
        let end = walk(bytes, FILE_HEADER_BYTES, 5, |record| {
            refs.push(record.series.get());
        });
        (refs, end)
    }

    #[test]
    fn records_are_walked_in_order_to_their_end() {
        let (bytes, _) = chunk_of(&[b"a", b"bcdefghij", b""]);
        let (found, end) = refs(&bytes);
        assert_eq!(found, [1, 2, 3]);
        assert_eq!(
            end,
            WalkEnd {
                end: bytes.len() - 4096,
                broken_bytes: 0
            }
        );
    }

    #[test]
    fn one_rotten_byte_costs_one_record() {
        let (bytes, offsets) = chunk_of(&[b"first one", b"second one", b"third one"]);
        for at in offsets[1]..offsets[1] + RECORD_HEADER_BYTES + 10 {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            // The reserved word is covered by the crc too.
            assert_eq!(refs(&rotten).0, [1, 3], "byte {at}");
        }
    }

    #[test]
    fn a_record_moved_or_of_another_file_does_not_check() {
        let (bytes, offsets) = chunk_of(&[b"labels"]);
        assert!(decode_record(&bytes, 5, offsets[0]).is_some());
        assert!(decode_record(&bytes, 6, offsets[0]).is_none());
        let mut moved = bytes.clone();
        moved.copy_within(offsets[0]..offsets[0] + 32, offsets[0] + 64);
        assert!(decode_record(&moved, 5, offsets[0] + 64).is_none());
    }
}
