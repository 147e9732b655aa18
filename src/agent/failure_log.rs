//! Turns scrapes that fail into lines of a file.
//!
//! A thread of its own writes them: a disk that is slow holds up no scrape.
//!
//! # Failure
//! - Lines that find the queue full are left out, and so are those the file does not take; the log says so once,
//!   and again after a line was written, with how many there were. What is in the queue when the agent ends may be
//!   lost.
//!
//! # Limits
//! - [`LINES_MAX`] lines wait. The file grows as long as scrapes fail: whoever wants it shorter rotates it with
//!   copy and truncate.
//!
//! # Threads
//! - `scrape-failures`, one for each file, as long as somebody may tell it something.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context;
use ingest::pull::{FailureLog, Target};

/// Lines that wait to be written: of a thousand targets that fail at once.
const LINES_MAX: usize = 1024;

/// A file that gets a line for each scrape that fails.
#[derive(Debug)]
pub(super) struct Failures {
    lines: SyncSender<String>,
    /// Lines left out since one was written.
    left_out: Arc<AtomicU64>,
}

impl Failures {
    pub(super) fn open(path: &str) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Self::start(file.with_context(|| format!("scrape_failure_log_file {path:?}"))?)
    }

    fn start(file: File) -> anyhow::Result<Self> {
        let (failures, lines) = Self::new();
        let left_out = failures.left_out.clone();
        std::thread::Builder::new()
            .name("scrape-failures".to_owned())
            .spawn(move || write(file, &lines, &left_out))
            .context("no thread for scrape_failure_log_file")?;
        Ok(failures)
    }

    fn new() -> (Self, Receiver<String>) {
        let (lines, receiver) = sync_channel(LINES_MAX);
        let failures = Self {
            lines,
            left_out: Arc::default(),
        };
        (failures, receiver)
    }

    /// Whether there was room for the line.
    fn tell(&self, line: String) -> bool {
        let is_told = self.lines.try_send(line).is_ok();
        if !is_told && self.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("scrape_failure_log_file is behind: lines are left out");
        }
        is_told
    }
}

impl FailureLog for Failures {
    fn failed(&self, target: &Target, time_ms: i64, error: &str) {
        let job = target.labels.iter().find(|(name, _)| name == "job");
        let line = serde_json::json!({
            "time_ms": time_ms,
            "level": "ERROR",
            "msg": error,
            "job_name": job.map(|(_, job)| job),
            "target": target.url,
        });
        self.tell(format!("{line}\n"));
    }
}

/// Writes until nobody can tell anything any more.
fn write(mut file: File, lines: &Receiver<String>, left_out: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        match file.write_all(line.as_bytes()) {
            Ok(()) => {
                let count = left_out.swap(0, Ordering::Relaxed);
                if count > 0 {
                    tracing::warn!(count, "lines of scrape_failure_log_file were left out");
                }
            }
            Err(problem) => {
                if left_out.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%problem, "scrape_failure_log_file cannot be written");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_finds_the_queue_full_is_left_out_and_counted_until_a_line_is_written() {
        let (failures, lines) = Failures::new();
        for _ in 0..LINES_MAX {
            assert!(failures.tell("x\n".to_owned()));
        }
        assert!(!failures.tell("x\n".to_owned()));
        assert!(!failures.tell("x\n".to_owned()));
        let left_out = failures.left_out.clone();
        assert_eq!(left_out.load(Ordering::Relaxed), 2);
        drop(failures);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("failures");
        write(File::create(&path).unwrap(), &lines, &left_out);
        assert_eq!(std::fs::read(path).unwrap().len(), 2 * LINES_MAX);
        assert_eq!(left_out.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_takes_nothing_holds_up_nobody_and_gets_all_that_was_told_when_it_does() {
        let (mut written, file) = std::io::pipe().unwrap();
        let failures = Failures::start(File::from(OwnedFd::from(file))).unwrap();
        let (sender, told) = sync_channel(1);
        let telling = std::thread::Builder::new().name("telling".to_owned());
        let tell = move || {
            let lines = (0..).map(|n| format!("{n:01000}\n"));
            let told: String = lines
                .take_while(|line| failures.tell(line.clone()))
                .collect();
            sender.send(told).unwrap();
        };
        let telling = telling.spawn(tell).unwrap();
        let told = told.recv_timeout(Duration::from_secs(30));
        let told = told.expect("whoever tells does not wait for the file");
        telling.join().unwrap();
        assert!(told.len() > LINES_MAX * 1000, "{}", told.len());
        // Nobody tells anything any more: the last line is followed by the end.
        let mut all = String::new();
        written.read_to_string(&mut all).unwrap();
        assert!(all == told, "{} bytes of {}", all.len(), told.len());
    }
}
