//! Turns lines of metadata into what is known of the family whose samples follow.

use super::made::{Made, Span};

/// The type of a metric family, numbered as remote write numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Only goes up.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Buckets of a counter.
    Histogram = 3,
    /// Buckets of a gauge.
    GaugeHistogram = 4,
    /// Quantiles.
    Summary = 5,
    /// Labels are the message.
    Info = 6,
    /// One series per state.
    StateSet = 7,
}

impl Kind {
    /// All there are, by their numbers.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// What OpenMetrics calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }

    /// The type that a line of Prometheus text names.
    pub(super) fn of_text(word: &[u8]) -> Option<Self> {
        match word {
            b"counter" => Some(Self::Counter),
            b"gauge" => Some(Self::Gauge),
            b"histogram" => Some(Self::Histogram),
            b"summary" => Some(Self::Summary),
            b"untyped" => Some(Self::Unknown),
            _ => None,
        }
    }

    /// The type that a line of OpenMetrics names.
    pub(super) fn of_openmetrics(word: &[u8]) -> Option<Self> {
        match word {
            b"gaugehistogram" => Some(Self::GaugeHistogram),
            b"info" => Some(Self::Info),
            b"stateset" => Some(Self::StateSet),
            b"unknown" => Some(Self::Unknown),
            b"untyped" => None,
            word => Self::of_text(word),
        }
    }

    /// The label of its series whose value is a number, where there is one to normalise.
    #[inline]
    pub(super) fn bound_label(self) -> Option<&'static [u8]> {
        match self {
            Self::Histogram => Some(b"le"),
            Self::Summary => Some(b"quantile"),
            _ => None,
        }
    }

    /// Whether its samples count from a start on.
    pub(crate) fn has_start(self) -> bool {
        matches!(self, Self::Counter | Self::Histogram | Self::Summary)
    }

    /// What its series may have behind the family's name.
    fn suffixes(self) -> &'static [&'static [u8]] {
        match self {
            Self::Counter => &[b"_total"],
            Self::Histogram => &[b"_bucket", b"_sum", b"_count"],
            Self::GaugeHistogram => &[b"_bucket", b"_gsum", b"_gcount"],
            Self::Summary => &[b"_sum", b"_count"],
            Self::Info => &[b"_info"],
            Self::Unknown | Self::Gauge | Self::StateSet => &[],
        }
    }
}

/// What is known of a family.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FamilyText<'a> {
    /// Its name; empty if there was no metadata yet.
    pub name: &'a [u8],
    /// Its type.
    pub kind: Kind,
    /// What it is about.
    pub help: &'a [u8],
    /// What it is measured in.
    pub unit: &'a [u8],
}

impl FamilyText<'_> {
    /// Whether the series with this name is one of the family.
    ///
    /// A counter that has `_total` in the family's own name, and an info that has `_info` there,
    /// count as well: Prometheus text names them so.
    #[must_use]
    pub fn has(&self, series: &[u8]) -> bool {
        if self.name.is_empty() || !series.starts_with(self.name) {
            return false;
        }
        let cut = |name: &[u8]| {
            let mut suffixes = self.kind.suffixes().iter();
            suffixes
                .find(|suffix| name.ends_with(suffix))
                .map_or(0, |suffix| suffix.len())
        };
        let is_in_name = matches!(self.kind, Kind::Counter | Kind::Info);
        let own = if is_in_name { cut(self.name) } else { 0 };
        self.name.len() - own == series.len() - cut(series)
    }
}

/// Where a family's metadata is.
#[derive(Clone, Default, Debug)]
pub(super) struct Family {
    pub(super) name: Span,
    pub(super) kind: Kind,
    pub(super) help: Span,
    pub(super) unit: Span,
}

impl Family {
    pub(super) fn text<'b>(&self, made: &'b Made, body: &'b [u8]) -> FamilyText<'b> {
        FamilyText {
            name: made.bytes(body, self.name),
            kind: self.kind,
            help: made.bytes(body, self.help),
            unit: made.bytes(body, self.unit),
        }
    }

    /// Copies what is known of a family beside the body.
    pub(super) fn kept(made: &mut Made, text: FamilyText<'_>) -> Self {
        let mut copy = |bytes: &[u8]| made.write(|out| out.extend_from_slice(bytes));
        let family = Self {
            name: copy(text.name),
            kind: text.kind,
            help: copy(text.help),
            unit: copy(text.unit),
        };
        made.keep();
        family
    }
}
