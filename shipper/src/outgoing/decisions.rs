//! Turns a series into whether the endpoint's rules drop it, decided once per series.
//!
//! # Invariants
//! - A decision holds for the labels it was made for. When refs may have been given to other series
//!   ([`wal::SeriesTable::generation`]), the decisions of a block of refs are used again only if the
//!   records they were made from, by their names, still are those of the refs: a keyed 64-bit sum
//!   over the names says so. Otherwise the block is decided anew.
//!
//! # Limits
//! - One byte per series up to the highest ref that was tailed, and 16 bytes per [`BLOCK`] of them;
//!   nothing without rules.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use wal::{SeriesGuard, SeriesRef};

use super::{Outgoing, Resolver};
use labels::relabel::Relabeled;

/// So many series are looked at together when refs were given away.
const BLOCK: usize = 64;

/// Whether a series is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Decision {
    Unknown,
    Kept,
    Dropped,
}

/// What the decisions of a block rest on.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// When they were last known to be right.
    generation: u64,
    /// Sum over the series decided.
    records: u64,
}

/// Which series of a log an endpoint does not get; and their outgoing labels, for who asks once.
#[derive(Debug)]
pub(crate) struct Decisions {
    resolver: Resolver,
    has_rules: bool,
    generation: u64,
    of_series: Vec<Decision>,
    blocks: Vec<Block>,
    random: RandomState,
}

impl Decisions {
    pub(crate) fn new(outgoing: Arc<Outgoing>) -> Self {
        Self {
            has_rules: !outgoing.rules.is_empty(),
            resolver: Resolver::new(outgoing),
            generation: 0,
            of_series: Vec::new(),
            blocks: Vec::new(),
            random: RandomState::default(),
        }
    }

    /// Tells the table's generation; to be read after the frame whose series are asked for next.
    pub(crate) const fn begin(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// Whether the endpoint does not get this series. One that is unknown is not dropped here.
    pub(crate) fn is_dropped(&mut self, one: SeriesRef, series: &SeriesGuard<'_>) -> bool {
        if !self.has_rules {
            return false;
        }
        let (record, labels) = (|one| series.record(one), |one| series.labels(one));
        self.decision(one, record, labels) == Decision::Dropped
    }

    /// The outgoing labels of a series; empty if it has none.
    pub(crate) fn labels<'a>(
        &'a mut self,
        one: SeriesRef,
        series: &'a SeriesGuard<'_>,
    ) -> &'a [u8] {
        let own = series.labels(one);
        if self.resolver.outgoing.is_identity() {
            return own;
        }
        match self.resolver.resolve(own) {
            Some(Relabeled::AsItIs) => own,
            Some(Relabeled::Changed(labels)) => labels,
            Some(Relabeled::Dropped) | None => &[],
        }
    }

    #[inline]
    fn decision<'a>(
        &mut self,
        one: SeriesRef,
        record: impl Fn(SeriesRef) -> u64,
        labels: impl FnOnce(SeriesRef) -> &'a [u8],
    ) -> Decision {
        let at = one.index();
        match (self.of_series.get(at), self.blocks.get(at / BLOCK)) {
            (Some(Decision::Unknown), _) | (None, _) | (_, None) => {}
            (Some(decision), Some(block)) if block.generation == self.generation => {
                return *decision;
            }
            _ => {}
        }
        self.decide(one, record, labels)
    }

    #[cold]
    fn decide<'a>(
        &mut self,
        one: SeriesRef,
        record: impl Fn(SeriesRef) -> u64,
        labels: impl FnOnce(SeriesRef) -> &'a [u8],
    ) -> Decision {
        let (at, own_record) = (one.index(), record(one));
        if own_record == 0 {
            // not remembered: a ref that was never given out would make the arrays huge
            return Decision::Kept;
        }
        self.confirm(at / BLOCK, record);
        if self.of_series[at] == Decision::Unknown {
            self.of_series[at] = match self.resolver.resolve(labels(one)) {
                Some(Relabeled::Dropped) => Decision::Dropped,
                _ => Decision::Kept,
            };
            let sum = &mut self.blocks[at / BLOCK].records;
            *sum = sum.wrapping_add(self.random.hash_one((at, own_record)));
        }
        self.of_series[at]
    }

    /// Makes sure that the decisions of a block are about the series that have its refs now.
    fn confirm(&mut self, block: usize, record: impl Fn(SeriesRef) -> u64) {
        if block >= self.blocks.len() {
            self.blocks.resize(block + 1, Block::default());
            let series = self.blocks.len() * BLOCK;
            self.of_series.resize(series, Decision::Unknown);
        }
        if self.blocks[block].generation == self.generation {
            return;
        }
        let decisions = &mut self.of_series[block * BLOCK..][..BLOCK];
        let mut records = 0_u64;
        for (at, decision) in (block * BLOCK..).zip(&*decisions) {
            if *decision != Decision::Unknown {
                let one = u32::try_from(at).expect("the place of a ref");
                let hash = self.random.hash_one((at, record(SeriesRef::new(one))));
                records = records.wrapping_add(hash);
            }
        }
        let state = &mut self.blocks[block];
        state.generation = self.generation;
        if records != state.records {
            state.records = 0;
            decisions.fill(Decision::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use labels::relabel::{Action, RuleOptions};
    use labels::{ExternalLabels, canonical};

    /// Drops series whose `job` is `no`.
    fn decisions() -> Decisions {
        let rule = RuleOptions {
            action: Action::Drop,
            source_labels: vec!["job".into()],
            regex: "no".into(),
            ..RuleOptions::default()
        };
        let rules = vec![rule.build().unwrap()];
        Decisions::new(Arc::new(Outgoing::new(ExternalLabels::default(), rules)))
    }

    /// What a ref means: the name of its record and its labels.
    #[derive(Default)]
    struct Table {
        series: BTreeMap<u32, (u64, Vec<u8>)>,
        records: u64,
        generation: u64,
        asked: Cell<usize>,
    }

    impl Table {
        fn define(&mut self, one: u32, job: &str) {
            self.records += 1;
            let labels = canonical(&[("job", job), ("n", &one.to_string())]);
            self.series.insert(one, (self.records, labels));
        }

        fn is_dropped(&self, decisions: &mut Decisions, one: u32) -> bool {
            decisions.begin(self.generation);
            let found = |one: SeriesRef| self.series.get(&one.get());
            let record = |one| found(one).map_or(0, |series| series.0);
            let labels = |one| {
                self.asked.set(self.asked.get() + 1);
                found(one).map_or(&[][..], |series| &series.1)
            };
            decisions.decision(SeriesRef::new(one), record, labels) == Decision::Dropped
        }
    }

    #[test]
    fn a_series_is_decided_once_and_again_only_if_its_block_changed() {
        let (mut table, mut decisions) = (Table::default(), decisions());
        for one in 1..200 {
            table.define(one, if one % 2 == 0 { "no" } else { "yes" });
        }
        let all = |table: &Table, decisions: &mut Decisions| {
            for one in 1..200 {
                assert_eq!(table.is_dropped(decisions, one), one % 2 == 0);
            }
            table.asked.replace(0)
        };
        assert_eq!(all(&table, &mut decisions), 199);
        assert_eq!(all(&table, &mut decisions), 0);
        table.generation += 1;
        assert_eq!(
            all(&table, &mut decisions),
            0,
            "refs still name the same records"
        );
        table.define(130, "no");
        table.generation += 1;
        assert_eq!(all(&table, &mut decisions), BLOCK, "the block of 130");
    }

    #[test]
    fn a_ref_that_is_used_again_is_decided_anew() {
        let (mut table, mut decisions) = (Table::default(), decisions());
        table.define(1, "yes");
        table.define(2, "no");
        assert!(!table.is_dropped(&mut decisions, 1));
        assert!(table.is_dropped(&mut decisions, 2));
        table.series.remove(&2);
        table.generation += 1;
        assert!(
            !table.is_dropped(&mut decisions, 1),
            "the block is confirmed meanwhile"
        );
        table.define(2, "yes");
        assert!(!table.is_dropped(&mut decisions, 2));
    }

    #[test]
    fn a_ref_that_was_never_given_out_takes_no_memory() {
        let (table, mut decisions) = (Table::default(), decisions());
        assert!(!table.is_dropped(&mut decisions, u32::MAX));
        assert_eq!(decisions.of_series.len(), 0);
    }

    proptest! {
        #[test]
        fn decisions_are_those_of_the_labels_whatever_becomes_of_refs(
            steps in prop::collection::vec((0..4_u8, 1..150_u32), 0..200),
        ) {
            let (mut table, mut decisions) = (Table::default(), decisions());
            for (step, one) in steps {
                match step {
                    0 if !table.series.contains_key(&one) => table.define(one, "no"),
                    1 if !table.series.contains_key(&one) => table.define(one, "yes"),
                    // the cleaner frees a ref
                    2 if table.series.remove(&one).is_some() => table.generation += 1,
                    // the cleaner copies a record
                    3 => {
                        table.records += 1;
                        let records = table.records;
                        table.series.entry(one).and_modify(|series| series.0 = records);
                    }
                    _ => {}
                }
                let is_no = |labels: &Vec<u8>| labels.windows(2).any(|pair| pair == b"no");
                let want = table.series.get(&one).is_some_and(|series| is_no(&series.1));
                prop_assert_eq!(table.is_dropped(&mut decisions, one), want);
            }
        }
    }
}
