//! Turns counters, read each second, into rates and into when a backlog will be gone.
//!
//! # Limits
//! [`WINDOW`] readings are kept, of [`METERED_MAX`] receivers, stores and endpoints together: those
//! beyond have no rates.
//!
//! # Threads
//! One task reads; who asks gets a copy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use crate::telemetry::families::float;
use crate::telemetry::metrics::Sources;

/// Rates are those of the last ten seconds.
const WINDOW: usize = 11;
/// Receivers, stores and endpoints.
const METERED_MAX: usize = 1024;

/// What has numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Metered {
    Receiver(String),
    Writer(String),
    /// Of a writer, by its name.
    Endpoint(String, String),
}

/// What something has done since the agent started.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Reading {
    pub(super) samples: u64,
    /// Of the log, grown.
    pub(super) bytes: u64,
    /// Not delivered.
    pub(super) lag_bytes: u64,
}

/// What it does per second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Rate {
    pub(super) samples: f64,
    pub(super) bytes: f64,
    /// Seconds until nothing is left, if it becomes less.
    pub(super) eta_seconds: Option<f64>,
}

/// Rates of everything that is metered.
pub(super) type Rates = BTreeMap<Metered, Rate>;

type Readings = BTreeMap<Metered, VecDeque<(Duration, Reading)>>;

#[derive(Debug, Default)]
pub(super) struct Meter {
    readings: Mutex<Readings>,
}

impl Meter {
    /// Reads everything once; what is gone is forgotten.
    pub(super) fn read(&self, sources: &Sources) {
        let now = sources.clock.monotonic();
        let mut before = self.readings.lock();
        let mut readings = Readings::new();
        for (metered, reading) in all(sources).into_iter().take(METERED_MAX) {
            let mut window = before.remove(&metered).unwrap_or_default();
            if window.len() >= WINDOW {
                window.pop_front();
            }
            window.push_back((now, reading));
            readings.insert(metered, window);
        }
        *before = readings;
    }

    /// What everything does now.
    pub(super) fn rates(&self) -> Rates {
        let readings = self.readings.lock();
        let rates = readings.iter();
        rates
            .map(|(metered, window)| (metered.clone(), rate(window)))
            .collect()
    }
}

/// Everything as it is now.
pub(super) fn all(sources: &Sources) -> Vec<(Metered, Reading)> {
    let mut all = Vec::new();
    for source in &sources.receivers {
        let samples = source.stats.by_shard().map(|(_, samples)| samples).sum();
        let reading = Reading {
            samples,
            ..Reading::default()
        };
        all.push((Metered::Receiver(source.id.clone()), reading));
    }
    for source in &sources.stores {
        let reading = Reading {
            samples: source.store.stats().samples.load(Ordering::Relaxed),
            bytes: source.store.watermarks().appended.get(),
            lag_bytes: 0,
        };
        all.push((Metered::Writer(source.id.clone()), reading));
    }
    for source in &sources.endpoints {
        let reading = Reading {
            samples: source.stats.snapshot().sent.samples,
            bytes: source.position.acked().get(),
            lag_bytes: source.position.lag_bytes(),
        };
        let name = source.position.name().to_owned();
        all.push((Metered::Endpoint(source.id.clone(), name), reading));
    }
    all
}

/// From the first to the last of the readings.
fn rate(window: &VecDeque<(Duration, Reading)>) -> Rate {
    let (Some((begin, first)), Some((end, last))) = (window.front(), window.back()) else {
        return Rate::default();
    };
    let seconds = end.saturating_sub(*begin).as_secs_f64();
    if seconds <= 0.0 {
        return Rate::default();
    }
    // A component that was replaced begins again at 0.
    let per_second = |from: u64, to: u64| float(to.saturating_sub(from)) / seconds;
    // What the endpoint has acknowledged less what the log has grown.
    let shrinks = per_second(last.lag_bytes, first.lag_bytes);
    Rate {
        samples: per_second(first.samples, last.samples),
        bytes: per_second(first.bytes, last.bytes),
        eta_seconds: (shrinks > 0.0 && last.lag_bytes > 0).then(|| float(last.lag_bytes) / shrinks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(readings: &[(u64, u64, u64)]) -> VecDeque<(Duration, Reading)> {
        let reading = |&(at, samples, lag_bytes): &(u64, u64, u64)| {
            let reading = Reading {
                samples,
                bytes: samples * 10,
                lag_bytes,
            };
            (Duration::from_secs(at), reading)
        };
        readings.iter().map(reading).collect()
    }

    #[test]
    fn rates_are_those_of_the_window() {
        let rate = rate(&window(&[(5, 100, 0), (6, 900, 0), (7, 300, 0)]));
        assert_eq!(
            (rate.samples, rate.bytes, rate.eta_seconds),
            (100.0, 1000.0, None)
        );
    }

    #[test]
    fn a_backlog_ends_if_it_becomes_less() {
        let eta = |readings: &[_]| rate(&window(readings)).eta_seconds;
        // 100 a second less, 500 left.
        assert_eq!(eta(&[(0, 0, 1500), (10, 0, 500)]), Some(5.0));
        assert_eq!(eta(&[(0, 0, 500), (10, 0, 1500)]), None, "it grows");
        assert_eq!(eta(&[(0, 0, 500), (10, 0, 500)]), None, "it stands still");
        assert_eq!(eta(&[(0, 0, 500), (10, 0, 0)]), None, "it is gone");
        assert_eq!(eta(&[(0, 0, 500)]), None, "nothing to compare with");
        assert_eq!(eta(&[]), None);
    }
}
