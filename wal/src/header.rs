//! Turns what a segment or chunk file is into its 4096-byte header and back.
//!
//! # On disk
//! `docs/format.md`, "File header": 80 bytes, twice, so that one rotten byte cannot take the file.

use std::path::Path;

use crate::Error;
use crate::bytes::{get_u32, get_u64, put_u32, put_u64};

/// The newest format version this crate reads and the one it writes.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes before the first frame or record of a file.
pub(crate) const FILE_HEADER_BYTES: usize = 4096;
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"PNSTKSEG";
pub(crate) const SERIES_MAGIC: [u8; 8] = *b"PNSTKSER";

/// Bytes of one copy.
pub(crate) const HEADER_COPY_BYTES: u64 = field::END as u64;

pub(crate) mod field {
    //! Offsets of the fields.
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = MAGIC + 8;
    pub(crate) const GENERATION: usize = VERSION + 4;
    pub(crate) const ID: usize = GENERATION + 4;
    pub(crate) const FILE_BYTES: usize = ID + 8;
    pub(crate) const SALT: usize = FILE_BYTES + 8;
    pub(crate) const PREVIOUS_END: usize = SALT + 8;
    pub(crate) const CREATED_MS: usize = PREVIOUS_END + 8;
    pub(crate) const RECORDS_BEFORE: usize = CREATED_MS + 8;
    pub(crate) const RECYCLED: usize = RECORDS_BEFORE + 8;
    pub(crate) const CRC: usize = RECYCLED + 4 + 8;
    pub(crate) const END: usize = CRC + 4;
    /// Where the second copy stands.
    pub(crate) const COPY: usize = 2048;
}

const _: () = assert!(field::END == 80 && field::COPY + field::END <= FILE_HEADER_BYTES);

/// What the header of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileHeader {
    pub(crate) magic: [u8; 8],
    /// Counts the files that went on with one segment after its device failed; 0 for the first.
    pub(crate) generation: u32,
    pub(crate) id: u64,
    pub(crate) file_bytes: u64,
    pub(crate) salt: u64,
    pub(crate) previous_end: u64,
    pub(crate) created_ms: i64,
    /// Where `previous_end` is set: records of all frames before it, since the birth of the store.
    pub(crate) records_before: u64,
    /// Whether the file held another segment before: what stands behind the last frame is of that one.
    pub(crate) is_recycled: bool,
}

impl FileHeader {
    /// The bytes to write at the start of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; field::END];
        copy[..8].copy_from_slice(&self.magic);
        put_u32(&mut copy, field::VERSION, FORMAT_VERSION);
        put_u32(&mut copy, field::GENERATION, self.generation);
        put_u64(&mut copy, field::ID, self.id);
        put_u64(&mut copy, field::FILE_BYTES, self.file_bytes);
        put_u64(&mut copy, field::SALT, self.salt);
        put_u64(&mut copy, field::PREVIOUS_END, self.previous_end);
        put_u64(
            &mut copy,
            field::CREATED_MS,
            self.created_ms.cast_unsigned(),
        );
        put_u64(&mut copy, field::RECORDS_BEFORE, self.records_before);
        put_u32(&mut copy, field::RECYCLED, self.is_recycled.into());
        let crc = crc32fast::hash(&copy[..field::CRC]);
        put_u32(&mut copy, field::CRC, crc);
        let mut page = vec![0; FILE_HEADER_BYTES];
        page[..field::END].copy_from_slice(&copy);
        page[field::COPY..field::COPY + field::END].copy_from_slice(&copy);
        page
    }

    /// Reads the first copy that checks.
    ///
    /// # Errors
    /// [`Error::BadHeader`] if none does, [`Error::NewerVersion`] if one is from the future.
    pub(crate) fn decode(page: &[u8], magic: [u8; 8], path: &Path) -> Result<Self, Error> {
        let bad = || Error::BadHeader {
            path: path.to_owned(),
        };
        [0, field::COPY]
            .into_iter()
            .find_map(|at| {
                let copy = page.get(at..at + field::END)?;
                checks(copy, magic).then_some(copy)
            })
            .map_or_else(|| Err(bad()), |copy| Self::decode_copy(copy, magic, path))
    }

    /// Offsets of the copies that do not check.
    pub(crate) fn broken_copies(page: &[u8], magic: [u8; 8]) -> Vec<usize> {
        let is_broken = |at: &usize| {
            let copy = page.get(*at..*at + field::END);
            copy.is_none_or(|copy| !checks(copy, magic))
        };
        [0, field::COPY].into_iter().filter(is_broken).collect()
    }

    fn decode_copy(copy: &[u8], magic: [u8; 8], path: &Path) -> Result<Self, Error> {
        let version = get_u32(copy, field::VERSION);
        if version > FORMAT_VERSION {
            let path = path.to_owned();
            return Err(Error::NewerVersion {
                path,
                version,
                supported: FORMAT_VERSION,
            });
        }
        Ok(Self {
            magic,
            generation: get_u32(copy, field::GENERATION),
            id: get_u64(copy, field::ID),
            file_bytes: get_u64(copy, field::FILE_BYTES),
            salt: get_u64(copy, field::SALT),
            previous_end: get_u64(copy, field::PREVIOUS_END),
            created_ms: get_u64(copy, field::CREATED_MS).cast_signed(),
            records_before: get_u64(copy, field::RECORDS_BEFORE),
            is_recycled: get_u32(copy, field::RECYCLED) != 0,
        })
    }
}

fn checks(copy: &[u8], magic: [u8; 8]) -> bool {
    copy[..8] == magic && crc32fast::hash(&copy[..field::CRC]) == get_u32(copy, field::CRC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            magic: SEGMENT_MAGIC,
            generation: 3,
            id: 7,
            file_bytes: 1 << 20,
            salt: 0xfeed,
            previous_end: 99,
            created_ms: -5,
            records_before: 12,
            is_recycled: true,
        }
    }

    #[test]
    fn one_rotten_byte_anywhere_leaves_the_header_readable() {
        let page = header().encode();
        for at in 0..page.len() {
            let mut rotten = page.clone();
            rotten[at] ^= 0x40;
            let read = FileHeader::decode(&rotten, SEGMENT_MAGIC, Path::new("x")).unwrap();
            assert_eq!(read, header(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut page = header().encode();
        for at in [0, field::COPY] {
            put_u32(&mut page, at + field::VERSION, 2);
            let crc = crc32fast::hash(&page[at..at + field::CRC]);
            put_u32(&mut page, at + field::CRC, crc);
        }
        let error = FileHeader::decode(&page, SEGMENT_MAGIC, Path::new("a.seg")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.seg has format version 2, this Penstock reads up to 1"
        );
    }

    #[test]
    fn another_kind_of_file_is_no_segment() {
        let page = header().encode();
        let error = FileHeader::decode(&page, SERIES_MAGIC, Path::new("x")).unwrap_err();
        assert!(matches!(error, Error::BadHeader { .. }));
    }
}
