//! Turns one ingest thread and two into samples per CPU second; and lucky and unlucky connections into
//! what their spread costs.
//!
//! With two threads the agent may use both cores, and load and sink run on the same two. What the wall
//! clock says is then the load's as much as the agent's, so that what counts is the agent's CPU time.
//!
//! The agent gives a connection to the thread with the fewest, for its life; uneven it gets when those of
//! one thread are closed. Which thread has it shows in the CPU time of the threads while only this
//! connection is used.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use wal::SystemClock;

use crate::Common;
use crate::deck::Deck;
use crate::e2e::{Measured, measure, measure_scene, version_of};
use crate::fleet::Fleet;
use crate::http::Connection;
use crate::load::{Load, Pace};
use crate::measure::{LOAD_CORE, SUBJECT_CORE, pin_to, pin_to_all};
use crate::scene::Scene;
use crate::sink::Sink;
use crate::subject::{Program, Subject};
use crate::table::{Table, millions, millis, print, publish, times};

/// Threads of the agent, and cores of the machine, in the second half.
const THREADS: usize = 2;
/// Samples per second of two cores, of those of one.
const GOAL: f64 = 1.8;
/// Requests on a connection until it is known whose it is.
const PROBES: usize = 20;
/// Connections tried until a spread is found.
const ATTEMPTS: usize = 200;
/// What ingest threads are called.
const THREAD_NAMES: &str = "ingest-";

/// The arguments of `cores`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Connections that are spread evenly, and not.
    #[arg(long, default_value_t = 3)]
    uneven_connections: usize,
}

/// Measures one thread, two, and the spreads, and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let common = &options.common;
    let plain = Program::penstock(options.agent.as_deref(), false)?;
    let fleet = Fleet::in_order(common.series)?;
    pin_to(LOAD_CORE)?;
    print("one thread on one core ...");
    let one_thread = plain.clone().with_threads(1);
    let one = measure(&one_thread, common, &fleet)?;
    pin_to_all(SUBJECT_CORE..SUBJECT_CORE + THREADS)?;
    let program = plain.with_threads(THREADS);
    let mut results = Vec::new();
    for spread in options.spreads() {
        print(&format!("two threads, connections {} ...", name_of(spread)));
        results.push((spread, measure_spread(&program, common, &fleet, spread)?));
    }
    print("two agents of one thread each ...");
    let apart = measure_apart(&one_thread, common, &fleet)?;
    let notes = [options.describe(), version_of(&program)];
    let tables = [
        goals((&one, &apart), &results),
        details(common.connections, (&one, &apart), &results),
    ];
    publish("Penstock, one core and two", &notes, &tables, common.out())
}

impl Options {
    /// As even as can be, then with fewer connections, then with all of these on one thread.
    fn spreads(&self) -> [[usize; THREADS]; 3] {
        let halves = |count: usize| [count.div_ceil(2), count / 2];
        let fewer = self.uneven_connections;
        [halves(self.common.connections), halves(fewer), [fewer, 0]]
    }

    fn describe(&self) -> String {
        format!(
            "{}; no endpoint; one thread: the agent on one core, the load on the other; two: the agent, its \
             committer and the load share both cores, so samples per second are limited by the load's CPU time \
             too and the goal is judged by the agent's own: two cores' worth of samples per CPU second",
            self.common.describe()
        )
    }
}

fn name_of(spread: [usize; THREADS]) -> String {
    spread.map(|count| count.to_string()).join(" : ")
}

/// Runs the agent with so many connections on each of its threads.
fn measure_spread(
    program: &Program,
    common: &Common,
    fleet: &Fleet,
    spread: [usize; THREADS],
) -> Result<Measured> {
    let clock = SystemClock::shared();
    let sink = Sink::start()?;
    let subject = Subject::start(program, common.scratch()?, sink.address, &clock)?;
    let connections = connect(&subject, fleet, spread, clock.unix_ms())?;
    let load = Load::over(connections, fleet, &Pace::Closed, &clock)?;
    let scene = Scene {
        subject,
        load,
        sink,
        clock,
    };
    measure_scene(scene, program, common)
}

/// Two agents at the same time, each with a core and half of the load: they share nothing but the machine, so
/// no agent of two threads can be better than they are.
fn measure_apart(program: &Program, common: &Common, fleet: &Fleet) -> Result<[Measured; THREADS]> {
    let half = Common {
        connections: common.connections.div_ceil(THREADS),
        ..common.clone()
    };
    let other = program.clone().behind_cores(1);
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(|| measure(&other, &half, fleet));
        let first = measure(program, &half, fleet);
        let other = other.join().map_err(|_| anyhow!("a load panicked"))?;
        anyhow::Ok([first?, other?])
    })?;
    // Counted for the whole bench, so for both.
    let load_ns = f64::NAN;
    Ok(both.map(|one| Measured { load_ns, ..one }))
}

/// Connects until each thread has as many connections as wanted.
fn connect(
    subject: &Subject,
    fleet: &Fleet,
    spread: [usize; THREADS],
    now_ms: i64,
) -> Result<Vec<Connection>> {
    let mut wanted = spread;
    let mut connections = Vec::new();
    // Open until the end: the thread of one that is closed would get the next.
    let mut others = Vec::new();
    for _ in 0..ATTEMPTS {
        if wanted == [0; THREADS] {
            return Ok(connections);
        }
        let mut connection = Connection::open(subject.ingest())?;
        let thread = thread_of(subject, &mut connection, fleet, now_ms)?;
        if let Some(left) = wanted.get_mut(thread).filter(|left| **left > 0) {
            *left -= 1;
            connections.push(connection);
        } else {
            others.push(connection);
        }
    }
    bail!("no connections spread like {}", name_of(spread))
}

/// The number of the thread that serves a connection while no other is used.
fn thread_of(
    subject: &Subject,
    connection: &mut Connection,
    fleet: &Fleet,
    now_ms: i64,
) -> Result<usize> {
    let mut decks = Deck::deal(fleet, 1);
    let deck = decks.first_mut().context("a fleet has a deck")?;
    let before = subject.threads(THREAD_NAMES)?;
    for _ in 0..PROBES {
        let request = deck.request(0, now_ms);
        connection.push(fleet.protocol, request.body)?;
    }
    let after = subject.threads(THREAD_NAMES)?;
    let used: Vec<_> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    busiest(&used).context("the agent has no ingest threads")
}

/// The number of the greatest.
fn busiest(used: &[f64]) -> Option<usize> {
    let numbered = used.iter().enumerate();
    Some(numbered.max_by(|a, b| a.1.total_cmp(b.1))?.0)
}

/// What the busiest thread used, of all.
fn busiest_share(used: &[f64]) -> f64 {
    used.iter().copied().fold(0.0, f64::max) / used.iter().sum::<f64>()
}

/// Samples of all of them by the CPU time of all.
fn together(apart: &[Measured; THREADS]) -> f64 {
    let sum = |of: fn(&Measured) -> f64| apart.iter().map(of).sum::<f64>();
    sum(|one| one.samples) / sum(|one| one.cpu_seconds)
}

fn goals(
    (one, apart): (&Measured, &[Measured; THREADS]),
    results: &[([usize; THREADS], Measured)],
) -> Table {
    let mut table = Table::goals();
    if let Some((_, two)) = results.first() {
        let ratio = THREADS as f64 * two.per_core_second() / one.per_core_second();
        table.goal(
            "two cores' worth of samples, of one's",
            format!(">= {GOAL:.1} x"),
            times(ratio),
            ratio >= GOAL,
        );
        let most = THREADS as f64 * together(apart) / one.per_core_second();
        for (name, value) in [
            (
                "two agents that share nothing: what this machine gives",
                most,
            ),
            ("two cores' worth of samples, of theirs", ratio / most),
        ] {
            table.row(vec![
                name.to_owned(),
                String::new(),
                times(value),
                String::new(),
            ]);
        }
    }
    if let [_, (_, even), (_, uneven)] = results {
        let slower = uneven.samples / uneven.seconds / (even.samples / even.seconds);
        let later = ratio(uneven.latency_p99, even.latency_p99);
        for (name, value) in [
            (
                "all connections on one thread: samples per second, of spread",
                slower,
            ),
            ("all connections on one thread: ack p99, of spread", later),
        ] {
            table.row(vec![
                name.to_owned(),
                String::new(),
                times(value),
                String::new(),
            ]);
        }
    }
    table
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn details(
    connections: usize,
    (one, apart): (&Measured, &[Measured; THREADS]),
    results: &[([usize; THREADS], Measured)],
) -> Table {
    let mut table = Table::new([
        "connections on each thread",
        "threads",
        "samples/core-s",
        "samples/s",
        "CPU of the agent",
        "of its ingest CPU on the busiest thread",
        "ack p50",
        "ack p99",
        "load, ns per sample",
    ]);
    let mut row = |name: String, threads: usize, measured: &Measured| {
        table.row(vec![
            name,
            threads.to_string(),
            millions(measured.per_core_second()),
            millions(measured.samples / measured.seconds),
            format!("{:.0} %", measured.cpu_seconds / measured.seconds * 100.0),
            format!("{:.0} %", busiest_share(&measured.ingest_threads) * 100.0),
            millis(measured.latency_p50),
            millis(measured.latency_p99),
            match measured.load_ns {
                load if load.is_nan() => "-".to_owned(),
                load => format!("{load:.0}"),
            },
        ]);
    };
    row(connections.to_string(), 1, one);
    for (spread, measured) in results {
        row(name_of(*spread), THREADS, measured);
    }
    for measured in apart {
        let half = connections.div_ceil(THREADS);
        row(format!("{half}, one of two agents"), 1, measured);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_thread_is_that_with_most_cpu_time() {
        assert_eq!(busiest(&[0.1, 0.3, 0.2]), Some(1));
        assert_eq!(busiest(&[]), None);
        assert!((busiest_share(&[1.0, 3.0]) - 0.75).abs() < 1e-9);
    }
}
