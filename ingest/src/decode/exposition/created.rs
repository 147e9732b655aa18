//! Turns `_created` lines into the start times of the samples around them.
//!
//! OpenMetrics 1.0 writes when a metric began to count as a sample of its own, usually behind the
//! samples it is about. So a sample looks ahead: the next `_created` line of the family is its
//! own, or it has none. What that line is, is remembered until the parser is past it, and so is
//! that there is none: every line is looked at once.
//!
//! # Invariants
//! - `ahead` is right for every line that begins before `ahead.until`, and at or behind the line
//!   from which it was looked for. The parser only goes forward.
//!
//! # Limits
//! - Labels are compared by a hash of 64 bits with a seed of this parser.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::lines::{Lines, series};
use super::made::{LabelAt, Made};
use super::openmetrics::in_milliseconds;
use super::{Parser, SampleAt, float};

const SUFFIX: &[u8] = b"_created";

/// When a metric began, and which it is.
#[derive(Clone, Copy, Debug)]
struct Start {
    metric: u64,
    start_ms: i64,
}

/// The next `_created` line.
#[derive(Clone, Copy, Default, Debug)]
struct Ahead {
    /// Where it begins; where the family ends if there is none.
    until: usize,
    start: Option<Start>,
}

/// What is known of start times.
#[derive(Default, Debug)]
pub(super) struct Created {
    ahead: Ahead,
    /// The last one that was found or met.
    last: Option<Start>,
    seed: RandomState,
    /// Labels of a line ahead.
    labels: Vec<LabelAt>,
}

impl Created {
    pub(super) fn start(&mut self) {
        self.ahead = Ahead::default();
        self.last = None;
    }

    /// What the series of one metric have in common: its name and all labels but the bound.
    fn metric(
        &self,
        text: (&Made, &[u8]),
        name: &[u8],
        labels: &[LabelAt],
        bound: Option<&[u8]>,
    ) -> u64 {
        let (made, body) = text;
        let mut hasher = self.seed.build_hasher();
        let mut write = |bytes: &[u8]| {
            hasher.write(bytes);
            hasher.write_usize(bytes.len());
        };
        write(name);
        for label in labels {
            let name = made.bytes(body, label.name);
            if bound != Some(name) {
                write(name);
                write(made.bytes(body, label.value));
            }
        }
        hasher.finish()
    }
}

impl Parser {
    /// The sample with its start time, or none if it is one.
    #[inline]
    pub(super) fn with_start(&mut self, body: &[u8], mut sample: SampleAt) -> Option<SampleAt> {
        if !self.options.skip_created || !self.last_type.has_start() {
            return Some(sample);
        }
        let bound = self.last_type.bound_label();
        let text = (&self.made, body);
        let name = self.made.bytes(body, self.name);
        if let Some(metric) = name.strip_suffix(SUFFIX) {
            self.created.last = Some(Start {
                metric: self.created.metric(text, metric, &self.labels, bound),
                start_ms: in_milliseconds(sample.value),
            });
            return None;
        }
        let family = self.made.bytes(body, self.family.name);
        if !family.is_empty() && name.starts_with(family) {
            let metric = self.created.metric(text, family, &self.labels, bound);
            sample.start_ms = self.start_of(body, metric);
        }
        Some(sample)
    }

    fn start_of(&mut self, body: &[u8], metric: u64) -> Option<i64> {
        let is_it = |start: &Start| start.metric == metric;
        if self.created.last.as_ref().is_none_or(|last| !is_it(last)) {
            if self.at > self.created.ahead.until {
                self.created.ahead = self.look_ahead(body);
            }
            self.created.last = Some(self.created.ahead.start.filter(is_it)?);
        }
        self.created.last.map(|start| start.start_ms)
    }

    fn look_ahead(&mut self, body: &[u8]) -> Ahead {
        let mut lines = Lines::<true> { body, at: self.at };
        loop {
            let until = lines.at;
            let is_candidate = match lines.peek() {
                b'{' => true,
                _ => match lines.name() {
                    Some(name) => body.get(name).is_some_and(|name| name.ends_with(SUFFIX)),
                    None => return Ahead { until, start: None },
                },
            };
            if is_candidate {
                let start = self.read_start(Lines { body, at: until });
                if start.is_some() {
                    return Ahead { until, start };
                }
            }
            lines.line();
        }
    }

    /// The start time that this line is, if it is one.
    fn read_start(&mut self, lines: Lines<'_, true>) -> Option<Start> {
        let mark = self.made.mark();
        self.created.labels.clear();
        let bound = self.last_type.bound_label();
        let read = series(lines, &mut self.made, &mut self.created.labels, bound).ok();
        let start = read.and_then(|read| {
            let name = self.made.bytes(lines.body, read.name);
            let metric = name.strip_suffix(SUFFIX)?;
            let mut lines = Lines {
                at: read.at + 1,
                ..lines
            };
            let value = float::parse(lines.body.get(lines.token()?)?)?;
            let text = (&self.made, lines.body);
            Some(Start {
                metric: self
                    .created
                    .metric(text, metric, &self.created.labels, bound),
                start_ms: in_milliseconds(value),
            })
        });
        self.made.cut(mark);
        start
    }
}
