//! Turns the number of agents into whether work may be shared yet.
//!
//! # Invariants
//! - Ready where no size is waited for, while there are as many, or once the wait was too long.
//! - Whenever they become fewer again after there were enough, the wait begins anew.

use std::time::Duration;

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Readiness {
    size: usize,
    timeout: Option<Duration>,
    state: Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// There are enough.
    Over,
    Since(Duration),
    /// It was too long.
    Expired,
}

impl Readiness {
    /// Waits for `size` agents from `now` on, for ever if the timeout is zero.
    pub(crate) fn new(size: usize, timeout: Duration, now: Duration) -> Self {
        Self {
            size,
            timeout: (!timeout.is_zero()).then_some(timeout),
            state: if size == 0 {
                Wait::Over
            } else {
                Wait::Since(now)
            },
        }
    }

    /// Looks at how many there are, and says whether work may be shared.
    pub(crate) fn look(&mut self, agents: usize, now: Duration) -> bool {
        let before = self.state;
        self.state = match before {
            _ if agents >= self.size => Wait::Over,
            Wait::Over => Wait::Since(now),
            Wait::Since(_) if self.expires().is_some_and(|at| at <= now) => Wait::Expired,
            waiting => waiting,
        };
        let size = self.size;
        match (before, self.state) {
            (Wait::Over, Wait::Since(_)) => {
                tracing::warn!(
                    agents,
                    size,
                    "fewer agents than are waited for: sharing no work"
                );
            }
            (Wait::Since(_), Wait::Expired) => {
                tracing::warn!(
                    agents,
                    size,
                    "waited long enough for more agents: sharing work"
                );
            }
            (Wait::Since(_) | Wait::Expired, Wait::Over) => {
                tracing::info!(
                    agents,
                    size,
                    "as many agents as are waited for: sharing work"
                );
            }
            _ => {}
        }
        !matches!(self.state, Wait::Since(_))
    }

    /// When the wait will have been too long.
    pub(crate) fn expires(&self) -> Option<Duration> {
        match self.state {
            Wait::Since(start) => self.timeout.map(|timeout| start.saturating_add(timeout)),
            Wait::Over | Wait::Expired => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_a_size_it_is_ready_whatever_comes() {
        let mut readiness = Readiness::new(0, at(1), at(0));
        assert!(readiness.look(0, at(0)) && readiness.look(5, at(9)) && readiness.look(0, at(99)));
        assert_eq!(readiness.expires(), None);
    }

    #[test]
    fn it_waits_again_when_they_become_fewer() {
        let mut readiness = Readiness::new(3, at(10), at(0));
        assert!(!readiness.look(1, at(0)));
        assert!(!readiness.look(2, at(9)));
        assert!(readiness.look(3, at(9)), "the size is reached");
        assert!(!readiness.look(2, at(50)), "and lost again");
        assert_eq!(readiness.expires(), Some(at(60)), "the wait is new");
        assert!(!readiness.look(2, at(59)));
        assert!(readiness.look(2, at(60)), "too long");
        assert!(readiness.look(0, at(61)), "until the size is reached");
        assert!(readiness.look(4, at(62)));
        assert!(!readiness.look(2, at(63)));
    }

    #[test]
    fn without_a_timeout_it_waits_for_ever() {
        let mut readiness = Readiness::new(2, at(0), at(0));
        assert_eq!(readiness.expires(), None);
        assert!(!readiness.look(1, at(1_000_000)));
        assert!(readiness.look(2, at(1_000_001)));
    }
}
