//! Turns delimited `io.prometheus.client.MetricFamily` messages into entries.
//!
//! A summary or a classic histogram is one message and becomes the samples that text would have
//! for it: `_count`, `_sum`, then a sample per quantile or bucket, and a bucket for `+Inf` if
//! there was none. Families without metrics say nothing. Messages are read where they stand; only
//! names with a suffix and the texts of bounds are made.
//!
//! # Invariants
//! - The names with a suffix are made once per family and kept as long.
//! - `labels[..own_labels]` are those of the `Metric` message; what a sample has besides comes
//!   behind them.
//!
//! # Failure
//! A field of another wire type than it should have, text that is not UTF-8, a unit that is no
//! suffix of the name, and buckets that do not match their spans are refused.

use std::ops::Range;

use super::error::Wrong;
use super::made::{LabelAt, Made, Span};
use super::openmetrics::is_unit_of;
use super::{Entry, ExemplarAt, HistogramAt, Kind, Parser, SampleAt, float};
use crate::decode::wire::{Cursor, DEPTH_MAX, Key, Wire};

pub(super) mod histogram;

use histogram::Raw;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Stage {
    #[default]
    Family,
    Unit,
    Type,
    Metric,
    /// The count, the sum, or a quantile or bucket of a metric.
    Part(usize),
}

/// How a family's metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Shape {
    #[default]
    Counter,
    Gauge,
    Summary,
    Untyped,
    Histogram,
    GaugeHistogram,
}

impl Shape {
    fn of(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Summary,
            3 => Self::Untyped,
            4 => Self::Histogram,
            5 => Self::GaugeHistogram,
            _ => return None,
        })
    }

    fn kind(self) -> Kind {
        match self {
            Self::Counter => Kind::Counter,
            Self::Gauge => Kind::Gauge,
            Self::Summary => Kind::Summary,
            Self::Untyped => Kind::Unknown,
            Self::Histogram => Kind::Histogram,
            Self::GaugeHistogram => Kind::GaugeHistogram,
        }
    }

    /// The field of a `Metric` that has its value.
    fn field(self) -> u32 {
        match self {
            Self::Gauge => 2,
            Self::Counter => 3,
            Self::Summary => 4,
            Self::Untyped => 5,
            Self::Histogram | Self::GaugeHistogram => 7,
        }
    }

    fn has_parts(self) -> bool {
        !matches!(self, Self::Counter | Self::Gauge | Self::Untyped)
    }
}

/// A quantile or a bucket.
#[derive(Clone, Debug)]
struct Part {
    bound: f64,
    value: f64,
    exemplar: Option<Range<usize>>,
}

/// What a `Metric` has besides its labels.
#[derive(Clone, Default, Debug)]
struct Metric {
    at: Range<usize>,
    timestamp_ms: Option<i64>,
    start_ms: Option<i64>,
    value: f64,
    count: f64,
    sum: f64,
    exemplar: Option<Range<usize>>,
}

/// The family that is being read.
#[derive(Default, Debug)]
pub(super) struct Families {
    stage: Stage,
    shape: Shape,
    /// What is left of the family's message.
    rest: Range<usize>,
    count_name: Span,
    sum_name: Span,
    bucket_name: Span,
    metric: Metric,
    own_labels: usize,
    parts: Vec<Part>,
    raw: Raw,
}

impl Families {
    pub(super) fn start(&mut self) {
        self.stage = Stage::Family;
    }
}

/// Hands every field of a message to `take`, which says whether it knows it.
#[inline]
fn each_field<'b>(
    body: &'b [u8],
    at: Range<usize>,
    mut take: impl FnMut(Key, &mut Cursor<'b>) -> Result<bool, Wrong>,
) -> Result<(), Wrong> {
    let mut message = Cursor::over(body, at);
    while !message.is_done() {
        let key = message.key()?;
        if !take(key, &mut message)? {
            message.skip(key, DEPTH_MAX)?;
        }
    }
    Ok(())
}

/// A range of bytes.
#[inline]
fn span(key: Key, message: &mut Cursor<'_>) -> Result<Range<usize>, Wrong> {
    key.expect(Wire::Bytes)?;
    Ok(message.span()?)
}

/// Text.
#[inline]
fn text(key: Key, message: &mut Cursor<'_>) -> Result<Span, Wrong> {
    let at = span(key, message)?;
    if std::str::from_utf8(message.slice(at.clone())).is_err() {
        return Err(Wrong {
            at: at.start,
            what: "text is not UTF-8",
        });
    }
    Ok(Span::new(at))
}

#[inline]
fn double(key: Key, message: &mut Cursor<'_>) -> Result<f64, Wrong> {
    key.expect(Wire::Fixed64)?;
    Ok(f64::from_bits(message.fixed64()?))
}

#[inline]
fn varint(key: Key, message: &mut Cursor<'_>) -> Result<u64, Wrong> {
    key.expect(Wire::Varint)?;
    Ok(message.varint()?)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what a sample can say of a count"
)]
fn counted(count: u64) -> f64 {
    count as f64
}

/// A `google.protobuf.Timestamp`, cut to milliseconds.
fn timestamp(body: &[u8], at: Range<usize>) -> Result<i64, Wrong> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    each_field(body, at, |key, message| {
        match key.number {
            1 => seconds = varint(key, message)?.cast_signed(),
            2 => nanos = varint(key, message)?.cast_signed(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(seconds
        .saturating_mul(1000)
        .saturating_add(nanos / 1_000_000))
}

/// Reads a label pair.
#[inline]
fn label(body: &[u8], at: Range<usize>) -> Result<LabelAt, Wrong> {
    let (mut name, mut value) = (Span::default(), Span::default());
    each_field(body, at, |key, message| {
        match key.number {
            1 => name = text(key, message)?,
            2 => value = text(key, message)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(LabelAt { name, value })
}

impl Parser {
    pub(super) fn next_protobuf(&mut self, body: &[u8]) -> Result<Option<Entry>, Wrong> {
        loop {
            let family = self.family.name;
            match self.families.stage {
                Stage::Family => {
                    if self.at >= body.len() {
                        return Ok(None);
                    }
                    if self.begin_message(body)? {
                        let is_measured = !self.family.unit.is_empty();
                        self.families.stage = if is_measured {
                            Stage::Unit
                        } else {
                            Stage::Type
                        };
                        let (family, text) = (self.family.name, self.family.help);
                        return Ok(Some(Entry::Help { family, text }));
                    }
                }
                Stage::Unit => {
                    self.families.stage = Stage::Type;
                    let unit = self.family.unit;
                    return Ok(Some(Entry::Unit { family, unit }));
                }
                Stage::Type => {
                    self.families.stage = Stage::Metric;
                    let kind = self.family.kind;
                    return Ok(Some(Entry::Type { family, kind }));
                }
                Stage::Metric => {
                    self.clear_entry();
                    if let Some(entry) = self.metric(body)? {
                        return Ok(Some(entry));
                    }
                }
                Stage::Part(part) => return self.part(body, part).map(Some),
            }
        }
    }

    /// Begins the next family; false if it has no metrics.
    fn begin_message(&mut self, body: &[u8]) -> Result<bool, Wrong> {
        let begin = self.at;
        let at = Cursor::over(body, begin..body.len()).span()?;
        self.at = at.end;
        self.clear_entry();
        self.made.forget();
        self.family = super::family::Family::default();
        let mut shape = Some(Shape::Counter);
        let mut first = None;
        let family = &mut self.family;
        each_field(body, at.clone(), |key, message| {
            match key.number {
                1 => family.name = text(key, message)?,
                2 => family.help = text(key, message)?,
                3 => shape = Shape::of(varint(key, message)?),
                4 => {
                    first = first.or(Some(key.offset));
                    span(key, message)?;
                }
                5 => family.unit = text(key, message)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let Some(first) = first else {
            return Ok(false);
        };
        let wrong = |what| Err(Wrong { at: begin, what });
        let Some(shape) = shape else {
            return wrong("unknown metric type");
        };
        if self.family.name.is_empty() {
            return wrong("metric family without name");
        }
        self.family.kind = shape.kind();
        self.last_type = shape.kind();
        self.families.shape = shape;
        self.families.rest = first..at.end;
        let name = self.made.bytes(body, self.family.name);
        let unit = self.made.bytes(body, self.family.unit);
        // A counter has its unit before its suffix.
        let whole = name.strip_suffix(b"_total");
        let measured = whole.filter(|_| shape == Shape::Counter).unwrap_or(name);
        if !unit.is_empty() && !is_unit_of(unit, measured) {
            return wrong("unit is no suffix of the metric name");
        }
        self.make_names(body);
        Ok(true)
    }

    /// The names that the samples of a summary or histogram have.
    fn make_names(&mut self, body: &[u8]) {
        let families = &mut self.families;
        if !families.shape.has_parts() {
            return;
        }
        // It is in the body: nothing is made of a family before this.
        let name = self.family.name;
        let name = body.get(name.range()).unwrap_or_default();
        let make = |made: &mut Made, suffix: &[u8]| {
            made.write(|out| {
                out.extend_from_slice(name);
                out.extend_from_slice(suffix);
            })
        };
        families.count_name = make(&mut self.made, b"_count");
        families.sum_name = make(&mut self.made, b"_sum");
        families.bucket_name = make(&mut self.made, b"_bucket");
        self.made.keep();
    }

    /// The next metric of the family: an entry, or none if it has parts or is no more.
    fn metric(&mut self, body: &[u8]) -> Result<Option<Entry>, Wrong> {
        let mut rest = Cursor::over(body, self.families.rest.clone());
        let at = loop {
            if rest.is_done() {
                self.families.stage = Stage::Family;
                return Ok(None);
            }
            let key = rest.key()?;
            if key.number == 4 {
                break span(key, &mut rest)?;
            }
            rest.skip(key, DEPTH_MAX)?;
        };
        self.families.rest.start = rest.at();
        let value = self.read_metric(body, at)?;
        self.name = self.family.name;
        match self.families.shape {
            Shape::Histogram | Shape::GaugeHistogram => {
                self.read_histogram(body, value)?;
                if self.options.native_histograms && self.families.raw.is_native() {
                    return self.native(body).map(Some);
                }
                self.families.stage = Stage::Part(0);
                Ok(None)
            }
            Shape::Summary => {
                self.read_summary(body, value)?;
                self.families.stage = Stage::Part(0);
                Ok(None)
            }
            Shape::Counter | Shape::Gauge | Shape::Untyped => {
                self.read_value(body, value)?;
                let exemplar = self.families.metric.exemplar.take();
                let value = self.families.metric.value;
                self.sample(body, value, exemplar).map(Some)
            }
        }
    }

    /// Reads labels and timestamp; gives where the value is, which may be missing.
    fn read_metric(&mut self, body: &[u8], at: Range<usize>) -> Result<Range<usize>, Wrong> {
        let mut value = 0..0;
        let mut timestamp = 0;
        let field = self.families.shape.field();
        let labels = &mut self.labels;
        each_field(body, at.clone(), |key, message| {
            match key.number {
                1 => labels.push(label(body, span(key, message)?)?),
                6 => timestamp = varint(key, message)?.cast_signed(),
                number if number == field => value = span(key, message)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        self.families.own_labels = self.labels.len();
        self.families.metric = Metric {
            at,
            // It cannot be told from one that is missing.
            timestamp_ms: (timestamp != 0).then_some(timestamp),
            ..Metric::default()
        };
        Ok(value)
    }

    /// Reads a counter, a gauge or an untyped value.
    fn read_value(&mut self, body: &[u8], at: Range<usize>) -> Result<(), Wrong> {
        let is_counter = self.families.shape == Shape::Counter;
        let metric = &mut self.families.metric;
        each_field(body, at, |key, message| {
            match key.number {
                1 => metric.value = double(key, message)?,
                2 if is_counter => metric.exemplar = Some(span(key, message)?),
                3 if is_counter => metric.start(body, span(key, message)?)?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn read_summary(&mut self, body: &[u8], at: Range<usize>) -> Result<(), Wrong> {
        let Families { metric, parts, .. } = &mut self.families;
        parts.clear();
        each_field(body, at, |key, message| {
            match key.number {
                1 => metric.count = counted(varint(key, message)?),
                2 => metric.sum = double(key, message)?,
                3 => {
                    let (mut bound, mut value) = (0.0, 0.0);
                    each_field(body, span(key, message)?, |key, message| {
                        match key.number {
                            1 => bound = double(key, message)?,
                            2 => value = double(key, message)?,
                            _ => return Ok(false),
                        }
                        Ok(true)
                    })?;
                    parts.push(Part {
                        bound,
                        value,
                        exemplar: None,
                    });
                }
                4 => metric.start(body, span(key, message)?)?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    /// A part of a summary or classic histogram as a sample.
    fn part(&mut self, body: &[u8], at: usize) -> Result<Entry, Wrong> {
        self.made.clear();
        self.exemplars.clear();
        self.exemplar_labels.clear();
        self.labels.truncate(self.families.own_labels);
        let families = &mut self.families;
        let is_summary = families.shape == Shape::Summary;
        families.stage = Stage::Part(at + 1);
        let Some(index) = at.checked_sub(2) else {
            let is_sum = at == 1;
            if is_sum && is_summary && families.parts.is_empty() {
                families.stage = Stage::Metric;
            }
            let metric = &families.metric;
            let (name, value) = if is_sum {
                (families.sum_name, metric.sum)
            } else {
                (families.count_name, metric.count)
            };
            self.name = name;
            return self.sample(body, value, None);
        };
        let part = families.parts.get(index).cloned().unwrap_or(Part {
            bound: f64::INFINITY,
            value: families.metric.count,
            exemplar: None,
        });
        let is_last = if is_summary {
            index + 1 >= families.parts.len()
        } else {
            part.bound == f64::INFINITY || index >= families.parts.len()
        };
        if is_last {
            families.stage = Stage::Metric;
        }
        let bound: &'static [u8] = if is_summary { b"quantile" } else { b"le" };
        self.name = if is_summary {
            self.family.name
        } else {
            families.bucket_name
        };
        let name = self.made.write(|out| out.extend_from_slice(bound));
        let value = self.made.write(|out| float::append(out, part.bound));
        self.labels.push(LabelAt { name, value });
        self.sample(body, part.value, part.exemplar)
    }

    fn sample(
        &mut self,
        body: &[u8],
        value: f64,
        exemplar: Option<Range<usize>>,
    ) -> Result<Entry, Wrong> {
        if let Some(at) = exemplar {
            self.read_exemplar(body, at, false)?;
        }
        let metric = &self.families.metric;
        Ok(Entry::Sample(SampleAt {
            value,
            timestamp_ms: metric.timestamp_ms,
            start_ms: metric.start_ms,
            has_exemplar: !self.exemplars.is_empty(),
            value_at: 0..0,
            line_at: metric.at.clone(),
        }))
    }

    /// Reads an exemplar; one without time is left out where it `needs_time`.
    fn read_exemplar(
        &mut self,
        body: &[u8],
        at: Range<usize>,
        needs_time: bool,
    ) -> Result<(), Wrong> {
        let first = self.exemplar_labels.len();
        let labels = &mut self.exemplar_labels;
        let (mut value, mut timestamp_ms) = (0.0, None);
        each_field(body, at, |key, message| {
            match key.number {
                1 => labels.push(label(body, span(key, message)?)?),
                2 => value = double(key, message)?,
                3 => timestamp_ms = Some(timestamp(body, span(key, message)?)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if needs_time && timestamp_ms.is_none() {
            labels.truncate(first);
            return Ok(());
        }
        self.exemplars.push(ExemplarAt {
            value,
            timestamp_ms,
            labels: first..labels.len(),
        });
        Ok(())
    }

    /// The native form of the histogram that was read.
    fn native(&mut self, body: &[u8]) -> Result<Entry, Wrong> {
        let families = &mut self.families;
        let is_gauge = families.shape == Shape::GaugeHistogram;
        let at = families.metric.at.start;
        families
            .raw
            .compact(&mut self.histogram, is_gauge)
            .ok_or(Wrong {
                at,
                what: "buckets of a histogram do not match their spans",
            })?;
        let is_both = self.options.classic_histograms && !families.parts.is_empty();
        families.stage = if is_both {
            Stage::Part(0)
        } else {
            Stage::Metric
        };
        let own = std::mem::take(&mut families.raw.exemplars);
        for at in &own {
            self.read_exemplar(body, at.clone(), true)?;
        }
        if own.is_empty() {
            for part in 0..self.families.parts.len() {
                let part = self.families.parts.get(part);
                if let Some(at) = part.and_then(|part| part.exemplar.clone()) {
                    self.read_exemplar(body, at, true)?;
                }
            }
        }
        self.families.raw.exemplars = own;
        let metric = &self.families.metric;
        Ok(Entry::Histogram(HistogramAt {
            timestamp_ms: metric.timestamp_ms,
            start_ms: metric.start_ms,
            has_exemplar: !self.exemplars.is_empty(),
            line_at: metric.at.clone(),
        }))
    }
}

impl Metric {
    fn start(&mut self, body: &[u8], at: Range<usize>) -> Result<(), Wrong> {
        self.start_ms = Some(timestamp(body, at)?).filter(|start| *start != 0);
        Ok(())
    }
}
