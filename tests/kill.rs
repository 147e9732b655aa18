//! Turns kills at random moments of agent and backend into the proof that nothing acknowledged is
//! lost, with senders that know what was acknowledged.
//!
//! What was not yet known to be delivered is sent again after a kill, so the backends take samples
//! that are not the newest of their series.
//!
//! The seed of a run is printed; `PENSTOCK_TEST_SEED` runs one again.

use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind, Samples, assert_same, count};
use crate::common::load::Sender;
use crate::common::scraper::Scraper;
use crate::common::{PATIENCE, eventually};

const SENDERS: [&str; 2] = ["first", "second"];
/// Requests acknowledged to each sender between two kills.
const BETWEEN_KILLS: std::ops::Range<i64> = 5..300;
/// Outages of the backend, each with kills of the agent before, while and after.
const ROUNDS: usize = 3;

#[test]
fn nothing_acked_is_lost_across_kill() {
    survive("auto");
}

#[test]
fn nothing_acked_is_lost_across_kill_with_plain_calls() {
    survive("portable");
}

fn rng() -> fastrand::Rng {
    let seed = match std::env::var("PENSTOCK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("PENSTOCK_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("PENSTOCK_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Waits until every sender has a random number of acknowledgements more.
fn let_them_send(senders: &[Sender], rng: &mut fastrand::Rng) {
    let more = rng.i64(BETWEEN_KILLS);
    let enough: Vec<i64> = senders.iter().map(|sender| sender.acked() + more).collect();
    eventually(PATIENCE, || {
        let acked: Vec<i64> = senders.iter().map(Sender::acked).collect();
        let all = acked
            .iter()
            .zip(&enough)
            .all(|(acked, enough)| acked >= enough);
        all.then_some(())
            .ok_or_else(|| format!("{acked:?} reaches {enough:?}"))
    });
}

fn survive(engine: &str) {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let kind = Kind::Prometheus;
    let mut backend = Backend::start(kind, dir.path(), "backend");
    let engine = format!("--storage.io-engine={engine}");
    let mut agent = Agent::start(dir.path(), &[backend.url()], &[&engine]);
    let senders = SENDERS.map(|name| Sender::start(agent.port, name));

    for _ in 0..ROUNDS {
        let_them_send(&senders, &mut rng);
        agent.process.kill();
        agent.restart();
        let_them_send(&senders, &mut rng);
        backend.kill();
        let_them_send(&senders, &mut rng);
        agent.process.kill();
        agent.restart();
        let_them_send(&senders, &mut rng);
        agent.process.kill();
        // And once more wherever it is in its recovery.
        agent.start_again();
        agent.process.kill();
        agent.restart();
        assert!(backend.restart(), "its port is taken");
        let_them_send(&senders, &mut rng);
    }

    let acked: Samples = senders.into_iter().flat_map(Sender::stop).collect();
    agent.until_delivered(&backend.url());
    println!("{} samples of {} series", count(&acked), acked.len());
    assert_same(&acked, &backend.samples());
}

#[test]
fn a_prometheus_agent_loses_nothing_across_kill() {
    let mut rng = rng();
    let dir = tempfile::tempdir().unwrap();
    let kind = Kind::Prometheus;
    let reference = Backend::start(kind, dir.path(), "reference");
    let mut backend = Backend::start(kind, dir.path(), "backend");
    let mut agent = Agent::start(dir.path(), &[backend.url()], &[]);
    let scraper = Scraper::start(dir.path(), &[agent.url(), reference.url()]);
    let mut scrape_some = || {
        let enough = scraper.scraped() + f64::from(rng.u32(1_000..3_000));
        eventually(PATIENCE, || match scraper.scraped() {
            scraped if scraped >= enough => Ok(()),
            scraped => Err(format!("{enough} samples are scraped, now {scraped}")),
        });
    };
    scrape_some();
    agent.process.kill();
    agent.restart();
    scrape_some();
    backend.kill();
    scrape_some();
    agent.process.kill();
    agent.restart();
    scrape_some();
    assert!(backend.restart(), "its port is taken");
    agent.process.kill();
    agent.restart();
    scraper.finish();
    agent.until_delivered(&backend.url());
    let (expected, found) = (reference.samples(), backend.samples());
    assert!(count(&expected) > 3_000, "only {}", count(&expected));
    assert_same(&expected, &found);
}
