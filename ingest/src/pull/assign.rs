//! Turns what scrapers are to do into what each thread does of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::options::ScraperOptions;
use super::pool::Terms;
use super::stats::{ScraperStats, TargetState};
use crate::paths::PathTo;

/// A scraper that runs.
#[derive(Debug)]
pub(crate) struct Scraping {
    pub(crate) number: u64,
    pub(crate) stats: Arc<ScraperStats>,
    pub(crate) paths: Vec<PathTo>,
    terms: Terms,
    /// Targets others scrape.
    elsewhere: Arc<HashSet<u64>>,
}

/// What a scraper goes by from now on, on one thread.
#[derive(Clone, Debug)]
pub(crate) struct ScraperChange {
    pub(crate) number: u64,
    pub(crate) stats: Arc<ScraperStats>,
    pub(crate) terms: Terms,
    /// The number of the ways, and the ways; none: they are as before.
    pub(crate) paths: Option<(u64, Vec<PathTo>)>,
    /// What this thread scrapes.
    pub(crate) targets: BTreeMap<u64, Arc<TargetState>>,
    /// What others scrape.
    pub(crate) elsewhere: Arc<HashSet<u64>>,
}

impl Scraping {
    /// The scraper that is asked for, in place of the one that was there, and the change for each thread.
    /// `numbers` are for a new scraper and for new ways.
    pub(crate) fn next(
        before: Option<&Self>,
        options: ScraperOptions,
        paths: Vec<PathTo>,
        numbers: (u64, u64),
        threads: usize,
    ) -> (Self, Vec<ScraperChange>) {
        let number = before.map_or(numbers.0, |before| before.number);
        let stats = before.map_or_else(
            || Arc::new(ScraperStats::new(options.name.clone())),
            |before| before.stats.clone(),
        );
        let are_same = |before: &Self| {
            before.paths.len() == paths.len()
                && before.paths.iter().zip(&paths).all(|(a, b)| a.is_same(b))
        };
        let has_other_paths = before.is_none_or(|before| !are_same(before));
        let mut targets: BTreeMap<u64, Arc<TargetState>> = BTreeMap::new();
        let mut elsewhere = HashSet::new();
        for assigned in &*options.targets {
            let id = assigned.target.id();
            if !assigned.is_ours {
                elsewhere.insert(id);
                continue;
            }
            let known = stats
                .target(id)
                .filter(|state| *state.target == *assigned.target);
            let state = || Arc::new(TargetState::new(assigned.target.clone()));
            targets
                .entry(id)
                .or_insert_with(|| known.unwrap_or_else(state));
        }
        if let Some(before) = before {
            let lost = elsewhere.iter().filter(|id| stats.target(**id).is_some());
            let gained = targets.keys().filter(|id| before.elsewhere.contains(id));
            stats.moved(lost.count() + gained.count());
        }
        let limit = options.rules.target_limit;
        let over_limit = (limit > 0 && targets.len() > limit).then(|| {
            let count = targets.len();
            Arc::from(format!(
                "target_limit exceeded (number of targets: {count}, limit: {limit})"
            ))
        });
        let terms = Terms {
            accept: options.rules.accept().into(),
            rules: options.rules,
            clients: options.clients,
            failures: options.failures,
            over_limit,
        };
        stats.keep_targets(targets.clone());
        let scraping = Self {
            number,
            stats,
            paths,
            terms,
            elsewhere: Arc::new(elsewhere),
        };
        let mut changes: Vec<ScraperChange> = (0..threads)
            .map(|_| ScraperChange {
                number,
                stats: scraping.stats.clone(),
                terms: scraping.terms.clone(),
                paths: has_other_paths.then(|| (numbers.1, scraping.paths.clone())),
                targets: BTreeMap::new(),
                elsewhere: scraping.elsewhere.clone(),
            })
            .collect();
        for (id, state) in targets {
            let thread = usize::try_from(id % threads.max(1) as u64).unwrap_or(0);
            if let Some(change) = changes.get_mut(thread) {
                change.targets.insert(id, state);
            }
        }
        (scraping, changes)
    }
}
