//! Turns the targets of one scraper into tasks of a thread, one each, that scrape them when it is time.
//!
//! # Invariants
//! - A target is scraped by one task at a time: what another one needs of it, its memory, goes with it.
//! - A target that goes gets its stale markers after two more of its intervals and a tenth, with the time of
//!   the first: whoever scrapes it by then has newer samples. If it comes back before, or if another process
//!   goes on with it, or this one ends, there are none.
//!
//! # Failure
//! - A scrape that fails is told by `up` 0, by stale markers, by a counter with the reason, and by the state of
//!   the target. The next comes when it is time.
//! - A log that takes nothing: what was scraped is counted as dropped. A target cannot be asked for the past.
//!
//! # Limits
//! - One request at a time for each target; its body is bounded.
//!
//! # Threads
//! - Everything here belongs to one `scrape-N` thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use wal::{Position, SharedClock};

use super::families::Families;
use super::fetch::{Client, Clients, FailureLog, FetchError, Fetched, Get};
use super::gzip::{Gunzip, Refused};
use super::options::Rules;
use super::schedule::{Aligned, first};
use super::scrape::{Ended, Memory, Scrape, Scratch};
use super::stats::{LastScrape, ScrapeFailure, ScraperStats, TargetState};
use super::target::Target;
use crate::append::{Appender, Context, Failure, Line, Route};
use crate::decode::exposition::Format;
use crate::paths::Paths;

/// Most buffers that are kept for bodies, and how large each may be.
const SPARE_BUFFERS_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 8 << 20;

/// How often it is looked whether a log that is behind its device has caught up.
const BEHIND_PAUSE: Duration = Duration::from_millis(10);

/// What the scrapers of one thread share.
#[derive(Debug)]
pub(crate) struct Puller {
    clock: SharedClock,
    /// What this host adds to the times of scrapes.
    seed: u64,
    line: RefCell<Line>,
    scratch: RefCell<Scratch>,
    gunzip: RefCell<Gunzip>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

impl Puller {
    pub(crate) fn new(clock: SharedClock, seed: u64) -> Self {
        Self {
            clock,
            seed,
            line: RefCell::default(),
            scratch: RefCell::default(),
            gunzip: RefCell::default(),
            buffers: RefCell::default(),
        }
    }

    /// A buffer with whatever was in it.
    fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.buffers.borrow_mut();
        if spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            spare.push(buffer);
        }
    }
}

/// What becomes of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Stays,
    /// Nobody scrapes it any more.
    Gone,
    /// Somebody else goes on with it.
    Moved,
}

/// A target that is scraped, or that was and waits for its end.
#[derive(Debug)]
struct Running {
    fate: watch::Sender<Fate>,
    memory: Rc<RefCell<Memory>>,
    state: Arc<TargetState>,
}

/// What a scraper goes by.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) rules: Arc<Rules>,
    /// The `Accept` header.
    pub(crate) accept: Arc<str>,
    pub(crate) clients: Arc<dyn Clients>,
    pub(crate) failures: Option<Arc<dyn FailureLog>>,
    /// Why no target is scraped, if there are too many.
    pub(crate) over_limit: Option<Arc<str>>,
}

/// One scraper on one thread.
#[derive(Debug)]
pub(crate) struct Scraper {
    pub(crate) stats: Arc<ScraperStats>,
    puller: Rc<Puller>,
    terms: RefCell<Terms>,
    client: RefCell<Rc<dyn Client>>,
    line: RefCell<(Paths, Route)>,
    families: RefCell<Families>,
    running: RefCell<BTreeMap<u64, Running>>,
    /// Whether the log took nothing the last time.
    is_dropping: Cell<bool>,
}

impl Scraper {
    pub(crate) fn new(
        stats: Arc<ScraperStats>,
        puller: Rc<Puller>,
        terms: Terms,
        paths: Paths,
    ) -> Rc<Self> {
        Rc::new(Self {
            stats,
            puller,
            client: RefCell::new(terms.clients.client()),
            terms: RefCell::new(terms),
            line: RefCell::new((paths, Route::default())),
            families: RefCell::default(),
            running: RefCell::default(),
            is_dropping: Cell::default(),
        })
    }

    /// Goes on like this, and other ways if there are any.
    pub(crate) fn change(&self, terms: Terms, paths: Option<Paths>) {
        let (clients, rules) = (terms.clients.clone(), terms.rules.clone());
        let before = self.terms.replace(terms);
        if !Arc::ptr_eq(&before.clients, &clients) {
            self.client.replace(clients.client());
        }
        if before.rules != rules {
            // What is known of bodies was found out by the rules before.
            for one in self.running.borrow().values() {
                one.memory.borrow_mut().parse_again();
            }
        }
        if let Some(paths) = paths {
            self.line.replace((paths, Route::default()));
            self.families.borrow_mut().write_again();
        }
    }

    /// Scrapes these targets from now on. Of those that are not among them `moved` says whether somebody else
    /// goes on.
    pub(crate) fn assign(
        self: &Rc<Self>,
        targets: &BTreeMap<u64, Arc<TargetState>>,
        moved: impl Fn(u64) -> bool,
    ) {
        let mut running = self.running.borrow_mut();
        running.retain(|id, one| {
            if targets.contains_key(id) {
                return true;
            }
            let has_moved = moved(*id);
            let fate = if has_moved { Fate::Moved } else { Fate::Gone };
            one.fate
                .send_if_modified(|now| std::mem::replace(now, fate) != fate);
            // What is known of one that moved is soon not so any more. One that is gone may come back.
            !has_moved
        });
        for (id, state) in targets {
            let before = running.remove(id);
            if let Some(one) = before {
                let is_same = Arc::ptr_eq(&one.state, state);
                if is_same && *one.fate.borrow() == Fate::Stays {
                    running.insert(*id, one);
                    continue;
                }
                // Its task ends; another one goes on with what it knows.
                one.fate.send_replace(Fate::Moved);
                running.insert(*id, self.start(*id, state.clone(), one.memory));
            } else {
                running.insert(*id, self.start(*id, state.clone(), Rc::default()));
            }
        }
    }

    fn start(
        self: &Rc<Self>,
        id: u64,
        state: Arc<TargetState>,
        memory: Rc<RefCell<Memory>>,
    ) -> Running {
        let (fate, fated) = watch::channel(Fate::Stays);
        let task = Task {
            scraper: self.clone(),
            id,
            target: state.target.clone(),
            state: state.clone(),
            memory: memory.clone(),
            fate: fated,
        };
        tokio::task::spawn_local(task.run());
        Running {
            fate,
            memory,
            state,
        }
    }

    /// Writes the stale markers of every target that is left at once, for nobody will.
    ///
    /// Then it leads nowhere: what still waits for an answer does not hold up the logs.
    pub(crate) fn end(&self, is_leaving: bool) {
        let running = std::mem::take(&mut *self.running.borrow_mut());
        let time_ms = self.puller.clock.unix_ms();
        for one in running.into_values() {
            let was = *one.fate.borrow();
            one.fate.send_replace(Fate::Moved);
            if is_leaving && was != Fate::Moved {
                self.append_end(&one.state.target, &one.memory, time_ms);
            }
        }
        self.line
            .replace((Paths::new(0, &[], &[]), Route::default()));
    }

    async fn scrape(&self, target: &Target, memory: &RefCell<Memory>, time_ms: i64) -> LastScrape {
        let terms = self.terms.borrow().clone();
        let started = self.puller.clock.monotonic();
        let (mut raw, mut text) = (self.puller.buffer(), self.puller.buffer());
        raw.clear();
        let fetched = self.fetch(target, &terms, (&mut raw, &mut text)).await;
        self.until_caught_up(target.timeout).await;
        let now = self.puller.clock.monotonic();
        let body_bytes = match &fetched {
            Ok((body, _)) => Some(body.len()),
            Err((ScrapeFailure::BodySizeLimit, _)) => None,
            Err(_) => Some(0),
        };
        let ended = self.append(target, memory, |line, memory, scratch, families| {
            let mut scrape = Scrape::new(
                fetched.as_ref().map_err(|(_, why)| why.clone()).copied(),
                &terms.rules,
                target,
                (time_ms, now),
                (memory, scratch, families),
            );
            scrape.report.took = now.saturating_sub(started);
            scrape.report.body_bytes = body_bytes;
            let is_appended = line(&mut scrape);
            scrape.ended(is_appended)
        });
        let failure = match &fetched {
            Err((failure, _)) => Some(*failure),
            Ok(_) => ended.failure(),
        };
        if let Some(failure) = failure {
            self.stats.failed(failure);
        }
        self.stats.scraped(ended.counts, body_bytes.unwrap_or(0));
        let took = self.puller.clock.monotonic().saturating_sub(started);
        if let (Some(failures), Some(error)) = (&terms.failures, &ended.error) {
            failures.failed(target, time_ms, error);
        }
        // The last one is the first that is taken again: each is as large then as it is to be.
        self.puller.give_back(text);
        self.puller.give_back(raw);
        LastScrape {
            samples: ended.counts.followed + ended.counts.parsed,
            error: ended.error,
            took,
        }
    }

    /// The body, decompressed, and what it is.
    async fn fetch<'b>(
        &self,
        target: &Target,
        terms: &Terms,
        (raw, text): (&'b mut Vec<u8>, &'b mut Vec<u8>),
    ) -> Result<(&'b [u8], Format), (ScrapeFailure, String)> {
        if let Some(why) = &terms.over_limit {
            return Err((ScrapeFailure::TargetLimit, why.to_string()));
        }
        let rules = &*terms.rules;
        let limit = rules.body_bytes_max();
        let too_large = || {
            let why = format!(
                "body size limit exceeded ({} bytes)",
                limit.saturating_add(1)
            );
            (ScrapeFailure::BodySizeLimit, why)
        };
        let get = Get {
            url: &target.url,
            accept: &terms.accept,
            accept_encoding: rules.accept_encoding(),
            timeout: target.timeout,
            body_bytes_max: limit,
            body: &mut *raw,
        };
        let client = self.client.borrow().clone();
        let fetched = tokio::time::timeout(target.timeout, client.get(get)).await;
        let Fetched {
            content_type,
            is_gzip,
        } = match fetched {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(FetchError::TooLarge)) => return Err(too_large()),
            Ok(Err(FetchError::Failed(why))) => return Err((ScrapeFailure::Fetch, why)),
            Err(_) => {
                let why = format!("context deadline exceeded ({:?})", target.timeout);
                return Err((ScrapeFailure::Fetch, why));
            }
        };
        let format = rules.format(content_type.as_deref());
        let format = format.map_err(|why| (ScrapeFailure::Parse, why))?;
        if !is_gzip {
            return Ok((raw, format));
        }
        let unpacked = self.puller.gunzip.borrow_mut().decompress(raw, text, limit);
        match unpacked {
            Ok(()) => Ok((text, format)),
            Err(Refused::TooLarge) => Err(too_large()),
            Err(Refused::Malformed) => {
                Err((ScrapeFailure::Parse, "the body is not gzip".to_owned()))
            }
        }
    }

    /// Waits while the log is behind its device, as it would refuse what comes.
    async fn until_caught_up(&self, most: Duration) {
        let until = Instant::now() + most;
        while Appender::is_behind(&self.line.borrow().0) && Instant::now() < until {
            tokio::time::sleep(BEHIND_PAUSE).await;
        }
    }

    /// Writes stale markers for everything a target had.
    fn append_end(&self, target: &Target, memory: &RefCell<Memory>, time_ms: i64) {
        let terms = self.terms.borrow().clone();
        let now = self.puller.clock.monotonic();
        let ended = self.append(target, memory, |line, memory, scratch, families| {
            let mut scrape = Scrape::last(
                &terms.rules,
                target,
                (time_ms, now),
                (memory, scratch, families),
            );
            let is_appended = line(&mut scrape);
            scrape.ended(is_appended)
        });
        self.stats.ended(ended.counts);
    }

    /// Lends what appending needs. What `with` calls appends.
    fn append(
        &self,
        target: &Target,
        memory: &RefCell<Memory>,
        with: impl FnOnce(
            &mut dyn FnMut(&mut Scrape<'_>) -> bool,
            &mut Memory,
            &mut Scratch,
            &mut Families,
        ) -> Ended,
    ) -> Ended {
        let (paths, route) = &mut *self.line.borrow_mut();
        let mut memory = memory.borrow_mut();
        memory.go(paths.number);
        let tap = self.stats.tap();
        let context = Context {
            labels: self.terms.borrow().rules.labels,
            tenant: None,
            now: self.puller.clock.monotonic(),
            tap: tap.is_on().then_some(tap),
        };
        let mut line = self.puller.line.borrow_mut();
        let mut positions: Vec<Position> = Vec::new();
        let mut failure = None;
        let mut append = |scrape: &mut Scrape<'_>| {
            line.begin(&mut positions);
            let appended = line.append(scrape, context, (&mut *paths, &mut *route), &mut positions);
            failure = appended
                .err()
                .map(|failure| (failure, line.batch.samples.len()));
            line.finish();
            failure.is_none()
        };
        let (mut scratch, mut families) =
            (self.puller.scratch.borrow_mut(), self.families.borrow_mut());
        let mut ended = with(&mut append, &mut memory, &mut scratch, &mut families);
        let is_dropped = failure.is_some();
        if let Some((failure, samples)) = failure {
            self.stats.dropped(samples);
            families.write_again();
            let why = match failure {
                Failure::Log(error) => error.to_string(),
                other => format!("{other:?}"),
            };
            // Of each target at each scrape it would be: the counter says how much.
            if !self.is_dropping.get() {
                let scraper = self.stats.name();
                tracing::warn!(
                    scraper,
                    target = target.url,
                    why,
                    "what is scraped is dropped"
                );
            }
            (ended.counts.stale, ended.counts.starts) = (0, 0);
            ended.error.get_or_insert(why);
        }
        if self.is_dropping.replace(is_dropped) && !is_dropped {
            let scraper = self.stats.name();
            tracing::info!(scraper, "what is scraped is taken again");
        }
        ended
    }
}

/// The life of a target.
struct Task {
    scraper: Rc<Scraper>,
    id: u64,
    target: Arc<Target>,
    state: Arc<TargetState>,
    memory: Rc<RefCell<Memory>>,
    fate: watch::Receiver<Fate>,
}

impl Task {
    async fn run(mut self) {
        let clock = self.scraper.puller.clock.clone();
        let (unix_ms, interval) = (clock.unix_ms(), self.target.interval);
        let unix = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0));
        let place = (self.id, &*self.target.url, self.scraper.puller.seed);
        let wait = first(place, unix, interval);
        let mut ticks = tokio::time::interval_at(Instant::now() + wait, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(0);
        let mut aligned = Aligned::new(unix_ms.saturating_add(wait_ms), interval);
        loop {
            let Some(meant) = self.tick(&mut ticks, Fate::Stays).await else {
                break;
            };
            if meant.elapsed() > interval {
                self.scraper.stats.late();
            }
            let time_ms = aligned.time(clock.unix_ms());
            let last = self
                .scraper
                .scrape(&self.target, &self.memory, time_ms)
                .await;
            // Somebody else may have gone on with it meanwhile.
            if *self.fate.borrow() != Fate::Moved {
                self.state.scraped(time_ms, last);
            }
        }
        if self.ends(&mut ticks).await {
            self.scraper.running.borrow_mut().remove(&self.id);
        }
    }

    /// The next moment of the interval; none if it has another fate before.
    async fn tick(&mut self, ticks: &mut Interval, fate: Fate) -> Option<Instant> {
        tokio::select! {
            biased;
            // An error means that the scraper is gone.
            _ = self.fate.wait_for(|now| *now != fate) => None,
            meant = ticks.tick() => Some(meant),
        }
    }

    /// Writes the stale markers of a target that is gone, when it is time; whether it still was by then.
    async fn ends(&mut self, ticks: &mut Interval) -> bool {
        if *self.fate.borrow() != Fate::Gone || self.tick(ticks, Fate::Gone).await.is_none() {
            return false;
        }
        let time_ms = self.scraper.puller.clock.unix_ms();
        if self.tick(ticks, Fate::Gone).await.is_none() {
            return false;
        }
        tokio::select! {
            biased;
            _ = self.fate.wait_for(|now| *now != Fate::Gone) => return false,
            () = tokio::time::sleep(self.target.interval / 10) => {}
        }
        self.scraper.append_end(&self.target, &self.memory, time_ms);
        true
    }
}
