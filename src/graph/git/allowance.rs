//! Turns the limits of one look at a repository into what is left of them, for the transports.
//!
//! # Invariants
//! - What failed first is what is told, whatever fails because of it later.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::FETCH_BYTES_MAX;

/// What one look may still take, and what ended it.
pub(super) struct Allowance {
    deadline: Instant,
    state: Mutex<State>,
}

struct State {
    bytes_left: u64,
    problem: Option<String>,
}

impl Allowance {
    /// So much time from now on, and [`FETCH_BYTES_MAX`].
    pub(super) fn new(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            state: Mutex::new(State {
                bytes_left: FETCH_BYTES_MAX,
                problem: None,
            }),
        }
    }

    /// The time that is left.
    pub(super) fn time(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The result of `work` if it comes in time.
    ///
    /// # Errors
    /// The time is over.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        let done = timeout_at(self.deadline, work).await;
        done.map_err(|_| self.failed("operation timed out".to_owned()))
    }

    /// Takes bytes that came.
    ///
    /// # Errors
    /// They are more than were left.
    pub(super) fn take(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.bytes_left.checked_sub(bytes as u64) {
            Some(left) => {
                state.bytes_left = left;
                Ok(())
            }
            None => {
                drop(state);
                Err(self.failed(format!(
                    "the revision has more than {FETCH_BYTES_MAX} bytes"
                )))
            }
        }
    }

    /// What failed first.
    pub(super) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }

    /// Notes that something failed; the error is what failed first.
    pub(super) fn failed(&self, problem: String) -> io::Error {
        let mut state = self.state.lock();
        let first = state.problem.get_or_insert(problem);
        io::Error::other(first.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_first_is_what_is_told() {
        let allowance = Allowance::new(Duration::ZERO);
        let half = usize::try_from(FETCH_BYTES_MAX / 2).unwrap();
        allowance.take(half).unwrap();
        allowance.take(half).unwrap();
        assert_eq!(allowance.problem(), None);
        let over = allowance.take(1).unwrap_err().to_string();
        assert!(over.contains("bytes"), "{over}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let late = runtime.block_on(allowance.in_time(std::future::pending::<()>()));
        assert_eq!(late.unwrap_err().to_string(), over);
        assert_eq!(allowance.problem(), Some(over));
    }
}
