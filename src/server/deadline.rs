//! Turns "the peer takes nothing" into the end of what waits for it.
//!
//! What can be stuck by itself has a deadline of its own: a connection of HTTP/1.1, a stream of HTTP/2.
//! While the agent works on an answer, and while an endless answer has nothing to say, the peer owes
//! nothing and there is no deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::unconstrained;
use tokio::time::Instant;

/// A page of metrics takes milliseconds; the slowest scrapers give up after some ten seconds.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

tokio::task_local! {
    static CURRENT: Arc<Deadline>;
}

/// When a connection or a stream is given up.
#[derive(Debug)]
pub(super) struct Deadline {
    /// None: nothing is owed.
    until: Mutex<Option<Instant>>,
    /// Streams at work, which have deadlines of their own.
    streams: AtomicUsize,
}

impl Deadline {
    pub(super) fn within(time: Duration) -> Arc<Self> {
        Arc::new(Self {
            until: Mutex::new(Some(Instant::now() + time)),
            streams: AtomicUsize::new(0),
        })
    }

    /// The one that the future being polled is bound to.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The peer has to take something from now on.
    pub(super) fn restart(&self) {
        *self.until.lock() = Some(Instant::now() + ANSWER_TIMEOUT);
    }

    /// The peer owes nothing for now.
    pub(super) fn pause(&self) {
        *self.until.lock() = None;
    }

    /// When it may have passed: one that is set from now on is not nearer than the latest of these.
    fn next_look(&self) -> Instant {
        let later = Instant::now() + ANSWER_TIMEOUT;
        let is_held = self.streams.load(Ordering::Relaxed) > 0;
        let until = self.until.lock().filter(|_| !is_held);
        until.map_or(later, |until| until.min(later))
    }

    fn has_passed(&self) -> bool {
        let is_late = self
            .until
            .lock()
            .is_some_and(|until| until <= Instant::now());
        is_late && self.streams.load(Ordering::Relaxed) == 0
    }

    /// Runs `future` to its end, or to the deadline.
    pub(super) async fn bind<F: Future>(self: Arc<Self>, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(CURRENT.scope(Arc::clone(&self), future));
        loop {
            let until = self.next_look();
            tokio::select! {
                biased;
                ended = future.as_mut() => return Some(ended),
                () = unconstrained(tokio::time::sleep_until(until)) => {
                    if self.has_passed() {
                        return None;
                    }
                }
            }
        }
    }
}

/// Keeps a connection for as long as one of its streams is at work.
#[derive(Debug)]
pub(super) struct Held(Arc<Deadline>);

impl Held {
    pub(super) fn new(connection: &Arc<Deadline>) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.restart();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
