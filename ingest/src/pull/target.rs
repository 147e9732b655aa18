//! Turns the labels of a target, as discovery found them, into what is scraped: where, how often, as what.
//!
//! # Invariants
//! - The labels of a target are sorted, none of them begins with `__`, and `job` and `instance` are among them.
//! - Two targets with the same [`Target::id`] have the same labels and the same URL.
//!
//! Which labels stand for what, the defaults, and the order of things are those of Prometheus
//! (`scrape/target.go`).

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::time::Duration;

use twox_hash::XxHash64;

use super::duration::parse_duration;

/// Labels of targets, as they are given.
pub type Labels = BTreeMap<String, String>;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const SCRAPE_INTERVAL: &str = "__scrape_interval__";
const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
const PARAM: &str = "__param_";
const META: &str = "__meta_";

/// What holds for targets whose labels do not say otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Defaults {
    /// The `job` label.
    pub job: String,
    /// Time between scrapes.
    pub interval: Duration,
    /// Most time a scrape may take; not more than the interval.
    pub timeout: Duration,
    /// Path of the URL.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The query of the URL.
    pub params: BTreeMap<String, Vec<String>>,
}

/// A target that can be scraped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its labels, for every sample of it.
    pub labels: Vec<(String, String)>,
    /// What is asked for.
    pub url: String,
    /// Its address as it was given.
    pub address: String,
    /// Time between scrapes.
    pub interval: Duration,
    /// Most time a scrape may take.
    pub timeout: Duration,
    /// What a cluster decides by who scrapes it.
    pub key: u64,
}

impl Target {
    /// # Errors
    /// Why it cannot be scraped.
    pub fn prepare(given: &Labels, defaults: &Defaults) -> Result<Self, String> {
        let of = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
        let or = |name: &str, default: &str| match of(name) {
            "" => default.to_owned(),
            given => given.to_owned(),
        };
        let address = of(ADDRESS);
        if address.is_empty() {
            return Err("no address".to_owned());
        }
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        let time = |name: &str, default: Duration| match of(name) {
            "" => Ok(default),
            text => parse_duration(text).ok_or(format!("{name} {text:?} is not a duration")),
        };
        let interval = time(SCRAPE_INTERVAL, defaults.interval)?;
        let timeout = time(SCRAPE_TIMEOUT, defaults.timeout)?;
        if interval.is_zero() || timeout.is_zero() {
            return Err("scrape interval and timeout cannot be 0".to_owned());
        }
        if timeout > interval {
            return Err(format!(
                "scrape timeout cannot be greater than scrape interval ({timeout:?} > {interval:?})"
            ));
        }
        let path = or(METRICS_PATH, &defaults.metrics_path);
        let scheme = or(SCHEME, &defaults.scheme);
        let mut url = format!("{scheme}://{address}");
        if !path.starts_with('/') {
            url.push('/');
        }
        url.push_str(&path);
        let query = query(given, defaults);
        if !query.is_empty() {
            url.push(if path.contains('?') { '&' } else { '?' });
            url.push_str(&query);
        }
        let mut labels: Labels = (given.iter())
            .filter(|(name, value)| !name.starts_with("__") && !value.is_empty())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        (labels.entry("job".to_owned())).or_insert_with(|| defaults.job.clone());
        (labels.entry("instance".to_owned())).or_insert_with(|| address.to_owned());
        Ok(Self {
            labels: labels.into_iter().collect(),
            url,
            address: address.to_owned(),
            interval,
            timeout,
            key: key(given),
        })
    }

    /// Tells targets apart: what is sampled as what.
    #[must_use]
    pub fn id(&self) -> u64 {
        let mut hash = XxHash64::with_seed(0);
        for (name, value) in &self.labels {
            add(&mut hash, name, value);
        }
        hash.write(self.url.as_bytes());
        hash.finish()
    }
}

/// Name and value of a label, each with an end.
fn add(hash: &mut XxHash64, name: &str, value: &str) {
    hash.write(name.as_bytes());
    hash.write(b"\xff");
    hash.write(value.as_bytes());
    hash.write(b"\xff");
}

/// XXH64 (seed 0) of the labels that are not `__meta_`, each name and value followed by 0xFF: what other agents
/// of the same cluster compute too.
fn key(given: &Labels) -> u64 {
    let mut hash = XxHash64::with_seed(0);
    for (name, value) in given {
        if !name.starts_with(META) {
            add(&mut hash, name, value);
        }
    }
    hash.finish()
}

/// The query: the parameters in the order of their names; a label gives the first value of its parameter.
fn query(given: &Labels, defaults: &Defaults) -> String {
    let mut params = defaults.params.clone();
    for (name, value) in given {
        if let Some(name) = name.strip_prefix(PARAM) {
            let values = params.entry(name.to_owned()).or_default();
            match values.first_mut() {
                Some(first) => first.clone_from(value),
                None => values.push(value.clone()),
            }
        }
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, values) in &params {
        for value in values {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            job: "prometheus.scrape.x".to_owned(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: BTreeMap::from([("b".to_owned(), vec!["1 2".to_owned(), "3".to_owned()])]),
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn prepare(pairs: &[(&str, &str)]) -> Result<Target, String> {
        Target::prepare(&labels(pairs), &defaults())
    }

    #[test]
    fn what_labels_do_not_say_is_as_by_default() {
        let target = prepare(&[("__address__", "h:9100"), ("zone", "a"), ("__meta_x", "y")]);
        let target = target.unwrap();
        assert_eq!(target.url, "http://h:9100/metrics?b=1+2&b=3");
        let want = [
            ("instance", "h:9100"),
            ("job", "prometheus.scrape.x"),
            ("zone", "a"),
        ];
        let want = want.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(target.labels, want);
        assert_eq!(target.interval, Duration::from_secs(60));
    }

    #[test]
    fn labels_say_where_and_how_often() {
        let target = prepare(&[
            ("__address__", "h"),
            ("__scheme__", "https"),
            ("__metrics_path__", "probe"),
            ("__param_b", "x"),
            ("__param_a", "&"),
            ("__scrape_interval__", "1m30s"),
            ("__scrape_timeout__", "500ms"),
            ("instance", "other"),
            ("job", "j"),
        ])
        .unwrap();
        assert_eq!(target.url, "https://h/probe?a=%26&b=x&b=3");
        assert_eq!(target.interval, Duration::from_secs(90));
        assert_eq!(target.timeout, Duration::from_millis(500));
        assert_eq!(target.labels[0].1, "other");
    }

    #[test]
    fn what_cannot_be_scraped_is_told() {
        for (pairs, want) in [
            (&[("job", "x")][..], "no address"),
            (&[("__address__", "h/x")], "not a valid hostname"),
            (
                &[("__address__", "h"), ("__scrape_interval__", "1x")],
                "__scrape_interval__ \"1x\" is not a duration",
            ),
            (
                &[("__address__", "h"), ("__scrape_timeout__", "2m")],
                "cannot be greater than scrape interval",
            ),
            (
                &[("__address__", "h"), ("__scrape_timeout__", "0s")],
                "cannot be 0",
            ),
        ] {
            let message = prepare(pairs).unwrap_err();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn discovery_may_say_more_about_a_target_that_is_the_same() {
        let a = prepare(&[("__address__", "h"), ("__meta_a", "1")]).unwrap();
        let b = prepare(&[("__address__", "h"), ("__meta_a", "2")]).unwrap();
        assert_eq!((a.id(), a.key), (b.id(), b.key));
        let c = prepare(&[("__address__", "h"), ("zone", "2")]).unwrap();
        assert_ne!(a.id(), c.id());
        assert_ne!(a.key, c.key);
    }
}
