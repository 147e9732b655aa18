//! Holds the tables of `docs/format.md` against the bytes the log writes.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{define, labels, open, scratch};
use wal::{Position, RecordKind, Sample, StartedSample};

/// The rows of a table of the document: field to offset and bytes.
fn table(name: &str) -> BTreeMap<String, (usize, usize)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let text = std::fs::read_to_string(path).unwrap();
    let marker = format!("<!-- table: {name} -->");
    let rows = text.split(&marker).nth(1).unwrap().trim_start().lines();
    rows.skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let bytes = cells[2].parse().unwrap_or(0);
            (cells[3].to_owned(), (cells[1].parse().unwrap(), bytes))
        })
        .collect()
}

struct Reader<'a> {
    bytes: &'a [u8],
    fields: BTreeMap<String, (usize, usize)>,
}

impl Reader<'_> {
    fn number(&self, field: &str) -> u64 {
        let (offset, bytes) = self.fields[field];
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&self.bytes[offset..offset + bytes]);
        u64::from_le_bytes(word)
    }

    fn crc_of(&self, from: usize, to: usize) -> u64 {
        u64::from(crc32fast::hash(&self.bytes[from..to]))
    }
}

#[test]
fn the_document_describes_what_is_written() {
    let dir = scratch();
    let store = open(dir.path());
    let endpoint = store.endpoint("one").unwrap();
    let refs = define(&store, &[1, 2]).unwrap();
    let sample = Sample {
        series: refs[1],
        timestamp_ms: 77,
        value_bits: 5,
    };
    store.writer().unwrap().append(&[sample], &[]).unwrap();
    let durable = store.committer().unwrap().commit_now().unwrap();
    let mark = wal::Mark {
        position: durable,
        records: 1,
    };
    endpoint.ack(mark, wal::Tally::of_delivered(1));
    store.close();

    let segment = std::fs::read(dir.path().join("segments/00000000.seg")).unwrap();
    let salt = check_file_header(&segment, b"PNSTKSEG", 64 << 10);
    let bytes = &segment[4096..];
    let frame = Reader {
        bytes,
        fields: table("frame_header"),
    };
    assert_eq!(frame.number("magic"), 0x3152_4650);
    assert_eq!(frame.number("kind"), 1);
    assert_eq!(frame.number("sample_count"), 1);
    assert_eq!(frame.number("raw_count"), 0);
    assert_eq!(frame.number("position"), 4096);
    assert_eq!(frame.number("salt"), salt);
    assert_eq!(frame.number("records_before"), 0);
    assert_eq!(frame.number("unsynced_bytes"), 0);
    assert_eq!(frame.number("crc32"), frame.crc_of(0, 60));
    let body = 64 + usize::try_from(frame.number("body_bytes")).unwrap();
    assert_eq!(frame.number("body_crc32"), frame.crc_of(64, body));
    assert_eq!(
        durable,
        Position::new(4096 + u64::try_from(body.next_multiple_of(8)).unwrap())
    );

    let chunk = std::fs::read(dir.path().join("series/00000000.chunk")).unwrap();
    let salt = check_file_header(&chunk, b"PNSTKSER", 8 << 10);
    let record = Reader {
        bytes: &chunk[4096..],
        fields: table("series_record"),
    };
    let text = labels(1);
    let (at, _) = record.fields["labels"];
    assert_eq!(record.number("ref"), u64::from(refs[0].get()));
    assert_eq!(record.number("label_bytes"), text.len() as u64);
    assert_eq!(record.bytes[at..at + text.len()], text);
    let covered = [
        &salt.to_le_bytes(),
        &4096_u64.to_le_bytes(),
        &record.bytes[4..at + text.len()],
    ];
    assert_eq!(
        record.number("crc32"),
        u64::from(crc32fast::hash(&covered.concat()))
    );

    let file = std::fs::read(dir.path().join("positions/one")).unwrap();
    // The first save went to the second slot, the one at close to the first.
    let slot = Reader {
        bytes: &file,
        fields: table("position_slot"),
    };
    assert_eq!(&file[..8], b"PNSTKPOS");
    assert_eq!(slot.number("sequence"), 2);
    assert_eq!(slot.number("acked"), durable.get());
    assert_eq!(slot.number("records_before"), 0);
    assert_eq!(slot.number("delivered"), 1);
    assert_eq!(slot.number("crc32"), slot.crc_of(0, 176));
}

#[test]
fn the_document_describes_what_is_ahead() {
    let dir = scratch();
    let store = open(dir.path());
    let endpoint = store.endpoint("one").unwrap();
    let refs = define(&store, &[1]).unwrap();
    let mut writer = store.writer().unwrap();
    for timestamp_ms in 0..2 {
        let series = refs[0];
        let sample = Sample {
            series,
            timestamp_ms,
            value_bits: 5,
        };
        writer.append(&[sample], &[]).unwrap();
    }
    let durable = store.committer().unwrap().commit_now().unwrap();
    let from = endpoint.begin_ahead(Position::ZERO, 100).unwrap().unwrap();
    assert_eq!(from.records, 1);
    let mark = wal::Mark {
        position: durable,
        records: 2,
    };
    endpoint.ack_newest(mark, wal::Tally::of_dropped(wal::DropReason::TooOld, 1));
    store.close();
    let file = std::fs::read(dir.path().join("positions/one")).unwrap();
    let slot = Reader {
        bytes: &file,
        fields: table("position_slot"),
    };
    assert_eq!(slot.number("ahead"), from.position.get());
    assert_eq!(slot.number("ahead_records_before"), 1);
    assert_eq!(slot.number("ahead_acked"), durable.get());
    assert_eq!(slot.number("ahead_delivered"), 0);
    let (dropped, _) = slot.fields["ahead_dropped"];
    assert_eq!(slot.bytes[dropped + 8 * 13], 1);
    assert_eq!(slot.number("ahead_crc32"), slot.crc_of(0, 344));
}

#[test]
fn the_document_names_every_kind_of_record() {
    let documented = table("record_kind");
    let number = |kind: &str| documented[kind].0;
    let kinds = [
        (RecordKind::Exemplar, "exemplar"),
        (RecordKind::Histogram, "histogram"),
        (RecordKind::Metadata, "metadata"),
        (RecordKind::StartedSample, "started_sample"),
    ];
    for (kind, name) in kinds {
        assert_eq!(kind as usize, number(name), "{name}");
    }
    let known = (0..=u8::MAX).filter_map(RecordKind::from_number);
    assert_eq!(known.count(), documented.len());
    let bytes = StartedSample {
        timestamp_ms: 1,
        value_bits: 0x7ff0_0000_0000_0002,
        start_ms: -1,
    }
    .to_bytes();
    assert_eq!(bytes.len(), documented["started_sample"].1);
    let words = [1, 0x7ff0_0000_0000_0002, u64::MAX].map(u64::to_le_bytes);
    assert_eq!(bytes, *words.concat());
}

fn check_file_header(file: &[u8], magic: &[u8], bytes: u64) -> u64 {
    let header = Reader {
        bytes: file,
        fields: table("file_header"),
    };
    assert_eq!(&file[..8], magic);
    assert_eq!(header.number("version"), 1);
    assert_eq!(header.number("id"), 0);
    assert_eq!(header.number("file_bytes"), bytes);
    assert_eq!(header.number("previous_end"), 0);
    assert_eq!(header.number("generation"), 0);
    assert_eq!(header.number("records_before"), 0);
    assert_eq!(header.number("crc32"), header.crc_of(0, 76));
    assert_eq!(file[..80], file[2048..2128], "the second copy");
    header.number("salt")
}
