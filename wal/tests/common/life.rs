//! Short random lives of a store of which every record is known, and what a later open owes them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wal::fs::Disk;
use wal::{
    Committer, DropReason, Endpoint, Frame, RawRecord, RecordKind, Sample, Store, StoreOptions,
    Tail, Writer,
};

use super::journal::{JournalDisk, Lie, Op};
use super::{TestClock, TestRandom, ack_all, define, labels, options};

/// Turns a record's number into value bits of any width, and back.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const GATHER: u64 = 0xf1de_83e1_9937_733d;
const _: () = assert!(SPREAD.wrapping_mul(GATHER) == 1);

pub(crate) const ENDPOINTS: [&str; 2] = ["fast", "slow"];
const NEVER: usize = usize::MAX;

/// A record that was handed to the log.
#[derive(Clone, Copy, Debug)]
struct Written {
    series: u32,
    timestamp_ms: i64,
    /// Bytes of a raw record; none for a sample.
    raw_bytes: Option<usize>,
    /// After this many disk operations it was acknowledged.
    acked_at: usize,
    refused: bool,
}

/// Everything that was ever handed to a log, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth(Vec<Written>);

impl Truth {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends a request of `samples` samples and perhaps a raw record; whether it was taken.
    pub(crate) fn append(
        &mut self,
        store: &Store,
        writer: &mut Writer,
        series: &[u32],
        (timestamp_ms, raw_bytes): (i64, Option<usize>),
    ) -> Result<(), wal::Error> {
        let first = self.0.len();
        let written = |series, raw_bytes| Written {
            series,
            timestamp_ms,
            raw_bytes,
            acked_at: NEVER,
            refused: true,
        };
        self.0.extend(series.iter().map(|&n| written(n, None)));
        self.0
            .extend(raw_bytes.map(|_| written(series[0], raw_bytes)));
        let refs = define(store, series)?;
        let sample = |(at, series)| Sample {
            series,
            timestamp_ms,
            value_bits: ((first + at) as u64).wrapping_mul(SPREAD),
        };
        let samples: Vec<_> = refs.iter().copied().enumerate().map(sample).collect();
        let payload = raw_bytes.map(|bytes| payload(first + series.len(), bytes));
        let raw = payload.as_ref().map(|bytes| RawRecord {
            series: refs[0],
            kind: RecordKind::Histogram,
            bytes,
        });
        writer.append(&samples, raw.as_slice())?;
        for written in &mut self.0[first..] {
            written.refused = false;
        }
        Ok(())
    }

    /// Everything taken and not given up by [`Self::forget`] is durable now.
    pub(crate) fn acked(&mut self, ops: usize) {
        for written in self.0.iter_mut().rev() {
            if written.acked_at != NEVER {
                break;
            }
            if !written.refused {
                written.acked_at = ops;
            }
        }
    }

    /// The process is gone: what it had not committed was never acknowledged, and never will be.
    pub(crate) fn forget(&mut self) {
        let from = self.0.iter().rposition(|written| written.acked_at != NEVER);
        self.0.truncate(from.map_or(0, |from| from + 1));
    }

    /// The numbers of the records in a frame, which must be what was appended.
    fn check(&self, store: &Store, frame: &Frame<'_>, out: &mut Vec<usize>) {
        let mut samples = Vec::new();
        let raw = frame.samples(&mut samples).unwrap();
        let guard = store.series().guard();
        for sample in &samples {
            let number = usize::try_from(sample.value_bits.wrapping_mul(GATHER)).unwrap();
            let written = self.0.get(number).filter(|w| w.raw_bytes.is_none());
            let written = written.unwrap_or_else(|| panic!("{sample:?} was never appended"));
            assert_eq!(sample.timestamp_ms, written.timestamp_ms, "record {number}");
            let found = guard.labels(sample.series);
            let found = String::from_utf8_lossy(found);
            let want = labels(written.series);
            assert_eq!(found, String::from_utf8_lossy(&want), "record {number}");
            self.push(number, out);
        }
        for record in raw {
            let record = record.unwrap();
            let number = u64::from_le_bytes(record.bytes[..8].try_into().unwrap());
            let number = usize::try_from(number).unwrap();
            let written = self.0[number];
            let bytes = written.raw_bytes.expect("a raw record");
            assert!(record.bytes == payload(number, bytes), "record {number}");
            assert_eq!(guard.labels(record.series), labels(written.series));
            self.push(number, out);
        }
    }

    fn push(&self, number: usize, out: &mut Vec<usize>) {
        assert!(!self.0[number].refused, "record {number} was refused");
        if let Some(last) = out.last() {
            assert!(number > *last, "record {number} behind {last}");
        }
        out.push(number);
    }

    /// The numbers of at most `frames` frames; they were all appended, and in this order.
    pub(crate) fn read(&self, store: &Store, tail: &mut Tail, frames: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        for _ in 0..frames {
            let Some(frame) = tail.next().unwrap() else {
                break;
            };
            self.check(store, &frame, &mut numbers);
        }
        numbers
    }

    /// Adds the numbers of all frames there are, as [`Self::read`].
    ///
    /// # Errors
    /// What the tail said; to be called again.
    pub(crate) fn read_on(
        &self,
        store: &Store,
        tail: &mut Tail,
        numbers: &mut Vec<usize>,
    ) -> Result<(), wal::Error> {
        while let Some(frame) = tail.next()? {
            self.check(store, &frame, numbers);
        }
        Ok(())
    }

    /// Everything that is acknowledged by now lies before this number.
    pub(crate) fn assert_delivered(&self, before: usize) {
        let newest = self.0.iter().rposition(|written| written.acked_at != NEVER);
        let all = newest.map_or(0, |newest| newest + 1);
        assert!(before >= all, "{all} acknowledged, {before} can be read");
    }

    /// Reads everything as an endpoint of which `delivered` records were delivered for good, the log
    /// having been cut after `at` operations: what is owed is there, and the account adds up.
    pub(crate) fn settle(&self, store: &Store, endpoint: &Endpoint, delivered: usize, at: usize) {
        let name = endpoint.name();
        let mut tail = endpoint.tail();
        let found = self.read(store, &mut tail, usize::MAX);
        let mut next = found.iter().copied().peekable();
        for (number, written) in self.0.iter().enumerate().skip(delivered) {
            while next.next_if(|found| *found < number).is_some() {}
            let owed = written.acked_at <= at;
            let there = next.next_if_eq(&number).is_some();
            assert!(
                there || !owed,
                "{name}: record {number} is acknowledged and gone"
            );
        }
        // Torn means that nothing proves it was acknowledged, which was just shown.
        let lost = tail.take_lost();
        let torn = lost.dropped(DropReason::Torn);
        assert_eq!(torn, lost.total(), "{name}: lost {lost:?}");
        let mark = tail.mark();
        let read = mark.records - endpoint.mark().records - torn;
        assert_eq!(
            read,
            found.len() as u64,
            "{name}: records by the count of positions"
        );
        let before = endpoint.account();
        assert_eq!(before.pending, read + torn, "{name}: {before:?}");
        let mut tally = lost;
        tally += wal::Tally::of_delivered(read);
        endpoint.ack(mark, tally);
        let account = endpoint.account();
        let decided = account.tally.total();
        assert_eq!(
            (account.pending, account.records_in),
            (0, decided),
            "{name}"
        );
        assert_eq!(
            account.tally.delivered - before.tally.delivered,
            read,
            "{name}"
        );
    }

    /// The store takes, keeps and hands out something new.
    pub(crate) fn goes_on(&mut self, store: &Store) {
        let mut writer = store.writer().unwrap();
        let mut committer = store.committer().unwrap();
        let new = u32::try_from(self.len()).unwrap() + 1_000_000;
        let first = self.len();
        self.append(store, &mut writer, &[1, new], (-1, Some(100)))
            .unwrap();
        committer.commit_now().unwrap();
        for name in ENDPOINTS {
            let mut tail = store.endpoint(name).unwrap().tail();
            let found = self.read(store, &mut tail, usize::MAX);
            assert_eq!(found, [first, first + 1, first + 2], "{name}: what is new");
        }
    }
}

/// The bytes of raw record `number`.
fn payload(number: usize, bytes: usize) -> Vec<u8> {
    let fill = u8::try_from(number % 251).unwrap();
    let mut payload = vec![fill; bytes.max(8)];
    payload[..8].copy_from_slice(&(number as u64).to_le_bytes());
    payload
}

/// A life, operation by operation.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) ops: Vec<Op>,
    pub(crate) truth: Truth,
    /// Per endpoint: after this many operations, records before this number were delivered.
    delivered: [Vec<(usize, usize)>; 2],
}

impl Life {
    /// After so many operations the endpoint had so many records.
    pub(crate) fn is_delivered(&mut self, endpoint: usize, ops: usize, records: usize) {
        self.delivered[endpoint].push((ops, records));
    }

    /// How many records an endpoint had for good after so many operations.
    pub(crate) fn delivered(&self, endpoint: usize, at: usize) -> usize {
        let before = self.delivered[endpoint]
            .iter()
            .filter(|(ops, _)| *ops <= at);
        before.map(|(_, records)| *records).max().unwrap_or(0)
    }
}

/// How a life goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    pub(crate) rounds: u32,
    /// New series with every round; the old ones are left behind.
    pub(crate) churn: u32,
    pub(crate) reopens: bool,
    pub(crate) lie: Option<Lie>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            rounds: 30,
            churn: 12,
            reopens: true,
            lie: None,
        }
    }
}

/// Small files, and time and chance of the test.
pub(crate) fn timed(disk: Arc<dyn Disk>, seed: u64, clock: Arc<TestClock>) -> StoreOptions {
    StoreOptions {
        clock,
        ..repeatable(disk, seed)
    }
}

/// Options under which the same calls make the same bytes.
pub(crate) fn repeatable(disk: Arc<dyn Disk>, seed: u64) -> StoreOptions {
    StoreOptions {
        clock: TestClock::shared(),
        random: TestRandom::shared(seed),
        series_idle_timeout: Duration::ZERO,
        series_max: 20_000,
        ..options(disk)
    }
}

/// Cleans the series log as far as can be done now.
pub(crate) fn clean(store: &Store) {
    // Twice nothing: the collector needs a moment to notice that nobody is reading.
    let mut idle = 0;
    for _ in 0..100 {
        idle = if store.clean().unwrap() { 0 } else { idle + 1 };
        if idle == 2 {
            break;
        }
    }
}

/// A store in the middle of its life.
struct Living {
    store: Store,
    writers: Vec<Writer>,
    committer: Committer,
    endpoints: [(Endpoint, Tail); 2],
}

impl Living {
    fn open(dir: &Path, disk: Arc<dyn Disk>, seed: u64) -> Self {
        let store = Store::open(dir, repeatable(disk, seed)).unwrap();
        let endpoints = ENDPOINTS.map(|name| {
            let endpoint = store.endpoint(name).unwrap();
            let tail = endpoint.tail();
            (endpoint, tail)
        });
        store.endpoints_complete();
        Self {
            writers: (0..3).map(|_| store.writer().unwrap()).collect(),
            committer: store.committer().unwrap(),
            endpoints,
            store,
        }
    }
}

/// A random life in `dir`.
pub(crate) fn live(dir: &Path, seed: u64, habits: Habits) -> Life {
    let disk = JournalDisk::lying(dir, habits.lie);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut living = Living::open(dir, disk.clone(), random.u64(..));
    let mut life = Life::default();
    for round in 0..habits.rounds {
        for _ in 0..random.u32(1..4) {
            request(
                &mut living,
                &mut life.truth,
                &mut random,
                round * habits.churn,
            );
        }
        if random.u8(0..8) > 0 {
            living.committer.commit_now().unwrap();
            life.truth.acked(disk.len());
        }
        for at in 0..2 {
            if random.u8(0..[2, 5][at]) == 0 {
                let frames = [usize::MAX, random.usize(0..12)][random.usize(0..2)];
                deliver(&mut living, &mut life, at, frames, disk.len());
            }
        }
        if random.bool() {
            living.store.keep();
        }
        if random.u8(0..3) == 0 {
            clean(&living.store);
        }
        if habits.reopens && random.u8(0..16) == 0 {
            living = reopen(living, &mut life, dir, &disk, &mut random);
        }
    }
    life.ops = disk.ops();
    life
}

fn request(living: &mut Living, truth: &mut Truth, random: &mut fastrand::Rng, first: u32) {
    let count = [1, 3, 15, 60][random.usize(0..4)];
    // The first ten series are always there.
    let series = |random: &mut fastrand::Rng| match random.u8(0..4) {
        0 => random.u32(0..10),
        _ => first + random.u32(0..40),
    };
    let series: Vec<_> = (0..count).map(|_| series(random)).collect();
    let raw_bytes = [None, Some(30), Some(3000), Some(9000)][random.usize(0..4)];
    let writer = &mut living.writers[random.usize(0..3)];
    let timestamp_ms = random.i64(..);
    let taken = truth.append(&living.store, writer, &series, (timestamp_ms, raw_bytes));
    assert!(taken.as_ref().is_ok() || taken.is_err_and(|e| e.is_full()));
}

/// An endpoint reads some frames and has what they hold.
fn deliver(living: &mut Living, life: &mut Life, at: usize, frames: usize, ops: usize) {
    let (endpoint, tail) = &mut living.endpoints[at];
    let numbers = life.truth.read(&living.store, tail, frames);
    ack_all(endpoint, tail);
    if let Some(last) = numbers.last() {
        life.is_delivered(at, ops, last + 1);
    }
}

/// A clean stop, or a killed process.
fn reopen(
    living: Living,
    life: &mut Life,
    dir: &Path,
    disk: &Arc<JournalDisk>,
    random: &mut fastrand::Rng,
) -> Living {
    let Living {
        store, committer, ..
    } = living;
    if random.bool() {
        let mut committer = committer;
        committer.commit_now().unwrap();
        life.truth.acked(disk.len());
        drop(committer);
        store.close();
    } else {
        drop(committer);
        life.truth.forget();
    }
    drop((living.writers, living.endpoints));
    drop(store);
    Living::open(dir, disk.clone(), random.u64(..))
}
