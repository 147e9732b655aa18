//! Turns templates into requests on a few connections, as fast as they are acknowledged.
//!
//! Closed loop: a connection has one request in flight. When told what has been delivered, it waits
//! while more than a few rounds are on their way, so that what is measured is a steady state and
//! not how fast a backlog can be built.
//!
//! # Threads
//! - `bench-load-N`, one per connection. Requests are dealt out to them like cards, so a series
//!   always comes on the same connection, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wal::SharedClock;

use crate::fleet::Template;
use crate::http::Connection;
use crate::measure::thread_cpu;
use crate::sink::Counts;

/// Rounds that may be acknowledged and not yet delivered.
const BACKLOG_ROUNDS: u64 = 4;
/// How far ahead of now the timestamps begin: Prometheus forwards only what is newer than its own
/// start, which it notes some time after it listens.
const LEAD_MS: i64 = 60_000;
/// Pause while that many are, and before a refused request goes again.
const PAUSE: Duration = Duration::from_millis(1);

/// What the load did so far.
#[derive(Default, Debug)]
pub(crate) struct Progress {
    /// Samples acknowledged.
    pub(crate) acked: AtomicU64,
    /// Compressed bytes of the requests acknowledged.
    pub(crate) body_bytes: AtomicU64,
    /// Requests answered by 429 or 5xx; they were sent again.
    pub(crate) refused: AtomicU64,
    recording: AtomicBool,
    stop: AtomicBool,
}

/// What a connection brings home.
#[derive(Default, Debug)]
pub(crate) struct Brought {
    /// Answer times of the requests while recording.
    pub(crate) latencies: Vec<Duration>,
    /// What generating and sending took.
    pub(crate) cpu: Duration,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    /// What it did so far.
    pub(crate) progress: Arc<Progress>,
    threads: Vec<JoinHandle<Result<Brought>>>,
}

/// What a connection needs.
struct Sender {
    target: SocketAddr,
    requests: Vec<Template>,
    samples_per_round: u64,
    progress: Arc<Progress>,
    delivered: Option<Arc<Counts>>,
    clock: SharedClock,
}

impl Load {
    /// Deals `templates` out to `connections` and starts sending to `target`; with `delivered`,
    /// not faster than that follows.
    pub(crate) fn start(
        target: SocketAddr,
        templates: &[Template],
        connections: usize,
        delivered: Option<&Arc<Counts>>,
        clock: &SharedClock,
    ) -> Result<Self> {
        if templates.is_empty() {
            bail!("no series, no load");
        }
        let progress = Arc::new(Progress::default());
        let samples_per_round = templates.iter().map(|template| template.samples).sum();
        let mut threads = Vec::new();
        // A connection without requests would look like one that gave up.
        let connections = connections.clamp(1, templates.len());
        for number in 0..connections {
            let requests = templates.iter().skip(number).step_by(connections);
            let sender = Sender {
                target,
                requests: requests.cloned().collect(),
                samples_per_round,
                progress: progress.clone(),
                delivered: delivered.cloned(),
                clock: clock.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("bench-load-{number}"))
                .spawn(move || sender.run())?;
            threads.push(thread);
        }
        Ok(Self { progress, threads })
    }

    /// Whether a connection has given up; [`Load::finish`] tells why.
    pub(crate) fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Begins to record answer times.
    pub(crate) fn record(&self) {
        self.progress.recording.store(true, Ordering::Relaxed);
    }

    /// Stops after the requests in flight.
    pub(crate) fn finish(self) -> Result<Brought> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut all = Brought::default();
        for thread in self.threads {
            let Ok(brought) = thread.join() else {
                bail!("a thread of the load panicked");
            };
            let brought = brought?;
            all.latencies.extend(brought.latencies);
            all.cpu += brought.cpu;
        }
        all.latencies.sort_unstable();
        Ok(all)
    }
}

impl Sender {
    fn run(mut self) -> Result<Brought> {
        let mut brought = Brought::default();
        let mut requests = std::mem::take(&mut self.requests);
        let start_ms = self.clock.unix_ms() + LEAD_MS;
        let mut connection = Connection::open(self.target).context("connect to the subject")?;
        for round in 1.. {
            for template in &mut requests {
                if self.progress.stop.load(Ordering::Relaxed) {
                    brought.cpu = thread_cpu();
                    return Ok(brought);
                }
                self.wait_for_delivery();
                let samples = template.samples;
                let body = template.at_round(start_ms, round);
                let start = self.clock.monotonic();
                self.push(&mut connection, body)?;
                if self.progress.recording.load(Ordering::Relaxed) {
                    brought.latencies.push(self.clock.monotonic() - start);
                }
                self.progress.acked.fetch_add(samples, Ordering::Relaxed);
                self.progress
                    .body_bytes
                    .fetch_add(body.len() as u64, Ordering::Relaxed);
            }
        }
        bail!("more rounds than can be counted")
    }

    fn push(&self, connection: &mut Connection, body: &[u8]) -> Result<()> {
        loop {
            match connection.push(body).context("push to the subject")? {
                200..300 => return Ok(()),
                429 | 500.. => {
                    self.progress.refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
                status => bail!("the subject answered {status} to a valid request"),
            }
        }
    }

    fn wait_for_delivery(&self) {
        let Some(delivered) = &self.delivered else {
            return;
        };
        while !self.progress.stop.load(Ordering::Relaxed) {
            let acked = self.progress.acked.load(Ordering::Relaxed);
            let behind = acked.saturating_sub(delivered.samples.load(Ordering::Relaxed));
            if behind <= BACKLOG_ROUNDS * self.samples_per_round {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
