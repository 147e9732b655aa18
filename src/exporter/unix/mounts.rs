//! Turns paths into how full what is mounted there is, without waiting for what does not answer.
//!
//! Asking a network file system whose server is gone blocks for as long as it is gone, and nothing ends it. So
//! threads ask, and whoever waits for them stops at a time.
//!
//! # Invariants
//! - A mount that did not answer in time is not asked again before it has answered: however often it is scraped,
//!   it holds one thread, in whatever component asked for it.
//!
//! # Limits
//! - [`THREADS`] ask at one time, beside those that wait for mounts that hang; of these there are at most
//!   [`HANGING_MAX`]. Then nothing more is asked: what is left counts as not answering.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use parking_lot::Mutex;
use wal::{SharedClock, SystemClock};

use crate::telemetry::families::float;

/// Most mounts that are asked at one time.
const THREADS: usize = 4;
/// Most mounts that hang.
const HANGING_MAX: usize = 64;

/// What this process waits for, of all components.
static HANGING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// What a mount says of itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Space {
    pub(super) size_bytes: f64,
    pub(super) free_bytes: f64,
    pub(super) avail_bytes: f64,
    pub(super) files: f64,
    pub(super) files_free: f64,
}

type Ask = fn(&Path) -> Option<Space>;

/// What is mounted at each of `paths`; nothing for what cannot be asked, or does not answer in time.
pub(super) fn ask(paths: Vec<PathBuf>, timeout: Duration) -> Vec<Option<Space>> {
    ask_with(space, &HANGING, paths, timeout)
}

fn space(path: &Path) -> Option<Space> {
    let found = rustix::fs::statfs(path).ok()?;
    let block = u64::try_from(found.f_bsize).ok()?;
    let bytes = |blocks: u64| float(blocks) * float(block);
    Some(Space {
        size_bytes: bytes(found.f_blocks),
        free_bytes: bytes(found.f_bfree),
        avail_bytes: bytes(found.f_bavail),
        files: float(found.f_files),
        files_free: float(found.f_ffree),
    })
}

/// Those who ask, and those who wait for them.
struct Round {
    ask: Ask,
    hanging: &'static Mutex<BTreeSet<PathBuf>>,
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Not asked yet, by their places.
    left: VecDeque<(usize, PathBuf)>,
    /// Asked, and since when.
    asked: Vec<(usize, PathBuf, Duration)>,
}

fn ask_with(
    ask: Ask,
    hanging: &'static Mutex<BTreeSet<PathBuf>>,
    paths: Vec<PathBuf>,
    timeout: Duration,
) -> Vec<Option<Space>> {
    let mut answers = vec![None; paths.len()];
    let left: VecDeque<_> = {
        let hanging = hanging.lock();
        let all = paths.into_iter().enumerate();
        all.filter(|(_, path)| !hanging.contains(path)).collect()
    };
    let mut waiting = left.len();
    let round = Arc::new(Round {
        ask,
        hanging,
        clock: SystemClock::shared(),
        state: Mutex::new(State {
            left,
            ..State::default()
        }),
    });
    // Room for all: nobody waits to be heard.
    let (tell, told) = mpsc::sync_channel(waiting.max(1));
    let mut threads: usize = (0..THREADS.min(waiting))
        .map(|_| usize::from(start(&round, &tell)))
        .sum();
    while waiting > 0 && threads > 0 {
        match told.recv_timeout(round.until_next(timeout)) {
            Ok((at, space)) => {
                waiting -= 1;
                if let Some(answer) = answers.get_mut(at) {
                    *answer = space;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                for _ in 0..round.give_up(timeout) {
                    waiting -= 1;
                    threads -= 1;
                    let may_more = round.hanging.lock().len() < HANGING_MAX;
                    threads += usize::from(may_more && start(&round, &tell));
                }
            }
        }
    }
    answers
}

/// One more that asks; false if there can be none.
fn start(round: &Arc<Round>, tell: &mpsc::SyncSender<(usize, Option<Space>)>) -> bool {
    let (round, tell) = (Arc::clone(round), tell.clone());
    let work = move || {
        while let Some((at, path)) = round.next() {
            let space = (round.ask)(&path);
            let is_in_time = round.answered(at, &path);
            // Nobody listens any more where it was too late for all.
            if !is_in_time || tell.send((at, space)).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("mounts".to_owned());
    thread.spawn(work).is_ok()
}

impl Round {
    fn next(&self) -> Option<(usize, PathBuf)> {
        let mut state = self.state.lock();
        let (at, path) = state.left.pop_front()?;
        state.asked.push((at, path.clone(), self.clock.monotonic()));
        Some((at, path))
    }

    /// Notes an answer; false if it was given up.
    fn answered(&self, at: usize, path: &Path) -> bool {
        let mut state = self.state.lock();
        let found = state.asked.iter().position(|(asked, ..)| *asked == at);
        match found {
            Some(found) => drop(state.asked.swap_remove(found)),
            None => drop(self.hanging.lock().remove(path)),
        }
        found.is_some()
    }

    /// How long the one that was asked first may still take.
    fn until_next(&self, timeout: Duration) -> Duration {
        let state = self.state.lock();
        let since = state.asked.iter().map(|(.., since)| *since).min();
        let took = |since| self.clock.monotonic().saturating_sub(since);
        since.map_or(timeout, |since| timeout.saturating_sub(took(since)))
    }

    /// Waits no longer for those that took too long; how many there are.
    fn give_up(&self, timeout: Duration) -> usize {
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
        let is_late =
            |(.., since): &(usize, PathBuf, Duration)| now.saturating_sub(*since) >= timeout;
        let (late, rest) = std::mem::take(&mut state.asked)
            .into_iter()
            .partition(is_late);
        state.asked = rest;
        let late: Vec<_> = late;
        for (_, path, _) in &late {
            tracing::warn!(mount = %path.display(), "does not answer; not asked again before it does");
        }
        let mut hanging = self.hanging.lock();
        hanging.extend(late.iter().map(|(_, path, _)| path.clone()));
        late.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    const SPACE: Space = Space {
        size_bytes: 1.0,
        free_bytes: 2.0,
        avail_bytes: 3.0,
        files: 4.0,
        files_free: 5.0,
    };

    #[test]
    fn this_machine_has_a_root() {
        let [root, none] = &ask(vec!["/".into(), "/no/such".into()], Duration::MAX)[..] else {
            panic!("two were asked");
        };
        assert!(root.is_some_and(|space| space.size_bytes > 0.0));
        assert_eq!(*none, None);
    }

    #[test]
    fn what_hangs_is_left_alone_until_it_answers() {
        static HUNG: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
        static GATE: (std::sync::Mutex<bool>, Condvar) =
            (std::sync::Mutex::new(false), Condvar::new());
        fn gated(path: &Path) -> Option<Space> {
            if path.starts_with("/hangs") {
                let open = GATE.0.lock().unwrap();
                drop(GATE.1.wait_while(open, |open| !*open).unwrap());
            }
            Some(SPACE)
        }
        let hung = || HUNG.lock().len();
        let paths: Vec<PathBuf> = (0..6)
            .map(|at| format!("/hangs/{at}").into())
            .chain(["/fine".into()])
            .collect();
        let timeout = Duration::from_millis(30);
        let answers = ask_with(gated, &HUNG, paths.clone(), timeout);
        assert_eq!(answers[..6], [None; 6]);
        assert_eq!(
            answers[6],
            Some(SPACE),
            "behind more than there are threads"
        );
        assert_eq!(hung(), 6);
        // An hour: those that hang are not asked.
        let answers = ask_with(gated, &HUNG, paths.clone(), Duration::from_secs(3600));
        assert_eq!((answers[0], answers[6]), (None, Some(SPACE)));
        *GATE.0.lock().unwrap() = true;
        GATE.1.notify_all();
        while hung() > 0 {
            std::thread::yield_now();
        }
        let answers = ask_with(gated, &HUNG, paths, Duration::from_secs(3600));
        assert_eq!(answers, [Some(SPACE); 7]);
    }
}
