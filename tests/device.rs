//! Turns storage that goes away under a running agent, for a while or for good, into the proof that
//! senders are told, that what was acknowledged is delivered, and that nobody has to help afterwards.
//!
//! An ordinary `mount -o remount,ro` cannot happen to an agent: the kernel refuses it while files are
//! open for writing. What can happen is that the file system finds an error and turns itself
//! read-only, which ends with a repair, or that the device refuses writes for a while.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::agent::{Agent, STORAGE, config_with};
use crate::common::http::Client;
use crate::common::load::Stream;
use crate::common::mount::{FileSystem, Needs, with_mounts};
use crate::common::sink::{Sink, expected};
use crate::common::{PATIENCE, eventually};

/// How soon senders are refused.
const PROMPT: Duration = Duration::from_secs(2);
const EXT4_MIB: u64 = 560;

/// An agent, what it ships to, and what it has acknowledged.
struct Line {
    agent: Agent,
    sink: Sink,
    stream: Stream,
    acked: i64,
    /// Whether the last request was refused.
    refused: bool,
}

impl Line {
    fn start(dir: &Path) -> Self {
        let sink = Sink::start();
        let more = "    queue_config {\n      max_backoff = \"200ms\"\n    }\n";
        let config = |port| config_with(port, &[sink.url()], more);
        let agent = Agent::start_with(dir, &[], config);
        let stream = Stream::new("only");
        Self {
            agent,
            sink,
            stream,
            acked: 0,
            refused: false,
        }
    }

    /// Whether the next request was acknowledged; if not it was refused with 503.
    fn send(&mut self) -> Result<(), String> {
        let request = self.stream.request(self.acked);
        let reply = Client::new(self.agent.port)
            .write(&request)
            .map_err(|e| e.to_string())?;
        self.refused = reply.status != 204;
        if !self.refused {
            self.acked += 1;
            return Ok(());
        }
        assert_eq!(reply.status, 503, "{reply:?}");
        Err(reply.text)
    }

    fn send_some(&mut self) {
        for _ in 0..100 {
            self.send().unwrap();
        }
    }

    /// Sends until senders are refused, which is to be soon.
    fn until_refused(&mut self) {
        eventually(PROMPT, || match self.send() {
            Ok(()) => Err("senders are still acknowledged".to_owned()),
            Err(_) => Ok(()),
        });
        assert!(
            !self.agent.process.has_ended(),
            "{}",
            self.agent.process.log()
        );
    }

    /// Without a restart.
    fn until_resumed(&mut self) {
        eventually(PATIENCE, || self.send());
        self.send_some();
    }

    fn assert_delivered(&self) {
        self.agent.until_delivered(&self.sink.url());
        assert_eq!(self.agent.refused(&self.sink.url()), 0.0);
        let acked = expected(self.stream.samples(0..self.acked));
        // The request after those, if it was refused, may have been on its way to the device.
        let sent = expected(self.stream.samples(0..=self.acked));
        let sent = if self.refused { sent } else { acked.clone() };
        self.sink.log().assert_holds_between(&acked, &sent);
    }

    /// Fails unless the log has an error that names `what`.
    fn assert_error_names(&self, what: &Path) {
        let (log, what) = (self.agent.process.log(), what.display().to_string());
        let mut errors = log.lines().filter(|line| line.contains("level=error"));
        assert!(
            errors.any(|line| line.contains(&what)),
            "no error names {what}:\n{log}"
        );
    }
}

#[test]
fn a_device_that_refuses_writes_for_a_while_is_survived() {
    let name = "device::a_device_that_refuses_writes_for_a_while_is_survived";
    with_mounts(name, Needs::LoopDevice, || {
        let dir = tempfile::tempdir().unwrap();
        let file_system = FileSystem::ext4(&dir.path().join(STORAGE), EXT4_MIB);
        let mut line = Line::start(dir.path());
        let storage = line.agent.storage();
        line.sink.go_down();
        line.send_some();
        file_system.set_immutable(&storage, true);
        line.until_refused();
        line.assert_error_names(&storage);
        line.sink.come_back();
        line.assert_delivered();
        file_system.set_immutable(&storage, false);
        line.until_resumed();
        line.assert_delivered();
        // What was written meanwhile is not in the way of a recovery.
        line.agent.process.kill();
        line.agent.restart();
        line.until_resumed();
        line.assert_delivered();
    });
}

#[test]
fn a_file_system_that_turns_read_only_is_drained_and_used_again_after_its_repair() {
    let name =
        "device::a_file_system_that_turns_read_only_is_drained_and_used_again_after_its_repair";
    with_mounts(name, Needs::LoopDevice, || {
        let dir = tempfile::tempdir().unwrap();
        let file_system = FileSystem::ext4(&dir.path().join(STORAGE), EXT4_MIB);
        let mut line = Line::start(dir.path());
        line.sink.go_down();
        line.send_some();
        file_system.break_down();
        line.until_refused();
        line.assert_error_names(&line.agent.storage());
        line.sink.come_back();
        line.assert_delivered();
        line.agent.process.terminate();
        file_system.repair();
        line.agent.restart();
        line.until_resumed();
        line.assert_delivered();
    });
}

#[test]
fn a_storage_directory_that_is_renamed_away_and_back_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let mut line = Line::start(dir.path());
    let (storage, away) = (line.agent.storage(), dir.path().join("away"));
    line.sink.go_down();
    line.send_some();
    fs::rename(&storage, &away).unwrap();
    line.until_refused();
    line.assert_error_names(&storage);
    line.sink.come_back();
    line.assert_delivered();
    fs::rename(&away, &storage).unwrap();
    line.until_resumed();
    line.assert_delivered();
    line.agent.process.kill();
    line.agent.restart();
    line.until_resumed();
    line.assert_delivered();
}

#[test]
fn a_series_file_that_cannot_be_read_ends_the_process_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut line = Line::start(dir.path());
    line.send_some();
    line.assert_delivered();
    let store = line.agent.storage().join("prometheus.remote_write.out");
    let mut chunks = fs::read_dir(store.join("series")).unwrap();
    let chunk = chunks.next().unwrap().unwrap().path();
    let before = line.agent.process.log().lines().count();
    // Behind the header, in front of the labels that known series are compared with.
    let file = fs::OpenOptions::new().write(true).open(&chunk).unwrap();
    file.set_len(4096).unwrap();
    eventually(PATIENCE, || match line.send() {
        _ if line.agent.process.has_ended() => Ok(()),
        outcome => Err(format!("{outcome:?}, and it goes on")),
    });
    assert_eq!(line.agent.process.wait(PATIENCE).code(), Some(1));
    let log = line.agent.process.log();
    let series = store.join("series").display().to_string();
    let said: Vec<&str> = log.lines().skip(before).collect();
    let named = said.iter().filter(|line| line.contains(&series)).count();
    assert_eq!(
        named, 1,
        "one line names the file or its directory: {said:#?}"
    );
    assert!(!log.contains("panicked"), "{said:#?}");

    let before = log.lines().count();
    line.agent.restart();
    let log = line.agent.process.log();
    let mut said = log.lines().skip(before);
    let reported = said.any(|line| line.contains(&series) && !line.contains("level=info"));
    assert!(reported, "the next start tells what is wrong:\n{log}");
    line.until_resumed();
    line.assert_delivered();
}
