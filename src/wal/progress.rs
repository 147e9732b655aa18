//! Turns how much is done into a line on stderr, if that is a terminal.
//!
//! A line of our own rather than `indicatif`, which draws from a thread and wants a total.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use wal::{SharedClock, SystemClock};

/// The line is written at most this often.
const INTERVAL: Duration = Duration::from_millis(200);

/// A line that is written over and over.
#[derive(Debug)]
pub(super) struct Progress {
    clock: SharedClock,
    start: Duration,
    last: Option<Duration>,
    is_shown: bool,
}

impl Progress {
    pub(super) fn begin() -> Self {
        let clock = SystemClock::shared();
        Self {
            start: clock.monotonic(),
            last: None,
            is_shown: std::io::stderr().is_terminal(),
            clock,
        }
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.monotonic() - self.start
    }

    /// Shows a line, unless one was shown a moment ago.
    pub(super) fn show(&mut self, line: impl FnOnce() -> String) {
        if !self.is_shown {
            return;
        }
        let now = self.clock.monotonic();
        if self.last.is_none_or(|last| now - last >= INTERVAL) {
            self.last = Some(now);
            self.write(&line());
        }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) {
        self.end();
        drop(writeln!(std::io::stderr(), "{text}"));
    }

    /// Clears the line.
    pub(super) fn end(&mut self) {
        if self.last.take().is_some() {
            self.write("");
        }
    }

    fn write(&self, line: &str) {
        // Nobody is to be told when the terminal is gone.
        drop(write!(std::io::stderr(), "\r\x1b[K{line}"));
    }
}
