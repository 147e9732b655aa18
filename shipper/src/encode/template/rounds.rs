//! Turns series with several samples each into snappy elements, without a message in between.
//!
//! This is what a backlog is sent as. Where repeats are is known beforehand, so nothing is looked for:
//! labels are compared with those of the series before, and a sample with the one before it, which
//! begins [`SAMPLE_FIELD_BYTES`] earlier. What the elements say is what the plain encoder says.
//!
//! # Layout
//! Where the samples have the timestamps of the series before, as those of one target do, all between two
//! values is a copy from there: timestamp and tags. Of a value the low bytes that equal those of the
//! sample before are a copy, if there are enough, and the others a literal:
//!
//! ```text
//! ... labels | tag length tag | value | tag timestamp tag length tag | equal bytes || other bytes | ...
//!            \______ literal _______/ \________ copy ______________/ \__ copy ____/ \_ literal _/
//! ```
//!
//! Otherwise a copy says the high bytes of the timestamp before, the tags, and the equal bytes:
//!
//! ```text
//! ... high bytes of a timestamp | tag length tag | equal bytes || other bytes | tag | changed bytes ...
//!     \______________________ copy _________________________/  \___________ literal _____________/
//! ```
//!
//! # Invariants
//! - Copies stay inside what one call says.

use wal::{Sample, SeriesRef};

use super::body::Body;
use super::builder::{SAMPLE_FIELD_BYTES, equal_bytes};
use super::elements::{
    COPY_BYTES_MIN, COPY_OFFSET_MAX, SHORT_COPY_BYTES_MAX, SHORT_COPY_OFFSET_END, low_byte,
    put_copy, put_literal,
};
use super::fragment::{TIMESTAMP_BYTES, timestamp_varint};
use super::has_usual_timestamp;
use labels::compare_first;
use labels::wire::{
    FIELD_1_BYTES, FIELD_1_FIXED64, FIELD_2_BYTES, FIELD_2_VARINT, VARINT_BYTES_MAX, len_u64,
    write_varint,
};

/// Tag and length of a sample, tag of its value.
const HEAD: [u8; 3] = [FIELD_2_BYTES, OFFSET - 2, FIELD_1_FIXED64];
/// A value, and what comes between it and the next.
const BETWEEN_BYTES: usize = SAMPLE_FIELD_BYTES - 8;
const OFFSET: u8 = low_byte(SAMPLE_FIELD_BYTES);
/// The most that the elements of a sample take, and what is written behind them.
const ROOM_BYTES: usize = 32;

/// How a value is said of which so many low bytes are equal to those of the one before: bytes of
/// elements, how many these are, and how many bytes of the value follow.
const VALUES: [(u32, usize, usize); 9] = {
    let whole = (7 << 2, 1, 8);
    let mut all = [whole; 9];
    let mut equal = COPY_BYTES_MIN;
    while equal < 8 {
        let copy = (equal - COPY_BYTES_MIN) << 2 | 1;
        let literal = (7 - equal) << 2;
        let elements = [low_byte(copy), OFFSET, low_byte(literal), 0];
        all[equal] = (u32::from_le_bytes(elements), 3, 8 - equal);
        equal += 1;
    }
    all[8] = (u32::from_le_bytes([(8 - 4) << 2 | 1, OFFSET, 0, 0]), 2, 0);
    all
};

/// Says series with several samples; keeps its memory.
#[derive(Default)]
pub(super) struct Rounds {
    elements: Vec<u8>,
}

/// The series before: its message ends where the next begins.
#[derive(Clone, Copy, Default)]
struct Before<'a> {
    labels: &'a [u8],
    samples: &'a [Sample],
}

impl Before<'_> {
    /// How far before the end the labels begin.
    const fn distance(&self) -> usize {
        self.labels.len() + self.samples.len() * SAMPLE_FIELD_BYTES
    }

    /// Whether it has samples of these timestamps.
    fn has_rounds(&self, samples: &[Sample]) -> bool {
        let pairs = samples.iter().zip(self.samples);
        let unequal = pairs.fold(0, |all, (a, b)| all | a.timestamp_ms ^ b.timestamp_ms);
        unequal == 0 && samples.len() == self.samples.len()
    }
}

impl Rounds {
    /// Puts the first samples into the body, as long as each series has several, labels, and usual
    /// timestamps; how many samples that were.
    pub(super) fn put<'a>(
        &mut self,
        samples: &[Sample],
        labels: impl Fn(SeriesRef) -> &'a [u8],
        body: &mut Body,
    ) -> Result<usize, snap::Error> {
        self.elements.clear();
        let (mut said, mut put) = (0, 0);
        let mut before = Before::default();
        for of_series in samples.chunk_by(|a, b| a.series == b.series) {
            let labels = labels(of_series[0].series);
            if of_series.len() < 2 || labels.is_empty() {
                break;
            }
            let has_rounds = before.has_rounds(of_series);
            if !has_rounds && !of_series.iter().all(has_usual_timestamp) {
                break;
            }
            said += self.put_series(labels, of_series, before, has_rounds);
            put += of_series.len();
            before = Before {
                labels,
                samples: of_series,
            };
        }
        if put > 0 {
            let room = body.room(self.elements.len())?;
            room.copy_from_slice(&self.elements);
            body.took(self.elements.len(), len_u64(said));
        }
        Ok(put)
    }

    /// Says one series, which may have the timestamps of the one before; how many bytes that is.
    fn put_series(
        &mut self,
        labels: &[u8],
        samples: &[Sample],
        before: Before<'_>,
        has_rounds: bool,
    ) -> usize {
        let bytes = labels.len() + samples.len() * SAMPLE_FIELD_BYTES;
        let mut head = [0; 1 + VARINT_BYTES_MAX];
        head[0] = FIELD_1_BYTES;
        let head_bytes = 1 + write_varint(&mut head[1..], len_u64(bytes));
        put_literal(&mut self.elements, &head[..head_bytes]);
        let distance = head_bytes + before.distance();
        if distance + labels.len() <= COPY_OFFSET_MAX {
            put_labels(&mut self.elements, labels, (before.labels, distance));
        } else {
            put_literal(&mut self.elements, labels);
        }
        let start = self.elements.len();
        self.elements.resize(start + samples.len() * ROOM_BYTES, 0);
        let room = &mut self.elements[start..];
        let distance = head_bytes + bytes;
        let said = if has_rounds && distance <= COPY_OFFSET_MAX {
            put_rounds(room, samples, distance)
        } else {
            put_samples(room, samples)
        };
        self.elements.truncate(start + said);
        head_bytes + bytes
    }
}

/// Says labels that differ from others here and there.
///
/// Equal bytes are followed across the ends of labels. Where they end, the walk goes on behind that byte,
/// or with the equal bytes at the end of that label; a label that only one of the two has is left out of the comparison.
/// The others begin `distance` bytes before these.
fn put_labels<'b>(out: &mut Vec<u8>, labels: &'b [u8], (others, distance): (&'b [u8], usize)) {
    let mut said = 0;
    // Where bytes are compared; and where the labels begin that these are of, at the latest.
    let (mut at, mut from) = (0, 0);
    let (mut label, mut other) = (0, 0);
    while at < labels.len() && from < others.len() {
        let equal = equal_bytes(&labels[at..], &others[from..]);
        if equal >= COPY_BYTES_MIN {
            put_literal(out, &labels[said..at]);
            put_copy(out, distance + at - from, equal);
            said = at + equal;
        }
        (at, from) = (at + equal, from + equal);
        // both have the same labels up to here
        while label_end(labels, label) <= at && label_end(others, other) <= from {
            (label, other) = (label_end(labels, label), label_end(others, other));
            if label == labels.len() || other == others.len() {
                put_literal(out, &labels[said..]);
                return;
            }
        }
        let order = compare_first(&labels[label..], &others[other..]);
        // perhaps only that byte is another: a length, or a digit
        let behind = |bytes: &'b [u8], at: usize| bytes.get(at + 1..).unwrap_or_default();
        let equal = equal_bytes(behind(labels, at), behind(others, from));
        if order.is_eq() && equal >= COPY_BYTES_MIN {
            (at, from) = (at + 1, from + 1);
            continue;
        }
        if order.is_le() {
            label = label_end(labels, label);
        }
        if order.is_ge() {
            other = label_end(others, other);
        }
        let more = equal_end(
            &labels[at.min(label)..label],
            &others[from.min(other)..other],
        );
        let more = if order.is_eq() { more } else { 0 };
        (at, from) = (at.max(label - more), other - more);
    }
    put_literal(out, &labels[said..]);
}

/// Where the label that begins at `at` ends.
fn label_end(labels: &[u8], at: usize) -> usize {
    match labels.get(at + 1) {
        Some(&bytes @ ..0x80) => labels.len().min(at + 2 + usize::from(bytes)),
        // what is long is taken for the rest: that costs bytes at most
        _ => labels.len(),
    }
}

/// How many bytes two slices end with alike.
fn equal_end(a: &[u8], b: &[u8]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take_while(|(a, b)| a == b).count()
}

/// Says samples that have the timestamps of others `distance` bytes before; how many bytes of `out`
/// that took.
fn put_rounds(out: &mut [u8], samples: &[Sample], distance: usize) -> usize {
    let Some((first, rest)) = samples.split_first() else {
        return 0;
    };
    out[0] = low_byte(HEAD.len() + 8 - 1) << 2;
    out[1..4].copy_from_slice(&HEAD);
    out[4..12].copy_from_slice(&first.value_bits.to_le_bytes());
    let (between, between_bytes) = copy(distance, BETWEEN_BYTES);
    let mut at = 12;
    let mut value = first.value_bits;
    for sample in rest {
        let equal = (value ^ sample.value_bits).trailing_zeros() / 8;
        value = sample.value_bits;
        let (elements, bytes, others) = VALUES[equal as usize];
        out[at..at + 4].copy_from_slice(&between.to_le_bytes());
        at += between_bytes;
        out[at..at + 4].copy_from_slice(&elements.to_le_bytes());
        at += bytes;
        out[at..at + 8].copy_from_slice(&high_bytes(value, others).to_le_bytes());
        at += others;
    }
    let (last, last_bytes) = copy(distance, BETWEEN_BYTES - HEAD.len());
    out[at..at + 4].copy_from_slice(&last.to_le_bytes());
    at + last_bytes
}

/// A copy of up to 11 bytes, and how many bytes it takes.
const fn copy(offset: usize, bytes: usize) -> (u32, usize) {
    let [low, high, ..] = offset.to_le_bytes();
    if offset < SHORT_COPY_OFFSET_END {
        let tag = high << 5 | low_byte(bytes - COPY_BYTES_MIN) << 2 | 1;
        (u32::from_le_bytes([tag, low, 0, 0]), 2)
    } else {
        let tag = low_byte(bytes - 1) << 2 | 2;
        (u32::from_le_bytes([tag, low, high, 0]), 3)
    }
}

/// The `bytes` high bytes of a value.
const fn high_bytes(value: u64, bytes: usize) -> u64 {
    let bits = 4 * (8 - bytes);
    // twice, as a shift by all bits is none
    value >> bits >> bits
}

/// Says samples of any timestamps of the usual length; how many bytes of `out` that took.
fn put_samples(out: &mut [u8], samples: &[Sample]) -> usize {
    let (mut value, mut timestamp) = (0, 0);
    // Bytes of the timestamp before that are not said yet.
    let mut unsaid = 0;
    let mut at = 0;
    for (number, sample) in (1..).zip(samples) {
        let (value_before, timestamp_before) = (value, timestamp);
        value = sample.value_bits;
        timestamp = timestamp_varint(sample.timestamp_ms.cast_unsigned());
        let changed = (71 - (timestamp ^ timestamp_before).leading_zeros()) as usize / 8;
        // nothing comes behind the last to say the rest with
        let said = if number == 1 || number == samples.len() {
            TIMESTAMP_BYTES
        } else {
            changed.max(1)
        };
        let equal = ((value ^ value_before).trailing_zeros() / 8) as usize;
        let room = &mut out[at..at + ROOM_BYTES];
        at += if number == 1 || unsaid == 0 && equal == 0 {
            put_whole(room, value, timestamp, said)
        } else {
            put_changed(room, (unsaid, equal), (value, timestamp), said)
        };
        unsaid = TIMESTAMP_BYTES - said;
    }
    at
}

/// Says a sample up to `said` bytes of its timestamp, without the one before.
fn put_whole(out: &mut [u8], value: u64, timestamp: u64, said: usize) -> usize {
    let literal = HEAD.len() + 8 + 1 + said;
    out[0] = low_byte(literal - 1) << 2;
    out[1..4].copy_from_slice(&HEAD);
    out[4..12].copy_from_slice(&value.to_le_bytes());
    out[12] = FIELD_2_VARINT;
    out[13..21].copy_from_slice(&timestamp.to_le_bytes());
    1 + literal
}

/// Says a sample up to `said` bytes of its timestamp. Copied are the `unsaid` bytes before it, its tags
/// and its `equal` value bytes; with the whole value the tag behind it.
fn put_changed(
    out: &mut [u8],
    (unsaid, equal): (usize, usize),
    (value, timestamp): (u64, u64),
    said: usize,
) -> usize {
    let tagged = usize::from(equal < 8);
    let copied = unsaid + HEAD.len() + equal + 1 - tagged;
    let mut at = if copied <= SHORT_COPY_BYTES_MAX {
        out[..2].copy_from_slice(&[low_byte(copied - COPY_BYTES_MIN) << 2 | 1, OFFSET]);
        2
    } else {
        out[..3].copy_from_slice(&[low_byte(copied - 1) << 2 | 2, OFFSET, 0]);
        3
    };
    let others = 8 - equal;
    out[at] = low_byte(others + tagged + said - 1) << 2;
    out[at + 1..][..8].copy_from_slice(&high_bytes(value, others).to_le_bytes());
    at += 1 + others;
    out[at] = FIELD_2_VARINT;
    out[at + tagged..][..8].copy_from_slice(&timestamp.to_le_bytes());
    at + tagged + said
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::remote_write_v1::put_series;
    use labels::canonical;

    const TIME_MS: i64 = 1_760_000_000_000;

    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            Just(0x7ff0_0000_0000_0002),
            (0..3_u8).prop_map(|n| f64::from(n).to_bits()),
            (0..70_000_u32).prop_map(|n| f64::from(n).to_bits()),
            (any::<u64>(), 0..64_u32).prop_map(|(bits, shift)| bits << shift),
            any::<u64>(),
        ]
    }

    fn step_ms() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => Just(15_000),
            1 => Just(0),
            1 => Just(-1),
            1 => 0..100_i64,
            1 => 0..1_i64 << 34,
        ]
    }

    fn labels() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof!["[a-c]{1,3}", "prod-[ab]-[a-c]{0,2}-internal", "x{100,200}"];
        prop::collection::btree_map("[a-d]{1,2}|instance|job", value, 1..8).prop_map(|labels| {
            let pairs: Vec<_> = labels.iter().map(|(n, v)| (&**n, &**v)).collect();
            canonical(&pairs)
        })
    }

    /// Of one series in two the steps are always the same.
    fn series() -> impl Strategy<Value = (Vec<u8>, Vec<(i64, u64)>)> {
        let regular = prop::collection::vec((Just(15_000), value()), 5..7);
        let any = prop::collection::vec((step_ms(), value()), 2..30);
        (labels(), prop_oneof![regular, any])
    }

    /// What the elements of these series say, and how many bytes they are.
    fn said(all: &[(Vec<u8>, Vec<Sample>)]) -> (Vec<u8>, usize) {
        let samples: Vec<_> = all
            .iter()
            .flat_map(|(_, samples)| samples.clone())
            .collect();
        let mut body = Body::new();
        let labels = |one: SeriesRef| &*all[one.index()].0;
        let put = Rounds::default().put(&samples, labels, &mut body);
        assert_eq!(put.unwrap(), samples.len());
        let body = body.finish().unwrap();
        let said = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        (said, body.len())
    }

    fn plain(all: &[(Vec<u8>, Vec<Sample>)]) -> Vec<u8> {
        let mut message = Vec::new();
        for (labels, samples) in all {
            put_series(&mut message, labels, samples);
        }
        message
    }

    fn sampled(number: u32, steps: &[(i64, u64)]) -> Vec<Sample> {
        let mut timestamp_ms = TIME_MS;
        let sample = |(step_ms, value_bits): &(i64, u64)| {
            timestamp_ms += step_ms;
            Sample {
                series: SeriesRef::new(number),
                timestamp_ms,
                value_bits: *value_bits,
            }
        };
        steps.iter().map(sample).collect()
    }

    proptest! {
        #[test]
        fn elements_say_what_the_plain_encoder_says(
            all in prop::collection::vec(series(), 1..20),
        ) {
            let all: Vec<_> = (0..)
                .zip(all)
                .map(|(number, (labels, steps))| (labels, sampled(number, &steps)))
                .collect();
            prop_assert_eq!(said(&all).0, plain(&all));
        }

        #[test]
        fn labels_may_be_any_bytes(
            all in prop::collection::vec(prop::collection::vec(0..20_u8, 1..60), 1..5),
        ) {
            let steps = [(0, 1), (1, 2)];
            let all: Vec<_> = (0..)
                .zip(all)
                .map(|(number, labels)| (labels, sampled(number, &steps)))
                .collect();
            prop_assert_eq!(said(&all).0, plain(&all));
        }
    }

    #[test]
    fn what_repeats_is_copied() {
        let one = |number: u32| {
            let pod = format!("checkout-7d9f8b6c5d-{number:05}");
            let mut labels = vec![
                ("__name__", "container_cpu_usage_seconds_total"),
                ("cluster", "prod-eu-1"),
                ("instance", "10.42.17.3:10250"),
                ("pod", &*pod),
                ("service", "kubelet-svc-of-some-length"),
            ];
            // one that the others do not have
            labels.extend(Some(("zone", "eu-west-1a")).filter(|_| number == 4));
            let steps: Vec<_> = (0..10).map(|n| (15_000, f64::from(n).to_bits())).collect();
            (canonical(&labels), sampled(number, &steps))
        };
        let (first, ten) = (
            said(&[one(0)]).1,
            said(&(0..10).map(one).collect::<Vec<_>>()).1,
        );
        let each = (ten - first) / 9;
        // 12 for the first value, two copies and a literal of 6 for each other, 30 for the labels
        assert!(each < 120, "{each} bytes");
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        let labels = canonical(&[("job", "j")]);
        let of = |one: SeriesRef| if one.index() == 3 { &[][..] } else { &labels };
        let (once, twice) = ([(0, 1)], [(0, 1), (0, 2)]);
        let far = [(0, 1), (1 << 42, 2)];
        for (then, steps) in [(1, &once[..]), (3, &twice), (4, &far)] {
            let samples = [sampled(0, &twice), sampled(then, steps)].concat();
            let put = |samples| Rounds::default().put(samples, of, &mut Body::new());
            assert_eq!(put(&samples).unwrap(), 2);
            assert_eq!(put(&samples[2..]).unwrap(), 0);
        }
    }
}
