//! Turns the frames and series of a store into counts.
//!
//! # Limits
//! - A counter per series, and one per label name and per label, which series mostly share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use wal::inspect::{ChunkFile, Event, PositionFile, Problem, SegmentCounts, SeriesView, StoreView};
use wal::{DropReason, Loss, RecordKind, Sample, SeriesRef};

use crate::wal::count;

/// Everything a report says.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) counts: Vec<SegmentCounts>,
    pub(super) chunks: Vec<ChunkFile>,
    pub(super) series: u64,
    pub(super) endpoints: Vec<EndpointReport>,
    pub(super) losses: Vec<Loss>,
    pub(super) quarantine: Vec<(PathBuf, u64)>,
    /// By kind: float samples first.
    pub(super) records: BTreeMap<&'static str, u64>,
    /// Samples whose series has no record that checks.
    pub(super) unknown_series: u64,
    /// First and last timestamp of float samples.
    pub(super) times_ms: Option<(i64, i64)>,
    /// Series that frames on disk name.
    pub(super) series_named: u64,
    /// Labels and samples.
    pub(super) top_series: Vec<(String, u64)>,
    /// Name and number of values.
    pub(super) top_names: Vec<(String, u64)>,
    /// Label and number of series.
    pub(super) top_labels: Vec<(String, u64)>,
    pub(super) problems: Vec<Problem>,
}

/// How far an endpoint is.
#[derive(Debug)]
pub(super) struct EndpointReport {
    pub(super) name: String,
    pub(super) acked: u64,
    /// What is decided beyond that.
    pub(super) ahead: Option<(u64, u64)>,
    pub(super) lag_bytes: u64,
    pub(super) lag_ms: i64,
    pub(super) records_in: u64,
    pub(super) delivered: u64,
    pub(super) pending: u64,
    pub(super) dropped: Vec<(&'static str, u64)>,
}

impl Report {
    /// # Errors
    /// A directory of the store cannot be listed.
    pub(super) fn of(view: &StoreView, top: usize, now_ms: i64) -> anyhow::Result<Self> {
        let series = view.series()?;
        let mut frames = Frames::of(view, &series);
        let labels = Labels::of(&series, top);
        let ledger = view.losses()?;
        let mut problems = view.problems().to_vec();
        problems.append(&mut frames.problems);
        problems.extend_from_slice(series.problems());
        problems.extend(ledger.problems);
        let oldest = &frames.oldest_pending_ms;
        let endpoints = view.positions().iter().zip(oldest);
        let endpoints =
            endpoints.map(|(position, oldest)| endpoint(view, position, *oldest, now_ms));
        let named = frames.samples.iter().filter(|samples| **samples > 0);
        Ok(Self {
            series: count(series.len()),
            endpoints: endpoints.collect(),
            losses: ledger.losses,
            quarantine: view.quarantine()?,
            unknown_series: frames.unknown_series,
            times_ms: frames.times_ms,
            series_named: count(named.count()),
            top_series: top_series(&series, &frames.samples, top),
            top_names: labels.names,
            top_labels: labels.labels,
            problems,
            chunks: series.files().to_vec(),
            counts: frames.counts,
            records: frames.records,
        })
    }
}

fn endpoint(
    view: &StoreView,
    position: &PositionFile,
    oldest_pending_ms: Option<i64>,
    now_ms: i64,
) -> EndpointReport {
    let end = view.end();
    let records_in = end.records.saturating_sub(position.records_before);
    let dropped = DropReason::ALL.into_iter();
    let tally = position.decided();
    let dropped = dropped.map(|reason| (reason.as_str(), tally.dropped(reason)));
    let ahead = position
        .ahead
        .map(|ahead| (ahead.from.position, ahead.acked));
    let decided = ahead.map_or(0, |(from, to)| view.bytes_between(from, to));
    EndpointReport {
        name: position.endpoint.clone(),
        acked: position.acked.get(),
        ahead: ahead.map(|(from, to)| (from.get(), to.get())),
        lag_bytes: view.bytes_between(position.acked, end.position) - decided,
        lag_ms: oldest_pending_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest).max(0)),
        records_in,
        delivered: tally.delivered,
        pending: records_in.saturating_sub(tally.total()),
        dropped: dropped.filter(|(_, records)| *records > 0).collect(),
    }
}

/// What the frames hold.
#[derive(Default)]
struct Frames {
    counts: Vec<SegmentCounts>,
    problems: Vec<Problem>,
    /// By index of the series.
    samples: Vec<u64>,
    unknown_series: u64,
    records: BTreeMap<&'static str, u64>,
    times_ms: Option<(i64, i64)>,
    /// By endpoint: when the first frame it does not have yet was appended.
    oldest_pending_ms: Vec<Option<i64>>,
}

impl Frames {
    fn of(view: &StoreView, series: &SeriesView) -> Self {
        let mut frames = Self {
            samples: vec![0; series.len()],
            oldest_pending_ms: vec![None; view.positions().len()],
            ..Self::default()
        };
        let mut samples = Vec::new();
        let mut scan = view.scan();
        while let Some(event) = scan.next_event() {
            let frame = match event {
                Event::Frame(frame) => frame,
                Event::Problem(problem) => {
                    frames.problems.push(problem);
                    continue;
                }
            };
            for (position, oldest) in view.positions().iter().zip(&mut frames.oldest_pending_ms) {
                if oldest.is_none() && frame.end() > position.acked {
                    *oldest = Some(frame.appended_ms());
                }
            }
            samples.clear();
            let raw = frame.samples(&mut samples);
            frames.take(series, &samples);
            for record in raw.into_iter().flatten().flatten() {
                let kind = match record.kind {
                    RecordKind::Exemplar => "exemplars",
                    RecordKind::Histogram => "histograms",
                    RecordKind::Metadata => "metadata",
                    RecordKind::StartedSample => "samples",
                };
                *frames.records.entry(kind).or_default() += 1;
                if !record.series.is_none() {
                    frames.name(series, record.series);
                }
            }
        }
        frames.counts = scan.counts().to_vec();
        frames
    }

    fn take(&mut self, series: &SeriesView, samples: &[Sample]) {
        *self.records.entry("samples").or_default() += count(samples.len());
        for sample in samples {
            let at = sample.timestamp_ms;
            let (first, last) = self.times_ms.unwrap_or((at, at));
            self.times_ms = Some((first.min(at), last.max(at)));
            self.name(series, sample.series);
        }
    }

    fn name(&mut self, view: &SeriesView, series: SeriesRef) {
        let index = view.index_of(series);
        match index.and_then(|index| self.samples.get_mut(index)) {
            Some(samples) => *samples += 1,
            None => self.unknown_series += 1,
        }
    }
}

fn top_series(series: &SeriesView, samples: &[u64], top: usize) -> Vec<(String, u64)> {
    let mut indexes: Vec<usize> = (0..samples.len()).filter(|at| samples[*at] > 0).collect();
    indexes.sort_unstable_by_key(|at| (Reverse(samples[*at]), *at));
    let named = |at: usize| (name_of(series.labels(series.series(at))), samples[at]);
    indexes.into_iter().take(top).map(named).collect()
}

/// Labels as Prometheus writes them.
pub(super) fn name_of(labels: &[u8]) -> String {
    let mut name = String::new();
    let mut rest = Vec::new();
    let is_whole = labels::for_each(labels, |key, value| {
        let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        if key == "__name__" {
            name.push_str(&value);
        } else {
            rest.push(format!("{key}={value:?}"));
        }
    });
    if !is_whole {
        rest.push("(unreadable labels)".to_owned());
    }
    if !rest.is_empty() {
        name.push_str(&format!("{{{}}}", rest.join(",")));
    }
    name
}

/// What labels the series have.
struct Labels {
    names: Vec<(String, u64)>,
    labels: Vec<(String, u64)>,
}

/// One label, whose text is found in the first series that has it.
struct Label {
    name: u32,
    series: u32,
    count: u32,
}

impl Labels {
    fn of(series: &SeriesView, top: usize) -> Self {
        let hasher = RandomState::new();
        let mut names: HashMap<Vec<u8>, (u32, u64)> = HashMap::new();
        let mut labels: HashMap<u64, Label> = HashMap::new();
        for index in 0..series.len() {
            let of = u32::try_from(index).unwrap_or(u32::MAX);
            labels::for_each(series.labels(series.series(index)), |name, value| {
                if !names.contains_key(name) {
                    let number = u32::try_from(names.len()).unwrap_or(u32::MAX);
                    names.insert(name.to_owned(), (number, 0));
                }
                let Some((number, values)) = names.get_mut(name) else {
                    return;
                };
                let label = labels.entry(hasher.hash_one((*number, value)));
                let label = label.or_insert_with(|| {
                    *values += 1;
                    let (name, series, count) = (*number, of, 0);
                    Label {
                        name,
                        series,
                        count,
                    }
                });
                label.count += 1;
            });
        }
        let by_number: BTreeMap<u32, String> = names
            .iter()
            .map(|(name, (number, _))| (*number, String::from_utf8_lossy(name).into_owned()))
            .collect();
        let named = names.into_iter();
        let named = named.map(|(name, (_, n))| (String::from_utf8_lossy(&name).into_owned(), n));
        let mut most: Vec<Label> = labels.into_values().collect();
        most.sort_unstable_by_key(|label| (Reverse(label.count), label.series, label.name));
        most.truncate(top);
        let text = |label: Label| {
            let name = by_number.get(&label.name).map_or("", String::as_str);
            (label_text(series, &label, name), u64::from(label.count))
        };
        Self {
            names: most_of(named.collect(), top),
            labels: most.into_iter().map(text).collect(),
        }
    }
}

fn label_text(series: &SeriesView, label: &Label, name: &str) -> String {
    let mut text = String::new();
    let index = usize::try_from(label.series).unwrap_or(usize::MAX);
    labels::for_each(series.labels(series.series(index)), |key, value| {
        if key == name.as_bytes() {
            text = format!("{name}={:?}", String::from_utf8_lossy(value));
        }
    });
    text
}

fn most_of(mut all: Vec<(String, u64)>, top: usize) -> Vec<(String, u64)> {
    all.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    all.truncate(top);
    all
}
