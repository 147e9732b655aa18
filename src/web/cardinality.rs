//! Turns the series of a store into what they are made of: the metrics, labels and pairs with most.
//!
//! # Failure
//! Series that come or go during a walk may be missed; a pair whose series are gone when names are looked
//! up is left out.
//!
//! # Limits
//! One walk at a time, whoever asks; what it found is told for [`KEPT`]. Memory: [`heavy::COUNTED_MAX`] counts
//! of metrics and of pairs, [`LABELS_MAX`] label names with [`values::KEPT_MAX`] hashes each.
//! Beyond any of these the answer says that it is approximate.
//!
//! # Threads
//! A walk has a thread for blocking work and holds nothing that a receiver waits for.

mod heavy;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use wal::{SeriesRef, SeriesTable, SharedClock, Store};

use super::json::unix_seconds;
use heavy::{Heavy, Place};
use values::Values;

/// A walk costs up to a second of a core.
const KEPT: Duration = Duration::from_secs(30);
const LABELS_MAX: usize = 4096;
/// Most that an answer has of each.
pub(super) const TOP_MAX: usize = 200;
const METRIC: &[u8] = b"__name__";
/// Longer values are cut where they are shown.
const SHOWN_BYTES_MAX: usize = 1024;

/// What the walks of the last half minute found, by store.
#[derive(Debug, Default)]
pub(super) struct Walks {
    found: Mutex<BTreeMap<String, (Duration, Arc<Cardinality>)>>,
}

impl Walks {
    /// What a store has: found now, or not long ago.
    pub(super) async fn of(
        &self,
        id: &str,
        store: &Store,
        clock: &SharedClock,
    ) -> Option<Arc<Cardinality>> {
        // Held during the walk: who asks meanwhile gets what it finds.
        let mut found = self.found.lock().await;
        let now = clock.monotonic();
        found.retain(|_, (at, _)| now.saturating_sub(*at) < KEPT);
        if let Some((_, known)) = found.get(id) {
            return Some(Arc::clone(known));
        }
        let (store, taken_ms) = (store.clone(), clock.unix_ms());
        let walk = tokio::task::spawn_blocking(move || count(store.series(), taken_ms));
        let new = Arc::new(walk.await.ok()?);
        found.insert(id.to_owned(), (clock.monotonic(), Arc::clone(&new)));
        Some(new)
    }
}

/// What the series of a store are made of.
#[derive(Debug, Default)]
pub(super) struct Cardinality {
    series: u64,
    taken_ms: i64,
    /// Name and series, the most first.
    metrics: Vec<(String, u64)>,
    /// Name, values, series.
    labels: Vec<(String, u64, u64)>,
    /// Name, value, series.
    pairs: Vec<(String, String, u64)>,
    is_approximate: bool,
}

impl Cardinality {
    /// The first so many of each.
    pub(super) fn told(&self, top: usize) -> Value {
        let metrics = self.metrics.iter().take(top);
        let metrics = metrics.map(|(name, series)| json!({"name": name, "series": series}));
        let labels = self.labels.iter().take(top).map(
            |(name, values, series)| json!({"name": name, "values": values, "series": series}),
        );
        let pairs =
            self.pairs.iter().take(top).map(
                |(name, value, series)| json!({"name": name, "value": value, "series": series}),
            );
        json!({
            "series": self.series,
            "takenAt": unix_seconds(self.taken_ms),
            "metrics": metrics.collect::<Vec<_>>(),
            "labels": labels.collect::<Vec<_>>(),
            "pairs": pairs.collect::<Vec<_>>(),
            "isApproximate": self.is_approximate,
        })
    }
}

/// Counts while it walks.
#[derive(Default)]
struct Counting {
    hasher: RandomState,
    series: u64,
    metrics: Heavy,
    pairs: Heavy,
    /// By the hash of their names.
    labels: HashMap<u64, Label, values::Hashed>,
    has_left_out: bool,
    /// By the number of the label: what the last series had there, not counted yet. Neighbours have most of
    /// their labels in common.
    runs: Vec<Run>,
}

struct Label {
    name: Box<[u8]>,
    series: u64,
    values: Values,
}

/// A label that some series in a row have at the same place.
#[derive(Clone, Copy)]
struct Run {
    name: u64,
    pair: u64,
    place: Place,
    is_metric: bool,
    series: u64,
}

impl Counting {
    fn add(&mut self, series: SeriesRef, labels: &[u8]) {
        self.series += 1;
        let mut number = 0;
        labels::for_each(labels, |name, value| {
            self.add_label(Place { series, number }, name, value);
            number += 1;
        });
    }

    fn add_label(&mut self, place: Place, name: &[u8], value: &[u8]) {
        let name_hash = self.hasher.hash_one(name);
        let pair = self.hasher.hash_one((name_hash, value));
        let at = place.number as usize;
        match self.runs.get_mut(at) {
            Some(run) if run.pair == pair => {
                run.series += 1;
                return;
            }
            Some(run) => {
                let ended = *run;
                self.count(&ended);
            }
            None => {}
        }
        let run = Run {
            name: name_hash,
            pair,
            place,
            is_metric: name == METRIC,
            series: 1,
        };
        if !self.labels.contains_key(&name_hash) && !run.is_metric {
            self.name(name_hash, name);
        }
        match self.runs.get_mut(at) {
            Some(here) => *here = run,
            None => self.runs.push(run),
        }
    }

    /// Makes room for a label name that is new.
    fn name(&mut self, hash: u64, name: &[u8]) {
        if self.labels.len() >= LABELS_MAX {
            self.has_left_out = true;
            return;
        }
        let label = Label {
            name: name.into(),
            series: 0,
            values: Values::default(),
        };
        self.labels.insert(hash, label);
    }

    fn count(&mut self, run: &Run) {
        if run.is_metric {
            self.metrics.add(run.pair, run.series, run.place);
            return;
        }
        self.pairs.add(run.pair, run.series, run.place);
        if let Some(label) = self.labels.get_mut(&run.name) {
            label.series += run.series;
            label.values.add(run.pair);
        }
    }

    fn finish(mut self, table: &SeriesTable, taken_ms: i64) -> Cardinality {
        for run in std::mem::take(&mut self.runs) {
            self.count(&run);
        }
        let named = |counted: &Heavy| -> Vec<(String, String, u64)> {
            let top = counted.top(TOP_MAX).into_iter();
            let named = top.filter_map(|(place, series)| {
                let (name, value) = label_at(table, place)?;
                Some((name, value, series))
            });
            named.collect()
        };
        let metrics = named(&self.metrics).into_iter();
        let mut labels: Vec<(String, u64, u64)> = self
            .labels
            .values()
            .map(|label| (shown(&label.name), label.values.count(), label.series))
            .collect();
        labels.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        labels.truncate(TOP_MAX);
        Cardinality {
            series: self.series,
            taken_ms,
            metrics: metrics.map(|(_, name, series)| (name, series)).collect(),
            pairs: named(&self.pairs),
            is_approximate: self.has_left_out
                || self.metrics.is_approximate()
                || self.pairs.is_approximate()
                || self
                    .labels
                    .values()
                    .any(|label| label.values.is_approximate()),
            labels,
        }
    }
}

/// Walks all series.
fn count(table: &SeriesTable, taken_ms: i64) -> Cardinality {
    let mut counting = Counting::default();
    table.for_each_live(|series, labels| counting.add(series, labels));
    counting.finish(table, taken_ms)
}

/// Name and value of a label.
fn label_at(table: &SeriesTable, place: Place) -> Option<(String, String)> {
    let guard = table.guard();
    let (mut number, mut found) = (0, None);
    labels::for_each(guard.labels(place.series), |name, value| {
        if number == place.number {
            found = Some((shown(name), shown(value)));
        }
        number += 1;
    });
    found
}

fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    String::from_utf8_lossy(cut).into_owned()
}

#[cfg(test)]
mod tests;
