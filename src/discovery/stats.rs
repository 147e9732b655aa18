//! Turns what became of looks into numbers, into a line of the log where that changes, and into debug info.
//!
//! # Threads
//! - Written by the task that looks, read by the server's. The lock is held for moments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::Value;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::refresh::Taken;

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
        let told_at = self.state.lock().told_at;
        if let Some(told_at) = told_at {
            tokio::time::sleep_until(told_at + apart).await;
        }
    }
}
