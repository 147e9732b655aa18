//! Turns a command into a child process that ends with the test and shows its log if that fails.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually};

/// Last lines of a log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to `NAME.log` of `dir`, after what is there.
    pub(crate) fn start(name: &str, mut command: Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut file = OpenOptions::new();
        let file = file.append(true).create(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn();
        match child {
            Ok(child) => Self { child, log },
            Err(error) => panic!("cannot start {command:?}: {error}"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its memory in bytes and its open files.
    pub(crate) fn holds(&self) -> (u64, usize) {
        let dir = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(dir.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.unwrap().trim().trim_end_matches(" kB");
        let files = fs::read_dir(dir.join("fd")).unwrap().count();
        (kib.parse::<u64>().unwrap() << 10, files)
    }

    /// SIGKILL: no chance to save anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(PATIENCE)
    }

    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        eventually(deadline, || {
            let ended = self.child.try_wait().unwrap();
            ended.ok_or_else(|| format!("{} ends", self.log.display()))
        })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it answers; `false` means that its port is taken.
    pub(crate) fn is_up(&mut self, mut answers: impl FnMut() -> bool) -> bool {
        eventually(PATIENCE, || {
            if self.has_ended() {
                let log = self.log();
                let is_taken = log.to_lowercase().contains("address already in use");
                assert!(is_taken, "ended:\n{log}");
                return Ok(false);
            }
            answers()
                .then_some(true)
                .ok_or_else(|| format!("{} answers", self.log.display()))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended, which is as good.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            println!("{} could not be waited for", self.log.display());
        }
        if std::thread::panicking() {
            let log = fs::read(&self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            println!("---- {} ends with ----\n{shown}", self.log.display());
        }
    }
}

/// A program that Debian has.
pub(crate) fn debian(binary: &str, package: &str) -> Command {
    let mut probe = Command::new(binary);
    probe.arg("--version").stdout(Stdio::null());
    if let Err(error) = probe.stderr(Stdio::null()).status() {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{binary}: {error}");
        panic!("{binary} is missing: install the Debian package {package}, as tests/run does");
    }
    Command::new(binary)
}
