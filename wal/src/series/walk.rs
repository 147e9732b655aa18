//! Turns the series table into its live label sets, one after the other, while it is in use.
//!
//! # Threads
//! Chunks are held for [`HELD_SERIES`] series at a time: nothing waits for a walk but the memory of
//! what is given up meanwhile. Only the number of refs is read under a lock.

use std::sync::atomic::Ordering;

use super::{DEAD, FREE, SeriesTable};
use crate::SeriesRef;

/// Tens of microseconds.
const HELD_SERIES: u32 = 1024;

impl SeriesTable {
    /// Calls `found` with every series that is defined and its canonical labels. Those that come or go
    /// meanwhile may be missed.
    pub fn for_each_live(&self, mut found: impl FnMut(SeriesRef, &[u8])) {
        let end = self.define.lock().next_ref;
        let mut from = 1;
        while from < end {
            let to = end.min(from.saturating_add(HELD_SERIES));
            let guard = self.guard();
            for number in from..to {
                let series = SeriesRef::new(number);
                let seen = self.seen.as_slice().get(series.index());
                let tick = seen.map_or(FREE, |seen| seen.load(Ordering::Acquire));
                let labels = guard.labels(series);
                if tick != FREE && tick != DEAD && !labels.is_empty() {
                    found(series, labels);
                }
            }
            from = to;
        }
    }
}
