//! Turns what a receiver read into what each of its writers gets, through relabel rules or without.
//!
//! A request is decoded once, whoever gets it. Its series are resolved at the front: in the table of
//! the first writer that gets them as they are, or, where rules stand before every writer, in a list
//! of [`Aliases`]. For every other writer what a front series became is remembered, so that in steady
//! state each sample costs one lookup.
//!
//! # Invariants
//! - What is remembered of a front series holds only while that number stands for the same labels and
//!   while the series it became still has the record it had: both are compared each time. A wrong
//!   number costs time, never a wrong series.
//! - The rules of a path run in the order of its stages, on canonical labels.
//! - A series is defined in a store only if a sample of it is about to be appended there.
//!
//! # Failure
//! - A store that cannot define the series: nothing of the request is appended there.
//! - Labels that rules make and that are not allowed (no name left) refuse the series in that store,
//!   counted and answered as those that came so.
//!
//! # Limits
//! - 32 bytes per front series and path beside the first plain one; aliases as `aliases` says.
//! - Metadata is not relabeled: it is about families, and rules are about series.

mod derive;
mod stage;

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use labels::relabel::{Relabeled, Relabeler};
use wal::SeriesGuard;

use crate::aliases::{Aliases, Limits};
use crate::append::Door;
use crate::decode::labels::{LabelLimits, LabelSet, Reason, SHOWN_BYTES_MAX};
use crate::decode::{Batch, Brought, Malformed, NotAllowed, Resolve, Slot};
use crate::own_store::OwnStore;
use crate::tap::append_labels;
use crate::tenants::{Activity, Tenants, WayTo};

pub use derive::STAGES_MAX;
pub(crate) use derive::{Derived, Mapped, What};
pub use stage::{Stage, StageStats};

/// What aliases of labels that came unsorted may take, per receiver and shard thread: some 300,000
/// of 11 labels. Nothing where labels come sorted.
const UNSORTED_BYTES_MAX: usize = 128 << 20;
const UNSORTED_ENTRIES_MAX: usize = 1 << 20;

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// A stage as one path of one shard thread sees it.
#[derive(Debug)]
struct Step {
    stage: Arc<Stage>,
    relabeler: Relabeler,
    /// Whether this path is the one that counts for the stage: others may share it.
    counts: bool,
}

/// The rules of one path.
#[derive(Default, Debug)]
pub(crate) struct Rules {
    steps: Vec<Step>,
    buffers: [Vec<u8>; 2],
}

/// What rules make of labels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Made<'r> {
    Labels(&'r [u8]),
    /// Dropped by the stage of this number.
    Dropped(u8),
}

impl Rules {
    /// Applies them to canonical labels.
    fn apply<'r>(&'r mut self, labels: &'r [u8]) -> Made<'r> {
        self.apply_first(usize::MAX, labels)
    }

    /// Applies those of the first `count` stages.
    fn apply_first<'r>(&'r mut self, count: usize, labels: &'r [u8]) -> Made<'r> {
        let [current, next] = &mut self.buffers;
        let mut is_changed = false;
        for (number, step) in (0..).zip(self.steps.iter_mut().take(count)) {
            let input = if is_changed { &**current } else { labels };
            match step.relabeler.apply(input) {
                // Canonical labels are never malformed.
                Some(Relabeled::AsItIs) | None => {}
                Some(Relabeled::Dropped) => return Made::Dropped(number),
                Some(Relabeled::Changed(changed)) => {
                    next.clear();
                    next.extend_from_slice(changed);
                    std::mem::swap(current, next);
                    is_changed = true;
                }
            }
        }
        Made::Labels(if is_changed { current } else { labels })
    }

    /// Shows what the stages somebody listens to make of the samples of a request.
    pub(crate) fn show(&mut self, front: &impl Front, batch: &Batch) {
        for number in 0..self.steps.len() {
            let Some(step) = self.steps.get(number) else {
                continue;
            };
            if step.counts && step.stage.tap().is_on() {
                let tap = step.stage.tap().clone();
                tap.show(batch.samples.len(), |at, out| {
                    let sample = batch.samples.get(at);
                    sample.is_some_and(|sample| self.show_one(number, sample, front, out))
                });
            }
        }
    }

    /// What the stage of this number makes of a sample, if it comes that far.
    fn show_one(
        &mut self,
        number: usize,
        sample: &wal::Sample,
        front: &impl Front,
        out: &mut String,
    ) -> bool {
        let mut labels = Vec::new();
        if front.labels(sample.series.get(), &mut labels).is_err() {
            return false;
        }
        let Made::Labels(before) = self.apply_first(number, &labels) else {
            return false;
        };
        append_labels(out, before);
        out.push_str(" => ");
        match self.apply_first(number + 1, &labels) {
            Made::Labels(after) => append_labels(out, after),
            Made::Dropped(_) => out.push_str("dropped"),
        }
        true
    }

    /// Counts what a request brought and how many of it each stage dropped.
    fn count(&self, items: u64, dropped: &[u64], (hits, misses): (u64, u64)) {
        let mut left = items;
        for (number, step) in self.steps.iter().enumerate() {
            let gone = dropped.get(number).copied().unwrap_or(0);
            if step.counts {
                let stats = &step.stage.stats;
                add(&stats.processed, left);
                add(&stats.written, left - gone);
                add(&stats.hits, hits);
                add(&stats.misses, misses);
            }
            left -= gone;
        }
    }
}

/// A way as the layout has it.
#[derive(Clone, Debug)]
pub(crate) struct PathTo {
    /// The number of its store.
    pub(crate) store: u64,
    pub(crate) stages: Vec<Arc<Stage>>,
}

impl PathTo {
    /// Whether it is the same way: what is known about it holds.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.store == other.store && are_same(&self.stages, &other.stages)
    }
}

fn are_same(some: &[Arc<Stage>], others: &[Arc<Stage>]) -> bool {
    let is_same = |(a, b): (&Arc<Stage>, &Arc<Stage>)| Arc::ptr_eq(a, b);
    some.len() == others.len() && some.iter().zip(others).all(is_same)
}

/// What tells the ways of a receiver apart, in their order.
pub(crate) fn ways_to(paths: &[PathTo]) -> Vec<WayTo> {
    let stores = || paths.iter().map(|path| path.store);
    let before = |at: usize, store| stores().take(at).filter(|other| *other == store).count();
    let all = stores().enumerate();
    all.map(|(at, store)| (store, before(at, store))).collect()
}

/// One way from a receiver to a writer.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) store: Rc<OwnStore>,
    pub(crate) rules: Rules,
    pub(crate) derived: Derived,
    /// Whose series are active, where the receiver has tenants.
    pub(crate) activity: Option<Arc<Activity>>,
    to: WayTo,
}

/// All ways of one receiver on one shard thread.
#[derive(Debug)]
pub(crate) struct Paths {
    /// What tells these from those before and of others.
    pub(crate) number: u64,
    pub(crate) ways: Vec<Way>,
    /// The stores of the ways: requests hold them while they wait.
    pub(crate) stores: Rc<[Rc<OwnStore>]>,
    /// The way whose store's table is the front; none where rules stand before all.
    pub(crate) front: Option<usize>,
    /// The front without a store, or the labels that came unsorted.
    pub(crate) aliases: Aliases,
    /// What aliases of unsorted labels are in the front's store.
    pub(crate) unsorted: Derived,
    /// What was reported about the aliases.
    reported: (u64, [u64; 2]),
}

impl Paths {
    /// These ways, to stores among `stores`.
    pub(crate) fn new(number: u64, paths: &[PathTo], stores: &[Rc<OwnStore>]) -> Self {
        let mut counted: Vec<&[Arc<Stage>]> = Vec::new();
        let mut ways = Vec::new();
        for (PathTo { store, stages }, to) in paths.iter().zip(ways_to(paths)) {
            let mut steps = Vec::new();
            for (number, stage) in stages.iter().enumerate() {
                let so_far = stages.get(..=number).unwrap_or_default();
                let counts = !counted.iter().any(|other| are_same(other, so_far));
                counted.push(so_far);
                steps.push(Step {
                    stage: stage.clone(),
                    relabeler: Relabeler::new(stage.rules.clone()),
                    counts,
                });
            }
            // The layout was checked.
            let Some(store) = stores.iter().find(|one| one.number == *store) else {
                continue;
            };
            ways.push(Way {
                store: store.clone(),
                rules: Rules {
                    steps,
                    ..Rules::default()
                },
                derived: Derived::default(),
                activity: None,
                to,
            });
        }
        let front = ways.iter().position(|way| way.rules.steps.is_empty());
        let aliases = Aliases::new(limits(&ways, front.is_some()));
        Self {
            number,
            stores: ways.iter().map(|way| way.store.clone()).collect(),
            ways,
            front,
            aliases,
            unsorted: Derived::default(),
            reported: (0, [0; 2]),
        }
    }

    /// Who may send is asked of these from now on.
    pub(crate) fn set_tenants(&mut self, tenants: Option<&Arc<Tenants>>) {
        for way in &mut self.ways {
            way.activity = tenants.map(|tenants| tenants.activity(way.to));
        }
    }

    /// Tells the components of the first stages how many results are kept.
    pub(crate) fn report(&mut self) {
        if self.front.is_some() {
            return;
        }
        self.report_size(self.aliases.len() as u64);
    }

    fn report_size(&mut self, size: u64) {
        let given_up = self.aliases.given_up();
        let (size_before, before) = std::mem::replace(&mut self.reported, (size, given_up));
        if size == size_before && given_up == before {
            return;
        }
        for step in self.ways.iter().flat_map(|way| &way.rules.steps) {
            if step.counts {
                let stats = &step.stage.stats;
                // Wraps around where it became less, and so does the sum.
                add(&stats.size, size.wrapping_sub(size_before));
                add(&stats.deletes, given_up[0] - before[0]);
                add(&stats.ttl_evictions, given_up[1] - before[1]);
            }
        }
    }
}

impl Drop for Paths {
    /// What was kept is not kept any more.
    fn drop(&mut self) {
        if self.front.is_none() {
            self.report_size(0);
        }
    }
}

/// The widest of the limits of the stages; one for unsorted labels where there is a plain way.
fn limits(ways: &[Way], has_front: bool) -> Limits {
    let unsorted = Limits {
        entries_max: UNSORTED_ENTRIES_MAX,
        bytes_max: UNSORTED_BYTES_MAX,
        ttl: None,
    };
    if has_front {
        return unsorted;
    }
    let stages = ways.iter().flat_map(|way| &way.rules.steps);
    let widest = stages.map(|step| step.stage.limits).reduce(|a, b| Limits {
        entries_max: a.entries_max.max(b.entries_max),
        bytes_max: a.bytes_max.max(b.bytes_max),
        ttl: a.ttl.zip(b.ttl).map(|(a, b)| a.max(b)),
    });
    widest.unwrap_or(unsorted)
}

/// The labels behind the numbers of a front.
pub(crate) trait Front {
    /// What tells these labels from others of the same number; 0 if there are none.
    fn identity(&self, number: u32) -> u64;
    /// Whether it still is that; a series of a store stays it as long as the front is held.
    fn is_still(&self, number: u32, identity: u64) -> bool;
    /// Puts the canonical labels into `out`, or says why they are not allowed.
    fn labels(&self, number: u32, out: &mut Vec<u8>) -> Result<(), Reason>;
}

impl Front for SeriesGuard<'_> {
    #[inline]
    fn identity(&self, number: u32) -> u64 {
        self.record(wal::SeriesRef::new(number))
    }

    #[inline]
    fn is_still(&self, number: u32, identity: u64) -> bool {
        let series = wal::SeriesRef::new(number);
        identity != 0 && self.record(series) == identity && self.confirm(series)
    }

    fn labels(&self, number: u32, out: &mut Vec<u8>) -> Result<(), Reason> {
        out.extend_from_slice(self.labels(wal::SeriesRef::new(number)));
        Ok(())
    }
}

impl Front for Aliases {
    #[inline]
    fn identity(&self, number: u32) -> u64 {
        Self::identity(self, number)
    }

    #[inline]
    fn is_still(&self, number: u32, identity: u64) -> bool {
        identity != 0 && Self::identity(self, number) == identity
    }

    fn labels(&self, number: u32, out: &mut Vec<u8>) -> Result<(), Reason> {
        let (bytes, mut set) = (self.bytes(number), LabelSet::default());
        // They were read when the alias was made.
        if set
            .read(bytes, std::slice::from_ref(&(0..bytes.len())))
            .is_err()
        {
            return Err(Reason::MissingMetricName);
        }
        set.append_sorted(bytes, out).map(|_has_name| ())
    }
}

/// Buffers of the alias front; owned by a shard thread.
#[derive(Default, Debug)]
pub(crate) struct Spare {
    set: LabelSet,
    canonical: Vec<u8>,
}

impl Spare {
    /// What label sets may be from now on, as they come.
    pub(crate) fn limit(&mut self, limits: LabelLimits) {
        self.set.limits = limits;
    }
}

/// Places of a request that are looked at where all of it is refused.
const SEEN_MAX: usize = 64;

/// Calls `with` with the labels of some of the request's series, spread over it, and how many of its
/// samples each stands for.
pub(crate) fn some_labels(front: &impl Front, batch: &Batch, mut with: impl FnMut(&[u8], usize)) {
    let count = batch.samples.len();
    let step = count.div_ceil(SEEN_MAX).max(1);
    let mut labels = Vec::new();
    for (at, sample) in batch.samples.iter().enumerate().step_by(step) {
        labels.clear();
        if front.labels(sample.series.get(), &mut labels).is_ok() {
            with(&labels, step.min(count - at));
        }
    }
}

/// Resolves the series of one request to aliases.
#[derive(Debug)]
pub(crate) struct ToAliases<'p> {
    pub(crate) aliases: &'p mut Aliases,
    pub(crate) spare: &'p mut Spare,
    /// The alias before this one on the connection; 0 at its start.
    pub(crate) previous: u32,
}

impl ToAliases<'_> {
    fn found(&mut self, alias: u32) -> Slot {
        self.aliases.learn(self.previous, alias);
        self.previous = alias;
        Slot::Known(wal::SeriesRef::new(alias))
    }
}

impl Door for ToAliases<'_> {
    fn identity(&self, number: u32) -> u64 {
        self.aliases.identity(number)
    }

    #[inline]
    fn is_still(&mut self, number: u32, identity: u64) -> bool {
        self.aliases.use_again(number, identity)
    }

    /// Aliases are not new: they are there at once.
    fn forget_new(&mut self) {}
}

impl Resolve for ToAliases<'_> {
    #[inline]
    fn predicted(&mut self, series: &[u8]) -> Option<(wal::SeriesRef, usize)> {
        let (alias, length) = self.aliases.predicted(self.previous, series)?;
        self.previous = alias;
        Some((wal::SeriesRef::new(alias), length))
    }

    fn resolve(
        &mut self,
        body: &[u8],
        fields: &[Range<usize>],
        _: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed> {
        if let [field] = fields {
            let bytes = body.get(field.clone()).unwrap_or_default();
            // The same series several times in a row keeps the prediction of what follows it.
            if self.aliases.is_again(self.previous, bytes) {
                return Ok(Ok(Slot::Known(wal::SeriesRef::new(self.previous))));
            }
            if let Some(alias) = self.aliases.find(bytes) {
                return Ok(Ok(self.found(alias)));
            }
        }
        let Spare { set, canonical } = &mut *self.spare;
        set.read(body, fields)?;
        canonical.clear();
        if let Err(reason) = set.append_sorted(body, canonical) {
            let shown = set.show(body, SHOWN_BYTES_MAX);
            return Ok(Err(NotAllowed { reason, shown }));
        }
        let alias = match fields {
            [field] => self
                .aliases
                .insert(body.get(field.clone()).unwrap_or_default()),
            _ => match self.aliases.find(canonical) {
                Some(alias) => alias,
                None => self.aliases.insert(canonical),
            },
        };
        Ok(Ok(self.found(alias)))
    }
}
