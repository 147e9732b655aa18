//! Turns views of a cluster, one after the other, into how far each endpoint of this agent may ship.
//!
//! When series get another owner, the one before may still have samples of them that are not shipped. So each agent
//! notes with each view where its logs ended ("before" the view), and a new owner ships what came after only when
//! those who had the series have shipped what came before.
//!
//! # Invariants
//! - What came before a view is never held up by that view: an agent waits for others to ship what they had, and
//!   they wait for nothing later. So nobody waits in a circle, whichever views each of them has seen.
//! - An agent that keeps what it had waits for those only who do not take part any more; one that is new for all it
//!   knows of, and for those the others wait for. With neither, nothing is held.
//! - Endpoints are apart: one is held until the others' endpoints of the same name have shipped.
//!
//! # Failure
//! - Another agent's view that this one never had stands for the next one both had: it has shipped more then.
//! - Nothing moves for as long as the endpoint's patience, while it has nothing else to ship: it goes on, and what
//!   was waited for comes late. That is counted. An agent that is gone holds its series up for so long.
//! - A restart forgets what is held.
//!
//! # Limits
//! - [`VIEWS_MAX`] views are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wal::Position;

const VIEWS_MAX: usize = 64;

/// An endpoint of a log.
pub(super) trait Log: fmt::Debug + Send {
    /// Where the log ends now.
    fn head(&self) -> Position;
    /// Bytes before this that are not shipped.
    fn left(&self, before: Position) -> u64;
    /// Ships no further until it is told otherwise.
    fn hold(&self, at: Option<Position>);
    /// How long nothing may move.
    fn patience(&self) -> Duration;
}

/// What another agent says of the views it had, oldest first.
pub(super) type Report = Vec<Said>;

/// What an agent says of a view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) view: u64,
    /// Bytes before it that are not shipped, by log; none: it is not known yet.
    pub(super) left: Option<BTreeMap<String, u64>>,
    /// For whom it waits, because of this view or one before.
    pub(super) waits_for: Names,
}

/// Names of agents.
pub(super) type Names = BTreeSet<Arc<str>>;

/// How waits have ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ended {
    pub(super) drained: u64,
    pub(super) gave_up: u64,
}

#[derive(Debug)]
struct Seen {
    number: u64,
    participants: Names,
    /// Whether this agent has a part that it had not in the view before.
    is_new: bool,
    /// Who has to ship first.
    waits_for: Names,
    /// Where each log ended.
    barriers: BTreeMap<String, Barrier>,
}

impl Seen {
    /// For whom something is held.
    fn waiting(&self) -> impl Iterator<Item = &Arc<str>> {
        let all = self.barriers.values();
        all.flat_map(|barrier| barrier.waits.keys())
    }

    /// Waits, as long as it does, for those too for whom the others do.
    fn wait_with(&mut self, own: &str, others: &BTreeSet<Arc<str>>, now: Duration) {
        for name in others {
            if **name == *own || !self.waits_for.insert(Arc::clone(name)) {
                continue;
            }
            for barrier in self.barriers.values_mut() {
                if !barrier.waits.is_empty() {
                    barrier.waits.insert(Arc::clone(name), (None, now));
                }
            }
        }
    }
}

#[derive(Debug)]
struct Barrier {
    at: Position,
    /// Of each that is waited for: what it last said was left, and since when that is so.
    waits: BTreeMap<Arc<str>, (Option<u64>, Duration)>,
}

/// What is known of views, and what is held.
#[derive(Debug)]
pub(super) struct Ledger<L> {
    own: Arc<str>,
    /// None: what there is is not known yet.
    logs: Option<BTreeMap<String, L>>,
    /// Oldest first.
    views: VecDeque<Seen>,
    pub(super) ended: Ended,
}

impl<L: Log> Ledger<L> {
    pub(super) const fn new(own: Arc<str>) -> Self {
        Self {
            own,
            logs: None,
            views: VecDeque::new(),
            ended: Ended {
                drained: 0,
                gave_up: 0,
            },
        }
    }

    /// These are the logs from now on.
    pub(super) fn set_logs(&mut self, logs: BTreeMap<String, L>) {
        let before = self.logs.replace(logs).unwrap_or_default();
        let logs = self.logs.as_ref().into_iter().flatten();
        for (name, log) in logs {
            if before.contains_key(name) {
                continue;
            }
            // What is in it was there before it was shared.
            for seen in &mut self.views {
                let at = log.head();
                let waits = BTreeMap::new();
                (seen.barriers).insert(name.clone(), Barrier { at, waits });
            }
        }
        let logs = &self.logs;
        let is_there = |name: &String| logs.as_ref().is_some_and(|logs| logs.contains_key(name));
        for seen in &mut self.views {
            seen.barriers.retain(|name, _| is_there(name));
        }
        self.hold();
    }

    /// Goes over to the next view, in which these take part and others are there; nothing is appended meanwhile.
    pub(super) fn adopt(
        &mut self,
        number: u64,
        (participants, others): (Names, Names),
        now: Duration,
    ) {
        let before = self.views.back().map(|seen| &seen.participants);
        let had_part = before.is_some_and(|before| before.contains(&self.own));
        let is_new = !had_part && participants.contains(&self.own);
        let mut waits_for = Names::new();
        if is_new {
            // All it ever knew of: what became of their series it cannot know.
            let known = self.views.iter().flat_map(|seen| &seen.participants);
            let known = known.chain(&participants).chain(&others);
            waits_for.extend(known.cloned());
        } else if let Some(before) = before.filter(|_| had_part) {
            waits_for.extend(before.difference(&participants).cloned());
        }
        if !participants.contains(&self.own) {
            waits_for.clear();
        }
        waits_for.remove(&self.own);
        let logs = self.logs.iter().flatten();
        let barriers = logs.map(|(name, log)| {
            let waits = waits_for.iter();
            let waits = waits.map(|name| (Arc::clone(name), (None, now))).collect();
            let at = log.head();
            (name.clone(), Barrier { at, waits })
        });
        let barriers = barriers.collect();
        self.views.push_back(Seen {
            number,
            participants,
            is_new,
            waits_for,
            barriers,
        });
        if self.views.len() > VIEWS_MAX {
            self.views.pop_front();
        }
        self.hold();
    }

    /// Who is waited for.
    pub(super) fn waits_for(&self) -> Names {
        self.views.iter().flat_map(Seen::waiting).cloned().collect()
    }

    /// What is not shipped here, by view and log.
    pub(super) fn report(&self) -> Report {
        let mut waits_for = Names::new();
        let views = self.views.iter().map(|seen| {
            let left = self.logs.as_ref().map(|logs| {
                let barriers = seen.barriers.iter();
                let left = barriers.filter_map(|(name, barrier)| {
                    Some((name.clone(), logs.get(name)?.left(barrier.at)))
                });
                left.collect()
            });
            waits_for.extend(seen.waiting().cloned());
            Said {
                view: seen.number,
                left,
                waits_for: waits_for.clone(),
            }
        });
        views.collect()
    }

    /// Whether everything before the newest view is shipped.
    pub(super) fn is_drained(&self) -> bool {
        let report = self.report();
        let newest = report.last().and_then(|said| said.left.as_ref());
        newest.is_some_and(|left| left.values().all(|left| *left == 0))
    }

    /// Takes what the others say; those who say nothing are not in `reports`.
    pub(super) fn heard(&mut self, reports: &BTreeMap<Arc<str>, Report>, now: Duration) {
        let numbers: Vec<u64> = self.views.iter().map(|seen| seen.number).collect();
        let Some(logs) = &self.logs else { return };
        for (at, seen) in self.views.iter_mut().enumerate() {
            let later = numbers.get(at..).unwrap_or_default();
            if seen.is_new {
                let said = reports.values().filter_map(|report| said(report, later));
                let others = said.flat_map(|said| &said.waits_for).cloned();
                seen.wait_with(&self.own, &others.collect(), now);
            }
            for (name, barrier) in &mut seen.barriers {
                let Some(log) = logs.get(name) else { continue };
                let has_own = log.left(barrier.at) > 0;
                let before = barrier.waits.len();
                let mut gave_up = None;
                barrier.waits.retain(|other, (last, since)| {
                    let said = reports.get(other).and_then(|report| said(report, later));
                    // A log that is not there has nothing left.
                    let left = said.and_then(|said| said.left.as_ref());
                    let left = left.map(|left| left.get(name).copied().unwrap_or(0));
                    if left == Some(0) {
                        return false;
                    }
                    if has_own || left != *last {
                        (*last, *since) = (left, now);
                    }
                    let is_over = now.saturating_sub(*since) >= log.patience();
                    if is_over {
                        gave_up = Some(Arc::clone(other));
                    }
                    !is_over
                });
                if let Some(other) = gave_up {
                    tracing::warn!(
                        log = name,
                        agent = %other,
                        "shipping before an agent that had some of these series has shipped what it has: \
                         that comes late"
                    );
                    self.ended.gave_up += 1;
                    barrier.waits.clear();
                } else if before > 0 && barrier.waits.is_empty() {
                    self.ended.drained += 1;
                }
            }
        }
        self.hold();
    }

    /// Endpoints that are held now.
    pub(super) fn held(&self) -> usize {
        let logs = self.logs.iter().flatten();
        logs.filter(|(name, _)| self.held_at(name).is_some())
            .count()
    }

    fn held_at(&self, name: &str) -> Option<Position> {
        let mut barriers = self.views.iter().filter_map(|seen| seen.barriers.get(name));
        let first = barriers.find(|barrier| !barrier.waits.is_empty());
        first.map(|barrier| barrier.at)
    }

    fn hold(&self) {
        for (name, log) in self.logs.iter().flatten() {
            log.hold(self.held_at(name));
        }
    }
}

/// What the report says of the first of these views that it has.
fn said<'r>(report: &'r Report, views: &[u64]) -> Option<&'r Said> {
    let mut found = views.iter().filter_map(|number| {
        // Of views that came again the newest counts.
        let mut newest = report.iter().rev();
        newest.find(|said| said.view == *number)
    });
    found.next()
}

#[cfg(test)]
mod tests;
