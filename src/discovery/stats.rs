//! Turns what became of looks into numbers, into a line of the log where that changes, and into debug info.
//!
//! # Threads
//! - Written by the task that looks, read by the server's. The lock is held for moments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::Value;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::kubernetes::Kind;
use super::refresh::Taken;

/// What metrics call the components that watch.
pub(crate) const KUBERNETES: &str = "kubernetes";

/// What became of a watched object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Added,
    Updated,
    Deleted,
}

/// The numbers of a component that watches objects.
#[derive(Debug, Default)]
struct Watches {
    failed: AtomicU64,
    objects: AtomicU64,
    /// By kind: added, updated, deleted.
    events: [[AtomicU64; 3]; Kind::ALL.len()],
}

/// The numbers of a component; another configuration of it goes on with them.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Of the component.
    pub(crate) id: String,
    pub(crate) mechanism: &'static str,
    looks: AtomicU64,
    failed_looks: AtomicU64,
    sources: AtomicU64,
    sources_failed: AtomicU64,
    updates: AtomicU64,
    targets: AtomicU64,
    watches: Watches,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the last look failed with.
    problem: Option<String>,
    told_at: Option<Instant>,
}

/// The numbers as they are now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) looks: u64,
    /// Looks in which something could not be had.
    pub(crate) failed_looks: u64,
    /// Files, names, answers that were looked at.
    pub(crate) sources: u64,
    pub(crate) sources_failed: u64,
    /// Lists that were exported.
    pub(crate) updates: u64,
    /// Targets of the last of them.
    pub(crate) targets: u64,
    pub(crate) problem: Option<String>,
}

impl Stats {
    pub(crate) fn new(id: &str, mechanism: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            mechanism,
            looks: AtomicU64::default(),
            failed_looks: AtomicU64::default(),
            sources: AtomicU64::default(),
            sources_failed: AtomicU64::default(),
            updates: AtomicU64::default(),
            targets: AtomicU64::default(),
            watches: Watches::default(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            looks: read(&self.looks),
            failed_looks: read(&self.failed_looks),
            sources: read(&self.sources),
            sources_failed: read(&self.sources_failed),
            updates: read(&self.updates),
            targets: read(&self.targets),
            problem: self.state.lock().problem.clone(),
        }
    }

    /// Lists and watches that failed, objects that are held, and what became of objects: kind, event, how often.
    pub(crate) fn watched(&self) -> (u64, u64, Vec<(&'static str, &'static str, u64)>) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut events = Vec::new();
        for (kind, counters) in Kind::ALL.iter().zip(&self.watches.events) {
            for (event, counter) in ["add", "update", "delete"].into_iter().zip(counters) {
                events.push((kind.name(), event, read(counter)));
            }
        }
        (
            read(&self.watches.failed),
            read(&self.watches.objects),
            events,
        )
    }

    /// What somebody who looks into it is shown.
    pub(crate) fn debug_info(&self) -> Vec<(&'static str, Value)> {
        let now = self.snapshot();
        let number = |n: u64| Value::Uint(n);
        let mut shown = vec![
            ("targets", number(now.targets)),
            ("updates", number(now.updates)),
            ("looks", number(now.looks)),
            ("failed_looks", number(now.failed_looks)),
        ];
        if self.mechanism == KUBERNETES {
            let (failed, objects, _) = self.watched();
            shown.push(("objects", number(objects)));
            shown.push(("failed_watches", number(failed)));
        }
        shown.extend(now.problem.map(|problem| ("problem", problem.into())));
        shown
    }

    /// Counts a look; logs the first that fails, and the first after that which does not.
    pub(super) fn looked(&self, taken: &Taken) {
        let count = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        count(&self.looks, 1);
        count(&self.sources, taken.sources);
        count(&self.sources_failed, taken.problems.len());
        let problem = taken.problems.first().cloned();
        count(&self.failed_looks, usize::from(problem.is_some()));
        let before = std::mem::replace(&mut self.state.lock().problem, problem.clone());
        let (component, others) = (&self.id, taken.problems.len().saturating_sub(1));
        match (before, problem) {
            (None, Some(problem)) => {
                tracing::warn!(component, problem, others, "the last targets stay");
            }
            (Some(_), None) => tracing::info!(component, "targets are found again"),
            _ => {}
        }
    }

    /// Notes a list of so many targets.
    pub(super) fn told(&self, targets: usize) {
        let targets = u64::try_from(targets).unwrap_or(u64::MAX);
        self.targets.store(targets, Ordering::Relaxed);
        self.updates.fetch_add(1, Ordering::Relaxed);
        self.state.lock().told_at = Some(Instant::now());
    }

    /// Waits until the last list is so long ago.
    pub(super) async fn until_apart(&self, apart: Duration) {
        tokio::time::sleep_until(self.next_told(apart)).await;
    }

    /// When the last list is so long ago.
    pub(super) fn next_told(&self, apart: Duration) -> Instant {
        let told_at = self.state.lock().told_at;
        told_at.map_or_else(Instant::now, |told_at| told_at + apart)
    }

    /// Counts a list or a watch that failed.
    pub(super) fn watch_failed(&self) {
        self.watches.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what became of an object.
    pub(super) fn saw(&self, kind: Kind, event: Option<Event>) {
        let counters = self.watches.events.get(kind as usize);
        let counter = event.and_then(|event| counters?.get(event as usize));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes how many objects there are.
    pub(super) fn hold(&self, objects: usize) {
        let objects = u64::try_from(objects).unwrap_or(u64::MAX);
        self.watches.objects.store(objects, Ordering::Relaxed);
    }
}
