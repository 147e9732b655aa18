//! Turns the labels of a series into those an endpoint gets.
//!
//! [`Outgoing`] says what an endpoint does to labels: external labels first, then its relabel rules.
//! [`OutgoingLabels`] keeps what came of it for the shards, and `Decisions` which series are dropped for
//! the tailer, so that in steady state a sample costs each of them one lookup. Encoders see neither:
//! they are given label bytes.
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

mod decisions;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub(crate) use decisions::Decisions;
use elsa::FrozenMap;
use foldhash::fast::RandomState;
use wal::{SeriesGuard, SeriesRef};

use labels::ExternalLabels;
use labels::relabel::{Relabeled, Relabeler, Rule};

/// Bytes an endpoint keeps of labels that it changes: those of some 150,000 series.
pub const OUTGOING_BYTES_MAX: usize = 64 << 20;
/// What an entry takes in its map, which is up to half empty.
const ENTRY_BYTES: usize = 48;
/// What labels of their own take beside their bytes: two counts and the rounding of an allocation.
const ALLOCATION_BYTES: usize = 32;

/// What an endpoint does to the labels of every series: adds those it lacks, then applies rules.
#[derive(Debug, Default)]
pub struct Outgoing {
    external: ExternalLabels,
    rules: Arc<[Rule]>,
}

impl Outgoing {
    /// Adds `external`, then applies `rules`.
    #[must_use]
    pub fn new(external: ExternalLabels, rules: Vec<Rule>) -> Self {
        Self {
            external,
            rules: rules.into(),
        }
    }

    /// Whether all labels go out as they are.
    fn is_identity(&self) -> bool {
        self.external.is_empty() && self.rules.is_empty()
    }
}

/// Works out what becomes of labels; keeps its memory from series to series.
#[derive(Debug)]
struct Resolver {
    outgoing: Arc<Outgoing>,
    relabeler: Relabeler,
    merged: Vec<u8>,
}

impl Resolver {
    fn new(outgoing: Arc<Outgoing>) -> Self {
        Self {
            relabeler: Relabeler::new(Arc::clone(&outgoing.rules)),
            outgoing,
            merged: Vec::new(),
        }
    }

    /// What becomes of labels; none if they cannot be read.
    fn resolve(&mut self, own: &[u8]) -> Option<Relabeled<'_>> {
        let Outgoing { external, rules } = &*self.outgoing;
        if external.is_empty() {
            return self.relabeler.apply(own);
        }
        external.merge(own, &mut self.merged).ok()?;
        if rules.is_empty() {
            return Some(Relabeled::Changed(&self.merged));
        }
        match self.relabeler.apply(&self.merged)? {
            Relabeled::AsItIs => Some(Relabeled::Changed(&self.merged)),
            other => Some(other),
        }
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
    /// Kept where labels stay as they are.
    same: Arc<[u8]>,
    resolver: RefCell<Resolver>,
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
            resolver: RefCell::new(Resolver::new(Arc::clone(&outgoing))),
            outgoing,
            young: FrozenMap::default(),
            young_bytes: Cell::new(0),
            old: HashMap::default(),
            half_bytes_max: bytes_max / 2,
            same: Arc::default(),
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

    /// What becomes of the labels `own`; `record` names them. None become none, and so do those of a
    /// series that is dropped.
    pub fn labels<'a>(&'a self, record: u64, own: &'a [u8]) -> &'a [u8] {
        if self.outgoing.is_identity() || own.is_empty() {
            return own;
        }
        let kept = match self.young.get(&record) {
            Some(kept) => kept,
            None => match self.find(record, own) {
                Some(kept) => self.keep(record, kept),
                None => return &[],
            },
        };
        if kept.is_empty() { own } else { kept }
    }

    /// What is to be kept for labels that are not in the young half.
    fn find(&self, record: u64, own: &[u8]) -> Option<Arc<[u8]>> {
        if let Some(kept) = self.old.get(&record) {
            return Some(Arc::clone(kept));
        }
        match self.resolver.borrow_mut().resolve(own)? {
            Relabeled::Dropped => None,
            Relabeled::AsItIs => Some(Arc::clone(&self.same)),
            Relabeled::Changed(labels) => Some(Arc::from(labels)),
        }
    }

    fn keep(&self, record: u64, kept: Arc<[u8]>) -> &[u8] {
        let own_allocation = if kept.is_empty() { 0 } else { ALLOCATION_BYTES };
        let bytes = ENTRY_BYTES + own_allocation + kept.len();
        self.young_bytes.set(self.young_bytes.get() + bytes);
        self.young.insert(record, kept)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use labels::canonical;
    use labels::relabel::{Action, RuleOptions};

    /// Rules that remove the labels with such a name.
    fn rules(labeldrop: &str) -> Vec<Rule> {
        let rule = RuleOptions {
            action: Action::LabelDrop,
            regex: labeldrop.to_owned(),
            ..RuleOptions::default()
        };
        let rules = Some(rule).filter(|_| !labeldrop.is_empty());
        rules.iter().map(|rule| rule.build().unwrap()).collect()
    }

    fn outgoing(external: &[(&str, &str)], labeldrop: &str) -> Arc<Outgoing> {
        let external = external.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let external: BTreeMap<String, String> = external.collect();
        Arc::new(Outgoing::new(
            ExternalLabels::new(&external),
            rules(labeldrop),
        ))
    }

    #[test]
    fn external_labels_are_added_and_kept() {
        let labels = OutgoingLabels::new(outgoing(&[("cluster", "c")], ""), 1 << 20);
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
        let labels = OutgoingLabels::new(outgoing(&[("cluster", "c")], ""), 1 << 20);
        assert_eq!(labels.labels(7, &[0x0a, 9, 1]), [0; 0]);
        assert_eq!(labels.labels(8, &[]), [0; 0]);
    }

    #[test]
    fn labels_that_stay_are_not_kept() {
        let labels = OutgoingLabels::new(outgoing(&[], ""), 1 << 20);
        let own = canonical(&[("__name__", "up")]);
        assert!(std::ptr::eq(labels.labels(7, &own), &*own));
        assert_eq!(labels.young_bytes.get(), 0);
    }

    #[test]
    fn rules_see_external_labels_and_a_dropped_series_has_none() {
        let labels = OutgoingLabels::new(outgoing(&[("b", "c")], "b|c"), 1 << 20);
        let own = canonical(&[("a", "1")]);
        assert_eq!(labels.labels(7, &own), own);
        assert_eq!(labels.labels(8, &canonical(&[("c", "2")])), [0; 0]);
    }

    #[test]
    fn labels_that_rules_leave_are_the_series_own_and_cost_no_copy() {
        let labels = OutgoingLabels::new(outgoing(&[], "b"), 1 << 20);
        let own = canonical(&[("a", "1")]);
        assert!(std::ptr::eq(labels.labels(7, &own), &*own));
        assert!(std::ptr::eq(labels.labels(7, &own), &*own));
        assert_eq!(labels.young_bytes.get(), ENTRY_BYTES);
    }

    #[test]
    fn the_cache_stays_within_its_bytes_and_keeps_what_is_used() {
        let bytes_max = 20_000;
        let mut labels = OutgoingLabels::new(outgoing(&[("cluster", "c")], ""), bytes_max);
        let own = canonical(&[("__name__", "up")]);
        let used = labels.labels(1, &own).as_ptr();
        for record in 2..2000 {
            labels.begin();
            labels.labels(record, &own);
            assert_eq!(labels.labels(1, &own).as_ptr(), used, "after {record}");
            let old: usize = labels
                .old
                .values()
                .map(|kept| kept.len() + ENTRY_BYTES + ALLOCATION_BYTES)
                .sum();
            assert!(
                old + labels.young_bytes.get()
                    <= bytes_max + 2 * (ENTRY_BYTES + ALLOCATION_BYTES + 40)
            );
        }
        assert!(!labels.old.contains_key(&2) && labels.young.get(&2).is_none());
    }
}
