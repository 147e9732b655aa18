//! Turns counters and gauges, read every ten seconds, into the values of the last hour.
//!
//! # Invariants
//! - All series have as many values and end at the same time: what came later begins with nothings, what
//!   is gone ends with them until an hour has passed.
//!
//! # Limits
//! - [`VALUES_MAX`] values of 8 bytes of at most [`SERIES_MAX`] series (720 KiB): three for each receiver and
//!   endpoint, two for each writer. Of more than that the first, in the order of their ids, are kept.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ingest::DURATION_BUCKETS_US;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::json::unix_seconds;
use super::meter::{Metered, Reading};
use super::reservoir::lag_seconds;
use crate::telemetry::families::float;
use crate::telemetry::metrics::Sources;

/// Time between two values.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// An hour.
pub(super) const VALUES_MAX: usize = 360;
const SERIES_MAX: usize = 256;

type Buckets = [u64; DURATION_BUCKETS_US.len() + 1];

/// What is read of something.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) reading: Reading,
    /// Of receivers: answers by how long they took.
    pub(super) durations: Buckets,
    pub(super) lag_seconds: Option<f64>,
}

#[derive(Debug)]
struct Kept {
    last: Observed,
    /// Steps since it was last there.
    gone: usize,
    series: Vec<(&'static str, VecDeque<f64>)>,
}

#[derive(Debug, Default)]
struct State {
    /// When values were last added: by the monotonic clock, and since the Unix epoch.
    last: Option<(Duration, i64)>,
    /// Values of each series.
    values: usize,
    kept: BTreeMap<Metered, Kept>,
}

/// The values of the last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    state: Mutex<State>,
}

impl History {
    /// Adds a value to each series, if it is time.
    pub(super) fn observe(&self, sources: &Sources) {
        let (now, now_ms) = (sources.clock.monotonic(), sources.clock.unix_ms());
        let mut state = self.state.lock();
        let since = state.last.map(|(at, _)| now.saturating_sub(at));
        // A tick may come a little early.
        if since.is_none_or(|since| since + Duration::from_millis(100) >= STEP) {
            state.add(all(sources), now, now_ms);
        }
    }

    /// The values of the last so many seconds.
    pub(super) fn told(&self, seconds: u64) -> Value {
        let state = self.state.lock();
        let wanted = usize::try_from(seconds.div_ceil(STEP.as_secs())).unwrap_or(VALUES_MAX);
        let count = state.values.min(wanted);
        let newest_ms = state.last.map_or(0, |(_, at)| at);
        let back = i64::try_from(count.saturating_sub(1)).unwrap_or(0) * 10_000;
        let series = state.kept.iter().flat_map(|(metered, kept)| {
            let told = |(metric, values): &(&str, VecDeque<f64>)| {
                told(metered, metric, values.iter().skip(values.len() - count))
            };
            kept.series.iter().map(told).collect::<Vec<_>>()
        });
        json!({
            "stepSeconds": STEP.as_secs(),
            "from": unix_seconds(newest_ms - back),
            "series": series.collect::<Vec<_>>(),
        })
    }
}

fn told<'v>(metered: &Metered, metric: &str, values: impl Iterator<Item = &'v f64>) -> Value {
    let (kind, id, endpoint) = match metered {
        Metered::Receiver(id) => ("receiver", id, None),
        Metered::Writer(id) => ("writer", id, None),
        Metered::Endpoint(id, name) => ("endpoint", id, Some(name)),
    };
    json!({
        "id": id,
        "kind": kind,
        "endpoint": endpoint,
        "metric": metric,
        // What is no number becomes null.
        "values": values.copied().collect::<Vec<f64>>(),
    })
}

impl State {
    fn add(&mut self, observed: BTreeMap<Metered, Observed>, now: Duration, now_ms: i64) {
        let since = self.last.map(|(at, _)| now.saturating_sub(at));
        self.last = Some((now, now_ms));
        // The process, or the machine, may have slept.
        let missed = since.map_or(0, |since| {
            let steps = (since.as_secs_f64() / STEP.as_secs_f64()).round();
            (1..VALUES_MAX)
                .take_while(|n| float(*n as u64) < steps)
                .count()
        });
        for _ in 0..missed {
            self.end_step();
        }
        let values = self.values;
        let mut free = SERIES_MAX.saturating_sub(self.series_count());
        for (metered, seen) in observed {
            let metrics = metrics_of(&metered);
            match self.kept.get_mut(&metered) {
                Some(kept) => kept.push(&seen, since.unwrap_or_default()),
                None if metrics.len() <= free => {
                    free -= metrics.len();
                    let empty = VecDeque::from(vec![f64::NAN; values]);
                    let series = metrics.iter().map(|metric| (*metric, empty.clone()));
                    let mut kept = Kept {
                        last: seen.clone(),
                        gone: 0,
                        series: series.collect(),
                    };
                    kept.push(&seen, Duration::ZERO);
                    self.kept.insert(metered, kept);
                }
                None => {}
            }
        }
        self.end_step();
    }

    fn series_count(&self) -> usize {
        self.kept.values().map(|kept| kept.series.len()).sum()
    }

    /// Gives everything without a value of this step none, and forgets what has none left.
    fn end_step(&mut self) {
        let full = self.values + 1;
        self.values = full.min(VALUES_MAX);
        for kept in self.kept.values_mut() {
            kept.gone += 1;
            for (_, values) in &mut kept.series {
                if values.len() < full {
                    values.push_back(f64::NAN);
                }
                if values.len() > VALUES_MAX {
                    values.pop_front();
                }
            }
        }
        self.kept.retain(|_, kept| kept.gone <= VALUES_MAX);
    }
}

impl Kept {
    fn push(&mut self, seen: &Observed, since: Duration) {
        let last = std::mem::replace(&mut self.last, seen.clone());
        self.gone = 0;
        let seconds = since.as_secs_f64();
        let rate = |from: u64, to: u64| match to.checked_sub(from) {
            Some(count) if seconds > 0.0 => float(count) / seconds,
            // It was replaced, and counts from 0 again.
            _ => f64::NAN,
        };
        for (metric, values) in &mut self.series {
            values.push_back(match *metric {
                "samplesPerSecond" => rate(last.reading.samples, seen.reading.samples),
                "bytesPerSecond" => rate(last.reading.bytes, seen.reading.bytes),
                "ackP50Seconds" => quantile(&last.durations, &seen.durations, 0.5),
                "ackP99Seconds" => quantile(&last.durations, &seen.durations, 0.99),
                "lagBytes" => float(seen.reading.lag_bytes),
                "lagSeconds" => seen.lag_seconds.unwrap_or(f64::NAN),
                _ => f64::NAN,
            });
        }
    }
}

const fn metrics_of(metered: &Metered) -> &'static [&'static str] {
    match metered {
        Metered::Receiver(_) => &["samplesPerSecond", "ackP50Seconds", "ackP99Seconds"],
        Metered::Writer(_) => &["samplesPerSecond", "bytesPerSecond"],
        Metered::Endpoint(..) => &["samplesPerSecond", "lagBytes", "lagSeconds"],
    }
}

/// Everything as it is now.
fn all(sources: &Sources) -> BTreeMap<Metered, Observed> {
    let readings = super::meter::all(sources).into_iter();
    let mut all: BTreeMap<_, _> = readings
        .map(|(metered, reading)| {
            let observed = Observed {
                reading,
                durations: Buckets::default(),
                lag_seconds: None,
            };
            (metered, observed)
        })
        .collect();
    for source in &sources.receivers {
        if let Some(observed) = all.get_mut(&Metered::Receiver(source.id.clone())) {
            observed.durations = source.stats.snapshot().durations;
        }
    }
    let now_ms = sources.clock.unix_ms();
    for source in &sources.endpoints {
        let name = source.position.name().to_owned();
        if let Some(observed) = all.get_mut(&Metered::Endpoint(source.id.clone(), name)) {
            let lag_bytes = observed.reading.lag_bytes;
            let now = source.stats.snapshot();
            observed.lag_seconds = lag_seconds(source, &now, lag_bytes, now_ms);
        }
    }
    all
}

/// The time that this share of what came between two readings took at most, as near as the buckets tell.
fn quantile(before: &Buckets, after: &Buckets, share: f64) -> f64 {
    let counts = before.iter().zip(after);
    let counts: Vec<u64> = counts.map(|(from, to)| to.saturating_sub(*from)).collect();
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return f64::NAN;
    }
    let wanted = float(total) * share;
    let mut below = 0.0;
    let mut from_us = 0;
    for (count, bound_us) in counts.iter().zip(DURATION_BUCKETS_US) {
        let count = float(*count);
        if below + count >= wanted {
            let part = (wanted - below) / count;
            return (float(from_us) + part * float(bound_us - from_us)) / 1e6;
        }
        below += count;
        from_us = bound_us;
    }
    // Beyond all bounds.
    float(from_us) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> Metered {
        Metered::Endpoint("w".to_owned(), name.to_owned())
    }

    fn seen(samples: u64, lag_bytes: u64) -> Observed {
        Observed {
            reading: Reading {
                samples,
                bytes: 0,
                lag_bytes,
            },
            durations: Buckets::default(),
            lag_seconds: None,
        }
    }

    /// Adds a step at this second.
    fn step(history: &History, at: u64, observed: &[(Metered, Observed)]) {
        let observed = observed.iter().cloned().collect();
        let now = Duration::from_secs(at);
        let now_ms = i64::try_from(now.as_millis()).unwrap();
        history.state.lock().add(observed, now, now_ms);
    }

    fn values(told: &Value, endpoint: &str, metric: &str) -> Value {
        let mut all = told["series"].as_array().unwrap().iter();
        let is_it = |one: &&Value| one["endpoint"] == endpoint && one["metric"] == metric;
        all.find(is_it)
            .map_or(Value::Null, |one| one["values"].clone())
    }

    #[test]
    fn what_comes_and_goes_has_nothings_where_it_was_not() {
        let history = History::default();
        step(&history, 10, &[(endpoint("a"), seen(0, 5))]);
        step(
            &history,
            20,
            &[(endpoint("a"), seen(100, 6)), (endpoint("b"), seen(7, 1))],
        );
        step(&history, 30, &[(endpoint("b"), seen(27, 2))]);
        let told = history.told(3600);
        assert_eq!(
            (&told["from"], &told["stepSeconds"]),
            (&json!(10.0), &json!(10))
        );
        assert_eq!(values(&told, "a", "lagBytes"), json!([5.0, 6.0, null]));
        assert_eq!(
            values(&told, "a", "samplesPerSecond"),
            json!([null, 10.0, null])
        );
        assert_eq!(
            values(&told, "b", "samplesPerSecond"),
            json!([null, null, 2.0])
        );
        let told = history.told(15);
        assert_eq!(
            (&told["from"], values(&told, "b", "lagBytes")),
            (&json!(20.0), json!([1.0, 2.0]))
        );
        // A pause of two steps, then it counts from 0 again.
        step(&history, 60, &[(endpoint("b"), seen(5, 2))]);
        let told = history.told(3600);
        let expected = json!([null, null, 2.0, null, null, null]);
        assert_eq!(values(&told, "b", "samplesPerSecond"), expected);
        assert_eq!(told["from"], 10.0);
    }

    #[test]
    fn an_hour_is_kept_and_what_is_gone_for_longer_is_forgotten() {
        let history = History::default();
        step(&history, 0, &[(endpoint("a"), seen(0, 1))]);
        for at in 1..=400 {
            step(&history, at * 10, &[(endpoint("b"), seen(at, at))]);
        }
        let told = history.told(3600);
        assert_eq!(values(&told, "a", "lagBytes"), Value::Null);
        let lags = values(&told, "b", "lagBytes");
        let lags = lags.as_array().unwrap();
        assert_eq!(
            (lags.len(), &lags[0], &lags[359]),
            (360, &json!(41.0), &json!(400.0))
        );
        assert_eq!(told["from"], 410.0);
        step(&history, 40_000, &[(endpoint("c"), seen(0, 0))]);
        assert_eq!(values(&history.told(3600), "b", "lagBytes"), Value::Null);
    }

    #[test]
    fn no_more_series_than_there_is_room_for() {
        let history = History::default();
        let many: Vec<_> = (0..100)
            .map(|n| (endpoint(&format!("{n:03}")), seen(0, n)))
            .collect();
        step(&history, 0, &many);
        step(&history, 10, &many);
        let told = history.told(3600);
        assert_eq!(told["series"].as_array().unwrap().len(), SERIES_MAX / 3 * 3);
        assert_eq!(values(&told, "084", "lagBytes"), json!([84.0, 84.0]));
        assert_eq!(values(&told, "085", "lagBytes"), Value::Null);
    }

    #[test]
    fn quantiles_are_those_of_the_difference() {
        let mut before = Buckets::default();
        before[3] = 1_000_000;
        let mut after = before;
        assert!(quantile(&before, &after, 0.5).is_nan());
        // 250 us to 500 us
        after[1] += 98;
        after[15] += 2;
        let half = quantile(&before, &after, 0.5);
        assert!((half - 0.000_377).abs() < 1e-6, "{half}");
        let most = quantile(&before, &after, 0.99);
        assert!((most - 30.0).abs() < 1e-9, "{most}");
    }
}
