//! Turns the descriptions of metric families that targets expose into few records of the log.
//!
//! All targets of a scraper describe the same families: each is written when it is new or says something new,
//! and once a minute as long as the scraper runs, so that what was reclaimed comes again.
//!
//! # Limits
//! - [`FAMILIES_MAX`] families a thread and scraper; those beyond are not described.

use std::collections::BTreeMap;
use std::time::Duration;

use wal::{RecordKind, SeriesRef};

use crate::decode::exposition::{FamilyText, Kind};
use crate::decode::labels::append_field;
use crate::decode::metadata::{FAMILIES_MAX, REPEAT_EVERY};
use crate::decode::wire::append_varint;
use crate::decode::{Batch, RecordAt};

/// The families of a scraper on one thread.
#[derive(Default, Debug)]
pub(crate) struct Families {
    /// `MetricMetadata` by the name.
    described: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// To be written with the next batch.
    due: Vec<Box<[u8]>>,
    /// When all were written.
    repeated: Duration,
    message: Vec<u8>,
}

impl Families {
    /// A target describes a family.
    pub(crate) fn note(&mut self, family: FamilyText<'_>) {
        let message = &mut self.message;
        message.clear();
        if family.kind != Kind::Unknown {
            message.push(0x08);
            append_varint(message, family.kind as u64);
        }
        append_field(message, 0x12, family.name);
        append_field(message, 0x22, family.help);
        append_field(message, 0x2a, family.unit);
        let is_full = self.described.len() >= FAMILIES_MAX;
        match self.described.get_mut(family.name) {
            Some(before) if **before == **message => return,
            Some(before) => *before = message.as_slice().into(),
            None if is_full => return,
            None => {
                let message = message.as_slice().into();
                self.described.insert(family.name.into(), message);
            }
        }
        self.due.push(family.name.into());
    }

    /// Puts what is to be written into a batch.
    pub(crate) fn write(&mut self, now: Duration, batch: &mut Batch) {
        if now.saturating_sub(self.repeated) >= REPEAT_EVERY {
            self.repeated = now;
            self.due.clear();
            for message in self.described.values() {
                push(message, batch);
            }
        }
        for name in self.due.drain(..) {
            if let Some(message) = self.described.get(&*name) {
                push(message, batch);
            }
        }
    }

    /// What was written is lost.
    pub(crate) fn write_again(&mut self) {
        self.repeated = Duration::ZERO;
    }
}

fn push(message: &[u8], batch: &mut Batch) {
    let start = batch.body_bytes + batch.made.len();
    batch.made.extend_from_slice(message);
    batch.records.push(RecordAt {
        series: SeriesRef::NONE,
        kind: RecordKind::Metadata,
        bytes: start..batch.body_bytes + batch.made.len(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_written_at_once_and_all_once_a_minute() {
        let mut families = Families::default();
        let written = |families: &mut Families, second: u64| {
            let mut batch = Batch::default();
            families.write(Duration::from_secs(second), &mut batch);
            batch.records.len()
        };
        let family = |name: &'static [u8], help: &'static [u8]| FamilyText {
            name,
            kind: Kind::Counter,
            help,
            unit: b"",
        };
        families.note(family(b"a", b"x"));
        families.note(family(b"b", b"y"));
        assert_eq!(written(&mut families, 100), 2);
        families.note(family(b"a", b"x"));
        assert_eq!(written(&mut families, 101), 0);
        families.note(family(b"a", b"z"));
        assert_eq!(written(&mut families, 102), 1);
        assert_eq!(written(&mut families, 160), 2);
        families.write_again();
        assert_eq!(written(&mut families, 161), 2);
    }
}
