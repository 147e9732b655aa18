//! Turns the samples of classic histograms into native histograms with custom buckets.
//!
//! A converter sits between a [`Parser`] and who pulls, and gives entries like it. It collects
//! the samples of one classic histogram (those that stand together, have the same labels but
//! `le`, and whose names belong to the last `# TYPE` line, which says `histogram`) and gives a
//! histogram in their place when something else comes, or beside them if they are kept. A
//! histogram that came in its native form right before is not converted again.
//!
//! # Invariants
//! - What is being collected is given out, or counted as not converted, before anything that
//!   comes behind it.
//!
//! # Failure
//! - A body that fails has nothing more, also not what was collected.
//! - Counts that do not go together make no histogram: [`Unconverted`] says how often, and why.

mod collect;

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::{
    Entry, Exemplar, ExemplarLabels, Histogram, HistogramAt, Kind, ParseError, Parser, SampleAt,
    float,
};
use collect::Collected;
pub use collect::Unconverted;

/// An exemplar of a histogram that is collected; its labels are in `Converter::text`.
#[derive(Clone, Debug)]
struct Kept {
    value: f64,
    timestamp_ms: Option<i64>,
    labels: std::ops::Range<usize>,
}

/// Which histogram a sample is of.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    name: u64,
    labels: u64,
}

/// What a sample says about a histogram.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

/// Names and values one after the other, each a range of `bytes`.
#[derive(Default, Debug)]
pub(super) struct Text {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Text {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, at: usize) -> &[u8] {
        let start = at
            .checked_sub(1)
            .and_then(|before| self.ends.get(before).copied());
        let end = self.ends.get(at).copied().unwrap_or(0);
        self.bytes.get(start.unwrap_or(0)..end).unwrap_or_default()
    }

    pub(super) fn pairs(&self, at: std::ops::Range<usize>) -> impl Iterator<Item = (&[u8], &[u8])> {
        at.step_by(2).map(|at| (self.get(at), self.get(at + 1)))
    }
}

/// Converts the classic histograms of one body after another; keeps its buffers.
#[derive(Default, Debug)]
pub struct Converter {
    keeps_classic: bool,
    seed: RandomState,
    /// The histogram that is being collected.
    key: Option<Key>,
    /// The last histogram that was native already.
    native: Option<Key>,
    at: Option<HistogramAt>,
    collected: Collected,
    /// Labels of the collected histogram, then those of its exemplars.
    text: Text,
    labels: usize,
    exemplars: Vec<Kept>,
    histogram: Histogram,
    /// Whether the last entry was a converted histogram.
    is_converted: bool,
    /// What the parser gave while a histogram was to be given first.
    pending: Option<Result<Option<Entry>, ParseError>>,
    unconverted: Unconverted,
}

impl Converter {
    /// Begins a body; the samples of the classic histograms are given out too if they are kept.
    pub fn start(&mut self, keeps_classic: bool) {
        self.keeps_classic = keeps_classic;
        self.key = None;
        self.native = None;
        self.is_converted = false;
        self.pending = None;
        self.unconverted = Unconverted::default();
        self.forget();
    }

    /// The next entry of the body that the parser reads.
    ///
    /// # Errors
    ///
    /// Those of [`Parser::next`].
    pub fn next(&mut self, parser: &mut Parser, body: &[u8]) -> Result<Option<Entry>, ParseError> {
        self.is_converted = false;
        loop {
            let entry = match self.pending.take() {
                Some(entry) => entry,
                None => parser.next(body),
            };
            let part = match &entry {
                Ok(Some(Entry::Sample(_))) => self.part(parser, body),
                _ => None,
            };
            let key = part.as_ref().map(|(_, key)| key);
            if entry.is_ok() && self.key.is_some() && self.key.as_ref() != key {
                self.key = None;
                if let Some(at) = self.converted() {
                    self.pending = Some(entry);
                    return Ok(Some(Entry::Histogram(at)));
                }
            }
            match (&entry, part) {
                (Ok(Some(Entry::Sample(sample))), Some((part, key))) => {
                    self.collect(parser, body, sample, (part, key));
                    if !self.keeps_classic {
                        continue;
                    }
                }
                (Ok(Some(Entry::Histogram(_))), _) => {
                    let name = parser.name(body);
                    self.native = Some(self.key(parser, body, name));
                }
                _ => {}
            }
            return entry;
        }
    }

    /// The labels of the entry that came last; see [`Parser::labels`].
    pub fn labels<'b>(
        &'b self,
        parser: &'b Parser,
        body: &'b [u8],
    ) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        let own = if self.is_converted { self.labels } else { 0 };
        let parsed = (!self.is_converted).then(|| parser.labels(body));
        self.text.pairs(0..own).chain(parsed.into_iter().flatten())
    }

    /// The exemplars of the entry that came last; see [`Parser::exemplars`].
    pub fn exemplars<'b>(
        &'b self,
        parser: &'b Parser,
        body: &'b [u8],
    ) -> impl Iterator<Item = Exemplar<'b>> {
        let own = self.exemplars.iter().filter(|_| self.is_converted);
        let own = own.map(|kept| Exemplar {
            value: kept.value,
            timestamp_ms: kept.timestamp_ms,
            labels: ExemplarLabels::Kept(&self.text, kept.labels.clone()),
        });
        let parsed = (!self.is_converted).then(|| parser.exemplars(body));
        own.chain(parsed.into_iter().flatten())
    }

    /// The histogram that came last.
    #[must_use]
    pub fn histogram<'b>(&'b self, parser: &'b Parser) -> &'b Histogram {
        if self.is_converted {
            &self.histogram
        } else {
            parser.histogram()
        }
    }

    /// What was not converted since the body began.
    #[must_use]
    pub fn unconverted(&self) -> Unconverted {
        self.unconverted
    }

    fn forget(&mut self) {
        self.at = None;
        self.collected.clear();
        self.text.clear();
        self.labels = 0;
        self.exemplars.clear();
    }

    /// What the sample says about which histogram, if it is of a classic one.
    fn part(&self, parser: &Parser, body: &[u8]) -> Option<(Part, Key)> {
        let family = parser.state(body);
        if family.last_type != Kind::Histogram || family.family.kind != Kind::Histogram {
            return None;
        }
        let part = match parser.name(body).strip_prefix(family.family.name)? {
            b"_bucket" => {
                let mut labels = parser.labels(body);
                let (_, bound) = labels.find(|(name, _)| name == b"le")?;
                Part::Bucket(float::parse(bound).filter(|bound| !bound.is_nan())?)
            }
            b"_count" => Part::Count,
            b"_sum" => Part::Sum,
            _ => return None,
        };
        let key = self.key(parser, body, family.family.name);
        (self.native.as_ref() != Some(&key)).then_some((part, key))
    }

    /// A name and all labels but the bound.
    fn key(&self, parser: &Parser, body: &[u8], name: &[u8]) -> Key {
        let own = |(name, _): &(&[u8], &[u8])| !matches!(*name, b"__name__" | b"le");
        let labels = parser.labels(body).filter(own);
        // The order of labels does not matter.
        let labels = labels.fold(0, |sum: u64, label| {
            sum.wrapping_add(self.seed.hash_one(label))
        });
        Key {
            name: self.seed.hash_one(name),
            labels,
        }
    }

    fn collect(&mut self, parser: &Parser, body: &[u8], sample: &SampleAt, of: (Part, Key)) {
        let (part, key) = of;
        if self.key.is_none() {
            self.forget();
            self.begin(parser, body, sample);
        }
        self.key = Some(key);
        for exemplar in parser.exemplars(body) {
            let first = self.text.ends.len();
            for (name, value) in exemplar.labels() {
                self.text.push(name);
                self.text.push(value);
            }
            self.exemplars.push(Kept {
                value: exemplar.value,
                timestamp_ms: exemplar.timestamp_ms,
                labels: first..self.text.ends.len(),
            });
        }
        match part {
            Part::Bucket(bound) => self.collected.bucket(bound, sample.value),
            Part::Count => self.collected.count(sample.value),
            Part::Sum => self.collected.sum(sample.value),
        }
    }

    /// Takes over what the first sample says about the whole.
    fn begin(&mut self, parser: &Parser, body: &[u8], sample: &SampleAt) {
        self.at = Some(HistogramAt {
            timestamp_ms: sample.timestamp_ms,
            start_ms: sample.start_ms,
            has_exemplar: false,
            line_at: sample.line_at.clone(),
        });
        self.text.push(b"__name__");
        self.text.push(parser.state(body).family.name);
        for (name, value) in parser.labels(body).skip(1) {
            if name != b"le" {
                self.text.push(name);
                self.text.push(value);
            }
        }
        self.labels = self.text.ends.len();
    }

    /// The histogram that was collected, if it is one.
    fn converted(&mut self) -> Option<HistogramAt> {
        let mut at = self.at.take()?;
        match self.collected.convert(&mut self.histogram) {
            Ok(()) => {
                at.has_exemplar = !self.exemplars.is_empty();
                self.is_converted = true;
                Some(at)
            }
            Err(why) => {
                self.unconverted.add(why);
                None
            }
        }
    }
}
