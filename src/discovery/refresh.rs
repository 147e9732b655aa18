//! Turns one look after the other into lists of targets that are told of when they differ.
//!
//! # Invariants
//! - What is told differs from what was told before, and comes no sooner after it than the pace says, also
//!   where another configuration of the same component told it.
//! - A source that could not be looked at keeps its targets; one that is not there any more has none.
//!
//! # Limits
//! - [`TARGETS_MAX`]: with more, all sources keep what they had.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use config::Value;

use super::TARGETS_MAX;
use super::stats::Stats;

/// The targets of a source. The same as before is best given as the same: it is not compared then.
pub(super) type Group = Arc<[Value]>;

/// What each source has now, by its name, or why that is not known.
pub(super) type Found = Vec<(String, Result<Group, String>)>;

/// A place that can be looked at.
pub(super) trait Look: Send {
    /// What is there now; an error where no source could be looked at. It ends by itself.
    fn look(&mut self) -> impl Future<Output = Result<Found, String>> + Send;
}

/// How often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time between looks.
    pub(super) every: Duration,
    /// Least time between two lists.
    pub(super) apart: Duration,
}

/// Looks, and tells of what differs, until `tell` says that nobody is there to be told.
pub(super) async fn refresh<Told>(
    mut place: impl Look,
    pace: Pace,
    stats: &Stats,
    mut tell: impl FnMut(Value) -> Told + Send,
) where
    Told: Future<Output = bool> + Send,
{
    let mut groups = Groups::default();
    let mut is_told = false;
    loop {
        let taken = groups.take(place.look().await);
        stats.looked(&taken);
        if taken.is_changed || (taken.is_known && !is_told) {
            stats.until_apart(pace.apart).await;
            let targets = groups.value();
            stats.told(groups.len());
            if !tell(targets).await {
                return;
            }
            is_told = true;
        }
        tokio::time::sleep(pace.every).await;
    }
}

/// What a look came to.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) is_changed: bool,
    /// Whether anything could be looked at.
    pub(super) is_known: bool,
    pub(super) sources: usize,
    /// What is wrong with single sources, or the one thing that is wrong with all.
    pub(super) problems: Vec<String>,
}

/// The targets of every source.
#[derive(Default)]
struct Groups(BTreeMap<String, Group>);

impl Groups {
    fn take(&mut self, found: Result<Found, String>) -> Taken {
        let mut taken = Taken {
            is_changed: false,
            is_known: false,
            sources: 1,
            problems: Vec::new(),
        };
        let found = match found {
            Ok(found) => found,
            Err(problem) => {
                taken.problems.push(problem);
                return taken;
            }
        };
        taken.sources = found.len();
        taken.is_known = found.is_empty() || found.iter().any(|(_, group)| group.is_ok());
        let mut next = BTreeMap::new();
        for (source, group) in found {
            let group = group.or_else(|problem| {
                taken.problems.push(problem);
                self.0.get(&source).cloned().ok_or(())
            });
            match group {
                Ok(group) if !group.is_empty() => {
                    next.insert(source, group);
                }
                _ => {}
            }
        }
        let count: usize = next.values().map(|group| group.len()).sum();
        if count > TARGETS_MAX {
            taken.is_known = false;
            taken.problems.push(too_many(count));
            return taken;
        }
        if !is_same(&self.0, &next) {
            taken.is_changed = true;
            self.0 = next;
        }
        taken
    }

    fn len(&self) -> usize {
        self.0.values().map(|group| group.len()).sum()
    }

    fn value(&self) -> Value {
        let all = self.0.values().flat_map(|group| group.iter().cloned());
        Value::Array(all.collect())
    }
}

/// What is wrong with so many targets.
pub(super) fn too_many(count: usize) -> String {
    format!("{count} targets are more than {TARGETS_MAX}")
}

fn is_same(a: &BTreeMap<String, Group>, b: &BTreeMap<String, Group>) -> bool {
    let is_same = |((a_source, a), (b_source, b)): ((&String, &Group), (&String, &Group))| {
        a_source == b_source && (Arc::ptr_eq(a, b) || a == b)
    };
    a.len() == b.len() && a.iter().zip(b).all(is_same)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::super::target::{Labels, group, tests::shown};
    use super::*;

    /// Says one thing after the other, and the last for ever.
    struct Script(Vec<Result<Found, String>>);

    impl Look for Script {
        async fn look(&mut self) -> Result<Found, String> {
            match &mut *self.0 {
                [only] => only.clone(),
                _ => self.0.remove(0),
            }
        }
    }

    fn targets(names: &[&str]) -> Group {
        let one = |name: &&str| Labels::from([("a".to_owned(), (*name).to_owned())]);
        group(names.iter().map(one).collect())
    }

    fn source(name: &str, names: &[&str]) -> (String, Result<Group, String>) {
        (name.to_owned(), Ok(targets(names)))
    }

    fn failed(name: &str) -> (String, Result<Group, String>) {
        (name.to_owned(), Err(format!("{name} is broken")))
    }

    fn text(value: &Value) -> String {
        let Value::Array(all) = value else {
            panic!("a list");
        };
        all.iter().map(shown).collect::<Vec<_>>().join(",")
    }

    /// What is told in the first `within`, each with the seconds from the start.
    async fn told(
        script: Vec<Result<Found, String>>,
        every: u64,
        stats: &Stats,
    ) -> Vec<(u64, String)> {
        let (tell, mut heard) = mpsc::channel(100);
        let begin = Instant::now();
        let every = Duration::from_secs(every);
        let apart = Duration::from_secs(5);
        let looking = refresh(Script(script), Pace { every, apart }, stats, |value| {
            let seconds = begin.elapsed().as_secs();
            let tell = tell.clone();
            async move { tell.send((seconds, text(&value))).await.is_ok() }
        });
        let within = Duration::from_secs(99);
        assert!(tokio::time::timeout(within, looking).await.is_err());
        drop(tell);
        let mut all = Vec::new();
        while let Some(one) = heard.recv().await {
            all.push(one);
        }
        all
    }

    fn stats() -> Stats {
        Stats::new("discovery.test.x", "test")
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_list_is_told_at_once_and_another_only_when_it_differs() {
        let script = vec![
            Ok(vec![source("s", &["1"])]),
            Ok(vec![source("s", &["1"])]),
            Ok(vec![source("s", &["2"])]),
        ];
        let stats = stats();
        let told = told(script, 10, &stats).await;
        assert_eq!(told, [(0, "a=1".to_owned()), (20, "a=2".to_owned())]);
        let now = stats.snapshot();
        assert_eq!((now.looks, now.updates, now.targets), (10, 2, 1));
        assert_eq!((now.failed_looks, now.problem), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_first_list_is_told_too() {
        let told = told(vec![Ok(Vec::new())], 10, &stats()).await;
        assert_eq!(told, [(0, String::new())]);
    }

    #[tokio::test(start_paused = true)]
    async fn lists_are_told_five_seconds_apart_however_often_it_is_looked() {
        let script = (0..6).map(|n| Ok(vec![source("s", &[&n.to_string()])]));
        let stats = stats();
        let first = told(script.clone().collect(), 1, &stats).await;
        let seconds: Vec<u64> = first.iter().map(|(seconds, _)| *seconds).collect();
        assert_eq!(seconds, [0, 5, 10, 15, 20, 25]);
        // Another configuration begins where this one ended.
        stats.told(1);
        let second = told(vec![Ok(vec![source("s", &["x"])])], 1, &stats).await;
        assert_eq!(second, [(5, "a=x".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_keeps_the_last_targets() {
        let script = vec![
            Ok(vec![source("s", &["1"]), source("t", &["2"])]),
            Err("no way".to_owned()),
            Ok(vec![failed("s"), source("t", &["3"])]),
            Ok(vec![failed("s"), source("t", &[])]),
            Ok(vec![source("t", &[])]),
        ];
        let stats = stats();
        let told = told(script, 10, &stats).await;
        let want = [(0, "a=1,a=2"), (20, "a=1,a=3"), (30, "a=1"), (40, "")];
        assert_eq!(told, want.map(|(seconds, text)| (seconds, text.to_owned())));
        let now = stats.snapshot();
        assert_eq!((now.failed_looks, now.sources_failed), (3, 3));
        assert_eq!((now.targets, now.problem), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_before_anything_is_known() {
        let script = vec![
            Err("no way".to_owned()),
            Ok(vec![failed("s")]),
            Ok(vec![failed("s"), source("t", &[])]),
        ];
        let stats = stats();
        assert_eq!(told(script, 10, &stats).await, [(20, String::new())]);
        let problem = stats.snapshot().problem;
        assert_eq!(problem.as_deref(), Some("s is broken"));
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_targets_keep_the_last() {
        let many = vec!["x"; TARGETS_MAX];
        let script = vec![
            Ok(vec![source("s", &["1"])]),
            Ok(vec![source("s", &many), source("t", &["1"])]),
        ];
        let stats = stats();
        assert_eq!(told(script, 30, &stats).await, [(0, "a=1".to_owned())]);
        let problem = stats.snapshot().problem.unwrap();
        assert_eq!(problem, "100001 targets are more than 100000");
        assert!(
            Groups::default()
                .take(Ok(vec![source("s", &many)]))
                .is_changed
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_is_told() {
        let pace = Pace {
            every: Duration::from_secs(1),
            apart: Duration::ZERO,
        };
        let script = Script(vec![Ok(vec![source("s", &["1"])])]);
        refresh(script, pace, &stats(), |_| async { false }).await;
    }
}
