//! Turns a fleet into remote-write requests, each repeated until it is acknowledged.
//!
//! # Invariants
//! - A series belongs to one request and a request to one connection, and a request goes out with
//!   the next samples only when these are acknowledged. So a sample of a series is never sent
//!   before the one before it is acked, and `acked[request]` says all there is to say.
//!
//! # Threads
//! - `demo-load-N`, one per connection, joined when the load is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use parking_lot::Mutex;
use wal::SharedClock;

use super::client::Client;
use super::fleet::{Fleet, STEP_MS};

/// Connections to the agent.
const CONNECTIONS: u32 = 4;
/// Pause before a request is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for an answer; behind it the request is repeated.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What was sent so far, in samples.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sent {
    /// Different samples.
    pub(super) samples: u64,
    /// Samples in requests that were repeated, once per repetition.
    pub(super) repeated: u64,
    /// Samples the agent acknowledged.
    pub(super) acked: u64,
}

#[derive(Debug)]
struct Shared {
    fleet: Arc<Fleet>,
    clock: SharedClock,
    /// The sequence number up to which each request's samples are acknowledged.
    acked_sequence: Vec<AtomicU32>,
    samples: AtomicU64,
    repeated: AtomicU64,
    acked: AtomicU64,
    /// Begin no new request.
    finish: AtomicBool,
    /// Do not even repeat the ones that were begun.
    give_up: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// The running load; gives up when dropped.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts sending to `agent`.
    pub(super) fn start(agent: SocketAddr, fleet: Arc<Fleet>, clock: SharedClock) -> Result<Self> {
        let acked_sequence = (0..fleet.requests()).map(|_| AtomicU32::new(0)).collect();
        let shared = Arc::new(Shared {
            fleet,
            clock,
            acked_sequence,
            samples: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            finish: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let mut load = Self {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for number in 0..CONNECTIONS {
            let mut connection = Connection {
                number,
                client: Client::new(agent, ANSWER_TIMEOUT),
                shared: shared.clone(),
                message: Vec::new(),
                snappy: snap::raw::Encoder::new(),
                compressed: Vec::new(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("demo-load-{number}"))
                .spawn(move || connection.run())?;
            load.threads.push(thread);
        }
        Ok(load)
    }

    /// Begins no more requests.
    pub(super) fn finish(&self) {
        self.shared.finish.store(true, Ordering::Relaxed);
    }

    /// Whether everything that was begun is acknowledged and nothing more will be sent.
    pub(super) fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Fails if the agent refused a request for good.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(failure) = self.shared.failure.lock().clone() {
            bail!("{failure}");
        }
        Ok(())
    }

    /// What was sent so far.
    pub(super) fn sent(&self) -> Sent {
        Sent {
            samples: self.shared.samples.load(Ordering::Relaxed),
            repeated: self.shared.repeated.load(Ordering::Relaxed),
            acked: self.shared.acked.load(Ordering::Relaxed),
        }
    }

    /// Up to which sequence number the samples of a series are acknowledged.
    pub(super) fn acked_sequence(&self, series: u32) -> u32 {
        let request = usize::try_from(Fleet::request_of(series)).unwrap_or(usize::MAX);
        self.shared
            .acked_sequence
            .get(request)
            .map_or(0, |sequence| sequence.load(Ordering::Acquire))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.give_up.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the load panicked");
            }
        }
    }
}

/// One connection with the requests it sends.
struct Connection {
    number: u32,
    client: Client,
    shared: Arc<Shared>,
    message: Vec<u8>,
    snappy: snap::raw::Encoder,
    compressed: Vec<u8>,
}

impl Connection {
    fn run(&mut self) {
        let start = self.shared.clock.monotonic();
        let step = Duration::from_millis(u64::from(STEP_MS));
        for sequence in 1.. {
            let due = start + step * (sequence - 1);
            let now = self.shared.clock.monotonic();
            std::thread::sleep(due.saturating_sub(now));
            for request in (0..self.shared.fleet.requests())
                .skip(self.first())
                .step_by(stride())
            {
                if self.is_over() {
                    return;
                }
                if let Err(failure) = self.deliver(request, sequence) {
                    *self.shared.failure.lock() = Some(failure.to_string());
                    return;
                }
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn first(&self) -> usize {
        usize::try_from(self.number).unwrap_or(usize::MAX)
    }

    fn is_over(&self) -> bool {
        self.shared.finish.load(Ordering::Relaxed) || self.shared.give_up.load(Ordering::Relaxed)
    }

    /// Sends one request until it is acknowledged.
    fn deliver(&mut self, request: u32, sequence: u32) -> Result<()> {
        self.shared
            .fleet
            .encode(request, sequence, &mut self.message);
        self.compress()?;
        let samples = u64::try_from(self.shared.fleet.series_of(request).len())?;
        self.shared.samples.fetch_add(samples, Ordering::Relaxed);
        loop {
            let status = self.client.push(&self.compressed);
            match status {
                Ok(200..300) => break,
                // An agent that is away, restarting or full is asked again.
                Ok(429 | 500..) | Err(_) => {}
                Ok(status) => bail!("the agent answered {status} to a valid request"),
            }
            if self.shared.give_up.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(RETRY_PAUSE);
            self.shared.repeated.fetch_add(samples, Ordering::Relaxed);
        }
        self.shared.acked.fetch_add(samples, Ordering::Relaxed);
        let at = usize::try_from(request)?;
        if let Some(acked) = self.shared.acked_sequence.get(at) {
            // Release: who sees this number looks at the backend for the samples behind it.
            acked.store(sequence, Ordering::Release);
        }
        Ok(())
    }

    fn compress(&mut self) -> Result<()> {
        let room = snap::raw::max_compress_len(self.message.len());
        self.compressed.resize(room, 0);
        let length = self.snappy.compress(&self.message, &mut self.compressed)?;
        self.compressed.truncate(length);
        Ok(())
    }
}

fn stride() -> usize {
    usize::try_from(CONNECTIONS).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::backend::Backend;
    use super::super::check::Checker;
    use super::*;

    #[test]
    fn load_sent_straight_to_the_backend_arrives_complete_and_in_order() {
        let fleet = Arc::new(Fleet::new(5_000, 0));
        let backend = Backend::start(Checker::new(fleet.clone())).unwrap();
        let clock = wal::SystemClock::shared();
        let load = Load::start(backend.address(), fleet, clock).unwrap();
        while load.sent().acked < 10_000 {
            std::thread::yield_now();
        }
        load.finish();
        while !load.is_finished() {
            std::thread::yield_now();
        }
        load.check().unwrap();
        let received = backend.received().counts;
        assert_eq!(received.delivered, load.sent().acked);
        assert_eq!(
            (received.duplicates, received.out_of_order, received.altered),
            (0, 0, 0)
        );
        assert_eq!(backend.missing(|series| load.acked_sequence(series)), 0);
    }
}
