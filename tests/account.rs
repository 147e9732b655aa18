//! Turns `/metrics` before and after a kill into the proof that every record is accounted for:
//! in = delivered + pending + dropped.

use crate::common::agent::Agent;
use crate::common::backend::count;
use crate::common::load::Stream;
use crate::common::sink::Sink;
use crate::common::{PATIENCE, eventually};

/// Records in, delivered, pending, and dropped for any reason, of one endpoint.
fn account(agent: &Agent, url: &str) -> [u64; 4] {
    let of = |what: &str| {
        let name = format!("penstock_endpoint_records_{what}");
        agent.metric(&name, &[("url", url)])
    };
    let reasons = wal::DropReason::ALL.map(|reason| {
        let pairs = [("url", url), ("reason", reason.as_str())];
        agent.metric("penstock_endpoint_records_dropped_total", &pairs)
    });
    [
        of("in_total"),
        of("delivered_total"),
        of("pending"),
        reasons.iter().sum(),
    ]
    .map(|records| format!("{records}").parse().unwrap())
}

fn until_account(agent: &Agent, url: &str, expected: [u64; 4]) {
    eventually(PATIENCE, || match account(agent, url) {
        now if now == expected => Ok(()),
        now => Err(format!("{now:?} becomes {expected:?}")),
    });
}

#[test]
fn every_record_is_accounted_for_across_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (well, away) = (Sink::start(), Sink::start());
    away.go_down();
    let urls = [well.url(), away.url()];
    let mut agent = Agent::start(dir.path(), &urls, &[]);
    let stream = Stream::new("only");
    let records = |requests| u64::try_from(count(&stream.samples(0..requests))).unwrap();

    stream.send(agent.port, 0..100);
    let first = records(100);
    assert!(first > 1000, "{first}");
    until_account(&agent, &urls[0], [first, first, 0, 0]);
    until_account(&agent, &urls[1], [first, 0, first, 0]);
    agent.process.kill();
    agent.restart();
    until_account(&agent, &urls[0], [first, first, 0, 0]);
    until_account(&agent, &urls[1], [first, 0, first, 0]);

    stream.send(agent.port, 100..150);
    let all = records(150);
    away.come_back();
    for url in &urls {
        until_account(&agent, url, [all, all, 0, 0]);
    }
    agent.process.kill();
    agent.restart();
    for url in &urls {
        until_account(&agent, url, [all, all, 0, 0]);
    }
}
