//! Turns entries of OpenMetrics into whether the specification allows them where they stand.
//!
//! Prometheus looks at lines one by one; the specification is also about how they go together:
//! metadata before samples, one family after another, the metrics of a family after another, the
//! names and values each type allows, and what makes a histogram whole.
//!
//! # Invariants
//! - What a family may not share with another (its names) is taken when it ends, once its type
//!   cannot change any more.
//!
//! # Limits
//! - Names and metrics are remembered by hashes of 64 bits with a seed of this parser, one per
//!   name of a family of the body and one per metric of a family.

use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::{Entry, Kind, Parser, SampleAt, float};

/// Characters in the names and values of an exemplar's labels.
const EXEMPLAR_CHARACTERS_MAX: usize = 128;

type Verdict = Result<(), &'static str>;

/// What a series has behind the name of its family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Suffix {
    None,
    Total,
    Created,
    Bucket,
    Count,
    Sum,
    GaugeCount,
    GaugeSum,
    Info,
}

impl Suffix {
    fn text(self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::Total => b"_total",
            Self::Created => b"_created",
            Self::Bucket => b"_bucket",
            Self::Count => b"_count",
            Self::Sum => b"_sum",
            Self::GaugeCount => b"_gcount",
            Self::GaugeSum => b"_gsum",
            Self::Info => b"_info",
        }
    }

    fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Unknown | Kind::Gauge | Kind::StateSet => &[Self::None],
            Kind::Counter => &[Self::Total, Self::Created],
            Kind::Histogram => &[Self::Bucket, Self::Count, Self::Sum, Self::Created],
            Kind::GaugeHistogram => &[Self::Bucket, Self::GaugeCount, Self::GaugeSum],
            Kind::Summary => &[Self::None, Self::Count, Self::Sum, Self::Created],
            Kind::Info => &[Self::Info],
        }
    }

    fn is_count(self) -> bool {
        matches!(self, Self::Bucket | Self::Count | Self::GaugeCount)
    }

    fn is_sum(self) -> bool {
        matches!(self, Self::Sum | Self::GaugeSum)
    }
}

/// Whether a line of metadata was there.
#[derive(Clone, Copy, Default, Debug)]
struct Lines {
    help: bool,
    kind: bool,
    unit: bool,
}

/// One histogram at one time.
#[derive(Clone, Copy, Default, Debug)]
struct Buckets {
    bound: Option<f64>,
    value: f64,
    count: Option<f64>,
    sum: Option<f64>,
    has_negative: bool,
}

/// The metric that the last sample was of.
#[derive(Clone, Copy, Debug)]
struct Group {
    labels: u64,
    timestamp_ms: Option<i64>,
}

/// What was seen of the body.
#[derive(Default, Debug)]
pub(super) struct Strict {
    seed: RandomState,
    /// Names that families have taken.
    names: HashSet<u64, RandomState>,
    /// Metrics of the family.
    groups: HashSet<u64, RandomState>,
    label_names: HashSet<u64, RandomState>,
    /// The name of the family; none yet if empty.
    name: Vec<u8>,
    kind: Kind,
    is_measured: bool,
    lines: Lines,
    group: Option<Group>,
    buckets: Option<Buckets>,
}

impl Strict {
    pub(super) fn start(&mut self) {
        self.names.clear();
        self.begin(b"");
    }

    fn begin(&mut self, name: &[u8]) {
        self.groups.clear();
        self.name.clear();
        self.name.extend_from_slice(name);
        self.kind = Kind::Unknown;
        self.is_measured = false;
        self.lines = Lines::default();
        self.group = None;
        self.buckets = None;
    }

    /// Ends the family.
    fn end(&mut self) -> Verdict {
        if let Some(buckets) = self.buckets.take() {
            buckets.check(self.kind)?;
        }
        if self.name.is_empty() {
            return Ok(());
        }
        if self.is_measured && matches!(self.kind, Kind::Info | Kind::StateSet) {
            return Err("a unit is not allowed for this metric type");
        }
        let length = self.name.len();
        let with_base = std::iter::once(Suffix::None).chain(
            Suffix::of(self.kind)
                .iter()
                .copied()
                .filter(|s| *s != Suffix::None),
        );
        for suffix in with_base {
            self.name.extend_from_slice(suffix.text());
            let is_new = self.names.insert(self.seed.hash_one(self.name.as_slice()));
            self.name.truncate(length);
            if !is_new {
                return Err("the names of two metric families clash");
            }
        }
        Ok(())
    }

    /// A line of metadata of a family.
    fn metadata(&mut self, name: &[u8]) -> Result<&mut Lines, &'static str> {
        if name != self.name {
            self.end()?;
            self.begin(name);
        } else if self.group.is_some() {
            return Err("metadata behind samples of its family");
        }
        Ok(&mut self.lines)
    }

    /// The suffix of a series; begins a family of its own if it is none of the current one.
    fn suffix(&mut self, series: &[u8]) -> Result<Suffix, &'static str> {
        let behind = series.strip_prefix(self.name.as_slice());
        let behind = behind.filter(|_| !self.name.is_empty());
        let mut suffixes = Suffix::of(self.kind).iter();
        if let Some(suffix) = suffixes.find(|suffix| behind == Some(suffix.text())) {
            return Ok(*suffix);
        }
        self.end()?;
        self.begin(series);
        Ok(Suffix::None)
    }

    /// Whether the metric may come here.
    fn group(&mut self, group: Group) -> Verdict {
        let is_new = self.groups.insert(group.labels);
        let last = self.group.replace(group);
        let Some(last) = last.filter(|last| last.labels == group.labels) else {
            return if is_new {
                Ok(())
            } else {
                Err("samples of a metric do not stand together")
            };
        };
        match (last.timestamp_ms, group.timestamp_ms) {
            (None, None) => Ok(()),
            (Some(last), Some(now)) if last <= now || self.kind == Kind::Info => Ok(()),
            (Some(_), Some(_)) => Err("timestamps go backwards"),
            _ => Err("only some samples of a metric have timestamps"),
        }
    }
}

fn once(seen: &mut bool) -> Verdict {
    if std::mem::replace(seen, true) {
        return Err("repeated line of metadata");
    }
    Ok(())
}

impl Buckets {
    /// What a histogram needs to be whole.
    fn check(&self, kind: Kind) -> Verdict {
        if self.bound != Some(f64::INFINITY) {
            return Err("histogram without +Inf bucket");
        }
        if self
            .count
            .is_some_and(|count| count.to_bits() != self.value.to_bits())
        {
            return Err("count of a histogram is not that of its +Inf bucket");
        }
        if self.count.is_some() != self.sum.is_some() {
            return Err("histogram with only one of sum and count");
        }
        match self.sum {
            Some(_) if kind == Kind::Histogram && self.has_negative => {
                Err("sum of a histogram with negative buckets")
            }
            Some(sum) if kind == Kind::GaugeHistogram && sum < 0.0 && !self.has_negative => {
                Err("negative sum of a histogram without negative buckets")
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, suffix: Suffix, value: f64, bound: Option<f64>) -> Verdict {
        if suffix.is_sum() {
            self.sum = Some(value);
        } else if suffix.is_count() && suffix != Suffix::Bucket {
            self.count = Some(value);
        }
        let Some(bound) = bound else {
            return Ok(());
        };
        if self.bound.is_some_and(|last| bound <= last) {
            return Err("buckets are out of order");
        }
        if value < self.value {
            return Err("counts of buckets are out of order");
        }
        self.has_negative |= bound < 0.0;
        self.bound = Some(bound);
        self.value = value;
        Ok(())
    }
}

impl Parser {
    /// Whether the specification allows the entry here; none is the end of the body.
    pub(super) fn check(&mut self, body: &[u8], entry: Option<&Entry>) -> Verdict {
        match entry {
            None => self.strict.end(),
            Some(Entry::Help { family, .. }) => {
                let name = self.made.bytes(body, *family);
                once(&mut self.strict.metadata(name)?.help)
            }
            Some(Entry::Type { family, kind }) => {
                let name = self.made.bytes(body, *family);
                once(&mut self.strict.metadata(name)?.kind)?;
                self.strict.kind = *kind;
                Ok(())
            }
            Some(Entry::Unit { family, unit }) => {
                let name = self.made.bytes(body, *family);
                once(&mut self.strict.metadata(name)?.unit)?;
                self.strict.is_measured = !unit.is_empty();
                Ok(())
            }
            Some(Entry::Sample(at)) => self.check_sample(body, at),
            Some(Entry::Comment | Entry::Histogram(_)) => Ok(()),
        }
    }

    fn check_sample(&mut self, body: &[u8], at: &SampleAt) -> Verdict {
        let suffix = self.strict.suffix(self.made.bytes(body, self.name))?;
        if self.has_last_comma {
            return Err("a comma behind the last label");
        }
        let kind = self.strict.kind;
        let bound = self.check_labels(body, suffix)?;
        check_value(kind, suffix, at.value)?;
        self.check_exemplar(body, kind, suffix)?;
        let group = Group {
            labels: self.group(body, suffix),
            timestamp_ms: at.timestamp_ms,
        };
        let last = self.strict.group;
        self.strict.group(group)?;
        if !matches!(kind, Kind::Histogram | Kind::GaugeHistogram) {
            return Ok(());
        }
        let is_same = last.is_some_and(|last| {
            last.labels == group.labels && last.timestamp_ms == group.timestamp_ms
        });
        let known = self.strict.buckets.take();
        let mut buckets = match known {
            Some(known) if is_same => known,
            Some(known) => {
                known.check(kind)?;
                Buckets::default()
            }
            None => Buckets::default(),
        };
        buckets.add(suffix, at.value, bound.filter(|_| suffix == Suffix::Bucket))?;
        self.strict.buckets = Some(buckets);
        Ok(())
    }

    /// Whether every label is there once and those the type needs are; gives the bound.
    fn check_labels(&mut self, body: &[u8], suffix: Suffix) -> Result<Option<f64>, &'static str> {
        let strict = &mut self.strict;
        let needed: Option<&[u8]> = match (strict.kind, suffix) {
            (Kind::StateSet, _) => Some(&strict.name),
            (Kind::Summary, Suffix::None) => Some(b"quantile"),
            (_, Suffix::Bucket) => Some(b"le"),
            _ => None,
        };
        strict.label_names.clear();
        let mut value = None;
        for label in &self.labels {
            let name = self.made.bytes(body, label.name);
            if !strict.label_names.insert(strict.seed.hash_one(name)) {
                return Err("a label is there twice");
            }
            if needed == Some(name) {
                value = Some(self.made.bytes(body, label.value));
            }
        }
        if needed.is_some() && value.is_none() {
            return Err("a label that the metric type needs is missing");
        }
        let bound = value.filter(|_| strict.kind != Kind::StateSet);
        let Some(bound) = bound.map(float::parse) else {
            return Ok(None);
        };
        match bound.filter(|bound| !bound.is_nan()) {
            Some(bound) if strict.kind != Kind::Summary => Ok(Some(bound)),
            Some(quantile) if (0.0..=1.0).contains(&quantile) => Ok(None),
            _ => Err("the value of le or quantile is out of range"),
        }
    }

    fn check_exemplar(&self, body: &[u8], kind: Kind, suffix: Suffix) -> Verdict {
        let Some(exemplar) = self.exemplars(body).next() else {
            return Ok(());
        };
        let is_allowed = matches!(
            (kind, suffix),
            (Kind::Counter, Suffix::Total)
                | (Kind::Histogram | Kind::GaugeHistogram, Suffix::Bucket)
        );
        if !is_allowed {
            return Err("an exemplar where none is allowed");
        }
        let begins = |byte: &&u8| **byte & 0xc0 != 0x80;
        let characters = |text: &[u8]| text.iter().filter(begins).count();
        let labels = exemplar.labels();
        let total: usize = labels
            .map(|(name, value)| characters(name) + characters(value))
            .sum();
        if total > EXEMPLAR_CHARACTERS_MAX {
            return Err("labels of an exemplar are longer than 128 characters");
        }
        Ok(())
    }

    /// The metric a sample is of: its labels but those that tell its samples apart.
    fn group(&self, body: &[u8], suffix: Suffix) -> u64 {
        let strict = &self.strict;
        let apart: &[u8] = match (strict.kind, suffix) {
            // The labels of an info are its value.
            (Kind::Info, _) => return 0,
            (Kind::StateSet, _) => &strict.name,
            (Kind::Summary, Suffix::None) => b"quantile",
            (_, Suffix::Bucket) => b"le",
            _ => b"",
        };
        let mut sum = 0u64;
        for label in &self.labels {
            let name = self.made.bytes(body, label.name);
            if name != apart {
                let label = (name, self.made.bytes(body, label.value));
                sum = sum.wrapping_add(strict.seed.hash_one(label));
            }
        }
        sum
    }
}

/// Whether a series of this type may have this value.
fn check_value(kind: Kind, suffix: Suffix, value: f64) -> Verdict {
    let is_zero_or_one = value.to_bits() == 0 || value.to_bits() == 1f64.to_bits();
    if value.is_nan() && (suffix == Suffix::Total || suffix.is_sum()) {
        return Err("value is not a number");
    }
    // Infinity and NaN have no integer part.
    if suffix.is_count() && value.fract() != 0.0 {
        return Err("count is no integer");
    }
    let counts = suffix == Suffix::Total || suffix == Suffix::Sum || suffix.is_count();
    let is_quantile = kind == Kind::Summary && suffix == Suffix::None;
    if value < 0.0 && (counts || is_quantile) {
        return Err("value is negative");
    }
    match kind {
        Kind::Info if value.to_bits() != 1f64.to_bits() => Err("value of an info is not 1"),
        Kind::StateSet if !is_zero_or_one => Err("value of a state is neither 0 nor 1"),
        _ => Ok(()),
    }
}
