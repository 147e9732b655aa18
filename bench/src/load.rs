//! Turns a fleet into requests on a few connections, as fast as they are acknowledged or at a rate.
//!
//! A connection has one request in flight. In a closed loop the next follows the answer; told what
//! has been delivered, it waits while more than a few rounds are on their way, so that what is
//! measured is a steady state and not how fast a backlog can be built. At a rate every request has
//! its time, whatever became of the one before, and its answer time counts from then: a pause of the
//! subject shows in all the requests that fell due in it.
//!
//! # Threads
//! - `bench-load-N`, one per connection, with a deck of requests of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wal::SharedClock;

use crate::deck::Deck;
use crate::fleet::Fleet;
use crate::http::Connection;
use crate::measure::{float, thread_cpu};
use crate::series::Protocol;
use crate::sink::Counts;

/// Rounds that may be acknowledged and not yet delivered.
const BACKLOG_ROUNDS: u64 = 4;
/// How far ahead of now the timestamps begin: Prometheus forwards only what is newer than its own
/// start, which it notes some time after it listens.
const LEAD_MS: i64 = 60_000;
/// Time from one round to the next where timestamps only count rounds.
const STEP_MS: i64 = 1_000;
/// Pause while that many are, and before a refused request goes again.
const PAUSE: Duration = Duration::from_millis(1);

/// When a request is sent.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// When the one before is acknowledged.
    Closed,
    /// The same for one round.
    Once,
    /// The same, and not much faster than this follows.
    Delivered(Arc<Counts>),
    /// At its time.
    Rate(Rate),
}

/// Requests at a rate, and how long a pod lives once churn began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Over all connections.
    pub(crate) requests_per_second: f64,
    /// Within this time every series is replaced by another.
    pub(crate) lifetime: Duration,
    /// Whether samples have the time at which they are due; else their timestamps count rounds.
    pub(crate) is_real_time: bool,
}

impl Rate {
    /// Series that stay, with timestamps of now.
    pub(crate) const fn steady(requests_per_second: f64) -> Self {
        Self {
            requests_per_second,
            lifetime: Duration::MAX,
            is_real_time: true,
        }
    }

    /// When the request is due, counted from the first.
    pub(crate) fn due(&self, request: u64) -> Duration {
        Duration::from_secs_f64(float(request) / self.requests_per_second)
    }

    /// How many of its pods a request must have replaced so long after churn began.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small count, rounded down"
    )]
    fn replaced(&self, pods: usize, churned: Duration) -> u64 {
        (churned.as_secs_f64() / self.lifetime.as_secs_f64() * float(pods as u64)) as u64
    }
}

/// What the load did so far.
#[derive(Default, Debug)]
pub(crate) struct Progress {
    /// Samples acknowledged.
    pub(crate) acked: AtomicU64,
    /// Compressed bytes of the requests acknowledged.
    pub(crate) body_bytes: AtomicU64,
    /// Requests answered by 429 or 5xx; they were sent again.
    pub(crate) refused: AtomicU64,
    /// Series that took the place of another.
    pub(crate) replaced: AtomicU64,
    recording: AtomicBool,
    /// Nanoseconds on the clock when churn began, at least 1; 0 without churn.
    churn_since: AtomicU64,
    stop: AtomicBool,
}

/// What a connection brings home.
#[derive(Default, Debug)]
pub(crate) struct Brought {
    /// Answer times of the requests while recording, from when each was due.
    pub(crate) latencies: Vec<Duration>,
    /// The same from when each was sent.
    pub(crate) answers: Vec<Duration>,
    /// At a rate: how late the load itself woke up for requests it had slept for while recording.
    /// That is in the answer times and not of the subject.
    pub(crate) woken_late: Vec<Duration>,
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
    connection: Connection,
    deck: Deck,
    requests_per_round: u64,
    samples_per_round: u64,
    /// When the first request of all connections is due.
    began: Duration,
    progress: Arc<Progress>,
    pace: Pace,
    clock: SharedClock,
    brought: Brought,
}

impl Load {
    /// Deals `fleet` out to `connections` and starts sending to `target`.
    pub(crate) fn start(
        target: SocketAddr,
        fleet: &Fleet,
        connections: usize,
        pace: &Pace,
        clock: &SharedClock,
    ) -> Result<Self> {
        let connections = (0..connections.max(1))
            .map(|_| Connection::open(target))
            .collect::<io::Result<_>>()
            .context("connect to the subject")?;
        Self::over(connections, fleet, pace, clock)
    }

    /// Deals `fleet` out to these connections and starts sending.
    pub(crate) fn over(
        connections: Vec<Connection>,
        fleet: &Fleet,
        pace: &Pace,
        clock: &SharedClock,
    ) -> Result<Self> {
        if fleet.samples() == 0 {
            bail!("no series, no load");
        }
        let progress = Arc::new(Progress::default());
        let mut threads = Vec::new();
        let began = clock.monotonic();
        let decks = Deck::deal(fleet, connections.len());
        for (number, (connection, deck)) in connections.into_iter().zip(decks).enumerate() {
            let sender = Sender {
                connection,
                deck,
                requests_per_round: fleet.requests() as u64,
                samples_per_round: fleet.samples(),
                began,
                progress: progress.clone(),
                pace: pace.clone(),
                clock: clock.clone(),
                brought: Brought::default(),
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

    /// Whether all connections are done: of their round, or for good.
    pub(crate) fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Whether to record answer times from now on.
    pub(crate) fn record(&self, recording: bool) {
        self.progress.recording.store(recording, Ordering::Relaxed);
    }

    /// Begins to replace series by others, at `now` on the clock; or ends it.
    pub(crate) fn churn(&self, now: Option<Duration>) {
        let since = now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(0).max(1));
        self.progress.churn_since.store(since, Ordering::Relaxed);
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
            all.answers.extend(brought.answers);
            all.woken_late.extend(brought.woken_late);
            all.cpu += brought.cpu;
        }
        all.latencies.sort_unstable();
        all.answers.sort_unstable();
        all.woken_late.sort_unstable();
        Ok(all)
    }
}

impl Sender {
    fn run(mut self) -> Result<Brought> {
        let start_ms = self.clock.unix_ms();
        let began = self.clock.monotonic();
        for round in 1_u32.. {
            self.deck.begin_round();
            for at in 0..self.deck.requests() {
                let number = u64::from(round - 1) * self.requests_per_round + self.deck.number(at);
                let due = self.wait(number);
                if self.progress.stop.load(Ordering::Relaxed) {
                    self.brought.cpu = thread_cpu();
                    return Ok(self.brought);
                }
                self.replace_pods(at, due);
                let timestamp_ms = match self.pace {
                    Pace::Rate(rate) if rate.is_real_time => start_ms + millis_between(began, due),
                    Pace::Once => start_ms,
                    _ => start_ms + LEAD_MS + STEP_MS * i64::from(round),
                };
                self.send(at, timestamp_ms, due)?;
            }
            if matches!(self.pace, Pace::Once) {
                self.brought.cpu = thread_cpu();
                return Ok(self.brought);
            }
        }
        bail!("more rounds than can be counted")
    }

    fn send(&mut self, at: usize, timestamp_ms: i64, due: Duration) -> Result<()> {
        let protocol = self.deck.protocol;
        let request = self.deck.request(at, timestamp_ms);
        let sent = self.clock.monotonic();
        push(&mut self.connection, protocol, request.body, &self.progress)?;
        if self.progress.recording.load(Ordering::Relaxed) {
            let now = self.clock.monotonic();
            self.brought.latencies.push(now - due);
            self.brought.answers.push(now - sent);
        }
        let (bytes, samples) = (request.body.len() as u64, request.samples);
        self.progress.acked.fetch_add(samples, Ordering::Relaxed);
        self.progress.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Until the request is to be sent; when that was, or should have been.
    fn wait(&mut self, request: u64) -> Duration {
        match &self.pace {
            Pace::Closed | Pace::Once => self.clock.monotonic(),
            Pace::Delivered(counts) => {
                self.wait_for_delivery(counts);
                self.clock.monotonic()
            }
            Pace::Rate(rate) => {
                let due = self.began + rate.due(request);
                let pause = due.checked_sub(self.clock.monotonic());
                if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
                    std::thread::sleep(pause);
                    if self.progress.recording.load(Ordering::Relaxed) {
                        let late = self.clock.monotonic().saturating_sub(due);
                        self.brought.woken_late.push(late);
                    }
                }
                due
            }
        }
    }

    /// Replaces the pods of a request that have had their time.
    fn replace_pods(&mut self, at: usize, now: Duration) {
        let since = self.progress.churn_since.load(Ordering::Relaxed);
        if let (Pace::Rate(rate), 1..) = (&self.pace, since) {
            let template = self.deck.template(at);
            let churned = now.saturating_sub(Duration::from_nanos(since));
            let new = template.replace_pods(rate.replaced(template.pods(), churned));
            self.progress.replaced.fetch_add(new, Ordering::Relaxed);
        }
    }

    fn wait_for_delivery(&self, delivered: &Counts) {
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

/// Until it is taken.
fn push(
    connection: &mut Connection,
    protocol: Protocol,
    body: &[u8],
    progress: &Progress,
) -> Result<()> {
    loop {
        match connection
            .push(protocol, body)
            .context("push to the subject")?
        {
            200..300 => return Ok(()),
            429 | 500.. => {
                progress.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            status => bail!("the subject answered {status} to a valid request"),
        }
    }
}

/// Whole milliseconds from one time to another, which may be before it.
fn millis_between(from: Duration, to: Duration) -> i64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    millis(to) - millis(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        requests_per_second: 100.0,
        lifetime: Duration::from_secs(6),
        is_real_time: false,
    };

    #[test]
    fn requests_are_due_at_absolute_times() {
        assert_eq!(RATE.due(0), Duration::ZERO);
        assert_eq!(RATE.due(250), Duration::from_millis(2_500));
    }

    #[test]
    fn all_pods_are_replaced_in_a_lifetime_evenly() {
        assert_eq!(RATE.replaced(20, Duration::ZERO), 0);
        assert_eq!(RATE.replaced(20, Duration::from_millis(299)), 0);
        assert_eq!(RATE.replaced(20, Duration::from_secs(3)), 10);
        assert_eq!(RATE.replaced(20, Duration::from_secs(60)), 200);
    }
}
