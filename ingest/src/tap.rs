//! Turns samples on their way into lines of text, for whoever wants to look while they pass.
//!
//! # Invariants
//! - While nobody listens a request pays one atomic load, a sample nothing.
//! - A listener that is slow, or gone, holds nothing up: it misses lines, and is told how many.
//!
//! # Limits
//! - [`LISTENERS_MAX`] listeners; one more is told so and gets nothing.
//! - [`LINES_MAX`] lines per request and listener, each of about [`LINE_BYTES_MAX`] bytes at most, and
//!   as many waiting as the listener asked for, up to [`CAPACITY_MAX`].
//!
//! # Threads
//! - Shared by the shards and whoever listens. One shard at a time shows what it has: with a listener a
//!   shard may wait for the lines of another's request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use wal::{RecordKind, Sample, StartedSample};

use crate::decode::labels::labels_of;

/// Listeners at a time.
const LISTENERS_MAX: usize = 8;
/// Lines of one request that a listener gets.
const LINES_MAX: usize = 100;
/// A label set may have 64 KiB, what a person reads has less.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Lines that wait for one listener.
const CAPACITY_MAX: usize = 10_000;

/// A place where samples can be looked at; a cheap handle.
#[derive(Clone, Default, Debug)]
pub struct Tap(Arc<Shared>);

#[derive(Default, Debug)]
struct Shared {
    /// How many there are.
    count: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    probability: f64,
    lines: mpsc::Sender<String>,
    left_out: u64,
}

impl Tap {
    /// Lines of what passes from now on, each sample with this probability, of which `capacity` may wait
    /// to be read. The stream ends with what the tap is on.
    #[must_use]
    pub fn subscribe(&self, probability: f64, capacity: usize) -> mpsc::Receiver<String> {
        let (sender, lines) = mpsc::channel(capacity.clamp(1, CAPACITY_MAX));
        let mut listeners = self.0.listeners.lock();
        listeners.retain(|listener| !listener.lines.is_closed());
        if listeners.len() < LISTENERS_MAX {
            listeners.push(Listener {
                probability,
                lines: sender,
                left_out: 0,
            });
        } else {
            // There is room for it.
            drop(sender.try_send(format!("{LISTENERS_MAX} others listen already")));
        }
        self.0.count.store(listeners.len(), Ordering::Relaxed);
        lines
    }

    /// Whether somebody listens.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Shows some of `count` samples: `line` writes the line of one, or says that it has none.
    #[cold]
    pub(crate) fn show(&self, count: usize, mut line: impl FnMut(usize, &mut String) -> bool) {
        let mut listeners = self.0.listeners.lock();
        for listener in &mut *listeners {
            listener.show(count, &mut line);
        }
        listeners.retain(|listener| !listener.lines.is_closed());
        self.0.count.store(listeners.len(), Ordering::Relaxed);
    }
}

impl Listener {
    fn show(&mut self, count: usize, line: &mut impl FnMut(usize, &mut String) -> bool) {
        let mut at = self.gap();
        for _ in 0..LINES_MAX {
            if at >= count {
                return;
            }
            let mut text = String::new();
            if line(at, &mut text) {
                self.send(text);
            }
            at = at.saturating_add(1).saturating_add(self.gap());
        }
        if at < count {
            self.left_out += self.expected(count - at);
        }
    }

    /// How many samples are passed over before the next that is shown.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and what is too large is no sample of the request"
    )]
    fn gap(&self) -> usize {
        let p = self.probability;
        if p >= 1.0 {
            return 0;
        }
        if p.is_nan() || p <= 0.0 {
            return usize::MAX;
        }
        // Runs of failures are distributed geometrically.
        ((1.0 - fastrand::f64()).ln() / (-p).ln_1p()) as usize
    }

    /// How many of `count` samples would have been shown, the first for certain.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate"
    )]
    fn expected(&self, count: usize) -> u64 {
        let others = count.saturating_sub(1) as f64 * self.probability.clamp(0.0, 1.0);
        1 + others.round() as u64
    }

    fn send(&mut self, text: String) {
        if self.left_out > 0 {
            let told = format!("{} lines left out", self.left_out);
            if self.lines.try_send(told).is_err() {
                self.left_out += 1;
                return;
            }
            self.left_out = 0;
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(text) {
            self.left_out += 1;
        }
    }
}

/// `{__name__="up", job="x"}`, escaped as in the exposition format; cut off where it is too long.
pub(crate) fn append_labels(out: &mut String, labels: &[u8]) {
    let end = out.len() + LINE_BYTES_MAX;
    out.push('{');
    for (number, (name, value)) in labels_of(labels).enumerate() {
        if number > 0 {
            out.push_str(", ");
        }
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_bare = name.iter().all(is_plain) && !name.first().is_some_and(u8::is_ascii_digit);
        if is_bare && !name.is_empty() {
            out.push_str(&String::from_utf8_lossy(name));
        } else {
            append_quoted(out, name, end);
        }
        out.push('=');
        append_quoted(out, value, end);
        if out.len() >= end {
            out.push_str(", ...");
            break;
        }
    }
    out.push('}');
}

fn append_quoted(out: &mut String, text: &[u8], end: usize) {
    out.push('"');
    for c in String::from_utf8_lossy(text).chars() {
        if out.len() >= end {
            out.push_str("...");
            break;
        }
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A sample of the series with these labels.
pub(crate) fn append_sample(out: &mut String, labels: &[u8], sample: &Sample) {
    append_labels(out, labels);
    out.push(' ');
    append_value(out, f64::from_bits(sample.value_bits));
    // Writing to a string cannot fail.
    write!(out, " @{}", sample.timestamp_ms).unwrap_or(());
}

/// What else a series brought; false for what has no series.
pub(crate) fn append_record(
    out: &mut String,
    labels: &[u8],
    kind: RecordKind,
    bytes: &[u8],
) -> bool {
    let what = match kind {
        RecordKind::Metadata => return false,
        RecordKind::Histogram => " histogram",
        RecordKind::Exemplar => " exemplar",
        RecordKind::StartedSample => {
            let Some(started) = StartedSample::from_bytes(bytes) else {
                return false;
            };
            append_labels(out, labels);
            out.push(' ');
            append_value(out, f64::from_bits(started.value_bits));
            write!(out, " @{}", started.timestamp_ms).unwrap_or(());
            return true;
        }
    };
    append_labels(out, labels);
    out.push_str(what);
    true
}

fn append_value(out: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        write!(out, "{value:e}").unwrap_or(());
    } else {
        write!(out, "{value}").unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use wal::SeriesRef;

    use super::*;

    fn all(lines: &mut mpsc::Receiver<String>) -> Vec<String> {
        std::iter::from_fn(|| lines.try_recv().ok()).collect()
    }

    fn show(tap: &Tap, count: usize) {
        tap.show(count, |at, out| {
            write!(out, "{at}").unwrap();
            true
        });
    }

    #[test]
    fn a_sample_is_one_line_in_the_exposition_formats_escaping() {
        let labels = labels::canonical(&[("__name__", "up"), ("a.b", "x\"y\\z\n"), ("job", "j")]);
        for (value, text) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e300, "1e300"),
            (0.0, "0"),
        ] {
            let mut out = String::new();
            let sample = Sample {
                series: SeriesRef::new(1),
                timestamp_ms: 1_700_000_000_000,
                value_bits: value.to_bits(),
            };
            append_sample(&mut out, &labels, &sample);
            let shown = r#"{__name__="up", "a.b"="x\"y\\z\n", job="j"}"#;
            assert_eq!(out, format!("{shown} {text} @1700000000000"));
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let long = "\u{e4}".repeat(60_000);
        let mut out = String::new();
        append_labels(&mut out, &labels::canonical(&[("a", &long), ("b", "c")]));
        assert!(out.len() < LINE_BYTES_MAX + 32, "{}", out.len());
        assert!(out.ends_with("...\", ...}"), "{out}");
    }

    #[test]
    fn a_tap_is_on_while_somebody_listens() {
        let tap = Tap::default();
        assert!(!tap.is_on());
        let mut first = tap.subscribe(1.0, 10);
        let never = tap.subscribe(0.0, 10);
        let odd = tap.subscribe(f64::NAN, 10);
        assert!(tap.is_on());
        show(&tap, 3);
        assert_eq!(all(&mut first), ["0", "1", "2"]);
        assert!(never.is_empty() && odd.is_empty());
        drop((first, never, odd));
        show(&tap, 3);
        assert!(!tap.is_on());
    }

    #[test]
    fn who_does_not_keep_up_is_told_how_much_it_missed() {
        let tap = Tap::default();
        let mut lines = tap.subscribe(1.0, 3);
        show(&tap, 5);
        assert_eq!(all(&mut lines), ["0", "1", "2"]);
        show(&tap, 1);
        assert_eq!(all(&mut lines), ["2 lines left out", "0"]);
        let mut lines = tap.subscribe(1.0, usize::MAX);
        show(&tap, LINES_MAX + 20);
        assert_eq!(all(&mut lines).len(), LINES_MAX);
        show(&tap, 1);
        assert_eq!(all(&mut lines), ["20 lines left out", "0"]);
    }

    #[test]
    fn samples_are_chosen_with_the_probability() {
        let tap = Tap::default();
        let mut lines = tap.subscribe(0.1, CAPACITY_MAX);
        for _ in 0..200 {
            show(&tap, 100);
        }
        // 2000 are expected; 40 is the standard deviation.
        let count = all(&mut lines).len();
        assert!((1600..2400).contains(&count), "{count}");
    }

    #[test]
    fn one_listener_too_many_is_told_so() {
        let tap = Tap::default();
        let _all: Vec<_> = (0..LISTENERS_MAX).map(|_| tap.subscribe(1.0, 1)).collect();
        let mut late = tap.subscribe(1.0, 1);
        assert_eq!(all(&mut late), ["8 others listen already"]);
        assert!(late.is_closed());
    }
}
