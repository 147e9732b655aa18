//! Turns "which writers are still copying" into "up to where the ring is whole".
//!
//! # Invariants
//! - Everything below [`Tracker::completed`] was copied before it was asked, and stays whole.
//! - A slot holds the start of its writer's unfinished range, or [`IDLE`].
//!
//! # Threads
//! [`Tracker::begin`] is called under the reservation mutex, so ranges are handed out in order. It
//! stores the slot *before* it advances the head; the committer loads the head *before* the slots.
//! So whoever advanced the head that the committer sees has its slot seen too (Release on both
//! stores, Acquire on both loads). Storing the slot after the head, loading slots before the head,
//! or going idle before the copy is done loses acknowledged data; the loom test below catches each.

use crossbeam::utils::CachePadded;

#[cfg(wal_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(wal_loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// A slot whose writer copies nothing.
const IDLE: u64 = u64::MAX;

/// Which parts of the log are copied into the ring.
#[derive(Debug)]
pub(crate) struct Tracker {
    head: CachePadded<AtomicU64>,
    slots: Box<[CachePadded<AtomicU64>]>,
}

impl Tracker {
    pub(crate) fn new(head: u64, slots: usize) -> Self {
        let slots = (0..slots)
            .map(|_| CachePadded::new(AtomicU64::new(IDLE)))
            .collect();
        Self {
            head: CachePadded::new(AtomicU64::new(head)),
            slots,
        }
    }

    /// The writer of `slot` starts to copy `[start, end)`. Call under the reservation mutex, with
    /// `start` where the range before it ended.
    pub(crate) fn begin(&self, slot: usize, start: u64, end: u64) {
        self.slots[slot].store(start, Ordering::Release);
        self.head.store(end, Ordering::Release);
    }

    /// The writer of `slot` has copied its range.
    pub(crate) fn end(&self, slot: usize) {
        self.slots[slot].store(IDLE, Ordering::Release);
    }

    /// The next range starts at `head`, as if what lies before had been copied. Call under the
    /// reservation mutex while no range is handed out.
    pub(crate) fn skip_to(&self, head: u64) {
        self.head.store(head, Ordering::Release);
    }

    /// Where the next range starts: everything before it is handed out.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Everything before this is copied.
    pub(crate) fn completed(&self) -> u64 {
        let head = self.head.load(Ordering::Acquire);
        self.slots
            .iter()
            .fold(head, |least, slot| least.min(slot.load(Ordering::Acquire)))
    }
}

#[cfg(all(test, not(wal_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_writer_holds_back_what_is_complete() {
        let tracker = Tracker::new(100, 2);
        assert_eq!(tracker.completed(), 100);
        tracker.begin(0, 100, 150);
        tracker.begin(1, 150, 180);
        tracker.end(1);
        assert_eq!(tracker.completed(), 100);
        tracker.end(0);
        assert_eq!(tracker.completed(), 180);
    }
}

#[cfg(all(test, wal_loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::*;

    /// Two writers reserve and copy twice each; the committer reads whatever is complete. Loom
    /// explores the interleavings and fails on a read that races with a copy.
    #[test]
    fn what_is_complete_was_copied() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let tracker = Arc::new(Tracker::new(0, 2));
            let reserve = Arc::new(Mutex::new(0));
            let ring: Arc<Vec<UnsafeCell<u64>>> =
                Arc::new((0..3).map(|_| UnsafeCell::new(0)).collect());
            let writers: Vec<_> = (0..2)
                .map(|slot| {
                    let (tracker, reserve, ring) = (tracker.clone(), reserve.clone(), ring.clone());
                    thread::spawn(move || {
                        for _ in 0..=(1 - slot) {
                            let at = {
                                let mut head = reserve.lock().unwrap();
                                let at = *head;
                                tracker.begin(slot, at, at + 1);
                                *head = at + 1;
                                at
                            };
                            ring[usize::try_from(at).unwrap()].with_mut(|cell| {
                                // SAFETY: the range was handed out to this thread alone.
                                #[allow(unsafe_code, reason = "loom checks exactly this access")]
                                unsafe {
                                    *cell = at + 1;
                                }
                            });
                            tracker.end(slot);
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                for at in 0..tracker.completed() {
                    ring[usize::try_from(at).unwrap()].with(|cell| {
                        // SAFETY: below `completed`, nobody writes any more.
                        #[allow(unsafe_code, reason = "loom checks exactly this access")]
                        let read = unsafe { *cell };
                        assert_eq!(read, at + 1);
                    });
                }
            }
            for writer in writers {
                writer.join().unwrap();
            }
        });
    }
}
