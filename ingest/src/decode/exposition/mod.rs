//! Turns scrape bodies into entries: metadata, samples, histograms.
//!
//! A pull parser, pure: bytes in, entries out. It knows no sockets, no clock and no series refs;
//! what becomes of an entry is decided by who pulls. It decides as Prometheus does what a body
//! means and whether it is one; [`ParseOptions::strict`] asks for what the OpenMetrics
//! specification wants instead.
//!
//! | file | does |
//! |---|---|
//! | `lines` | what both text formats are made of: names, quoted text, label lists, tokens |
//! | `text` | a body of Prometheus text (0.0.4 and 1.0.0) -> entries |
//! | `openmetrics` | a body of OpenMetrics text (0.0.1 and 1.0.0) -> entries |
//! | `created` | `_created` lines -> start times of the samples around them |
//! | `strict` | entries -> whether OpenMetrics allows them where they stand |
//! | `protobuf` | delimited `MetricFamily` messages -> entries |
//! | `histogram` | a native histogram, as remote write sends it |
//! | `resolution` | a native histogram -> one of lower resolution |
//! | `nhcb` | entries of classic histograms -> native histograms with custom buckets |
//! | `family` | which series a metric family has |
//! | `float` | number tokens -> floats, and back |
//! | `made` | ranges -> bytes of the body, or made ones beside it |
//! | `error` | what is wrong -> where, and what was expected |
//!
//! # Invariants
//! - Entries name bytes by [`Span`]s, which are those of the body unless they had to be made
//!   (unescaped, normalised, with a suffix). A span is good until the next call of
//!   [`Parser::next`], those of a family until its metadata ends.
//! - What a line of a text body means depends on the line and on [`LineState`], on nothing else;
//!   with [`ParseOptions::skip_created`] its start time also depends on the `_created` lines
//!   around it. A parser that is told the state may therefore go on at any line.
//! - Nothing is allocated per entry once the buffers have grown.
//!
//! # Failure
//! The first thing that is wrong ends the body: the error names line, byte and what was expected.
//! What came before it was given out already; whether it counts is up to who pulls. Bodies never
//! cause a panic.
//!
//! # Limits
//! - Bodies of up to [`BODY_BYTES_MAX`]. What is kept beside a body is bounded by its length.
//!
//! # Where Prometheus is not followed
//! - Blanks before a name do not become part of it, and names in quotes have to be UTF-8: both
//!   are series that it refuses later on, at the price of the whole body.
//! - A NUL in a comment is part of it instead of the end of the body. One at the beginning of a
//!   line of text does end it, for exporters that send their buffer's end along.
//! - Escapes in exemplars and in names of metadata are resolved.
//! - The start time of a `_created` line also holds for the samples that come after it.

mod created;
mod error;
mod family;
pub mod float;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod histogram;
mod lines;
mod made;
mod nhcb;
mod openmetrics;
mod protobuf;
mod resolution;
mod strict;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::ops::Range;

pub use error::ParseError;
pub use family::{FamilyText, Kind};
pub use histogram::{Buckets, Histogram};
pub use made::Span;
pub use nhcb::{Converter, Unconverted};

use created::Created;
use error::Wrong;
use family::Family;
use made::{LabelAt, Made};
use nhcb::Text;
use protobuf::Families;
use strict::Strict;

/// Longer bodies are refused; twice this has to fit the 32 bits of a [`Span`].
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    /// Prometheus text 0.0.4 and 1.0.0.
    #[default]
    Text,
    /// OpenMetrics text 0.0.1 and 1.0.0.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily` messages, each behind its length.
    Protobuf,
}

/// What is read out of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseOptions {
    /// OpenMetrics as its specification says; else as Prometheus parses.
    pub strict: bool,
    /// OpenMetrics: `_created` lines become start times instead of samples.
    pub skip_created: bool,
    /// Protobuf: the classic form of a histogram that has both.
    pub classic_histograms: bool,
    /// Protobuf: the native form of a histogram. Without it every histogram is classic.
    pub native_histograms: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            strict: false,
            skip_created: true,
            classic_histograms: false,
            native_histograms: true,
        }
    }
}

/// One thing a body says.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// What a family is about.
    Help {
        /// Its name.
        family: Span,
        /// The text, unescaped.
        text: Span,
    },
    /// What a family is.
    Type {
        /// Its name.
        family: Span,
        /// Its type.
        kind: Kind,
    },
    /// What a family is measured in.
    Unit {
        /// Its name.
        family: Span,
        /// The unit.
        unit: Span,
    },
    /// Nothing.
    Comment,
    /// A float sample.
    Sample(SampleAt),
    /// A native histogram; it is [`Parser::histogram`].
    Histogram(HistogramAt),
}

/// A float sample; its labels are [`Parser::labels`].
#[derive(Clone, PartialEq, Debug)]
pub struct SampleAt {
    /// The value; every NaN is [`float::NAN_BITS`] where it was text.
    pub value: f64,
    /// The time it carries.
    pub timestamp_ms: Option<i64>,
    /// Since when it counts.
    pub start_ms: Option<i64>,
    /// Whether [`Parser::exemplars`] has any.
    pub has_exemplar: bool,
    /// Text: where the value stands in the body. What stands between two values is what a
    /// prediction of the next body compares.
    pub value_at: Range<usize>,
    /// Text: the line, with its newline. Protobuf: the `Metric` message.
    pub line_at: Range<usize>,
}

/// A native histogram sample; its labels are [`Parser::labels`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistogramAt {
    /// The time it carries.
    pub timestamp_ms: Option<i64>,
    /// Since when it counts.
    pub start_ms: Option<i64>,
    /// Whether [`Parser::exemplars`] has any.
    pub has_exemplar: bool,
    /// The `Metric` message.
    pub line_at: Range<usize>,
}

/// What the meaning of a line depends on besides its text.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LineState<'a> {
    /// The type that the last `# TYPE` line named, whatever its family: `le` and `quantile` are
    /// normalised and `_created` is a start time where it says so.
    pub last_type: Kind,
    /// The family that the last line of metadata named: what [`Parser::family`] answers with.
    pub family: FamilyText<'a>,
}

/// An exemplar; its labels are [`Exemplar::labels`].
#[derive(Clone, Debug)]
pub struct Exemplar<'a> {
    /// What was observed.
    pub value: f64,
    /// When.
    pub timestamp_ms: Option<i64>,
    labels: ExemplarLabels<'a>,
}

/// Where the labels of an exemplar are.
#[derive(Clone, Debug)]
enum ExemplarLabels<'a> {
    /// In the body that is being read.
    Read {
        made: &'a Made,
        body: &'a [u8],
        labels: &'a [LabelAt],
    },
    /// With the histogram that was converted.
    Kept(&'a Text, Range<usize>),
}

impl<'a> Exemplar<'a> {
    /// Its labels in the order they came.
    pub fn labels(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (read, kept) = match &self.labels {
            ExemplarLabels::Read { made, body, labels } => (Some((*made, *body, *labels)), None),
            ExemplarLabels::Kept(text, at) => (None, Some(text.pairs(at.clone()))),
        };
        let read = read.into_iter().flat_map(|(made, body, labels)| {
            let pair = move |at: &LabelAt| (made.bytes(body, at.name), made.bytes(body, at.value));
            labels.iter().map(pair)
        });
        read.chain(kept.into_iter().flatten())
    }
}

/// Where an exemplar is.
#[derive(Clone, Debug)]
struct ExemplarAt {
    value: f64,
    timestamp_ms: Option<i64>,
    /// In [`Parser::exemplar_labels`].
    labels: Range<usize>,
}

/// Reads one body after another; keeps its buffers.
#[derive(Default, Debug)]
pub struct Parser {
    format: Format,
    options: ParseOptions,
    /// Where the next line or message begins.
    at: usize,
    /// Why nothing more comes.
    failed: Option<Wrong>,
    made: Made,
    name: Span,
    labels: Vec<LabelAt>,
    exemplars: Vec<ExemplarAt>,
    exemplar_labels: Vec<LabelAt>,
    /// Whether the label list of the line had a comma behind its last label.
    has_last_comma: bool,
    family: Family,
    last_type: Kind,
    created: Created,
    strict: Strict,
    families: Families,
    histogram: Histogram,
}

impl Parser {
    /// Begins a body. The same body has to come with every call of the other methods.
    pub fn start(&mut self, body: &[u8], format: Format, options: ParseOptions) {
        self.format = format;
        self.options = options;
        self.at = 0;
        let too_long = Wrong {
            at: 0,
            what: "body longer than 1 GiB",
        };
        self.failed = (body.len() > BODY_BYTES_MAX).then_some(too_long);
        self.made.start(body);
        self.family = Family::default();
        self.last_type = Kind::Unknown;
        self.created.start();
        self.strict.start();
        self.families.start();
        self.clear_entry();
    }

    /// The next entry, or none at the end of the body.
    ///
    /// # Errors
    ///
    /// The body is not what it should be. It stays so: every further call says the same.
    #[inline]
    pub fn next(&mut self, body: &[u8]) -> Result<Option<Entry>, ParseError> {
        let entry = match (self.failed, self.format) {
            (Some(wrong), _) => Err(wrong),
            (None, Format::Text) => self.next_text(body),
            (None, Format::OpenMetrics) => self.next_openmetrics(body),
            (None, Format::Protobuf) => self.next_protobuf(body),
        };
        entry.map_err(|wrong| {
            self.failed = Some(wrong);
            match self.format {
                Format::Protobuf => wrong.in_messages(),
                Format::Text | Format::OpenMetrics => wrong.in_lines(body),
            }
        })
    }

    /// Goes on at the beginning of a line, as if the lines before it had left this state.
    ///
    /// Text formats only; what is [`ParseOptions::strict`] needs every line and does not look at
    /// what it was not shown.
    pub fn resume(&mut self, at: usize, state: LineState<'_>) {
        self.at = at;
        self.failed = None;
        self.clear_entry();
        self.made.forget();
        self.created.start();
        self.last_type = state.last_type;
        self.family = Family::kept(&mut self.made, state.family);
    }

    /// What the next line depends on, to [`Self::resume`] there.
    #[must_use]
    pub fn state<'b>(&'b self, body: &'b [u8]) -> LineState<'b> {
        LineState {
            last_type: self.last_type,
            family: self.family.text(&self.made, body),
        }
    }

    /// Where the next line begins.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The bytes of a span.
    #[must_use]
    pub fn bytes<'b>(&'b self, body: &'b [u8], span: Span) -> &'b [u8] {
        self.made.bytes(body, span)
    }

    /// The name of the series of the sample or histogram that came last.
    #[must_use]
    pub fn name<'b>(&'b self, body: &'b [u8]) -> &'b [u8] {
        self.made.bytes(body, self.name)
    }

    /// The labels of the sample or histogram that came last: `__name__`, then the others in the
    /// order they came, unsorted and not merged. Names and values may be empty.
    #[inline]
    pub fn labels<'b>(&'b self, body: &'b [u8]) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        let name = (&b"__name__"[..], self.name(body));
        let others = self.labels.iter().map(|label| {
            let name = self.made.bytes(body, label.name);
            (name, self.made.bytes(body, label.value))
        });
        std::iter::once(name).chain(others)
    }

    /// The exemplars of the sample or histogram that came last.
    pub fn exemplars<'b>(&'b self, body: &'b [u8]) -> impl Iterator<Item = Exemplar<'b>> {
        self.exemplars.iter().map(move |at| Exemplar {
            value: at.value,
            timestamp_ms: at.timestamp_ms,
            labels: ExemplarLabels::Read {
                made: &self.made,
                body,
                labels: self
                    .exemplar_labels
                    .get(at.labels.clone())
                    .unwrap_or_default(),
            },
        })
    }

    /// The histogram that came last.
    #[must_use]
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The family of the sample or histogram that came last; none if the metadata before it is
    /// of another one.
    #[must_use]
    pub fn family<'b>(&'b self, body: &'b [u8]) -> Option<FamilyText<'b>> {
        let family = self.family.text(&self.made, body);
        family.has(self.name(body)).then_some(family)
    }

    fn clear_entry(&mut self) {
        self.made.clear();
        self.name = Span::default();
        self.labels.clear();
        self.exemplars.clear();
        self.exemplar_labels.clear();
        self.has_last_comma = false;
    }
}
