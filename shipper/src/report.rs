//! Turns a stream of failures into few log lines, and into the last of them for who asks.
//!
//! # Invariants
//! - One outage is one warning at its beginning, one per minute while it lasts, and one line when
//!   it is over. Refused batches are reported at most once per minute, with how many there were.
//! - What an endpoint says is shown as far as [`EXCERPT_BYTES_MAX`], and cannot forge log lines.
//!
//! # Threads
//! - Shared by the shards of an endpoint; the lock is taken when an attempt fails, and after a
//!   success only while there is an outage to end.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;

use crate::rejected::Refusal;
use crate::stats::Stats;

/// How much of an answer is shown.
pub(crate) const EXCERPT_BYTES_MAX: usize = 1024;
/// How often something is repeated.
const EVERY: Duration = Duration::from_secs(60);

/// Lets the first of many through, and then one per minute.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    last: Option<Duration>,
    held_back: u64,
}

impl Limit {
    /// How many were held back since the last one, or `None` to hold this one back too.
    pub(crate) fn pass(&mut self, now: Duration) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.saturating_sub(last) < EVERY)
        {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[derive(Debug, Default)]
struct State {
    retries: Limit,
    rejects: Limit,
    letters: Limit,
    /// Since when attempts fail, and whether that was logged.
    outage: Option<(Duration, bool)>,
}

/// The log lines of one endpoint.
#[derive(Debug)]
pub(crate) struct Reporter {
    endpoint: String,
    url: String,
    state: Mutex<State>,
    /// Mirrors `state.outage`, so that a success in good times takes no lock.
    in_outage: AtomicBool,
    stats: Arc<Stats>,
}

impl Reporter {
    pub(crate) fn new(endpoint: &str, url: &str, stats: Arc<Stats>) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            url: url.to_owned(),
            state: Mutex::default(),
            in_outage: AtomicBool::new(false),
            stats,
        }
    }

    /// Whose lines these are.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// An attempt failed and goes again.
    pub(crate) fn retrying(&self, now: Duration, detail: &str) {
        self.stats.erred(detail, now);
        self.stats.set_failing(true);
        let mut state = self.state.lock();
        let (since, logged) = state.outage.unwrap_or((now, false));
        let passed = state.retries.pass(now);
        state.outage = Some((since, logged || passed.is_some()));
        self.in_outage.store(true, Relaxed);
        drop(state);
        if let Some(held_back) = passed {
            let failing_seconds = now.saturating_sub(since).as_secs();
            let (endpoint, url) = (&*self.endpoint, &*self.url);
            tracing::warn!(
                endpoint,
                url,
                detail,
                held_back,
                failing_seconds,
                "sending fails"
            );
        }
    }

    /// A batch was refused for good.
    /// `series` are the labels of the first series in it.
    pub(crate) fn rejected(
        &self,
        now: Duration,
        refusal: &Refusal<'_>,
        records: u64,
        series: Option<&str>,
    ) {
        let (reason, detail) = (refusal.reason, refusal.answer);
        self.stats.erred(detail, now);
        let passed = self.state.lock().rejects.pass(now);
        if let Some(held_back) = passed {
            let (endpoint, url) = (&*self.endpoint, &*self.url);
            let series = series.map(|series| excerpt(series.as_bytes()));
            tracing::error!(
                endpoint,
                url,
                reason,
                records,
                series,
                held_back,
                detail,
                "batch refused"
            );
        }
    }

    /// What was refused cannot be kept as a dead letter.
    pub(crate) fn no_letter(&self, now: Duration, error: &std::io::Error) {
        let passed = self.state.lock().letters.pass(now);
        if let Some(held_back) = passed {
            let endpoint = &*self.endpoint;
            tracing::error!(endpoint, %error, held_back, "cannot write to rejected/");
        }
    }

    /// The endpoint does not know remote write 2.0.
    pub(crate) fn fell_back(&self, answer: &str) {
        let (endpoint, url) = (&*self.endpoint, &*self.url);
        tracing::warn!(
            endpoint,
            url,
            answer,
            "the endpoint does not know remote write 2.0: it is sent 1.0 until the next start"
        );
    }

    /// The endpoint answered as it should. Returns how long it had not, if that was logged.
    pub(crate) fn succeeded(&self, now: Duration) -> Option<Duration> {
        if !self.in_outage.load(Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        let outage = state.outage.take();
        self.in_outage.store(false, Relaxed);
        drop(state);
        self.stats.set_failing(false);
        let (since, true) = outage? else { return None };
        let lasted = now.saturating_sub(since);
        let (endpoint, url) = (&*self.endpoint, &*self.url);
        tracing::info!(
            endpoint,
            url,
            outage_seconds = lasted.as_secs_f64(),
            "sending works again"
        );
        Some(lasted)
    }
}

/// The beginning of an answer as one line of text: lossy, control characters escaped.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let shown = &body[..body.len().min(EXCERPT_BYTES_MAX)];
    let mut text = String::with_capacity(shown.len());
    for character in String::from_utf8_lossy(shown).chars() {
        if character.is_control() {
            write!(text, "{}", character.escape_default()).expect("writing to a string");
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn first_passes_and_then_one_per_minute_with_the_count() {
        let mut limit = Limit::default();
        assert_eq!(limit.pass(at(5)), Some(0));
        assert_eq!(limit.pass(at(6)), None);
        assert_eq!(limit.pass(at(64)), None);
        assert_eq!(limit.pass(at(65)), Some(2));
        assert_eq!(limit.pass(at(66)), None);
    }

    #[test]
    fn recovery_is_told_once_with_the_length_of_the_outage() {
        let reporter = Reporter::new("a", "http://a/", Arc::new(Stats::new(1)));
        assert_eq!(reporter.succeeded(at(1)), None);
        reporter.retrying(at(10), "connection refused");
        reporter.retrying(at(11), "connection refused");
        assert_eq!(reporter.succeeded(at(17)), Some(at(7)));
        assert_eq!(reporter.succeeded(at(18)), None);
    }

    #[test]
    fn outage_that_was_not_told_needs_no_recovery() {
        let reporter = Reporter::new("a", "http://a/", Arc::new(Stats::new(1)));
        reporter.retrying(at(10), "503");
        assert!(reporter.succeeded(at(11)).is_some());
        reporter.retrying(at(12), "503");
        assert_eq!(reporter.succeeded(at(13)), None);
    }

    #[test]
    fn answers_cannot_forge_log_lines() {
        assert_eq!(
            excerpt(b"no\nlevel=error \x1b[2J\x00"),
            r"no\nlevel=error \u{1b}[2J\u{0}"
        );
        assert_eq!(excerpt(b"\xff!"), "\u{fffd}!");
    }

    #[test]
    fn long_answers_are_cut() {
        assert_eq!(excerpt(&[b'a'; 5000]).len(), EXCERPT_BYTES_MAX);
    }
}
