//! Turns the body of one scrape, or that there is none, into the samples of one batch.
//!
//! What a target exposed comes first, then stale markers of what it no longer does, then the series that tell
//! how the scrape went: one frame of the log holds them all.
//!
//! # Invariants
//! - A body that is wrong anywhere leaves no sample: what comes then is stale markers for everything the
//!   target had, and `up` 0.
//! - Of two samples of a series without a time of their own the first is taken.
//! - A series that was there at the last good scrape and is not now gets a stale marker, unless its samples
//!   have times of their own and nobody asked to track those.
//!
//! # Failure
//! - A line that cannot be parsed, a label set that is not allowed, more samples than the limit: the scrape has
//!   failed, with the reason in words.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::families::Families;
use super::known::{Entry, Known, Line, Reading, Texts, line_of};
use super::merge::Merge;
use super::options::Rules;
use super::report::{NAMES, Report};
use super::starts::{Since, Starts, Window};
use super::stats::ScrapeFailure;
use super::target::Target;
use crate::append::{Door, Failure, Source};
use crate::decode::Batch;
use crate::decode::exposition::{
    Converter, Entry as Exposed, FamilyText, Format, Kind, LineState, Parser, SampleAt,
};
use crate::paths::Front;
use foldhash::fast::RandomState;

/// The bits of a stale marker: what Prometheus calls `StaleNaN`.
pub(crate) const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Series whose exemplars are remembered in any case.
const EXEMPLARS_MIN: usize = 1000;

/// How many entries are looked through for where a body goes on as before, for each sample of it.
const SEARCH_MAX: usize = 64;

/// What a thread needs to read bodies; reused from scrape to scrape.
#[derive(Default, Debug)]
pub(crate) struct Scratch {
    pub(super) parser: Parser,
    /// Gives what the parser does, unless histograms are to be converted.
    pub(super) converter: Converter,
    pub(super) texts: Texts,
    pub(super) merge: Merge,
    pub(super) next: Vec<Entry>,
    pub(super) seen: HashSet<u32, RandomState>,
    pub(super) starts: Starts,
}

/// What is remembered of a target between scrapes.
#[derive(Default, Debug)]
pub(crate) struct Memory {
    /// The number of the ways whose numbers of series these are.
    paths: u64,
    pub(super) known: Known,
    /// Native histograms of the last good scrape: their series, and what they stand for.
    pub(super) histograms: Vec<(u32, u64)>,
    /// Whether the series of `known` are those of the last scrape, and it went well.
    /// The exemplars of each series, as hashes.
    exemplars: HashMap<u64, u64, RandomState>,
    pub(super) is_tracking: bool,
    /// The series that tell how scrapes went, and what they stand for.
    pub(super) report: [(u32, u64); NAMES.len()],
    /// What was written of the target until when, whichever ways it went.
    pub(super) since: Since,
}

/// One scrape on its way into a batch.
pub(crate) struct Scrape<'s> {
    /// The body, or why there is none.
    body: Result<&'s [u8], String>,
    format: Format,
    pub(super) rules: &'s Rules,
    pub(super) labels: &'s [(String, String)],
    pub(super) time_ms: i64,
    pub(super) memory: &'s mut Memory,
    pub(super) scratch: &'s mut Scratch,
    pub(super) families: &'s mut Families,
    /// Monotonic time.
    now: Duration,
    pub(crate) report: Report,
    pub(super) counts: Counts,
    /// Why it failed.
    pub(super) error: Option<String>,
    /// Whether there is no other one after it: everything ends with a stale marker.
    is_last: bool,
    /// Where the samples that tell how it went begin.
    pub(super) report_at: usize,
    pub(super) report_count: usize,
    pub(super) is_unchanged: bool,
    pub(super) tail: (u64, usize),
    /// Which starts of metrics are told.
    pub(super) window: Window,
    /// What is to be remembered where the body is not as the last one was.
    pub(super) changed: Option<Changed>,
}

/// What a body had that the one before had not, or had otherwise, beside its entries.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) histograms: Vec<(u32, u64)>,
    pub(super) is_text: bool,
    pub(super) has_duplicates: bool,
}

/// What a scrape held.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    /// Samples taken without a parse.
    pub(crate) followed: usize,
    /// Samples parsed.
    pub(crate) parsed: usize,
    /// Samples beside another one of their series and time.
    pub(crate) duplicates: usize,
    /// Stale markers.
    pub(crate) stale: usize,
    /// Samples of 0 where a metric began to count.
    pub(crate) starts: usize,
    /// Whether the limit of samples was exceeded.
    pub(crate) is_over_sample_limit: bool,
    /// Whether a limit on labels was exceeded.
    pub(crate) is_over_label_limit: bool,
    /// Whether a native histogram had more buckets than it may.
    pub(crate) is_over_bucket_limit: bool,
}

impl Memory {
    /// The next body is parsed, whatever is known of it: it is to be read by other rules.
    pub(crate) const fn parse_again(&mut self) {
        self.known.is_text = false;
    }

    /// Goes on from a body that was not as the last one was.
    fn take(&mut self, changed: Changed, entries: &[Entry], tail: (u64, usize)) {
        self.histograms = changed.histograms;
        let known = &mut self.known;
        known.entries.clear();
        known.entries.reserve_exact(entries.len());
        known.entries.extend_from_slice(entries);
        known.tail = tail;
        known.is_text = changed.is_text;
        known.has_duplicates = changed.has_duplicates;
    }

    /// Whether a series has other exemplars than the last time. Both are hashes.
    pub(super) fn is_exemplar_new(&mut self, series: u64, exemplars: u64) -> bool {
        if self.exemplars.len() > 2 * self.known.entries.len() + EXEMPLARS_MIN {
            self.exemplars.clear();
        }
        self.exemplars.insert(series, exemplars) != Some(exemplars)
    }

    /// Forgets everything if the numbers of series are those of other ways.
    pub(crate) fn go(&mut self, paths: u64) {
        if self.paths != paths {
            *self = Self {
                paths,
                since: self.since,
                ..Self::default()
            };
        }
    }
}

/// What a scrape works with: the target's memory, the thread's, the scraper's.
type With<'s> = (&'s mut Memory, &'s mut Scratch, &'s mut Families);

impl<'s> Scrape<'s> {
    /// A body, or why there is none, of a scrape at `time_ms` (since the epoch); `now` is monotonic.
    pub(crate) fn new(
        body: Result<(&'s [u8], Format), String>,
        rules: &'s Rules,
        target: &'s Target,
        (time_ms, now): (i64, Duration),
        (memory, scratch, families): With<'s>,
    ) -> Self {
        let format = body
            .as_ref()
            .map_or_else(|_| Format::default(), |body| body.1);
        let after_ms = memory.since.begin(time_ms, target.interval);
        let after_ms = rules.zero_at_start.then_some(after_ms);
        Self {
            body: body.map(|body| body.0),
            format,
            rules,
            labels: &target.labels,
            time_ms,
            memory,
            scratch,
            families,
            now,
            report: Report {
                timeout: target.timeout,
                sample_limit: rules.sample_limit,
                ..Report::default()
            },
            counts: Counts::default(),
            error: None,
            is_last: false,
            report_at: 0,
            report_count: 0,
            is_unchanged: false,
            tail: (0, 0),
            window: Window::new(after_ms, time_ms),
            changed: None,
        }
    }

    /// What comes when a target is gone: stale markers for everything.
    pub(crate) fn last(
        rules: &'s Rules,
        target: &'s Target,
        times: (i64, Duration),
        with: With<'s>,
    ) -> Self {
        Self {
            is_last: true,
            ..Self::new(
                Err("the target is gone".to_owned()),
                rules,
                target,
                times,
                with,
            )
        }
    }

    /// How it ended. What was appended is remembered; what the log did not take never was: it is new, or stale,
    /// at the next scrape still.
    pub(crate) fn ended(self, is_appended: bool) -> Ended {
        if is_appended {
            match self.error {
                None => self.memory.since.wrote(self.window.latest_ms),
                Some(_) if self.memory.is_tracking => self.memory.since.wrote(self.time_ms),
                Some(_) => {}
            }
            self.memory.is_tracking = self.error.is_none();
            if let Some(changed) = self.changed {
                self.memory.take(changed, &self.scratch.next, self.tail);
            }
        }
        if !is_appended || self.error.is_some() {
            self.memory.exemplars.clear();
        }
        Ended {
            counts: self.counts,
            error: self.error,
        }
    }
}

impl Source for Scrape<'_> {
    /// Everything that is no float sample is written out anew.
    fn body(&self) -> &[u8] {
        &[]
    }

    fn scan(&mut self, door: &mut impl Door, batch: &mut Batch) -> Result<(), Failure> {
        let read = match self.body.clone() {
            Ok(body) => self.read(body, door, batch),
            Err(error) => Err(error),
        };
        self.report.samples = self.counts.followed + self.counts.parsed;
        if let Err(error) = read {
            batch.clear();
            door.forget_new();
            self.error = Some(error);
        }
        self.report.is_up = self.error.is_none();
        if let Err(error) = self.push_report(door, batch) {
            // The labels of the target alone are too much: there is nothing that can be told in the log.
            batch.clear();
            door.forget_new();
            self.report_count = 0;
            self.error.get_or_insert(error);
        }
        self.families.write(self.now, batch);
        Ok(())
    }

    fn settle(&mut self, front: &impl Front, batch: &mut Batch) {
        let Scratch { starts, seen, .. } = &mut *self.scratch;
        if self.error.is_some() {
            starts.clear();
        }
        starts.resolve(batch, seen);
        if self.error.is_some() {
            self.scratch.seen.clear();
            if self.memory.is_tracking {
                self.mark_stale(front, batch);
            }
        } else if self.is_unchanged {
            if self.memory.known.has_duplicates {
                self.leave_out_duplicates(batch);
            }
        } else {
            self.change(front, batch);
        }
        let mut values = self.report.values();
        let reported = self.report_at..self.report_at + self.report_count;
        if self.is_last {
            self.counts.stale += self.report_count;
            values = [f64::from_bits(STALE_BITS); NAMES.len()];
        }
        let told = batch.samples.get_mut(reported).unwrap_or_default();
        for ((sample, value), known) in told.iter_mut().zip(values).zip(&mut self.memory.report) {
            sample.value_bits = value.to_bits();
            *known = (sample.series.get(), front.identity(sample.series.get()));
        }
        self.counts.starts = self.scratch.starts.write(batch);
    }
}

impl Scrape<'_> {
    fn read(&mut self, body: &[u8], door: &mut impl Door, batch: &mut Batch) -> Result<(), String> {
        let reading = Reading {
            body,
            time_ms: self.time_ms,
            honors_time: self.rules.honor_timestamps,
        };
        self.scratch.next.clear();
        self.scratch.starts.clear();
        if !self.is_text() {
            self.parse((0, None), reading, door, batch)?;
        } else if !self.read_on(reading, door, batch)? {
            // Something came behind a value where nothing was.
            batch.clear();
            door.forget_new();
            self.scratch.next.clear();
            self.counts = Counts::default();
            self.parse((0, None), reading, door, batch)?;
        }
        let (limit, count) = (
            self.rules.sample_limit,
            self.counts.followed + self.counts.parsed,
        );
        if limit > 0 && count > limit {
            self.counts.is_over_sample_limit = true;
            return Err(format!("sample limit exceeded ({count} > {limit})"));
        }
        Ok(())
    }

    /// Follows what is known as far as that goes, parses, and follows again. False if a line goes on behind
    /// what is known of it: then all is to be parsed.
    fn read_on(
        &mut self,
        reading: Reading<'_>,
        door: &mut impl Door,
        batch: &mut Batch,
    ) -> Result<bool, String> {
        let (mut at, mut entry) = (0, 0);
        loop {
            let known = &self.memory.known;
            if known.is_text {
                let texts = &self.scratch.texts;
                let samples = &mut batch.samples;
                let followed = known.follow(reading, (at, entry), (texts, door), samples);
                let taken = known.entries.get(entry..followed.entry).unwrap_or_default();
                self.counts.followed += taken.len();
                if followed.is_all && self.scratch.next.len() == entry && self.counts.parsed == 0 {
                    self.is_unchanged = true;
                    return Ok(true);
                }
                self.scratch.next.extend_from_slice(taken);
                (at, entry) = (followed.at, followed.entry);
                if followed.is_all {
                    self.tail = known.tail;
                    return Ok(true);
                }
            }
            let start = match (at, reading.body.get(at)) {
                (0, _) => 0,
                (_, Some(b'\n')) => at + 1,
                (_, None) => at,
                _ => return Ok(false),
            };
            match self.parse((start, Some((at, entry))), reading, door, batch)? {
                Some(on) => (at, entry) = on,
                None => return Ok(true),
            }
        }
    }

    /// Parses from the beginning of a line. Where `known` says what was known of the text behind which it
    /// begins, it ends where the body goes on as before: there, and at that entry.
    fn parse(
        &mut self,
        (start, known): (usize, Option<(usize, usize)>),
        reading: Reading<'_>,
        door: &mut impl Door,
        batch: &mut Batch,
    ) -> Result<Option<(usize, usize)>, String> {
        let body = reading.body;
        let (mut at, entry) = known.unwrap_or_default();
        self.go_to(start, body);
        let mut is_described = true;
        loop {
            let Scratch {
                parser, converter, ..
            } = &mut *self.scratch;
            let exposed = match self.rules.convert_to_nhcb {
                true => converter.next(parser, body),
                false => parser.next(body),
            };
            let exposed = exposed.map_err(|error| error.to_string())?;
            let is_item = matches!(exposed, Some(Exposed::Sample(_) | Exposed::Histogram(_)));
            if is_item && !std::mem::replace(&mut is_described, true) {
                self.describe(body);
            }
            match exposed {
                None => break,
                Some(Exposed::Sample(sample)) => {
                    let (mut new, end) = self.entry(body, at, &sample);
                    self.take(reading, &sample, &mut new, (&mut *door, &mut *batch))?;
                    self.scratch.next.push(new);
                    at = end;
                    if known.is_some()
                        && let Some(found) = self.find(entry, &new)
                    {
                        return Ok(Some((at, found + 1)));
                    }
                }
                Some(Exposed::Histogram(histogram)) => {
                    self.take_histogram(reading, &histogram, (&mut *door, &mut *batch))?;
                }
                Some(Exposed::Help { .. } | Exposed::Type { .. } | Exposed::Unit { .. }) => {
                    is_described = false;
                }
                Some(Exposed::Comment) => {}
            }
        }
        let rest = body.get(at..).unwrap_or_default();
        self.tail = (self.scratch.texts.hash(rest), rest.len());
        Ok(None)
    }

    /// Leads the parser to the beginning of a line.
    fn go_to(&mut self, start: usize, body: &[u8]) {
        let parser = &mut self.scratch.parser;
        if self.counts.parsed == 0 {
            parser.start(body, self.format, self.rules.parse_options());
            // Which are kept is the parser's matter where they are not converted.
            (self.scratch.converter).start(self.rules.classic_histograms);
        }
        if start > 0 {
            let before = self.scratch.next.last();
            let state = LineState {
                last_type: before.map_or_else(Kind::default, Entry::kind),
                family: FamilyText::default(),
            };
            parser.resume(start, state);
        }
    }

    /// What is to be known of a sample that was parsed, behind what ended at `at`; and where it ends.
    fn entry(&self, body: &[u8], at: usize, sample: &SampleAt) -> (Entry, usize) {
        let (mut line, mut end) = (Line::Parsed, 0);
        if self.format != Format::Protobuf {
            (line, end) = line_of(body, &sample.value_at, line_end(body, sample));
        }
        if sample.has_exemplar {
            (line, end) = (Line::Parsed, line_end(body, sample));
        }
        let text = body.get(at..sample.value_at.start).unwrap_or_default();
        let kind = self.scratch.parser.state(body).last_type;
        (Entry::new(text, &self.scratch.texts, line, kind), end)
    }

    /// The entry at or soon behind `from` that a sample is of.
    fn find(&self, from: usize, new: &Entry) -> Option<usize> {
        let known = &self.memory.known;
        let near = known.entries.get(from..).unwrap_or_default();
        let near = near.get(..SEARCH_MAX).unwrap_or(near);
        let is_it =
            |old: &Entry| old.is_before(new) || (new.series != 0 && old.series == new.series);
        let found = known.is_text.then(|| near.iter().position(is_it));
        found.flatten().map(|place| from + place)
    }
}

impl Scrape<'_> {
    /// Whether the next body can be read as this one but for its values.
    pub(super) fn is_text(&self) -> bool {
        self.format != Format::Protobuf && !self.rules.needs_families(self.format)
    }
}

fn line_end(body: &[u8], sample: &SampleAt) -> usize {
    match body.get(sample.line_at.end.wrapping_sub(1)) {
        Some(b'\n') => sample.line_at.end - 1,
        _ => sample.line_at.end,
    }
}

/// How a scrape ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) counts: Counts,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

impl Ended {
    /// Why, for counting: of a body that came.
    pub(crate) fn failure(&self) -> Option<ScrapeFailure> {
        self.error.as_ref()?;
        Some(if self.counts.is_over_sample_limit {
            ScrapeFailure::SampleLimit
        } else if self.counts.is_over_label_limit {
            ScrapeFailure::LabelLimit
        } else if self.counts.is_over_bucket_limit {
            ScrapeFailure::BucketLimit
        } else {
            ScrapeFailure::Parse
        })
    }
}
