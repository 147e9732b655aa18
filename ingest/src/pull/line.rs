//! Turns bodies into positions without a target that sends them: one target's scrapes, for benches and tests.

use std::time::Duration;

use wal::{Position, Store};

use super::families::Families;
use super::options::Rules;
use super::scrape::{Counts, Ended, Memory, Scrape, Scratch};
use super::target::Target;
use crate::append::{Context, Failure, Line, Route};
use crate::decode::exposition::Format;
use crate::line::paths_to;
use crate::options::Path;
use crate::paths::Paths;

/// The scrapes of one target, without the target.
#[doc(hidden)]
#[derive(Debug)]
pub struct ScrapeLine {
    line: Line,
    scratch: Scratch,
    families: Families,
    memory: Memory,
    paths: Paths,
    route: Route,
    positions: Vec<Position>,
    target: Target,
    /// How bodies are read from now on.
    pub rules: Rules,
    now: Duration,
}

/// What came of a scrape.
#[doc(hidden)]
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scraped {
    /// Samples taken without a parse.
    pub followed: usize,
    /// Samples parsed.
    pub parsed: usize,
    /// Samples left out beside another of their series.
    pub duplicates: usize,
    /// Stale markers.
    pub stale: usize,
    /// Samples of 0 where a metric began to count.
    pub starts: usize,
    /// Why it failed.
    pub error: Option<String>,
}

#[doc(hidden)]
impl ScrapeLine {
    /// Of this target, to these stores.
    ///
    /// # Errors
    /// A store has no more writers.
    pub fn new(
        stores: &[Store],
        paths: &[Path],
        target: Target,
        rules: Rules,
    ) -> Result<Self, wal::Error> {
        Ok(Self {
            line: Line::default(),
            scratch: Scratch::default(),
            families: Families::default(),
            memory: Memory::default(),
            paths: paths_to(stores, paths)?,
            route: Route::default(),
            positions: Vec::new(),
            target,
            rules,
            now: Duration::ZERO,
        })
    }

    /// One scrape: a body, or why there is none.
    ///
    /// # Errors
    /// It could not be appended.
    pub fn scrape(
        &mut self,
        body: Result<(&[u8], Format), String>,
        time_ms: i64,
    ) -> Result<Scraped, String> {
        self.go(Some(body), time_ms)
    }

    /// The target is gone.
    ///
    /// # Errors
    /// Its end could not be appended.
    pub fn end(&mut self, time_ms: i64) -> Result<Scraped, String> {
        self.go(None, time_ms)
    }

    /// Other rules from now on.
    pub fn change(&mut self, rules: Rules) {
        if self.rules != rules {
            self.memory.parse_again();
        }
        self.rules = rules;
    }

    /// Forgets the bodies it saw; the series stay known.
    pub fn forget(&mut self) {
        self.memory = Memory::default();
    }

    /// What the last scrape became part of, one for each way.
    #[must_use]
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    fn go(
        &mut self,
        body: Option<Result<(&[u8], Format), String>>,
        time_ms: i64,
    ) -> Result<Scraped, String> {
        self.memory.go(self.paths.number);
        let with = (&mut self.memory, &mut self.scratch, &mut self.families);
        let times = (time_ms, self.now);
        let mut scrape = match body {
            Some(body) => Scrape::new(body, &self.rules, &self.target, times, with),
            None => Scrape::last(&self.rules, &self.target, times, with),
        };
        let context = Context {
            labels: self.rules.labels,
            ..Context::default()
        };
        let ways = (&mut self.paths, &mut self.route);
        self.line.begin(&mut self.positions);
        let appended = self
            .line
            .append(&mut scrape, context, ways, &mut self.positions);
        self.line.finish();
        let Ended { counts, error } = scrape.ended(appended.is_ok());
        appended.map_err(|failure| match failure {
            Failure::Log(error) => error.to_string(),
            other => format!("{other:?}"),
        })?;
        let Counts {
            followed,
            parsed,
            duplicates,
            stale,
            starts,
            ..
        } = counts;
        Ok(Scraped {
            followed,
            parsed,
            duplicates,
            stale,
            starts,
            error,
        })
    }
}
