//! Turns bodies into durable samples with nothing around it: the limit the agent is measured by.
//!
//! Decompress, scan, intern, append, group commit with fdatasync; no HTTP. Like so many
//! connections, a few requests are in flight, and each counts when it is durable.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use anyhow::Result;
use ingest::decode::Batch;
use ingest::decode::{remote_write_v1, remote_write_v2};
use ingest::intern::{Interner, Scratch};
use wal::{Position, SeriesRef, Store, StoreOptions, SystemClock, Writer};

use crate::Common;
use crate::deck::Deck;
use crate::fleet::Fleet;
use crate::measure::{SUBJECT_CORE, float, pin_to, process_cpu, thread_cpu};
use crate::series::Protocol;
use crate::table::{Table, millions, publish};

/// Rounds before measuring: define, learn the order, settle.
const WARM_UP_ROUNDS: u32 = 3;
/// Time from one round to the next.
const STEP_MS: i64 = 1_000;

/// The buffers of a shard thread and its store.
struct Line {
    store: Store,
    writer: Writer,
    message: Vec<u8>,
    batch: Batch,
    fields: Vec<std::ops::Range<usize>>,
    buffers: remote_write_v2::Buffers,
    scratch: Scratch,
    previous: SeriesRef,
}

impl Line {
    fn append(&mut self, protocol: Protocol, body: &[u8]) -> Result<Position> {
        let length = snap::raw::decompress_len(body)?;
        if self.message.len() < length {
            self.message.resize(length, 0);
        }
        let length = snap::raw::Decoder::new().decompress(body, &mut self.message)?;
        self.batch.clear();
        let table = self.store.series().guard();
        let mut interner = Interner::new(&table, &mut self.scratch, self.previous);
        let (message, batch) = (&self.message[..length], &mut self.batch);
        match protocol {
            Protocol::V1 => remote_write_v1::scan(message, &mut interner, batch, &mut self.fields),
            Protocol::V2 => remote_write_v2::scan(message, &mut interner, batch, &mut self.buffers),
        }
        .map_err(|malformed| anyhow::anyhow!("{malformed}"))?;
        self.previous = interner.define_new(&mut self.batch)?;
        Ok(self.writer.append(&self.batch.samples, &[])?)
    }
}

/// Measures the limit and publishes the result.
pub(crate) fn run(common: &Common) -> Result<()> {
    let fleet = Fleet::in_order(common.series)?;
    let (measured, log_bytes) = measure_line(common, &fleet)?;
    let notes = [
        common.describe(),
        "in process, no HTTP; appending thread and committer thread on one core; CPU time of the \
         process, which includes patching the timestamps"
            .to_owned(),
    ];
    let title = "The limit: decode, intern, append, group commit";
    publish(title, &notes, &[table(&measured, log_bytes)], common.out())
}

/// Durable samples per core-second with nothing around the line.
pub(crate) fn per_core_second(common: &Common, fleet: &Fleet) -> Result<f64> {
    let (measured, _) = measure_line(common, fleet)?;
    Ok(measured.samples / measured.cpu)
}

/// Runs rounds until the time is over; the numbers, and the log bytes per sample.
fn measure_line(common: &Common, fleet: &Fleet) -> Result<(Measured, f64)> {
    pin_to(SUBJECT_CORE)?;
    let dir = common.scratch()?;
    let store = Store::open(dir.path(), StoreOptions::default())?;
    let Some(committer) = store.committer() else {
        anyhow::bail!("the store has no committer");
    };
    let committing = committer.spawn_thread()?;
    let mut line = Line {
        writer: store.writer()?,
        store,
        message: Vec::new(),
        batch: Batch::default(),
        fields: Vec::new(),
        buffers: remote_write_v2::Buffers::default(),
        scratch: Scratch::default(),
        previous: SeriesRef::NONE,
    };
    let measured = measure(common, &mut line, fleet)?;
    let Line { store, writer, .. } = line;
    let stats = store.stats();
    let written = float(stats.written_bytes.load(Ordering::Relaxed));
    let log_bytes = written / float(stats.samples.load(Ordering::Relaxed));
    drop(writer);
    store.close();
    if committing.join().is_err() {
        anyhow::bail!("the committer panicked");
    }
    Ok((measured, log_bytes))
}

fn table(measured: &Measured, log_bytes: f64) -> Table {
    let nanos = |seconds: f64| format!("{:.0}", seconds / measured.samples * 1e9);
    let mut table = Table::new(["what", "result"]);
    for (name, value) in [
        (
            "durable samples per core-second",
            millions(measured.samples / measured.cpu),
        ),
        ("ns per sample", nanos(measured.cpu)),
        (
            "of these on the appending thread",
            nanos(measured.thread_cpu),
        ),
        (
            "samples per second",
            millions(measured.samples / measured.seconds),
        ),
        (
            "syncs per second",
            format!("{:.0}", measured.commits / measured.seconds),
        ),
        ("log bytes per sample", format!("{log_bytes:.2}")),
    ] {
        table.row(vec![name.to_owned(), value]);
    }
    table
}

/// What the measured time brought.
struct Measured {
    samples: f64,
    seconds: f64,
    cpu: f64,
    thread_cpu: f64,
    commits: f64,
}

fn measure(common: &Common, line: &mut Line, fleet: &Fleet) -> Result<Measured> {
    let [deck] = &mut Deck::deal(fleet, 1)[..] else {
        anyhow::bail!("one connection, one deck");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let clock = SystemClock::shared();
    let start_ms = clock.unix_ms();
    let mut durable = line.store.durable();
    let mut in_flight = VecDeque::new();
    let (mut samples, mut round) = (0, 0);
    let commits = |line: &Line| {
        let stats = line.store.stats();
        stats.commits.load(Ordering::Relaxed)
    };
    let mut start = (
        clock.monotonic(),
        process_cpu(),
        thread_cpu(),
        commits(line),
    );
    while round < WARM_UP_ROUNDS || clock.monotonic() < start.0 + common.duration() {
        round += 1;
        deck.begin_round();
        for at in 0..deck.requests() {
            let request = deck.request(at, start_ms + i64::from(round) * STEP_MS);
            let position = line.append(fleet.protocol, request.body)?;
            in_flight.push_back((position, request.samples));
            if in_flight.len() >= common.connections
                && let Some((position, count)) = in_flight.pop_front()
            {
                runtime.block_on(durable.reached(position))?;
                samples += count;
            }
        }
        if round == WARM_UP_ROUNDS {
            samples = 0;
            start = (
                clock.monotonic(),
                process_cpu(),
                thread_cpu(),
                commits(line),
            );
        }
    }
    Ok(Measured {
        samples: float(samples),
        seconds: (clock.monotonic() - start.0).as_secs_f64(),
        cpu: (process_cpu() - start.1).as_secs_f64(),
        thread_cpu: (thread_cpu() - start.2).as_secs_f64(),
        commits: float(commits(line) - start.3),
    })
}
