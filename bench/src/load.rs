//! Turns templates into requests on a few connections, as fast as they are acknowledged or at a rate.
//!
//! A connection has one request in flight. In a closed loop the next follows the answer; told what
//! has been delivered, it waits while more than a few rounds are on their way, so that what is
//! measured is a steady state and not how fast a backlog can be built. At a rate every request has
//! its time, whatever became of the one before, and its answer time counts from then: a pause of the
//! subject shows in all the requests that fell due in it.
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
use crate::measure::{float, thread_cpu};
use crate::sink::Counts;

/// Rounds that may be acknowledged and not yet delivered.
const BACKLOG_ROUNDS: u64 = 4;
/// How far ahead of now the timestamps begin: Prometheus forwards only what is newer than its own
/// start, which it notes some time after it listens.
const LEAD_MS: i64 = 60_000;
/// Pause while that many are, and before a refused request goes again.
const PAUSE: Duration = Duration::from_millis(1);

/// When a request is sent.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// When the one before is acknowledged.
    Closed,
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
}

impl Rate {
    /// When the request is due, counted from the first.
    fn due(&self, request: u64) -> Duration {
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
    target: SocketAddr,
    /// With their number in the round.
    requests: Vec<(u64, Template)>,
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
    /// Deals `templates` out to `connections` and starts sending to `target`.
    pub(crate) fn start(
        target: SocketAddr,
        templates: &[Template],
        connections: usize,
        pace: &Pace,
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
        let began = clock.monotonic();
        for number in 0..connections {
            let requests = (0..).zip(templates).skip(number).step_by(connections);
            let sender = Sender {
                target,
                requests: requests.map(|(at, one)| (at, one.clone())).collect(),
                requests_per_round: templates.len() as u64,
                samples_per_round,
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
        let mut requests = std::mem::take(&mut self.requests);
        let start_ms = self.clock.unix_ms() + LEAD_MS;
        let mut connection = Connection::open(self.target).context("connect to the subject")?;
        for round in 1.. {
            for (at, template) in &mut requests {
                let number = u64::from(round - 1) * self.requests_per_round + *at;
                let due = self.wait(number);
                if self.progress.stop.load(Ordering::Relaxed) {
                    self.brought.cpu = thread_cpu();
                    return Ok(self.brought);
                }
                self.replace_pods(template, due);
                let samples = template.samples;
                let body = template.at_round(start_ms, round);
                let sent = self.clock.monotonic();
                self.push(&mut connection, body)?;
                if self.progress.recording.load(Ordering::Relaxed) {
                    let now = self.clock.monotonic();
                    self.brought.latencies.push(now - due);
                    self.brought.answers.push(now - sent);
                }
                self.progress.acked.fetch_add(samples, Ordering::Relaxed);
                self.progress
                    .body_bytes
                    .fetch_add(body.len() as u64, Ordering::Relaxed);
            }
        }
        bail!("more rounds than can be counted")
    }

    /// Until the request is to be sent; when that was, or should have been.
    fn wait(&mut self, request: u64) -> Duration {
        match &self.pace {
            Pace::Closed => self.clock.monotonic(),
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

    /// Replaces the pods that have had their time.
    fn replace_pods(&self, template: &mut Template, now: Duration) {
        let since = self.progress.churn_since.load(Ordering::Relaxed);
        if let (Pace::Rate(rate), 1..) = (&self.pace, since) {
            let churned = now.saturating_sub(Duration::from_nanos(since));
            let new = template.replace_pods(rate.replaced(template.pods(), churned));
            self.progress.replaced.fetch_add(new, Ordering::Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        requests_per_second: 100.0,
        lifetime: Duration::from_secs(6),
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
