//! Turns a file system that is full to the last byte into the proof that the agent refuses, goes on
//! delivering, survives kills meanwhile, and resumes by itself once there is room.
//!
//! The file system is sized for the defaults: a series chunk and three or four segments of 64 MiB
//! each, which are at most 80 % of what is free.

use std::path::Path;

use crate::common::agent::{Agent, STORAGE, config_with};
use crate::common::http::{Client, Reply};
use crate::common::load::{Stream, compressed};
use crate::common::mount::{FileSystem, Needs, with_mounts};
use crate::common::sink::{Expected, Sink, expected, hash, labels};
use crate::common::{PATIENCE, eventually, now, unix_ms};
use ingest::proto::{Count, Histogram, Label, TimeSeries};

/// Another file has this much until it is removed: room for one more segment, and some.
const RESERVE_BYTES: u64 = 160 << 20;
/// Histograms of a bulky request and buckets of each: a megabyte.
const BULKY: i64 = 64;
const BUCKETS: usize = 2048;
/// Bulky requests that cannot all fit.
const BULKY_MAX: i64 = 1000;

#[test]
fn a_full_tmpfs_refuses_and_resumes() {
    let name = "full_disk::a_full_tmpfs_refuses_and_resumes";
    with_mounts(name, Needs::Memory, || {
        fill_up(|dir| FileSystem::tmpfs(dir, 500));
    });
}

#[test]
fn a_full_ext4_refuses_and_resumes() {
    let name = "full_disk::a_full_ext4_refuses_and_resumes";
    // Its own tables and journal need room too.
    with_mounts(name, Needs::LoopDevice, || {
        fill_up(|dir| FileSystem::ext4(dir, 560));
    });
}

/// Numbered requests of two kinds: small ones, and bulky ones that fill a disk.
struct Load {
    small: Stream,
    small_acked: i64,
    bulky_acked: i64,
    start_ms: i64,
}

impl Load {
    fn new() -> Self {
        Self {
            small: Stream::new("small"),
            small_acked: 0,
            bulky_acked: 0,
            start_ms: unix_ms() - 1_000_000,
        }
    }

    fn histogram(&self, number: i64) -> Histogram {
        Histogram {
            count: Some(Count::Float(1.0)),
            sum: number.to_string().parse().unwrap(),
            timestamp: self.start_ms + number,
            positive_counts: vec![1.0; BUCKETS],
            ..Histogram::default()
        }
    }

    fn bulky_labels(which: i64) -> Vec<Label> {
        let labels = [
            ("__name__", "bulky".to_owned()),
            ("which", which.to_string()),
        ];
        let labels = labels.map(|(name, value)| Label {
            name: name.to_owned(),
            value,
        });
        labels.to_vec()
    }

    fn bulky(&self, number: i64) -> Vec<u8> {
        let series = (0..BULKY).map(|which| TimeSeries {
            labels: Self::bulky_labels(which),
            histograms: vec![self.histogram(number)],
            ..TimeSeries::default()
        });
        compressed(series.collect())
    }

    /// Sends until there is no room, not even for a small request.
    fn until_refused(&mut self, agent: &Agent) {
        let mut client = Client::new(agent.port);
        while is_stored(&client.write(&self.bulky(self.bulky_acked)).unwrap()) {
            self.bulky_acked += 1;
            assert!(self.bulky_acked < BULKY_MAX, "it is never full");
        }
        while is_stored(&client.write(&self.small.request(self.small_acked)).unwrap()) {
            self.small_acked += 1;
        }
    }

    /// Sends one of each until it is stored.
    fn until_stored(&mut self, agent: &Agent) {
        for is_bulky in [false, true] {
            let request = match is_bulky {
                false => self.small.request(self.small_acked),
                true => self.bulky(self.bulky_acked),
            };
            eventually(PATIENCE, || {
                let reply = Client::new(agent.port).write(&request).unwrap();
                is_stored(&reply).then_some(()).ok_or(reply.text)
            });
            self.small_acked += i64::from(!is_bulky);
            self.bulky_acked += i64::from(is_bulky);
        }
    }

    fn acked(&self) -> Expected {
        let mut acked = expected(self.small.samples(0..self.small_acked));
        let histograms = (0..self.bulky_acked).map(|number| self.histogram(number));
        let samples: Vec<_> = histograms.map(|h| (h.timestamp, hash(&h))).collect();
        let bulky = (0..BULKY).map(|which| (labels(&Self::bulky_labels(which)), samples.clone()));
        acked.extend(bulky);
        acked
    }
}

/// Whether it was taken; if not it was for want of room, and the sender was told to come again.
fn is_stored(reply: &Reply) -> bool {
    if reply.status == 204 {
        return true;
    }
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(
        reply.head.to_ascii_lowercase().contains("retry-after: "),
        "{reply:?}"
    );
    false
}

fn is_full(agent: &Agent) -> bool {
    agent.metric("penstock_wal_out_of_space", &[]) == 1.0
}

/// Twice: at once, which is in the middle of recovery, and then for good.
fn kill_twice(agent: &mut Agent) {
    agent.process.kill();
    agent.start_again();
    agent.process.kill();
    agent.restart();
}

fn config(port: u16, sink: &Sink) -> String {
    let more = "    send_native_histograms = true\n    queue_config {\n      max_backoff = \"200ms\"\n    }\n";
    config_with(port, &[sink.url()], more)
}

fn fill_up(mount: impl FnOnce(&Path) -> FileSystem) {
    let start = now();
    let dir = tempfile::tempdir().unwrap();
    let file_system = mount(&dir.path().join(STORAGE));
    let reserve = file_system.ballast("reserve", RESERVE_BYTES);
    let sink = Sink::start();
    sink.go_down();
    let mut agent = Agent::start_with(dir.path(), &[], |port| config(port, &sink));
    let mut load = Load::new();

    load.until_refused(&agent);
    let rest = file_system.fill("rest");
    assert!(load.bulky_acked > 150, "only {} MiB", load.bulky_acked);
    println!(
        "{} MiB until full, {:.1?}",
        load.bulky_acked,
        start.elapsed()
    );
    assert!(is_full(&agent));
    kill_twice(&mut agent);
    assert!(is_full(&agent));
    load.until_refused(&agent);

    // Room, and nothing delivered yet.
    reserve.remove();
    load.until_stored(&agent);
    load.until_refused(&agent);
    let more_rest = file_system.fill("more-rest");
    kill_twice(&mut agent);
    assert!(is_full(&agent));
    assert_eq!(sink.deliveries(), 0);
    println!(
        "{} MiB and full again, {:.1?}",
        load.bulky_acked,
        start.elapsed()
    );

    // Delivered while full; that alone makes room.
    sink.come_back();
    agent.until_delivered(&sink.url());
    sink.log().assert_holds(&load.acked());
    load.until_stored(&agent);

    rest.remove();
    more_rest.remove();
    load.until_stored(&agent);
    agent.until_delivered(&sink.url());
    assert_eq!(agent.refused(&sink.url()), 0.0);
    sink.log().assert_holds(&load.acked());
    assert!(agent.process.terminate().success());
    println!("all delivered, {:.1?}", start.elapsed());
}
