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
//! - Another agent's view that this one never had stands for the next one both had: it has shipped more then. So does
//!   the first view of its next process: nothing of its log from there on is older.
//! - Nothing moves for as long as the endpoint's patience, while it has nothing else to ship: it goes on, and what
//!   was waited for comes late. That is counted. An agent that is gone holds its series up for so long.
//! - What is held is still held after a restart, if it was kept (`kept`); otherwise it is forgotten.
//!
//! # Limits
//! - [`VIEWS_MAX`] views are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wal::Position;

mod kept;

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
    /// When the process began that had it.
    pub(super) life: Option<Life>,
    /// Bytes before it that are not shipped, by log; none: it is not known yet.
    pub(super) left: Option<BTreeMap<String, u64>>,
    /// For whom it waits, because of this view or one before.
    pub(super) waits_for: Awaited,
}

/// Names of agents.
pub(super) type Names = BTreeSet<Arc<str>>;

/// When a process began, in milliseconds since 1970: later ones of the same agent have a larger one.
pub(super) type Life = u64;

/// Agents, each in one of its lives.
pub(super) type Lives = BTreeMap<Arc<str>, Life>;

/// Agents that are waited for, each in the life it was in; none: nobody knows.
pub(super) type Awaited = BTreeMap<Arc<str>, Option<Life>>;

/// One more that is waited for. Of two lives the later one: everything before is waited for too.
fn wait_for(all: &mut Awaited, name: &Arc<str>, life: Option<Life>) {
    let known = all.entry(Arc::clone(name)).or_insert(life);
    *known = known.zip(life).map(|(one, other)| one.max(other));
}

/// How waits have ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ended {
    pub(super) drained: u64,
    pub(super) gave_up: u64,
}

#[derive(Debug)]
struct Seen {
    number: u64,
    /// Of this agent.
    life: Option<Life>,
    participants: Lives,
    /// Whether this agent has a part that it had not in the view before.
    is_new: bool,
    /// Who has to ship first.
    waits_for: Names,
    /// Where each log ended.
    barriers: BTreeMap<String, Barrier>,
}

impl Seen {
    /// For whom something is held.
    fn waiting(&self) -> impl Iterator<Item = (&Arc<str>, Option<Life>)> {
        let all = self.barriers.values();
        all.flat_map(|barrier| barrier.waits.iter().map(|(name, wait)| (name, wait.life)))
    }

    /// Waits, as long as it does, for those too for whom the others do.
    fn wait_with(&mut self, own: &str, others: &Awaited, now: Duration) {
        for (name, life) in others.iter().filter(|(name, _)| ***name != *own) {
            let is_more = self.waits_for.insert(Arc::clone(name));
            for barrier in self.barriers.values_mut() {
                if let Some(wait) = barrier.waits.get_mut(name) {
                    // They have worked with it until it went.
                    wait.life = wait.life.or(*life);
                } else if is_more && !barrier.waits.is_empty() {
                    let wait = Wait::new(*life, now);
                    barrier.waits.insert(Arc::clone(name), wait);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Barrier {
    at: Position,
    waits: BTreeMap<Arc<str>, Wait>,
}

/// Of one that is waited for.
#[derive(Debug)]
struct Wait {
    /// The life it was in; none: nobody knows.
    life: Option<Life>,
    /// What it last said was left, and since when that is so.
    last: Option<u64>,
    since: Duration,
}

impl Wait {
    const fn new(life: Option<Life>, now: Duration) -> Self {
        Self {
            life,
            last: None,
            since: now,
        }
    }
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
                // Unless the process before this one shared it.
                let barrier = seen.barriers.entry(name.clone());
                barrier.or_insert(Barrier { at, waits });
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
        (participants, others): (Lives, Lives),
        now: Duration,
    ) {
        let before = self.views.back().map(|seen| &seen.participants);
        let had_part = before.is_some_and(|before| before.contains_key(&self.own));
        let has_part = participants.contains_key(&self.own);
        let is_new = !had_part && has_part;
        let mut waits_for = Awaited::new();
        if is_new {
            // All it ever knew of: what became of their series it cannot know.
            let known = self.views.iter().flat_map(|seen| &seen.participants);
            let known = known.chain(&others).chain(&participants);
            waits_for.extend(known.map(|(name, life)| (Arc::clone(name), Some(*life))));
        } else if let Some(before) = before.filter(|_| has_part) {
            let went = before
                .iter()
                .filter(|(name, _)| !participants.contains_key(*name));
            waits_for.extend(went.map(|(name, life)| (Arc::clone(name), Some(*life))));
        }
        waits_for.remove(&self.own);
        let logs = self.logs.iter().flatten();
        let barriers = logs.map(|(name, log)| {
            let waits = waits_for.iter();
            let waits = waits.map(|(name, life)| (Arc::clone(name), Wait::new(*life, now)));
            let (at, waits) = (log.head(), waits.collect());
            (name.clone(), Barrier { at, waits })
        });
        let barriers = barriers.collect();
        let life = others.get(&self.own).or(participants.get(&self.own));
        self.views.push_back(Seen {
            number,
            life: life.copied(),
            participants,
            is_new,
            waits_for: waits_for.into_keys().collect(),
            barriers,
        });
        if self.views.len() > VIEWS_MAX {
            self.views.pop_front();
        }
        self.hold();
    }

    /// Who is waited for.
    pub(super) fn waits_for(&self) -> Names {
        let waiting = self.views.iter().flat_map(Seen::waiting);
        waiting.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// What is not shipped here, by view and log.
    pub(super) fn report(&self) -> Report {
        let mut waits_for = Awaited::new();
        let views = self.views.iter().map(|seen| {
            let left = self.logs.as_ref().map(|logs| {
                let barriers = seen.barriers.iter();
                let left = barriers.filter_map(|(name, barrier)| {
                    Some((name.clone(), logs.get(name)?.left(barrier.at)))
                });
                left.collect()
            });
            for (name, life) in seen.waiting() {
                wait_for(&mut waits_for, name, life);
            }
            Said {
                view: seen.number,
                life: seen.life,
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
                let mut others = Awaited::new();
                for (name, life) in said.flat_map(|said| &said.waits_for) {
                    wait_for(&mut others, name, *life);
                }
                seen.wait_with(&self.own, &others, now);
            }
            for (name, barrier) in &mut seen.barriers {
                let Some(log) = logs.get(name) else { continue };
                let has_own = log.left(barrier.at) > 0;
                let before = barrier.waits.len();
                let mut gave_up = None;
                barrier.waits.retain(|other, wait| {
                    let report = reports.get(other);
                    let said = report.into_iter().flat_map(|report| {
                        let next_life = wait.life.and_then(|life| next_life(report, life));
                        said(report, later).into_iter().chain(next_life)
                    });
                    let left = said.filter_map(|said| {
                        // A log that is not there has nothing left.
                        let left = said.left.as_ref();
                        left.map(|left| left.get(name).copied().unwrap_or(0))
                    });
                    let left = left.min();
                    if left == Some(0) {
                        return false;
                    }
                    if has_own || left != wait.last {
                        (wait.last, wait.since) = (left, now);
                    }
                    let is_over = now.saturating_sub(wait.since) >= log.patience();
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

/// What the report says of the first view of the process after this one.
fn next_life(report: &Report, life: Life) -> Option<&Said> {
    let is_later = |said: &&Said| said.life.is_some_and(|of| of > life);
    report.iter().find(is_later)
}

#[cfg(test)]
mod tests;
