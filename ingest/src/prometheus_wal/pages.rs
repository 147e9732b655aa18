//! Turns the bytes of a segment into records, and into what cannot be read of it.
//!
//! # Invariants
//! - A fragment never crosses a page, so a page is where reading starts over after a broken one.
//! - What is lost is reported before the next record, as one range from the first byte lost to the
//!   last: damage that goes over many pages is one report.
//!
//! # Failure
//! - A length that is broken but stays inside the last, partial page looks like an unfinished
//!   fragment: the rest of that page counts as torn.

use std::io::{self, Read};
use std::ops::Range;

use super::Why;
use super::compress::{Compression, RECORD_BYTES_MAX};
use super::crc::crc32c;

/// Segments are written in pages of this size.
pub(crate) const PAGE_BYTES: usize = 32 << 10;
/// Flags, length, checksum.
pub(crate) const HEADER_BYTES: usize = 7;
const KIND_MASK: u8 = 0b111;
const RESERVED_MASK: u8 = 0b1110_0000;

/// What a step found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A record, in [`Pages::record`], with the bytes it takes on disk.
    Record(Range<u64>),
    /// Bytes that are no records.
    Lost(Range<u64>, Why),
    /// Nothing more.
    End,
}

/// Which part of a record a fragment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Whole,
    First,
    Middle,
    Last,
}

impl Kind {
    const fn from_flags(flags: u8) -> Option<Self> {
        match flags & KIND_MASK {
            1 => Some(Self::Whole),
            2 => Some(Self::First),
            3 => Some(Self::Middle),
            4 => Some(Self::Last),
            _ => None,
        }
    }

    const fn begins(self) -> bool {
        matches!(self, Self::Whole | Self::First)
    }

    const fn ends(self) -> bool {
        matches!(self, Self::Whole | Self::Last)
    }
}

/// What is at the current place of the page.
#[derive(Debug)]
enum Found {
    /// A fragment whose checksum holds, and its data as a range of the page.
    Fragment {
        kind: Kind,
        compression: Compression,
        data: Range<usize>,
    },
    /// The same, but nobody knows what it is.
    Unknown { end: usize },
    /// Nothing more in this page.
    PageEnd,
    /// Nothing in this page can be trusted from here on.
    Broken(Why),
    /// The file ends inside a fragment.
    Cut,
}

/// Reads a segment page by page.
#[derive(Debug)]
pub(crate) struct Pages<R> {
    source: R,
    page: Vec<u8>,
    /// Where in the page.
    at: usize,
    /// Where the page is in the file.
    page_offset: u64,
    /// The record so far, as stored, where it begins, and how it is compressed.
    stored: Vec<u8>,
    begun: Option<(u64, Compression)>,
    /// What was lost and not yet reported.
    lost: Option<(Range<u64>, Why)>,
    expanded: Vec<u8>,
    /// The last record is in `expanded`, not in `stored`.
    record_bytes: usize,
    is_expanded: bool,
}

impl<R: Read> Pages<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            page: Vec::with_capacity(PAGE_BYTES),
            at: 0,
            page_offset: 0,
            stored: Vec::new(),
            begun: None,
            lost: None,
            expanded: Vec::new(),
            record_bytes: 0,
            is_expanded: false,
        }
    }

    /// The record that the last step found.
    pub(crate) fn record(&self) -> &[u8] {
        let buffer = if self.is_expanded {
            &self.expanded
        } else {
            &self.stored
        };
        buffer.get(..self.record_bytes).unwrap_or_default()
    }

    /// The next record or loss.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        loop {
            if self.at >= self.page.len() && !self.next_page()? {
                return Ok(self.end());
            }
            match self.look() {
                Found::PageEnd => self.at = self.page.len(),
                Found::Broken(why) => {
                    self.lose_unfinished(why);
                    self.lose(self.page.len(), why);
                }
                Found::Unknown { end } => {
                    self.lose_unfinished(Why::Flags);
                    self.lose(end, Why::Flags);
                }
                Found::Cut => {
                    if let Some(step) = self.reported() {
                        return Ok(step);
                    }
                    self.lose_unfinished(Why::TornTail);
                    self.lose(self.page.len(), Why::TornTail);
                }
                Found::Fragment {
                    kind,
                    compression,
                    data,
                } => {
                    if let Some(step) = self.fragment(kind, compression, data) {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// Reads the next page; `false` at the end of the file.
    fn next_page(&mut self) -> io::Result<bool> {
        self.page_offset += bytes(self.page.len());
        self.page.clear();
        self.at = 0;
        let limit = bytes(PAGE_BYTES);
        self.source
            .by_ref()
            .take(limit)
            .read_to_end(&mut self.page)?;
        Ok(!self.page.is_empty())
    }

    fn offset(&self) -> u64 {
        self.page_offset + bytes(self.at)
    }

    #[expect(clippy::big_endian_bytes, reason = "the format is Prometheus's")]
    fn look(&self) -> Found {
        let rest = self.page.get(self.at..).unwrap_or_default();
        let Some((&flags, _)) = rest.split_first() else {
            return Found::PageEnd;
        };
        if flags & KIND_MASK == 0 {
            let is_zero = rest.iter().all(|byte| *byte == 0);
            return if is_zero {
                Found::PageEnd
            } else {
                Found::Broken(Why::Padding)
            };
        }
        let is_whole_page = self.page.len() == PAGE_BYTES;
        let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return if is_whole_page {
                Found::Broken(Why::Length)
            } else {
                Found::Cut
            };
        };
        let [_, high, low, checksum @ ..] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let start = self.at + HEADER_BYTES;
        if start + length > PAGE_BYTES {
            return Found::Broken(Why::Length);
        }
        let Some(data) = behind.get(..length) else {
            return Found::Cut;
        };
        if crc32c(data) != u32::from_be_bytes(checksum) {
            return Found::Broken(Why::Checksum);
        }
        if length == 0 && flags & KIND_MASK == 1 {
            // No record is empty, but zeros with one wrong bit look like that.
            return Found::Broken(Why::Padding);
        }
        let end = start + length;
        match (Kind::from_flags(flags), Compression::from_flags(flags)) {
            (Some(kind), Some(compression)) if flags & RESERVED_MASK == 0 => Found::Fragment {
                kind,
                compression,
                data: start..end,
            },
            _ => Found::Unknown { end },
        }
    }

    /// Takes a good fragment; a step if it ends something.
    fn fragment(
        &mut self,
        kind: Kind,
        compression: Compression,
        data: Range<usize>,
    ) -> Option<Step> {
        if kind.begins() {
            self.lose_unfinished(Why::Incomplete);
            if let Some(step) = self.reported() {
                // The fragment is looked at again with the next step.
                return Some(step);
            }
            self.begun = Some((self.offset(), compression));
            self.stored.clear();
        }
        let Some((start, of_record)) = self.begun else {
            self.lose(data.end, Why::Incomplete);
            return None;
        };
        if of_record != compression || self.stored.len() + data.len() > RECORD_BYTES_MAX {
            let why = if of_record == compression {
                Why::TooLong
            } else {
                Why::Flags
            };
            self.lose_unfinished(why);
            self.lose(data.end, why);
            return None;
        }
        self.at = data.end;
        self.stored
            .extend_from_slice(self.page.get(data).unwrap_or_default());
        if !kind.ends() {
            return None;
        }
        self.begun = None;
        let range = start..self.offset();
        match compression.expand(&self.stored, &mut self.expanded) {
            Ok(record) => {
                self.record_bytes = record.len();
                self.is_expanded = compression != Compression::None;
                Some(Step::Record(range))
            }
            Err(why) => {
                self.lost = Some((range, why));
                None
            }
        }
    }

    /// Everything up to `end` of the page is lost.
    fn lose(&mut self, end: usize, why: Why) {
        let start = self.offset();
        self.at = end;
        let end = self.offset();
        // Nothing good lies between two losses that were not yet reported.
        let lost = self.lost.get_or_insert((start..end, why));
        lost.0.end = end;
    }

    /// The record that was begun will not be finished.
    fn lose_unfinished(&mut self, why: Why) {
        if let Some((start, _)) = self.begun.take() {
            let end = self.offset();
            let lost = self.lost.get_or_insert((start..end, why));
            lost.0.end = end;
        }
    }

    fn reported(&mut self) -> Option<Step> {
        let (range, why) = self.lost.take()?;
        Some(Step::Lost(range, why))
    }

    fn end(&mut self) -> Step {
        // What was lost inside is not the same as what the end cuts off.
        if let Some(step) = self.reported() {
            return step;
        }
        self.lose_unfinished(Why::TornTail);
        self.reported().unwrap_or(Step::End)
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
