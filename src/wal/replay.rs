//! Turns what is still on disk of a time range into requests to an endpoint.
//!
//! | file | turns |
//! |---|---|
//! | `selector` | a Prometheus selector into a yes or no for label sets |
//!
//! # Invariants
//! - What is sent has the labels it was appended with: series are read after the end of the log is
//!   known and while its oldest segment is there, and only frames before that end are sent.

mod selector;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use ingest::proto::{Exemplar, Histogram};
use prost::Message;
use shipper::batch::OwnedRecord;
use shipper::replay::Replay;
use shipper::{Counts, EndpointOptions, Secret};
use wal::inspect::{Event, SeriesView, StoreView};
use wal::{RawRecord, RecordKind, Sample, SeriesRef, StartedSample, SystemClock};

use self::selector::Selector;
use super::progress::Progress;
use super::{store_dir, time};

/// Exit code: done, but not everything that was asked for was there or was taken.
const INCOMPLETE: u8 = 2;
/// A live agent may reclaim segments while the series are read; then they are read again.
const OPENS_MAX: usize = 10;

/// Sends again what is still on disk of a time range, to any remote-write 1.0 endpoint.
///
/// Float samples, native histograms and exemplars whose own timestamp lies in [--from, --to), in the
/// order of the log. Works while an agent has the store, changes nothing in it, and takes no lock:
/// positions and the account stay as they are. What was not delivered yet is sent too, and the
/// agent will send it as well.
///
/// Requests are repeated until they are taken (5xx, 429, no connection). A refusal ends the replay,
/// unless --skip-refused.
///
/// Exit code: 0 everything was sent, 1 it ended early, 2 part of the log could not be read or was
/// refused: the summary counts it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// The store of a component, `<storage.path>/<component id>`, or a `<storage.path>` with one.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only samples from this time on: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    from: i64,
    /// Only samples before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    to: i64,
    /// Where to: the URL of a remote-write endpoint.
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Only series of this selector, such as `up{job=~"a.*"}`; more than one adds up.
    #[arg(long = "match", value_name = "SELECTOR", value_parser = selector::parse)]
    matches: Vec<Selector>,
    /// A further header of the requests, such as `X-Scope-OrgID=tenant`.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, Secret)>,
    /// So many samples a second at most.
    #[arg(long, value_name = "SAMPLES")]
    rate: Option<u32>,
    /// Goes on after a refused request.
    #[arg(long)]
    skip_refused: bool,
}

fn header(text: &str) -> Result<(String, Secret), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    Ok((name.trim().to_owned(), Secret::from(value.trim())))
}

/// Replays.
///
/// # Errors
/// Why it ended early.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.from >= options.to {
        bail!("--from must be before --to");
    }
    let dir = store_dir::find(&options.dir)?;
    let (view, series) = open(&dir)?;
    let mut endpoint = EndpointOptions::new("replay", &options.endpoint);
    endpoint.headers = options.headers.iter().cloned().collect();
    let replay = Replay::new(endpoint, SystemClock::shared())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let wanted = (0..series.len()).map(|index| {
        let labels = series.labels(series.series(index));
        options.matches.is_empty() || options.matches.iter().any(|one| one.is_match(labels))
    });
    let mut run = Run {
        options,
        wanted: wanted.collect(),
        series: &series,
        replay,
        progress: Progress::begin(),
        summary: Summary::default(),
    };
    let ended = runtime.block_on(run.all(&view));
    run.progress.end();
    run.summary.print()?;
    ended?;
    if run.summary.is_complete() {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(INCOMPLETE))
}

/// The log and the series its frames name.
fn open(dir: &Path) -> anyhow::Result<(StoreView, SeriesView)> {
    for _ in 0..OPENS_MAX {
        let view = StoreView::open(dir)?;
        let series = view.series()?;
        let oldest = view.segments().first();
        if oldest.map_or(Ok(true), |oldest| oldest.path().try_exists())? {
            return Ok((view, series));
        }
    }
    bail!(
        "{} loses segments faster than it can be read",
        dir.display()
    );
}

/// What was done.
#[derive(Debug, Default)]
struct Summary {
    sent: Counts,
    refused: Counts,
    out_of_range: u64,
    not_matched: u64,
    unknown_series: u64,
    custom_buckets: u64,
    malformed: u64,
    problems: u64,
    lost: u64,
}

impl Summary {
    fn is_complete(&self) -> bool {
        let missing = [
            self.refused.total(),
            self.unknown_series,
            self.custom_buckets,
        ];
        missing.iter().sum::<u64>() + self.malformed + self.problems == 0
    }

    fn print(&self) -> std::io::Result<()> {
        use std::io::Write;
        let Counts {
            samples,
            exemplars,
            histograms,
            ..
        } = self.sent;
        let mut text = format!(
            "sent      {samples} samples, {histograms} histograms, {exemplars} exemplars\n"
        );
        for (records, why) in [
            (self.out_of_range, "out of the time range"),
            (self.not_matched, "not matched"),
            (self.unknown_series, "of series whose labels are lost"),
            (
                self.custom_buckets,
                "with custom buckets, which remote write 1.0 cannot carry",
            ),
            (self.malformed, "that make no sense"),
        ] {
            if records > 0 {
                text.push_str(&format!("skipped   {records} records {why}\n"));
            }
        }
        if self.refused.total() > 0 {
            text.push_str(&format!("refused   {} records\n", self.refused.total()));
        }
        if self.problems > 0 {
            let (problems, lost) = (self.problems, self.lost);
            text.push_str(&format!(
                "unread    {lost} records at {problems} places: see `penstock wal verify`\n"
            ));
        }
        std::io::stdout().lock().write_all(text.as_bytes())
    }
}

/// A replay at work.
struct Run<'a> {
    options: &'a Options,
    /// By index of the series.
    wanted: Vec<bool>,
    series: &'a SeriesView,
    replay: Replay,
    progress: Progress,
    summary: Summary,
}

impl Run<'_> {
    async fn all(&mut self, view: &StoreView) -> anyhow::Result<()> {
        let mut samples = Vec::new();
        let mut scan = view.scan();
        while let Some(event) = scan.next_event() {
            let frame = match event {
                Event::Frame(frame) => frame,
                Event::Problem(problem) => {
                    if !problem.what.is_usual() {
                        self.summary.problems += 1;
                        self.summary.lost += problem.records.unwrap_or(0);
                    }
                    continue;
                }
            };
            samples.clear();
            let raw = frame.samples(&mut samples);
            self.summary.malformed += u64::from(raw.is_err());
            samples.retain(|sample: &Sample| self.takes(sample.series, sample.timestamp_ms));
            let mut rest = &samples[..];
            while !rest.is_empty() {
                rest = self.replay.push_samples(rest);
                self.send_if_full().await?;
            }
            for record in raw.into_iter().flatten() {
                let Ok(record) = record else {
                    self.summary.malformed += 1;
                    continue;
                };
                self.raw(record).await?;
            }
        }
        self.send().await
    }

    /// Whether a record is asked for; counted if not.
    fn takes(&mut self, series: SeriesRef, timestamp_ms: i64) -> bool {
        if timestamp_ms < self.options.from || timestamp_ms >= self.options.to {
            self.summary.out_of_range += 1;
            return false;
        }
        let index = self.series.index_of(series);
        match index.and_then(|index| self.wanted.get(index)) {
            Some(true) => true,
            Some(false) => {
                self.summary.not_matched += 1;
                false
            }
            None => {
                self.summary.unknown_series += 1;
                false
            }
        }
    }

    async fn raw(&mut self, record: RawRecord<'_>) -> anyhow::Result<()> {
        let bytes = record.bytes;
        let timestamp_ms = match record.kind {
            RecordKind::Metadata => return Ok(()),
            RecordKind::Exemplar => Exemplar::decode(bytes).ok().map(|one| one.timestamp),
            RecordKind::Histogram => Histogram::decode(bytes).ok().map(|one| one.timestamp),
            RecordKind::StartedSample => StartedSample::from_bytes(bytes).map(|s| s.timestamp_ms),
        };
        let Some(timestamp_ms) = timestamp_ms else {
            self.summary.malformed += 1;
            return Ok(());
        };
        if self.takes(record.series, timestamp_ms) {
            self.replay.push_record(OwnedRecord {
                series: record.series,
                kind: record.kind,
                bytes: record.bytes.into(),
            });
        }
        self.send_if_full().await
    }

    async fn send_if_full(&mut self) -> anyhow::Result<()> {
        if self.replay.is_full() {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        if self.replay.is_empty() {
            return Ok(());
        }
        let series = self.series;
        let progress = &mut self.progress;
        let mut is_told = false;
        let retrying = |why: &str| {
            if !is_told {
                progress.say(&format!("trying again until it is taken: {why}"));
                is_told = true;
            }
        };
        let done = self.replay.send(|one| series.labels(one), retrying).await;
        self.summary.custom_buckets += done.left_out.total();
        if let Some(answer) = done.refused {
            self.summary.refused += done.sent;
            if !self.options.skip_refused {
                bail!("the endpoint refuses: {answer}");
            }
            self.progress.say(&format!("refused: {answer}"));
            return Ok(());
        }
        self.summary.sent += done.sent;
        let sent = self.summary.sent.total();
        self.progress.show(|| format!("sent {sent} records"));
        self.pace(sent).await;
        Ok(())
    }

    /// Waits until so many records may have been sent.
    async fn pace(&self, sent: u64) {
        let Some(rate) = self.options.rate.filter(|rate| *rate > 0) else {
            return;
        };
        let due_ms = sent.saturating_mul(1000) / u64::from(rate);
        let early = Duration::from_millis(due_ms).saturating_sub(self.progress.elapsed());
        tokio::time::sleep(early).await;
    }
}
