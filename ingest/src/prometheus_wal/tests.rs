//! Logs as Prometheus writes them, whole and broken, and what is read of them.

mod files;
mod records;

use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::Why;
use super::compress::Compression;
use super::crc::crc32c;
use super::fuzz::reading_ends_in_order;
use super::pages::{HEADER_BYTES, PAGE_BYTES, Pages, Step};

/// A segment as Prometheus writes it.
#[derive(Default)]
struct Segment(Vec<u8>);

impl Segment {
    fn of(records: &[Vec<u8>]) -> Self {
        let mut segment = Self::default();
        for record in records {
            segment.add(record, Compression::None);
        }
        segment
    }

    fn add(&mut self, record: &[u8], compression: Compression) {
        let (flags, stored) = match compression {
            Compression::None => (0, record.to_vec()),
            Compression::Snappy => (8, snap::raw::Encoder::new().compress_vec(record).unwrap()),
            Compression::Zstd => (16, compress_to_vec(record, CompressionLevel::Fastest)),
        };
        let mut rest = &stored[..];
        let mut is_first = true;
        loop {
            let room = PAGE_BYTES - self.0.len() % PAGE_BYTES;
            if room < HEADER_BYTES {
                self.pad();
                continue;
            }
            let (data, behind) = rest.split_at(rest.len().min(room - HEADER_BYTES));
            let kind = match (is_first, behind.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.fragment(flags | kind, data);
            if behind.is_empty() {
                return;
            }
            (rest, is_first) = (behind, false);
        }
    }

    #[expect(clippy::big_endian_bytes, reason = "the format is Prometheus's")]
    fn fragment(&mut self, flags: u8, data: &[u8]) {
        self.0.push(flags);
        let length = u16::try_from(data.len()).unwrap();
        self.0.extend(length.to_be_bytes());
        self.0.extend(crc32c(data).to_be_bytes());
        self.0.extend(data);
    }

    /// Fills the page up.
    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(PAGE_BYTES), 0);
    }
}

/// Start, end and reason.
type Loss = (u64, u64, Why);

/// Records and losses of a segment.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Loss>) {
    let mut pages = Pages::new(bytes);
    let (mut records, mut losses) = (Vec::new(), Vec::new());
    loop {
        match pages.step().unwrap() {
            Step::Record(_) => records.push(pages.record().to_vec()),
            Step::Lost(range, why) => losses.push((range.start, range.end, why)),
            Step::End => return (records, losses),
        }
    }
}

/// A record of this length that is like no other.
fn filler(length: usize, seed: u8) -> Vec<u8> {
    let mut value = u32::from(seed) + 1;
    let byte = |_| {
        value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value.to_le_bytes()[3]
    };
    (0..length).map(byte).collect()
}

#[test]
fn records_are_put_together_across_pages() {
    let page = PAGE_BYTES;
    let lengths = [
        1,
        page - 30,
        page - 8,
        page - 7,
        page - 6,
        3,
        page,
        3 * page,
        70_000,
        9,
    ];
    let records: Vec<_> = lengths
        .iter()
        .zip(0..)
        .map(|(l, seed)| filler(*l, seed))
        .collect();
    let (found, losses) = read(&Segment::of(&records).0);
    assert_eq!(losses, []);
    assert!(found == records);
}

#[test]
fn every_end_of_a_page_is_read() {
    for left in 0..40 {
        let records = [
            filler(PAGE_BYTES - HEADER_BYTES - left, 1),
            filler(20, 2),
            filler(5, 3),
        ];
        let (found, losses) = read(&Segment::of(&records).0);
        assert_eq!(losses, [], "{left} left");
        assert!(found == records, "{left} left");
    }
}

#[test]
fn compressed_records_are_read_also_across_pages() {
    for compression in [Compression::Snappy, Compression::Zstd] {
        let records = [filler(100_000, 1), vec![7; 500_000], filler(10, 2)];
        let mut segment = Segment::default();
        for record in &records {
            segment.add(record, compression);
            segment.add(b"plain", Compression::None);
        }
        let (found, losses) = read(&segment.0);
        assert_eq!(losses, []);
        let found: Vec<_> = found
            .into_iter()
            .filter(|record| record != b"plain")
            .collect();
        assert!(found == records, "{compression:?}");
    }
}

#[test]
fn an_unfinished_end_is_torn_wherever_it_is() {
    let records = [filler(100, 1), filler(PAGE_BYTES, 2)];
    let whole = Segment::of(&records).0;
    for end in [0, 107] {
        assert_eq!(read(&whole[..end]).1, [], "cut at {end}");
    }
    for end in (1..107).chain((108..whole.len()).step_by(31)) {
        let (found, losses) = read(&whole[..end]);
        let (start, count) = if end < 107 { (0, 0) } else { (107, 1) };
        assert_eq!(found, records[..count], "cut at {end}");
        let end = u64::try_from(end).unwrap();
        assert_eq!(losses, [(start, end, Why::TornTail)]);
    }
}

#[test]
fn a_broken_page_costs_itself_and_the_record_that_goes_through_it() {
    let records = [
        filler(10, 1),
        filler(3 * PAGE_BYTES, 2),
        filler(11, 3),
        filler(12, 4),
    ];
    let mut bytes = Segment::of(&records).0;
    bytes[PAGE_BYTES + 100] ^= 1;
    let (found, losses) = read(&bytes);
    assert_eq!(found, [&records[0][..], &records[2], &records[3]]);
    let end = u64::try_from(bytes.len() - 2 * HEADER_BYTES - 23).unwrap();
    assert_eq!(losses, [(17, end, Why::Checksum)]);
}

#[test]
fn fragments_in_an_impossible_order_are_lost_alone() {
    let mut segment = Segment::default();
    segment.fragment(4, b"last without first");
    segment.fragment(1, b"one");
    segment.fragment(2, b"first without last");
    segment.fragment(1, b"two");
    segment.fragment(2, b"first");
    segment.fragment(4 | 8, b"of another compression");
    segment.fragment(5, b"no such type");
    segment.fragment(1 | 32, b"no such flag");
    segment.fragment(1 | 8, b"no snappy");
    segment.fragment(1 | 16, b"no zstd");
    segment.fragment(1, b"three");
    let (found, losses) = read(&segment.0);
    assert_eq!(found, [&b"one"[..], b"two", b"three"]);
    let reasons: Vec<Why> = losses.iter().map(|(_, _, why)| *why).collect();
    let [incomplete, compression] = [Why::Incomplete, Why::Compression];
    let expected = [incomplete, incomplete, Why::Flags, compression, compression];
    assert_eq!(reasons, expected);
}

#[test]
fn padding_that_is_not_zero_is_reported_and_zero_pages_are_not() {
    let mut segment = Segment::of(&[filler(10, 1)]);
    segment.pad();
    segment.0.resize(4 * PAGE_BYTES, 0);
    segment.add(b"behind", Compression::None);
    assert_eq!(read(&segment.0).1, []);
    segment.0[PAGE_BYTES - 1] = 1;
    let (found, losses) = read(&segment.0);
    assert_eq!(found.len(), 2);
    assert_eq!(
        losses,
        [(17, u64::try_from(PAGE_BYTES).unwrap(), Why::Padding)]
    );
}

/// Nothing is made up, what is kept is in order, and what is not kept is reported.
fn check_salvage(records: &[Vec<u8>], broken: &[u8]) -> usize {
    reading_ends_in_order(broken);
    let (found, losses) = read(broken);
    let mut left = records.iter();
    for record in &found {
        assert!(left.any(|known| known == record), "made up: {record:?}");
    }
    // A report without a record lost is fine: the damage is in what fills a page.
    assert!(found.len() == records.len() || !losses.is_empty());
    found.len()
}

#[test]
fn a_wrong_byte_anywhere_costs_no_more_than_its_page_and_what_crosses_it() {
    let mut segment = Segment::default();
    // Per page the records that have a part in it.
    let page_of = [vec![0, 1, 2], vec![2, 3, 4], vec![5, 6]];
    let lengths = [10, 28_000, 8_000, 20, 30, 40, 50].into_iter().zip(0..);
    let records: Vec<_> = lengths.map(|(length, seed)| filler(length, seed)).collect();
    for (record, at) in records.iter().zip(0..) {
        if at == 5 {
            segment.pad();
        }
        segment.add(record, Compression::None);
    }
    let bytes = segment.0;
    let ends = [
        0..100,
        28_000..28_100,
        32_700..32_850,
        36_000..36_200,
        65_500..bytes.len(),
    ];
    for at in (0..bytes.len()).filter(|at| at % 61 == 0 || ends.iter().any(|r| r.contains(at))) {
        for bit in [1, 0x80] {
            let mut broken = bytes.clone();
            broken[at] ^= bit;
            let kept = check_salvage(&records, &broken);
            let at_risk = &page_of[at / PAGE_BYTES];
            assert!(
                kept + at_risk.len() >= records.len(),
                "{kept} are left at {at}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_damage_is_survived(
        lengths in prop::collection::vec(1usize..40_000, 0..8),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        compress in any::<bool>(),
    ) {
        let records: Vec<_> = lengths.iter().zip(0..).map(|(l, seed)| filler(*l, seed)).collect();
        let mut segment = Segment::default();
        for record in &records {
            let snappy = if compress { Compression::Snappy } else { Compression::None };
            segment.add(record, snappy);
        }
        let mut bytes = segment.0;
        prop_assert_eq!(&read(&bytes).0, &records);
        if !bytes.is_empty() {
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(end.index(bytes.len()) + 1);
        }
        reading_ends_in_order(&bytes);
        let mut left = records.iter();
        for record in read(&bytes).0 {
            prop_assert!(left.any(|known| *known == record));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000), kind in 0u8..16) {
        reading_ends_in_order(&bytes);
        reading_ends_in_order(&[&[kind], &bytes[..]].concat());
    }
}
