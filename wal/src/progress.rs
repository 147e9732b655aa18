//! Turns how far an endpoint is into a slot of its position file, and back.
//!
//! # On disk
//! `docs/format.md`, "Position file": two slots written in turn, so that a torn write leaves the
//! older one.
//!
//! # Invariants
//! - A reader that knows nothing of [`Ahead`] sends that range again and its account is right: what
//!   became of the range is in counters of its own.

use crate::bytes::{get_u32, get_u64, put_u32, put_u64};
use crate::header::FORMAT_VERSION;
use crate::tally::{REASONS_MAX, Tally};
use crate::{Mark, Position};

const MAGIC: [u8; 8] = *b"PNSTKPOS";
/// Bytes of a position file.
pub(crate) const FILE_BYTES: u64 = 1024;
pub(crate) const SLOT_SPACING: usize = 512;

pub(crate) mod field {
    //! Offsets of a slot's fields.
    use super::REASONS_MAX;

    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = MAGIC + 8;
    pub(crate) const SEQUENCE: usize = VERSION + 8;
    pub(crate) const ACKED: usize = SEQUENCE + 8;
    pub(crate) const RECORDS_BEFORE: usize = ACKED + 8;
    pub(crate) const DELIVERED: usize = RECORDS_BEFORE + 8;
    pub(crate) const DROPPED: usize = DELIVERED + 8;
    pub(crate) const CRC: usize = DROPPED + 8 * REASONS_MAX;
    // Zeros where nothing is ahead, as in files written before there was such a thing.
    pub(crate) const AHEAD: usize = CRC + 8;
    pub(crate) const AHEAD_RECORDS_BEFORE: usize = AHEAD + 8;
    pub(crate) const AHEAD_ACKED: usize = AHEAD_RECORDS_BEFORE + 8;
    pub(crate) const AHEAD_DELIVERED: usize = AHEAD_ACKED + 8;
    pub(crate) const AHEAD_DROPPED: usize = AHEAD_DELIVERED + 8;
    pub(crate) const AHEAD_CRC: usize = AHEAD_DROPPED + 8 * REASONS_MAX;
    pub(crate) const END: usize = AHEAD_CRC + 4;
}

const _: () = assert!(field::END <= SLOT_SPACING);

/// How far an endpoint is, and what became of everything before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) acked: Position,
    /// Records of the log before the endpoint began.
    pub(crate) records_before: u64,
    pub(crate) tally: Tally,
    /// What is decided beyond `acked`.
    pub(crate) ahead: Option<Ahead>,
}

/// A range beyond the acknowledged position of which everything is decided: it was sent before the
/// backlog. Its end moves on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ahead {
    /// Where it begins: there the backlog ends.
    pub from: Mark,
    /// Everything before this, from [`Self::from`] on, needs no sending.
    pub acked: Position,
    /// What became of the records in it.
    pub tally: Tally,
}

impl Ahead {
    /// Nothing yet, from here on.
    pub(crate) fn begin(from: Mark) -> Self {
        Self {
            from,
            acked: from.position,
            tally: Tally::default(),
        }
    }

    /// Its end.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            position: self.acked,
            records: self.from.records.saturating_add(self.tally.total()),
        }
    }
}

impl Progress {
    /// An endpoint that begins here.
    pub(crate) fn begin(at: Mark) -> Self {
        Self {
            acked: at.position,
            records_before: at.records,
            ..Self::default()
        }
    }

    /// The acknowledged position and what lies before it.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            position: self.acked,
            records: self.records_before.saturating_add(self.tally.total()),
        }
    }

    /// The end of everything decided.
    pub(crate) fn newest(&self) -> Mark {
        self.ahead.map_or(self.mark(), |ahead| ahead.mark())
    }

    /// Everything decided, also ahead.
    pub(crate) fn decided(&self) -> Tally {
        let mut tally = self.tally;
        if let Some(ahead) = self.ahead {
            tally += ahead.tally;
        }
        tally
    }

    /// Everything before `mark`, up to where what is ahead begins, is decided: `tally` says how. Going
    /// back is ignored.
    pub(crate) fn ack(&mut self, mark: Mark, tally: Tally) {
        if mark.position <= self.acked {
            return;
        }
        self.acked = mark.position;
        self.tally += tally;
        debug_assert_eq!(self.mark(), mark, "every record is accounted for");
        if let Some(ahead) = self
            .ahead
            .take_if(|ahead| ahead.from.position <= mark.position)
        {
            debug_assert_eq!(
                ahead.from, mark,
                "the backlog ends where what is ahead begins"
            );
            self.acked = ahead.acked;
            self.tally += ahead.tally;
        }
    }

    /// Everything ahead and before `mark` is decided too; as [`Self::ack`] if nothing is ahead.
    pub(crate) fn ack_newest(&mut self, mark: Mark, tally: Tally) {
        match &mut self.ahead {
            Some(ahead) if mark.position > ahead.acked => {
                ahead.acked = mark.position;
                ahead.tally += tally;
                debug_assert_eq!(ahead.mark(), mark, "every record is accounted for");
            }
            Some(_) => {}
            None => self.ack(mark, tally),
        }
    }
}

/// Where the slot of this sequence stands.
pub(crate) const fn slot_of(sequence: u64) -> u64 {
    if sequence.is_multiple_of(2) {
        0
    } else {
        SLOT_SPACING as u64
    }
}

pub(crate) fn encode_slot(sequence: u64, progress: &Progress) -> [u8; field::END] {
    let mut slot = [0; field::END];
    slot[..8].copy_from_slice(&MAGIC);
    put_u32(&mut slot, field::VERSION, FORMAT_VERSION);
    put_u64(&mut slot, field::SEQUENCE, sequence);
    put_u64(&mut slot, field::ACKED, progress.acked.get());
    put_u64(&mut slot, field::RECORDS_BEFORE, progress.records_before);
    put_tally(&mut slot, field::DELIVERED, &progress.tally);
    let crc = crc32fast::hash(&slot[..field::CRC]);
    put_u32(&mut slot, field::CRC, crc);
    if let Some(ahead) = progress.ahead {
        put_u64(&mut slot, field::AHEAD, ahead.from.position.get());
        put_u64(&mut slot, field::AHEAD_RECORDS_BEFORE, ahead.from.records);
        put_u64(&mut slot, field::AHEAD_ACKED, ahead.acked.get());
        put_tally(&mut slot, field::AHEAD_DELIVERED, &ahead.tally);
        let crc = crc32fast::hash(&slot[..field::AHEAD_CRC]);
        put_u32(&mut slot, field::AHEAD_CRC, crc);
    }
    slot
}

/// Writes the counters of a tally, `dropped` behind `delivered`.
fn put_tally(slot: &mut [u8], at: usize, tally: &Tally) {
    put_u64(slot, at, tally.delivered);
    for (number, dropped) in (1..).zip(tally.dropped) {
        put_u64(slot, at + 8 * number, dropped);
    }
}

fn get_tally(slot: &[u8], at: usize) -> Tally {
    let mut tally = Tally::of_delivered(get_u64(slot, at));
    for (number, dropped) in (1..).zip(&mut tally.dropped) {
        *dropped = get_u64(slot, at + 8 * number);
    }
    tally
}

/// Offsets of the slots that were written and do not check. A slot that was never written is zeros.
pub(crate) fn broken_slots(bytes: &[u8]) -> Vec<usize> {
    let slots = [0, SLOT_SPACING];
    let is_broken = |at: &usize| {
        let slot = bytes.get(*at..*at + field::END).unwrap_or_default();
        slot.iter().any(|&byte| byte != 0) && valid_slot(slot).is_none()
    };
    slots.into_iter().filter(is_broken).collect()
}

/// The sequence and content of a slot that checks.
fn valid_slot(slot: &[u8]) -> Option<(u64, Progress)> {
    let checks = |end: usize| crc32fast::hash(&slot[..end]) == get_u32(slot, end);
    let is_alone = slot[field::AHEAD..].iter().all(|&byte| byte == 0);
    let is_valid = slot[field::MAGIC..8] == MAGIC
        && checks(field::CRC)
        && (is_alone || checks(field::AHEAD_CRC));
    is_valid.then(|| (get_u64(slot, field::SEQUENCE), decode_slot(slot, is_alone)))
}

/// The sequence and content of the slot that counts, if one checks.
pub(crate) fn newest_slot(bytes: &[u8]) -> Option<(u64, Progress)> {
    let slots = [0, SLOT_SPACING].map(|at| valid_slot(bytes.get(at..at + field::END)?));
    slots
        .into_iter()
        .flatten()
        .max_by_key(|(sequence, _)| *sequence)
}

fn decode_slot(slot: &[u8], is_alone: bool) -> Progress {
    let position = |at| Position::new(get_u64(slot, at));
    let ahead = Ahead {
        from: Mark {
            position: position(field::AHEAD),
            records: get_u64(slot, field::AHEAD_RECORDS_BEFORE),
        },
        acked: position(field::AHEAD_ACKED),
        tally: get_tally(slot, field::AHEAD_DELIVERED),
    };
    Progress {
        acked: position(field::ACKED),
        records_before: get_u64(slot, field::RECORDS_BEFORE),
        tally: get_tally(slot, field::DELIVERED),
        ahead: (!is_alone).then_some(ahead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;

    fn mark(position: u64, records: u64) -> Mark {
        Mark {
            position: Position::new(position),
            records,
        }
    }

    fn split() -> Progress {
        let mut progress = Progress::begin(mark(10, 1));
        progress.ack(mark(20, 3), Tally::of_delivered(2));
        progress.ahead = Some(Ahead::begin(mark(100, 30)));
        progress.ack_newest(mark(110, 34), Tally::of_dropped(DropReason::Refused, 4));
        progress
    }

    #[test]
    fn what_is_ahead_joins_when_the_backlog_reaches_it() {
        let mut progress = split();
        assert_eq!(
            (progress.mark(), progress.newest()),
            (mark(20, 3), mark(110, 34))
        );
        assert_eq!(progress.decided().total(), 6);
        progress.ack(mark(60, 20), Tally::of_delivered(17));
        assert_eq!(progress.mark(), mark(60, 20));
        progress.ack(mark(100, 30), Tally::of_delivered(10));
        assert_eq!((progress.mark(), progress.ahead), (mark(110, 34), None));
        progress.ack_newest(mark(120, 35), Tally::of_delivered(1));
        assert_eq!(progress.mark(), mark(120, 35));
    }

    #[test]
    fn a_slot_holds_both_and_an_older_reader_its_part() {
        let progress = split();
        let slot = encode_slot(7, &progress);
        assert_eq!(newest_slot(&slot), Some((7, progress)));
        assert_eq!(
            crc32fast::hash(&slot[..field::CRC]),
            get_u32(&slot, field::CRC)
        );
        for at in [
            field::ACKED,
            field::AHEAD,
            field::AHEAD_ACKED,
            field::AHEAD_CRC,
        ] {
            let mut rotten = slot;
            rotten[at] ^= 1;
            assert_eq!(newest_slot(&rotten), None, "byte {at}");
            assert_eq!(broken_slots(&rotten), [0], "byte {at}");
        }
        let alone = Progress {
            ahead: None,
            ..progress
        };
        assert_eq!(newest_slot(&encode_slot(8, &alone)), Some((8, alone)));
    }
}
