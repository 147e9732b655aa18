//! Turns the body of a scrape into samples without parsing it, where it is the last one with other values.
//!
//! A target answers with the same lines each time and only the values differ. Of each sample is kept what
//! stands between the value before it and its own, as a hash, and the number of its series: one hash and one
//! float a sample instead of a parse and a lookup.
//!
//! # Invariants
//! - A sample is taken without a parse only if the text before it, from the end of the value before, has the
//!   hash and the length it had when it was parsed, and its number still stands for the labels it stood for.
//!   Hashes have 64 bits and a seed of the process: a text that has the hash of another is a matter of
//!   probability (2^-64 a sample), and could only confuse two series of the same target.
//!
//! # Limits
//! - 24 bytes a sample of the last body.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::FixedState;
use wal::{Sample, SeriesRef};

use crate::append::Door;
use crate::decode::exposition::{Kind, float};

/// The value is followed by a timestamp.
const WITH_TIME: u32 = 1 << 31;
/// The line is parsed each time.
const PARSED: u32 = 1 << 30;
/// The type of the family around the sample, on which the meaning of further lines depends.
const KIND_SHIFT: u32 = 27;
const LENGTH: u32 = (1 << KIND_SHIFT) - 1;

/// What is known of one sample of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    hash: u64,
    /// What its number stands for; 0 where that is not known yet.
    pub(crate) identity: u64,
    pub(crate) series: u32,
    /// Length of the text before the value, the type of the family, and what follows the value.
    length: u32,
}

/// How the rest of a line is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// Behind the value the line ends.
    Plain,
    /// Behind the value is one blank and a timestamp in milliseconds.
    WithTime,
    /// Anything else.
    Parsed,
}

impl Entry {
    pub(crate) fn new(text: &[u8], hasher: &Texts, line: Line, kind: Kind) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let (length, line) = if length > LENGTH {
            (LENGTH, Line::Parsed)
        } else {
            (length, line)
        };
        Self {
            hash: hasher.hash(text),
            identity: 0,
            series: 0,
            length: length
                | (kind as u32) << KIND_SHIFT
                | match line {
                    Line::Plain => 0,
                    Line::WithTime => WITH_TIME,
                    Line::Parsed => PARSED,
                },
        }
    }

    /// Says that the sample has a time of its own, however it is read.
    pub(crate) const fn set_time(&mut self) {
        self.length |= WITH_TIME;
    }

    /// Whether the sample has a time of its own.
    pub(crate) const fn has_time(&self) -> bool {
        self.length & WITH_TIME != 0
    }

    /// Whether it also keeps it.
    pub(crate) const fn keeps_time(&self, honors_time: bool) -> bool {
        self.has_time() && honors_time
    }

    /// The type of the family around it.
    pub(crate) fn kind(&self) -> Kind {
        let number = self.length >> KIND_SHIFT & 7;
        (Kind::ALL.get(number as usize).copied()).unwrap_or_default()
    }

    /// Whether the same text stands before the value.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.hash == other.hash && self.length & LENGTH == other.length & LENGTH
    }
}

/// Hashes texts; one for the process.
#[derive(Clone, Debug)]
pub(crate) struct Texts(FixedState);

impl Default for Texts {
    fn default() -> Self {
        Self(FixedState::with_seed(fastrand::u64(..)))
    }
}

impl Texts {
    pub(crate) fn hash(&self, text: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(text);
        hasher.finish()
    }
}

/// What is known of the bodies of a target.
#[derive(Default, Debug)]
pub(crate) struct Known {
    pub(crate) entries: Vec<Entry>,
    /// What stands behind the last value: its hash and its length.
    pub(crate) tail: (u64, usize),
    /// Whether the entries can be followed: they are those of a body of text.
    pub(crate) is_text: bool,
    /// Whether one series has several samples without a time of their own.
    pub(crate) has_duplicates: bool,
}

/// How far a body could be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Followed {
    /// The place behind the last value or timestamp that was taken.
    pub(crate) at: usize,
    /// The first entry that was not.
    pub(crate) entry: usize,
    /// Whether the body ends as it did.
    pub(crate) is_all: bool,
}

/// The body, and how its samples are to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'b> {
    pub(crate) body: &'b [u8],
    /// The time of samples without one.
    pub(crate) time_ms: i64,
    /// Whether samples keep their time.
    pub(crate) honors_time: bool,
}

impl Known {
    /// Takes samples from a place in the body as long as it goes on like that from an entry.
    pub(crate) fn follow(
        &self,
        reading: Reading<'_>,
        (mut at, mut entry): (usize, usize),
        (texts, door): (&Texts, &mut impl Door),
        samples: &mut Vec<Sample>,
    ) -> Followed {
        let body = reading.body;
        for known in self.entries.get(entry..).unwrap_or_default() {
            let length = (known.length & LENGTH) as usize;
            let Some(text) = body.get(at..at + length) else {
                break;
            };
            if known.length & PARSED != 0 || texts.hash(text) != known.hash {
                break;
            }
            let start = at + length;
            let end = token_end(body, start);
            let Some(value) = float::parse(body.get(start..end).unwrap_or_default()) else {
                break;
            };
            let (timestamp_ms, end) = match known.has_time() {
                false => (reading.time_ms, end),
                true => match time_behind(body, end) {
                    Some((time_ms, end)) if reading.honors_time => (time_ms, end),
                    Some((_, end)) => (reading.time_ms, end),
                    None => break,
                },
            };
            if !door.is_still(known.series, known.identity) {
                break;
            }
            samples.push(Sample {
                series: SeriesRef::new(known.series),
                timestamp_ms,
                value_bits: value.to_bits(),
            });
            (at, entry) = (end, entry + 1);
        }
        let is_all = entry == self.entries.len() && {
            let rest = body.get(at..).unwrap_or_default();
            rest.len() == self.tail.1 && texts.hash(rest) == self.tail.0
        };
        Followed { at, entry, is_all }
    }
}

/// Where the token that begins here ends.
#[inline]
fn token_end(body: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b' ' | b'\t' | b'\r' | b'#');
    let rest = body.get(start..).unwrap_or_default();
    rest.iter()
        .position(is_end)
        .map_or(body.len(), |length| start + length)
}

/// The timestamp behind one blank, and where it ends.
fn time_behind(body: &[u8], at: usize) -> Option<(i64, usize)> {
    let rest = body.get(at..)?.strip_prefix(b" ")?;
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(rest.len());
    let digits = rest
        .get(..end)
        .filter(|text| text.iter().all(u8::is_ascii_digit))?;
    let text = std::str::from_utf8(digits).ok()?;
    Some((text.parse().ok()?, at + 1 + end))
}

/// How the line of a sample is read, and where what is looked at of it ends.
pub(crate) fn line_of(body: &[u8], value: &Range<usize>, end_of_line: usize) -> (Line, usize) {
    match body.get(value.end) {
        Some(b'\n') => (Line::Plain, value.end),
        Some(b' ') => match time_behind(body, value.end) {
            Some((_, end)) if end == end_of_line => (Line::WithTime, end),
            _ => (Line::Parsed, end_of_line),
        },
        _ => (Line::Parsed, end_of_line),
    }
}
