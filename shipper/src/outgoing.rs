//! Turns the labels of a series into those an endpoint gets.
//!
//! [`Outgoing`] says what an endpoint does to labels; [`OutgoingLabels`] keeps what came of it, so
//! that in steady state a sample costs one lookup. Encoders see neither: they are given label bytes.
//!
//! # Invariants
//! - What is kept is found by the name of the series' record ([`wal::SeriesGuard::record`]), which
//!   means the same labels for ever: a ref that is used again never gets another series' labels.
//! - An endpoint that changes nothing keeps nothing and looks nothing up.
//!
//! # Failure
//! - Label bytes that cannot be read become none: the series is then treated as unknown.
//!
//! # Limits
//! - [`OUTGOING_BYTES_MAX`] per endpoint, and the labels of one batch: then what was not used lately
//!   is forgotten, and worked out again when it is asked for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use elsa::FrozenMap;
use foldhash::fast::RandomState;
use wal::{SeriesGuard, SeriesRef};

use crate::labels::ExternalLabels;

/// Bytes an endpoint keeps of labels that it changes: those of some 150,000 series.
pub const OUTGOING_BYTES_MAX: usize = 64 << 20;
/// What an entry takes beside its labels: its place in the map, which is up to half empty, and the
/// counts and the rounding of an allocation.
const ENTRY_BYTES: usize = 72;

/// What an endpoint does to the labels of every series.
#[derive(Debug, Default)]
pub struct Outgoing {
    external: ExternalLabels,
}

impl Outgoing {
    /// Adds `external`.
    #[must_use]
    pub const fn new(external: ExternalLabels) -> Self {
        Self { external }
    }

    /// Whether all labels go out as they are.
    fn is_identity(&self) -> bool {
        self.external.is_empty()
    }
}

/// The outgoing labels of the series of one shard, as far as they were asked for lately.
///
/// Two halves: what is asked for goes to the young one, and when that is full it becomes the old one.
pub struct OutgoingLabels {
    outgoing: Arc<Outgoing>,
    young: FrozenMap<u64, Arc<[u8]>, RandomState>,
    young_bytes: Cell<usize>,
    old: HashMap<u64, Arc<[u8]>, RandomState>,
    half_bytes_max: usize,
    scratch: RefCell<Vec<u8>>,
}

impl fmt::Debug for OutgoingLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingLabels")
            .field("outgoing", &self.outgoing)
            .field("young_bytes", &self.young_bytes)
            .finish_non_exhaustive()
    }
}

impl OutgoingLabels {
    /// An empty cache of at most so many bytes.
    #[must_use]
    pub fn new(outgoing: Arc<Outgoing>, bytes_max: usize) -> Self {
        Self {
            outgoing,
            young: FrozenMap::default(),
            young_bytes: Cell::new(0),
            old: HashMap::default(),
            half_bytes_max: bytes_max / 2,
            scratch: RefCell::default(),
        }
    }

    /// Makes room; to be called before each batch.
    pub fn begin(&mut self) {
        if self.young_bytes.get() > self.half_bytes_max {
            self.old = std::mem::take(&mut self.young).into_map();
            self.young_bytes.set(0);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young = FrozenMap::default();
        self.young_bytes.set(0);
        self.old = HashMap::default();
    }

    /// The outgoing labels of a series of the log.
    pub(crate) fn of<'a>(&'a self, series: &'a SeriesGuard<'_>, one: SeriesRef) -> &'a [u8] {
        if self.outgoing.is_identity() {
            return series.labels(one);
        }
        self.labels(series.record(one), series.labels(one))
    }

    /// What becomes of the labels `own`; `record` names them. None become none.
    pub fn labels<'a>(&'a self, record: u64, own: &'a [u8]) -> &'a [u8] {
        if self.outgoing.is_identity() || own.is_empty() {
            return own;
        }
        if let Some(kept) = self.young.get(&record) {
            return kept;
        }
        let kept = match self.old.get(&record) {
            Some(kept) => Arc::clone(kept),
            None => self.work_out(own),
        };
        let bytes = self.young_bytes.get() + ENTRY_BYTES + kept.len();
        self.young_bytes.set(bytes);
        self.young.insert(record, kept)
    }

    fn work_out(&self, own: &[u8]) -> Arc<[u8]> {
        let mut scratch = self.scratch.borrow_mut();
        match self.outgoing.external.merge(own, &mut scratch) {
            Ok(()) => Arc::from(&**scratch),
            Err(_) => Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::labels::canonical;

    fn outgoing(external: &[(&str, &str)]) -> Arc<Outgoing> {
        let external = external.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let external: BTreeMap<String, String> = external.collect();
        Arc::new(Outgoing::new(ExternalLabels::new(&external)))
    }

    #[test]
    fn external_labels_are_added_and_kept() {
        let labels = OutgoingLabels::new(outgoing(&[("cluster", "c")]), 1 << 20);
        let own = canonical(&[("__name__", "up")]);
        let want = canonical(&[("__name__", "up"), ("cluster", "c")]);
        let first = labels.labels(7, &own);
        assert_eq!(first, want);
        assert!(
            std::ptr::eq(labels.labels(7, &own), first),
            "not worked out again"
        );
    }

    #[test]
    fn unreadable_labels_become_none() {
        let labels = OutgoingLabels::new(outgoing(&[("cluster", "c")]), 1 << 20);
        assert_eq!(labels.labels(7, &[0x0a, 9, 1]), [0; 0]);
        assert_eq!(labels.labels(8, &[]), [0; 0]);
    }

    #[test]
    fn labels_that_stay_are_not_kept() {
        let labels = OutgoingLabels::new(outgoing(&[]), 1 << 20);
        let own = canonical(&[("__name__", "up")]);
        assert!(std::ptr::eq(labels.labels(7, &own), &*own));
        assert_eq!(labels.young_bytes.get(), 0);
    }

    #[test]
    fn the_cache_stays_within_its_bytes_and_keeps_what_is_used() {
        let bytes_max = 20_000;
        let mut labels = OutgoingLabels::new(outgoing(&[("cluster", "c")]), bytes_max);
        let own = canonical(&[("__name__", "up")]);
        let used = labels.labels(1, &own).as_ptr();
        for record in 2..2000 {
            labels.begin();
            labels.labels(record, &own);
            assert_eq!(labels.labels(1, &own).as_ptr(), used, "after {record}");
            let old: usize = labels
                .old
                .values()
                .map(|kept| kept.len() + ENTRY_BYTES)
                .sum();
            assert!(old + labels.young_bytes.get() <= bytes_max + 2 * (ENTRY_BYTES + 40));
        }
        assert!(!labels.old.contains_key(&2) && labels.young.get(&2).is_none());
    }
}
