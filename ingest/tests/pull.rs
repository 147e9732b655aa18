//! Turns lists of targets that change while they are scraped into what the log holds of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ingest::pull::{
    Assigned, Client, Clients, Defaults, FetchError, Fetched, Fetching, Get, Labels, Rules,
    ScrapeFailure, ScraperOptions, ScraperStats, Target,
};
use ingest::{Layout, Path, ReceiverOptions};
use wal::IoEngine;

use crate::common::*;

const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;
const INTERVAL: Duration = Duration::from_millis(100);

/// Bodies by the addresses of targets; one that is not there has no route.
#[derive(Clone, Default, Debug)]
struct Bodies(Arc<Mutex<BTreeMap<String, String>>>);

impl Bodies {
    fn expose(&self, address: &str, body: &str) {
        (self.0.lock().unwrap()).insert(address.to_owned(), body.to_owned());
    }
}

impl Client for Bodies {
    fn get<'g>(&'g self, get: Get<'g>) -> Fetching<'g> {
        let host = get.url.split('/').nth(2).unwrap_or_default();
        let body = self.0.lock().unwrap().get(host).cloned();
        Box::pin(async move {
            let body = body.ok_or(FetchError::Failed("no route".to_owned()))?;
            get.body.extend_from_slice(body.as_bytes());
            Ok(Fetched::default())
        })
    }
}

impl Clients for Bodies {
    fn client(&self) -> Rc<dyn Client> {
        Rc::new(self.clone())
    }
}

/// A scraper, and whatever else a running ingest has.
struct Bed {
    running: Running,
    clients: Arc<Bodies>,
    rules: Rules,
}

impl Bed {
    fn new() -> Self {
        Self {
            running: Setup::new(IoEngine::Portable).start(),
            clients: Arc::default(),
            rules: Rules::default(),
        }
    }

    /// Has these addresses scraped, by this process or by another.
    fn scrape(&self, targets: &[(&str, bool)]) {
        let defaults = Defaults {
            job: "j".to_owned(),
            interval: INTERVAL,
            timeout: INTERVAL,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: BTreeMap::new(),
        };
        let assigned = targets.iter().map(|(address, is_ours)| {
            let labels = Labels::from([("__address__".to_owned(), (*address).to_owned())]);
            Assigned {
                target: Arc::new(Target::prepare(&labels, &defaults).unwrap()),
                is_ours: *is_ours,
            }
        });
        let scraper = ScraperOptions {
            name: "scraper".to_owned(),
            paths: vec![Path::plain(0)],
            targets: assigned.collect(),
            rules: Arc::new(self.rules.clone()),
            clients: self.clients.clone(),
            failures: None,
        };
        let front = SocketAddr::from(([127, 0, 0, 1], 0));
        let front = ReceiverOptions::new("front", front, vec![0]);
        let layout = Layout {
            scrapers: vec![scraper],
            ..layout(&self.running.stores, vec![front])
        };
        let applied = self.running.shards.apply(layout).unwrap();
        assert!(applied.failed.is_empty(), "{applied:?}");
    }

    fn stats(&self) -> Arc<ScraperStats> {
        self.running.shards.scrapers()["scraper"].clone()
    }

    /// Waits for so many scrapes more.
    fn until_scraped(&self, more: u64) {
        let want = self.stats().snapshot().scrapes + more;
        while self.stats().snapshot().scrapes < want {
            std::thread::yield_now();
        }
    }

    /// The values of the series with this name, in the order of the log; `up` is of the target.
    fn values(&self, name: &str, target: &str) -> Vec<u64> {
        let pair = |name: &str, value: &str| label_bytes(&[(name, value)]);
        let (name, instance) = (pair("__name__", name), pair("instance", target));
        let has = |labels: &[u8], pair: &[u8]| labels.windows(pair.len()).any(|at| at == pair);
        let all = stored(&self.running.stores[0]).into_iter();
        let own = all.filter(|(labels, ..)| has(labels, &name) && has(labels, &instance));
        own.map(|(_, _, value)| value.to_bits()).collect()
    }

    fn until_last(&self, name: &str, target: &str, bits: u64) {
        while self.values(name, target).last() != Some(&bits) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_target_that_another_process_goes_on_with_is_not_stale() {
    let bed = Bed::new();
    bed.clients.expose("a", "m 1\n");
    bed.clients.expose("b", "m 2\n");
    bed.scrape(&[("a", true), ("b", true)]);
    bed.until_last("m", "a", 1_f64.to_bits());
    bed.scrape(&[("a", false), ("b", true)]);
    assert_eq!(bed.stats().snapshot().moved, 1);
    let then = bed.values("m", "a").len();
    // It would be over by then.
    bed.until_scraped(5);
    assert!(
        bed.values("m", "a").len() <= then + 1,
        "nobody scrapes it here"
    );
    assert!(!bed.values("m", "a").contains(&STALE_BITS));
    // It comes back without a series, which somebody else told to be stale, or not.
    bed.clients.expose("a", "n 3\n");
    bed.scrape(&[("a", true), ("b", true)]);
    bed.until_last("n", "a", 3_f64.to_bits());
    assert!(!bed.values("m", "a").contains(&STALE_BITS));
    assert_eq!(bed.stats().snapshot().moved, 2);
    bed.running.stop();
}

#[test]
fn a_target_that_is_gone_ends_with_all_its_series() {
    let bed = Bed::new();
    bed.clients.expose("a", "m 1\n");
    bed.scrape(&[("a", true)]);
    bed.until_last("m", "a", 1_f64.to_bits());
    bed.scrape(&[]);
    bed.until_last("m", "a", STALE_BITS);
    bed.until_last("up", "a", STALE_BITS);
    bed.until_last("scrape_samples_scraped", "a", STALE_BITS);
    assert_eq!(bed.stats().snapshot().stale_markers, 6);
    assert!(bed.stats().targets().is_empty());
    // Back again, it is a target like any other.
    bed.scrape(&[("a", true)]);
    bed.until_last("m", "a", 1_f64.to_bits());
    bed.running.stop();
}

#[test]
fn a_target_that_comes_back_before_its_end_goes_on() {
    let bed = Bed::new();
    bed.clients.expose("a", "m 1\nn 1\n");
    bed.scrape(&[("a", true)]);
    bed.until_last("n", "a", 1_f64.to_bits());
    bed.scrape(&[]);
    bed.clients.expose("a", "m 2\n");
    bed.scrape(&[("a", true)]);
    bed.until_last("m", "a", 2_f64.to_bits());
    // What is known of it is known still.
    bed.until_last("n", "a", STALE_BITS);
    bed.until_scraped(5);
    assert!(!bed.values("m", "a").contains(&STALE_BITS));
    bed.running.stop();
}

#[test]
fn with_more_targets_than_may_be_every_scrape_fails() {
    let mut bed = Bed::new();
    bed.rules.target_limit = 1;
    bed.clients.expose("a", "m 1\n");
    bed.clients.expose("b", "m 2\n");
    bed.scrape(&[("a", true), ("b", true), ("b", true)]);
    bed.until_last("up", "a", 0_f64.to_bits());
    bed.until_last("up", "b", 0_f64.to_bits());
    let failures = bed.stats().snapshot().failures;
    assert!(failures[ScrapeFailure::TargetLimit as usize] >= 2);
    let error = bed.stats().targets()[0].last().error.unwrap();
    assert_eq!(
        error,
        "target_limit exceeded (number of targets: 2, limit: 1)"
    );
    bed.scrape(&[("b", true), ("b", true)]);
    bed.until_last("m", "b", 2_f64.to_bits());
    assert_eq!(bed.stats().targets()[0].health(), "up");
    bed.running.stop();
}

#[test]
fn other_rules_hold_from_the_next_scrape_on_and_end_nothing() {
    let mut bed = Bed::new();
    bed.clients.expose("a", "m{job=\"own\"} 1\n");
    bed.scrape(&[("a", true)]);
    bed.until_last("m", "a", 1_f64.to_bits());
    bed.rules.sample_limit = 1;
    bed.rules.extra_metrics = true;
    bed.scrape(&[("a", true)]);
    bed.until_last("scrape_sample_limit", "a", 1_f64.to_bits());
    assert!(!bed.values("m", "a").contains(&STALE_BITS));
    bed.clients.expose("a", "m{job=\"own\"} 1\nn 1\n");
    bed.until_last("up", "a", 0_f64.to_bits());
    bed.until_last("m", "a", STALE_BITS);
    bed.running.stop();
}

#[test]
fn other_rules_hold_for_series_that_are_known() {
    let mut bed = Bed::new();
    bed.clients.expose("a", "m{job=\"own\"} 1\n");
    bed.scrape(&[("a", true)]);
    bed.until_last("m", "a", 1_f64.to_bits());
    let series = |bed: &Bed, pairs: &[(&str, &str)]| {
        let labels = label_bytes(pairs);
        let all = stored(&bed.running.stores[0]).into_iter();
        all.filter(|(own, ..)| *own == labels).count()
    };
    let kept = [
        ("__name__", "m"),
        ("exported_job", "own"),
        ("instance", "a"),
        ("job", "j"),
    ];
    let honored = [("__name__", "m"), ("instance", "a"), ("job", "own")];
    assert!(series(&bed, &kept) > 0);
    assert_eq!(series(&bed, &honored), 0);
    // The body is the same as ever.
    bed.rules.honor_labels = true;
    bed.scrape(&[("a", true)]);
    while series(&bed, &honored) == 0 {
        std::thread::yield_now();
    }
    bed.rules.labels.labels_max = 2;
    bed.scrape(&[("a", true)]);
    bed.until_last("up", "a", 0_f64.to_bits());
    let error = bed.stats().targets()[0].last().error.unwrap();
    assert!(error.starts_with("label_limit"), "{error}");
    bed.running.stop();
}

#[test]
fn what_a_log_that_is_closed_does_not_take_is_counted() {
    let bed = Bed::new();
    bed.clients.expose("a", "m 1\n");
    bed.scrape(&[("a", true)]);
    bed.until_last("m", "a", 1_f64.to_bits());
    assert_eq!(bed.stats().snapshot().dropped, 0);
    bed.running.stores[0].close();
    // A sample of its own, and five that tell how it went.
    while bed.stats().snapshot().dropped < 6 || bed.stats().targets()[0].last().error.is_none() {
        std::thread::yield_now();
    }
    bed.running.stop();
}
