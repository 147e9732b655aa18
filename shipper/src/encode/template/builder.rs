//! Turns the series of a run, and what their samples are like now, into a fragment.
//!
//! The plain messages are laid out with zeros where samples go, then matched greedily, as `snap`
//! does, with two differences: matches neither touch nor cross the bytes of a sample, and a
//! timestamp that equals the one before is copied on purpose.
//!
//! # Invariants
//! - All bytes of a message from its tag to the value's low zero bytes are its *fixed* bytes. Copies
//!   come from, and go to, fixed bytes only; the copy of a timestamp begins with the one before and
//!   goes on into fixed bytes.
//! - Copies stay inside the fragment.
//!
//! # Limits
//! - Runs of at most [`PLAIN_BYTES_MAX`]; longer ones have no fragment.

use wal::{Sample, SeriesRef};

use super::RUN_MAX;
use super::elements::{COPY_BYTES_MIN, COPY_OFFSET_MAX, put_copy, put_literal};
use super::fragment::{Fragment, OFFSET_MAX, PLACE_BYTES, Place, SLACK_BYTES, TIMESTAMP_BYTES};
use crate::encode::remote_write_v1::{SAMPLE_HEAD_BYTES, put_series_head};
use labels::wire::{FIELD_1_FIXED64, FIELD_2_BYTES, FIELD_2_VARINT};

/// Runs whose messages are longer are not worth the memory: their labels are enormous.
pub(super) const PLAIN_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(PLAIN_BYTES_MAX + PLAIN_BYTES_MAX / 6 + 32 <= OFFSET_MAX);

const TABLE_BITS: u32 = 13;
/// After so many misses in a row every second byte is looked at, then every third: as `snap`.
const MISSES_PER_STEP: usize = 32;
/// Tag of the timestamp and the timestamp.
const TIMESTAMP_FIELD_BYTES: usize = 1 + TIMESTAMP_BYTES;
/// Tag, length, tag and value, tag and timestamp.
pub(super) const SAMPLE_FIELD_BYTES: usize = SAMPLE_HEAD_BYTES + TIMESTAMP_BYTES;

/// The fixed bytes of a series' message, and what follows them.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    start: usize,
    /// Where the value's other bytes begin.
    end: usize,
    zero_bytes: u8,
    is_chained: bool,
}

impl Fixed {
    /// Where the tag of the timestamp is.
    fn timestamp(&self) -> usize {
        self.end + 8 - usize::from(self.zero_bytes)
    }
}

/// Builds fragments; keeps its memory.
pub(super) struct Builder {
    plain: Vec<u8>,
    series: Vec<Fixed>,
    /// Where four bytes of this hash were seen last: the place shifted by 8 and, in the low bits,
    /// the series. 0 is the tag of the first series, which a match may do without.
    table: Box<[u32; 1 << TABLE_BITS]>,
    elements: Vec<u8>,
    places: Vec<[u8; PLACE_BYTES]>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            plain: Vec::new(),
            series: Vec::new(),
            table: Box::new([0; 1 << TABLE_BITS]),
            elements: Vec::new(),
            places: Vec::new(),
        }
    }

    /// A fragment that the samples fit into, for series whose labels are all known and whose
    /// timestamps have six bytes. What `before` had to allow is allowed again.
    pub(super) fn build<'a>(
        &mut self,
        samples: &[Sample],
        labels: impl Fn(SeriesRef) -> &'a [u8],
        before: Option<Fragment<'_>>,
    ) -> Option<Fragment<'_>> {
        assert!(samples.len() <= RUN_MAX);
        self.lay_out(samples, labels, before);
        if self.plain.len() > PLAIN_BYTES_MAX {
            return None;
        }
        self.table.fill(0);
        self.elements.clear();
        self.places.clear();
        // plain bytes that elements say
        let mut said = 0;
        for number in 0..self.series.len() {
            said = self.put_fixed(number, said);
            said = self.put_sample(number, said);
        }
        self.elements.extend_from_slice(&[0; SLACK_BYTES]);
        Some(Fragment {
            bytes: &self.elements,
            places: &self.places,
            plain_bytes: u32::try_from(said).expect("bounded above"),
        })
    }

    /// Writes the plain messages with zeros for samples, and notes where they are.
    fn lay_out<'a>(
        &mut self,
        samples: &[Sample],
        labels: impl Fn(SeriesRef) -> &'a [u8],
        before: Option<Fragment<'_>>,
    ) {
        self.plain.clear();
        self.series.clear();
        let mut before = before.as_ref().map(Fragment::places);
        for (number, sample) in samples.iter().enumerate() {
            let was = before.as_mut().and_then(Iterator::next);
            let start = self.plain.len();
            put_series_head(&mut self.plain, labels(sample.series), SAMPLE_FIELD_BYTES);
            let length = u8::try_from(SAMPLE_FIELD_BYTES - 2).expect("short");
            self.plain
                .extend_from_slice(&[FIELD_2_BYTES, length, FIELD_1_FIXED64]);
            let zero_bytes = zero_bytes(sample.value_bits);
            let zero_bytes = was.map_or(zero_bytes, |was| zero_bytes.min(was.zero_bytes()));
            let end = self.plain.len() + usize::from(zero_bytes);
            self.plain.extend_from_slice(&[0; 8]);
            let earlier = number.checked_sub(1).map(|n| (samples[n], self.series[n]));
            let is_chained = earlier.is_some_and(|(earlier, fixed)| {
                earlier.timestamp_ms == sample.timestamp_ms
                    && self.plain.len() - fixed.timestamp() <= COPY_OFFSET_MAX
            });
            self.plain.push(FIELD_2_VARINT);
            self.plain.extend_from_slice(&[0; TIMESTAMP_BYTES]);
            self.series.push(Fixed {
                start,
                end,
                zero_bytes,
                is_chained: is_chained && was.is_none_or(|was| was.is_chained()),
            });
        }
    }

    /// Says the fixed bytes of a series as far as they match others; `said` is where it begins, and
    /// the result where it ended: the rest goes with the value.
    fn put_fixed(&mut self, number: usize, mut said: usize) -> usize {
        let Fixed { start, end, .. } = self.series[number];
        let mut at = said.max(start);
        let mut misses = MISSES_PER_STEP;
        while at + COPY_BYTES_MIN <= end {
            let slot = hash(&self.plain[at..at + COPY_BYTES_MIN]);
            let found = self.table[slot];
            self.table[slot] = entry(at, number);
            let Some((from, len)) = self.matching(found, at, end) else {
                at += misses / MISSES_PER_STEP;
                misses += 1;
                continue;
            };
            // also what is equal before it, as far as nothing has said it yet
            let from_start = self.series[usize::from(found.to_le_bytes()[0])].start;
            let equal = |back: &usize| self.plain[at - back] == self.plain[from - back];
            let back_max = (at - said).min(from - from_start);
            let back = (1..=back_max).take_while(equal).count();
            put_literal(&mut self.elements, &self.plain[said..at - back]);
            put_copy(&mut self.elements, at - from, len + back);
            at += len;
            said = at;
            misses = MISSES_PER_STEP;
            if at + COPY_BYTES_MIN <= end {
                let last = hash(&self.plain[at - 1..at - 1 + COPY_BYTES_MIN]);
                self.table[last] = entry(at - 1, number);
            }
        }
        said
    }

    /// Where fixed bytes like those at `at` begin, and how many they are up to `end`.
    fn matching(&self, found: u32, at: usize, end: usize) -> Option<(usize, usize)> {
        let from = (found >> 8) as usize;
        if from == 0 || at - from > COPY_OFFSET_MAX {
            return None;
        }
        let from_end = self.series[usize::from(found.to_le_bytes()[0])].end;
        let (here, there) = (&self.plain[at..end], &self.plain[from..from_end]);
        let len = equal_bytes(here, there);
        (len >= COPY_BYTES_MIN).then_some((from, len))
    }

    /// Says the rest of a series' message, and what follows a copied timestamp.
    fn put_sample(&mut self, number: usize, said: usize) -> usize {
        let fixed = self.series[number];
        let (timestamp, end) = (fixed.timestamp(), fixed.timestamp() + TIMESTAMP_FIELD_BYTES);
        let literal_end = if fixed.is_chained { timestamp } else { end };
        put_literal(&mut self.elements, &self.plain[said..literal_end]);
        let offset = self.elements.len() - (literal_end - fixed.end);
        let place = Place::new(offset, fixed.zero_bytes, fixed.is_chained);
        self.places.push(place.to_bytes());
        if !fixed.is_chained {
            return end;
        }
        // chained, so there is one before; what follows its timestamp are this one's fixed bytes
        let from = self.series[number - 1].timestamp() + TIMESTAMP_FIELD_BYTES;
        let next_end = (self.series.get(number + 1)).map_or(end, |next| next.end);
        let more = equal_bytes(&self.plain[end..next_end], &self.plain[from..fixed.end]);
        put_copy(&mut self.elements, end - from, TIMESTAMP_FIELD_BYTES + more);
        end + more
    }
}

/// How many low bytes of a value are taken to be zero from now on.
fn zero_bytes(value_bits: u64) -> u8 {
    match value_bits.trailing_zeros() / 8 {
        0..4 => 0,
        4 => 4,
        5 => 5,
        // also zero itself
        _ => 6,
    }
}

/// How many bytes two slices begin with alike.
pub(super) fn equal_bytes(a: &[u8], b: &[u8]) -> usize {
    // most of what is compared is equal for long, and so many bytes are compared at once
    let (blocks_a, blocks_b) = (a.as_chunks::<32>().0, b.as_chunks::<32>().0);
    let blocks = blocks_a.iter().zip(blocks_b);
    let mut equal = 32 * blocks.take_while(|(a, b)| a == b).count();
    let (words_a, words_b) = (a[equal..].as_chunks::<8>().0, b[equal..].as_chunks::<8>().0);
    for (a, b) in words_a.iter().zip(words_b) {
        let unequal = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if unequal != 0 {
            return equal + (unequal.trailing_zeros() / 8) as usize;
        }
        equal += 8;
    }
    let rest = a[equal..].iter().zip(&b[equal..]);
    equal + rest.take_while(|(a, b)| a == b).count()
}

/// What the table holds: a place and its series.
fn entry(at: usize, number: usize) -> u32 {
    const { assert!(RUN_MAX <= 1 << 8 && PLAIN_BYTES_MAX < 1 << 24) };
    u32::try_from(at << 8 | number).expect("24 bits and 8")
}

/// Where four bytes are in the table.
fn hash(bytes: &[u8]) -> usize {
    let bytes: [u8; COPY_BYTES_MIN] = bytes.try_into().expect("four bytes");
    (u32::from_le_bytes(bytes).wrapping_mul(0x1e35_a7bd) >> (u32::BITS - TABLE_BITS)) as usize
}
