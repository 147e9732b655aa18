//! Turns what came with the commit before into whether the next one waits for more.
//!
//! A sender that waits for its answer sends again when it has it. So of the requests under way at one time, a commit
//! that starts at once finds those that came while the one before ran, the next one the others, and so on: half of
//! them each time, and the device is asked twice as often as it need be. Waiting until most of them are there again
//! makes one commit of two (`docs/decisions/0027`).
//!
//! # Invariants
//! - One that sends alone, or two, wait for nobody.
//! - Nothing waits once the wait is over: what then is not there is not waited for the next time either.
//! - Nothing waits where much of the ring does: appends would soon be refused.
//!
//! # Limits
//! - A commit waits until [`WAIT_MAX`] after the one before at most, and the grain of the runtime's timer, 1 ms.

use std::time::Duration;

/// In that time whoever was answered should have sent again: a few requests of 2,000 samples come in it.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// More than this part of the ring waits for no more.
const RING_SHARE: u64 = 8;

/// What waits for a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Requests appended since the store was opened.
    pub(crate) appended: u64,
    /// Bytes of the ring that are not durable.
    pub(crate) bytes: u64,
    /// Bytes of the ring.
    pub(crate) ring_bytes: u64,
}

/// What the next commit waits for.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Gather {
    /// Requests of all commits so far.
    committed: u64,
    /// Requests that were under way when the last commit had ended.
    expected: u64,
    /// When the wait is over, in monotonic time.
    until: Duration,
}

impl Gather {
    /// A commit has ended that began when so many requests had been appended; of how many there are now, those that
    /// no earlier one had were under way.
    pub(crate) fn committed(&mut self, (began, ended): (u64, u64), now: Duration) {
        self.expected = ended.saturating_sub(self.committed);
        self.committed = began;
        self.until = now + WAIT_MAX;
    }

    /// How long to wait for more; none: not at all.
    pub(crate) fn wait(&self, waiting: Waiting, now: Duration) -> Option<Duration> {
        let requests = waiting.appended.saturating_sub(self.committed);
        // Not for the last: they are decoded while the commit runs.
        let is_enough =
            requests >= self.expected * 3 / 4 || waiting.bytes > waiting.ring_bytes / RING_SHARE;
        let left = self.until.saturating_sub(now);
        (!is_enough && !left.is_zero()).then_some(left)
    }

    /// Waits no longer.
    pub(crate) const fn give_up(&mut self) {
        self.expected = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: u64 = 200;

    /// So many requests, in a ring with room.
    const fn appended(appended: u64) -> Waiting {
        Waiting {
            appended,
            bytes: 1000,
            ring_bytes: 8000,
        }
    }

    /// What became of a second of senders, in microseconds: commits, and how long each request waited for its answer.
    struct Second {
        commits: u64,
        waits: Vec<u64>,
    }

    impl Second {
        fn longest(&self) -> u64 {
            self.waits.iter().copied().max().unwrap_or(0)
        }
    }

    /// One thread takes requests, each for `takes`; a sender's next one is there so long after its answer as `pause`
    /// says.
    fn second(senders: usize, takes: u64, gathers: bool, mut pause: impl FnMut() -> u64) -> Second {
        let mut gather = Gather::default();
        let mut next: Vec<u64> = (0..senders).map(|_| pause()).collect();
        let mut waiting: Vec<(usize, u64)> = Vec::new();
        let mut in_commit = Vec::new();
        let (mut count, mut began) = (0, 0);
        let (mut taking, mut committing) = (None, None);
        let mut result = Second {
            commits: 0,
            waits: Vec::new(),
        };
        for now in 0..1_000_000 {
            let time = Duration::from_micros(now);
            if taking.is_none() {
                let first = (0..senders)
                    .filter(|one| next[*one] <= now)
                    .min_by_key(|one| next[*one]);
                taking = first.map(|one| (one, now + takes));
            }
            if let Some((one, done)) = taking
                && done == now
            {
                next[one] = u64::MAX;
                waiting.push((one, now));
                count += 1;
                taking = None;
            }
            if committing == Some(now) {
                for (one, since) in in_commit.drain(..) {
                    next[one] = now + pause();
                    result.waits.push(now - since);
                }
                gather.committed((began, count), time);
                committing = None;
            }
            if committing.is_none() && !waiting.is_empty() {
                let waits = gathers && gather.wait(appended(count), time).is_some();
                if !waits {
                    (in_commit, began) = (std::mem::take(&mut waiting), count);
                    committing = Some(now + COMMIT);
                    result.commits += 1;
                }
            }
        }
        result
    }

    #[test]
    fn those_under_way_come_with_one_commit() {
        for (senders, takes) in [(4, 150), (8, 100)] {
            let alone = second(senders, takes, false, || 50);
            let gathered = second(senders, takes, true, || 50);
            let per_commit = |one: &Second| one.waits.len() as f64 / one.commits as f64;
            assert!(per_commit(&alone) < 2.6, "{}", per_commit(&alone));
            assert!(
                per_commit(&gathered) > 1.4 * per_commit(&alone),
                "{}",
                per_commit(&gathered)
            );
        }
    }

    #[test]
    fn one_and_two_wait_for_nobody() {
        for senders in [1, 2] {
            let alone = second(senders, 150, false, || 50);
            let gathered = second(senders, 150, true, || 50);
            assert_eq!(
                (alone.commits, alone.waits),
                (gathered.commits, gathered.waits)
            );
        }
    }

    #[test]
    fn those_that_come_when_they_like_wait_a_little_at_most_and_rarely() {
        let random = fastrand::Rng::with_seed(7);
        let random = std::cell::RefCell::new(random);
        // 32 senders, 200 requests a second.
        let seldom = second(32, 50, true, || random.borrow_mut().u64(..320_000));
        assert!(seldom.waits.len() > 100);
        assert!(
            seldom.longest() <= 1000 + 2 * COMMIT,
            "{}",
            seldom.longest()
        );
        let late = seldom
            .waits
            .iter()
            .filter(|wait| **wait > 2 * COMMIT)
            .count();
        assert!(
            late * 50 <= seldom.waits.len(),
            "{late} of {}",
            seldom.waits.len()
        );
    }

    #[test]
    fn a_wait_that_is_given_up_is_over() {
        let mut gather = Gather::default();
        let (start, over) = (Duration::from_secs(1), Duration::from_secs(1) + WAIT_MAX);
        assert_eq!(gather.wait(appended(1), start), None);
        // Five answered, three there already.
        gather.committed((5, 8), start);
        assert_eq!(gather.wait(appended(10), start), Some(WAIT_MAX));
        assert_eq!(gather.wait(appended(11), start), None);
        assert_eq!(gather.wait(appended(10), over), None);
        gather.give_up();
        assert_eq!(gather.wait(appended(10), start), None);
    }

    #[test]
    fn a_ring_that_fills_up_waits_for_nobody() {
        let mut gather = Gather::default();
        gather.committed((8, 8), Duration::ZERO);
        assert!(gather.wait(appended(9), Duration::ZERO).is_some());
        let full = Waiting {
            bytes: 1001,
            ..appended(9)
        };
        assert_eq!(gather.wait(full, Duration::ZERO), None);
    }
}
