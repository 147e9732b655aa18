//! Turns the log of a Prometheus into records of a component's store.
//!
//! The log is read in the order it was written; refs become label sets, label sets refs of the
//! store. Samples, histograms and exemplars are appended in that order, in batches; the import is
//! done when all of them are durable.
//!
//! | file | does |
//! |---|---|
//! | `batch` | items -> batches in the order of each series |
//! | `target` | batches -> durable in the store |
//! | `summary` | what happened -> text or JSON |
//!
//! # Invariants
//! - A sample goes to the label set its ref had last before it in the log.
//! - Whatever is not imported is counted under a reason.
//!
//! # Failure
//! - A store that takes no more ends the import with what was appended before in it.
//!
//! # Limits
//! - About 100 bytes per series of the log are held, besides the store's own memory.

mod batch;
mod summary;
mod target;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, bail};
use ingest::Reason;
use ingest::prometheus_wal::{self as prometheus, Event, PrometheusWal, Record};
use prost::Message;
use wal::{RecordKind, SeriesRef, StoreOptions};

use self::batch::Batch;
use self::summary::Summary;
use self::target::Target;
use super::time;

/// Exit code: done, but part of the log was skipped.
const SKIPPED: u8 = 2;

/// Appends the log of a Prometheus (agent, server, Grafana Alloy) to the log of a component.
///
/// Stop the Prometheus first, and import before the agent first runs on the store: backends may
/// refuse samples that are older than what they have of a series.
///
/// The log of a Prometheus agent does not say what it has delivered, so that everything still in
/// it is imported and sent, also what the backend has already. --from is the tool against that: the
/// time of the last sample the backend has. Importing twice sends everything twice.
///
/// Exit code: 0 all of the log (or of the time asked for) is imported, 1 it could not be, 2 it is
/// imported but for parts that were corrupt or not allowed, which the summary counts. An unfinished
/// record at the very end is what a crash leaves and counts as nothing.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// The data directory of the Prometheus agent (or of a component of Alloy), or its `wal`.
    #[arg(value_name = "PROMETHEUS_WAL_DIR")]
    from_dir: PathBuf,
    /// The store of a component: `<storage.path>/<component id>`, such as
    /// `data-penstock/prometheus.remote_write.default`. Made if missing, appended to if there.
    #[arg(value_name = "STORE_DIR")]
    store_dir: PathBuf,
    /// Only samples from this time on: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    from: Option<i64>,
    /// Only samples before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    to: Option<i64>,
    /// Reads and counts, and leaves the store alone.
    #[arg(long)]
    dry_run: bool,
    /// The summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Imports.
///
/// # Errors
/// Why it ended before the end of the log.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut wal = PrometheusWal::open(&options.from_dir)?;
    let target = if options.dry_run {
        None
    } else {
        check_is_store(&options.store_dir)?;
        Some(Target::open(&options.store_dir, StoreOptions::default())?)
    };
    let mut import = Import::new(target, options.from, options.to);
    let read = import.all(&mut wal);
    let done = import.finish(read);
    let summary = &import.summary;
    summary.print(wal.dir(), options)?;
    done.context(
        "the import is not complete; what is counted was read, not all of it is in the store",
    )?;
    if summary.is_complete() {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(SKIPPED))
}

/// A directory with anything but a store in it is a mistake: `storage.path` itself, for example.
fn check_is_store(dir: &Path) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", dir.display());
    if !dir.try_exists().with_context(unreadable)? {
        return Ok(());
    }
    let is_empty = std::fs::read_dir(dir)
        .with_context(unreadable)?
        .next()
        .is_none();
    if !is_empty && !dir.join("segments").is_dir() {
        bail!(
            "{} is no store: it is <storage.path>/<component id>, such as {}",
            dir.display(),
            dir.join("prometheus.remote_write.default").display()
        );
    }
    Ok(())
}

/// What a ref of the Prometheus stands for.
#[derive(Clone, Debug)]
enum Known {
    Series {
        series: SeriesRef,
        metric_name: Rc<[u8]>,
    },
    /// Its label set is not allowed.
    Refused(Reason),
}

/// An import at work.
#[derive(Debug)]
struct Import {
    /// None: nothing is written.
    target: Option<Target>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    known: HashMap<u64, Known>,
    /// Each metric name once, and the metadata that was last imported for it.
    metrics: HashMap<Rc<[u8]>, Vec<u8>>,
    batch: Batch,
    summary: Summary,
}

impl Import {
    fn new(target: Option<Target>, from_ms: Option<i64>, to_ms: Option<i64>) -> Self {
        Self {
            target,
            from_ms,
            to_ms,
            known: HashMap::new(),
            metrics: HashMap::new(),
            batch: Batch::default(),
            summary: Summary::default(),
        }
    }

    /// Reads the log to its end.
    fn all(&mut self, wal: &mut PrometheusWal) -> anyhow::Result<()> {
        while let Some(event) = wal.next_event()? {
            match event {
                Event::Record(record) => self.record(&record)?,
                Event::Lost(lost) => self.summary.lost(lost),
            }
        }
        Ok(())
    }

    /// Makes the rest durable and closes the store, also after the log could not be read to its
    /// end or the store took no more.
    fn finish(&mut self, read: anyhow::Result<()>) -> anyhow::Result<()> {
        let flushed = read.and_then(|()| self.flush());
        let is_series = |known: &&Known| matches!(known, Known::Series { .. });
        self.summary.series = summary::count(self.known.values().filter(is_series).count());
        let closed = self.target.take().map_or(Ok(()), Target::finish);
        flushed.and(closed)
    }

    fn record(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        match record {
            Record::Series(all) => self.define(all)?,
            Record::Samples(all) => {
                for sample in all {
                    self.sample(*sample)?;
                }
            }
            Record::Histograms(all) => {
                for histogram in all {
                    let message = &histogram.message;
                    if let Some(series) = self.wanted(histogram.reference, Some(message.timestamp))
                    {
                        let kept = self.raw(series, RecordKind::Histogram, message)?;
                        self.summary.histograms += u64::from(kept);
                    }
                }
            }
            Record::Exemplars(all) => {
                for exemplar in all {
                    self.exemplar(exemplar)?;
                }
            }
            Record::Metadata(all) => {
                for metadata in all {
                    self.metadata(metadata)?;
                }
            }
            Record::Tombstones => self.summary.skip("tombstones"),
            Record::MmapMarkers => {}
        }
        Ok(())
    }

    /// Learns what refs stand for from here on.
    fn define(&mut self, all: &[prometheus::Series<'_>]) -> anyhow::Result<()> {
        let mut arena = Vec::new();
        let mut labels = Vec::new();
        let mut references = Vec::new();
        for series in all {
            let start = arena.len();
            match series.append_canonical(&mut arena) {
                Ok(()) => {
                    labels.push(start..arena.len());
                    references.push((series.reference, self.metric_name(series.metric_name())));
                }
                Err(reason) => {
                    self.known.insert(series.reference, Known::Refused(reason));
                    self.summary.skip("series_not_allowed");
                }
            }
        }
        let labels: Vec<&[u8]> = labels
            .into_iter()
            .map(|range| arena.get(range).unwrap_or_default())
            .collect();
        let defined = match &self.target {
            Some(target) => target.define(&labels)?,
            None => vec![SeriesRef::NONE; labels.len()],
        };
        for ((reference, metric_name), series) in references.into_iter().zip(defined) {
            let known = Known::Series {
                series,
                metric_name,
            };
            self.known.insert(reference, known);
        }
        Ok(())
    }

    fn metric_name(&mut self, name: &[u8]) -> Rc<[u8]> {
        if let Some((known, _)) = self.metrics.get_key_value(name) {
            return known.clone();
        }
        let name: Rc<[u8]> = name.into();
        self.metrics.insert(name.clone(), Vec::new());
        name
    }

    /// The series of something at this time, if it is to be imported; counted if not.
    fn wanted(&mut self, reference: u64, timestamp_ms: Option<i64>) -> Option<SeriesRef> {
        let is_early = timestamp_ms
            .zip(self.from_ms)
            .is_some_and(|(at, from)| at < from);
        let is_late = timestamp_ms
            .zip(self.to_ms)
            .is_some_and(|(at, to)| at >= to);
        if is_early || is_late {
            self.summary.skip("out_of_range");
            return None;
        }
        match self.known.get(&reference) {
            Some(Known::Series { series, .. }) => {
                if let Some(at) = timestamp_ms {
                    self.summary.time(at);
                }
                Some(*series)
            }
            Some(Known::Refused(reason)) => {
                self.summary.skip(reason.as_str());
                None
            }
            None => {
                self.summary.skip("unknown_series");
                None
            }
        }
    }

    fn sample(&mut self, sample: prometheus::Sample) -> anyhow::Result<()> {
        let Some(series) = self.wanted(sample.reference, Some(sample.timestamp_ms)) else {
            return Ok(());
        };
        if self.batch.must_go_before_sample() {
            self.flush()?;
        }
        self.batch.sample(wal::Sample {
            series,
            timestamp_ms: sample.timestamp_ms,
            value_bits: sample.value_bits,
        });
        self.summary.samples += 1;
        Ok(())
    }

    fn exemplar(&mut self, exemplar: &prometheus::Exemplar<'_>) -> anyhow::Result<()> {
        let sample = exemplar.sample;
        let Some(series) = self.wanted(sample.reference, Some(sample.timestamp_ms)) else {
            return Ok(());
        };
        match exemplar.message() {
            Ok(message) => {
                let kept = self.raw(series, RecordKind::Exemplar, &message)?;
                self.summary.exemplars += u64::from(kept);
            }
            Err(reason) => self.summary.skip(reason.as_str()),
        }
        Ok(())
    }

    /// Every series of a metric has its metadata; one message per metric is enough while it stays
    /// the same.
    fn metadata(&mut self, metadata: &prometheus::Metadata<'_>) -> anyhow::Result<()> {
        if self.wanted(metadata.reference, None).is_none() {
            return Ok(());
        }
        let Some(Known::Series { metric_name, .. }) = self.known.get(&metadata.reference) else {
            return Ok(());
        };
        let message = match metadata.message(metric_name) {
            Ok(message) => message,
            Err(reason) => {
                self.summary.skip(reason.as_str());
                return Ok(());
            }
        };
        let bytes = message.encode_to_vec();
        let family = message.metric_family_name.as_bytes();
        let family: Rc<[u8]> = self.metric_name(family);
        if self.metrics.get(&family) != Some(&bytes) {
            self.metrics.insert(family, bytes);
            let kept = self.raw(SeriesRef::NONE, RecordKind::Metadata, &message)?;
            self.summary.metadata += u64::from(kept);
        }
        Ok(())
    }

    /// Adds a message; whether it is short enough.
    fn raw(
        &mut self,
        series: SeriesRef,
        kind: RecordKind,
        message: &impl Message,
    ) -> anyhow::Result<bool> {
        if message.encoded_len() > batch::RAW_BYTES_MAX {
            self.summary.skip("record_too_long");
            return Ok(false);
        }
        if self.batch.is_full() {
            self.flush()?;
        }
        self.batch.raw(series, kind, message);
        Ok(true)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(target) = &mut self.target {
            self.batch
                .with(|samples, raw| target.append(samples, raw))?;
        }
        self.batch.clear();
        Ok(())
    }
}
