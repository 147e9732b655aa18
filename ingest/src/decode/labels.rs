//! Turns the label fields of one series, in whatever valid form they came, into canonical label
//! bytes or into the reason why the series is refused.
//!
//! Runs only for label sets whose wire bytes are not known yet. The canonical form is the
//! remote-write 1.0 encoding: `Label` fields sorted by name, lengths minimal, no empty values, no
//! name twice.
//!
//! # Invariants
//! - What `append_canonical` writes is canonical, and canonical bytes go through `read` and
//!   `append_canonical` unchanged.
//!
//! # Failure
//! - Bytes that are no `Label` message are [`Malformed`] and end the request, as any other broken
//!   protobuf. A label set that is well encoded but not allowed refuses its series alone.

use std::fmt;
use std::ops::Range;

use super::wire::{Cursor, DEPTH_MAX, Malformed, Wire};

/// Canonical label bytes of one series are at most this many; what is longer is refused. A label
/// set travels with every request to every endpoint, and real ones have 0.2 to 2 KiB.
pub const LABEL_BYTES_MAX: usize = 64 << 10;

/// Labels of one series beyond this are not even remembered; their label set is refused as too
/// long. Without it a request of labels of two bytes each would take sixteen times its size.
const LABELS_MAX: usize = LABEL_BYTES_MAX / 8;

/// How much of a refused series' labels an answer shows.
pub(crate) const SHOWN_BYTES_MAX: usize = 200;

/// The tag byte of a label in a series, and of the name in a label: field 1, length-delimited.
pub(crate) const LABEL_TAG: u8 = 0x0a;
/// The same for the value in a label: field 2.
pub(crate) const VALUE_TAG: u8 = 0x12;
pub(crate) const METRIC_NAME: &[u8] = b"__name__";

/// Why something of a well-formed request is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// No `__name__` label, or an empty one.
    MissingMetricName,
    /// A label with an empty name.
    EmptyLabelName,
    /// A label name occurs twice.
    DuplicateLabelName,
    /// A label name or value is not UTF-8.
    InvalidUtf8,
    /// The label set is longer than [`LABEL_BYTES_MAX`].
    LabelsTooLong,
    /// Remote write 2.0: a reference beyond the symbol table, or a label without value.
    InvalidLabelRefs,
    /// Remote write 2.0: a series with both samples and histograms.
    SamplesAndHistograms,
    /// Remote write 2.0: a series with no sample, histogram or exemplar.
    NothingInSeries,
    /// More labels than [`LabelLimits::labels_max`].
    LabelLimit,
    /// A label name longer than [`LabelLimits::name_bytes_max`].
    LabelNameLengthLimit,
    /// A label value longer than [`LabelLimits::value_bytes_max`].
    LabelValueLengthLimit,
    /// A series beyond those its tenant may have active.
    TenantSeriesLimit,
}

impl Reason {
    /// All reasons; a reason's place is its [`Self::index`].
    pub const ALL: [Self; 12] = [
        Self::MissingMetricName,
        Self::EmptyLabelName,
        Self::DuplicateLabelName,
        Self::InvalidUtf8,
        Self::LabelsTooLong,
        Self::InvalidLabelRefs,
        Self::SamplesAndHistograms,
        Self::NothingInSeries,
        Self::LabelLimit,
        Self::LabelNameLengthLimit,
        Self::LabelValueLengthLimit,
        Self::TenantSeriesLimit,
    ];

    /// The place in arrays of one entry per reason.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::MissingMetricName => 0,
            Self::EmptyLabelName => 1,
            Self::DuplicateLabelName => 2,
            Self::InvalidUtf8 => 3,
            Self::LabelsTooLong => 4,
            Self::InvalidLabelRefs => 5,
            Self::SamplesAndHistograms => 6,
            Self::NothingInSeries => 7,
            Self::LabelLimit => 8,
            Self::LabelNameLengthLimit => 9,
            Self::LabelValueLengthLimit => 10,
            Self::TenantSeriesLimit => 11,
        }
    }

    /// The word used in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingMetricName => "missing_metric_name",
            Self::EmptyLabelName => "empty_label_name",
            Self::DuplicateLabelName => "duplicate_label_name",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::LabelsTooLong => "labels_too_long",
            Self::InvalidLabelRefs => "invalid_label_refs",
            Self::SamplesAndHistograms => "samples_and_histograms",
            Self::NothingInSeries => "nothing_in_series",
            Self::LabelLimit => "label_limit",
            Self::LabelNameLengthLimit => "label_name_length_limit",
            Self::LabelValueLengthLimit => "label_value_length_limit",
            Self::TenantSeriesLimit => "tenant_series_limit",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a label set may be beside well-formed; 0 is no limit. Looked at when a label set is checked, which is
/// when it is first seen: a series that is known is let through.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LabelLimits {
    /// Most labels, `__name__` among them, those without value not.
    pub labels_max: usize,
    /// Most bytes of a label's name.
    pub name_bytes_max: usize,
    /// Most bytes of a label's value.
    pub value_bytes_max: usize,
}

impl LabelLimits {
    /// Whether canonical labels are within them.
    pub(crate) fn check_all(&self, canonical: &[u8]) -> Result<(), Reason> {
        if *self == Self::default() {
            return Ok(());
        }
        let mut count = 0;
        for (name, value) in labels_of(canonical) {
            self.check(name, value)?;
            count += 1;
        }
        if self.labels_max > 0 && count > self.labels_max {
            return Err(Reason::LabelLimit);
        }
        Ok(())
    }

    fn check(&self, name: &[u8], value: &[u8]) -> Result<(), Reason> {
        let is_over = |length: usize, limit: usize| limit > 0 && length > limit;
        if is_over(name.len(), self.name_bytes_max) {
            return Err(Reason::LabelNameLengthLimit);
        }
        if is_over(value.len(), self.value_bytes_max) {
            return Err(Reason::LabelValueLengthLimit);
        }
        Ok(())
    }
}

/// Name and value of one label, as ranges of the request.
type LabelAt = (Range<usize>, Range<usize>);

/// The labels of one series; reused from series to series.
#[derive(Default, Debug)]
pub(crate) struct LabelSet {
    labels: Vec<LabelAt>,
    has_too_many: bool,
    /// What is allowed; set by whoever owns this, for the receiver at work.
    pub(crate) limits: LabelLimits,
}

impl LabelSet {
    /// Reads the label fields at `fields` of `body`.
    pub(crate) fn read(&mut self, body: &[u8], fields: &[Range<usize>]) -> Result<(), Malformed> {
        self.labels.clear();
        self.has_too_many = false;
        for field in fields {
            let mut cursor = Cursor::over(body, field.clone());
            while !cursor.is_done() {
                cursor.key()?.expect(Wire::Bytes)?;
                let label = read_label(cursor.message()?)?;
                if self.labels.len() < LABELS_MAX {
                    self.labels.push(label);
                } else {
                    self.has_too_many = true;
                }
            }
        }
        Ok(())
    }

    /// Appends the canonical form to `out`; nothing is appended if the label set is refused.
    pub(crate) fn append_canonical(
        &mut self,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let start = out.len();
        if self.append_sorted(body, out)? {
            return Ok(());
        }
        out.truncate(start);
        Err(Reason::MissingMetricName)
    }

    /// As [`Self::append_canonical`], but labels without a metric name are labels too: rules may give
    /// them one. Says whether there is one.
    pub(crate) fn append_sorted(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<bool, Reason> {
        if self.has_too_many {
            return Err(Reason::LabelsTooLong);
        }
        let bytes = |at: &Range<usize>| body.get(at.clone()).unwrap_or_default();
        if !self.labels.is_sorted_by(|a, b| bytes(&a.0) < bytes(&b.0)) {
            self.labels
                .sort_unstable_by(|a, b| bytes(&a.0).cmp(bytes(&b.0)));
            if self
                .labels
                .windows(2)
                .any(|pair| bytes(&pair[0].0) == bytes(&pair[1].0))
            {
                return Err(Reason::DuplicateLabelName);
            }
        }
        let mut has_metric_name = false;
        let (mut length, mut count) = (0usize, 0usize);
        for (name, value) in &self.labels {
            let (name, value) = (bytes(name), bytes(value));
            if name.is_empty() {
                return Err(Reason::EmptyLabelName);
            }
            if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
                return Err(Reason::InvalidUtf8);
            }
            self.limits.check(name, value)?;
            has_metric_name |= name == METRIC_NAME && !value.is_empty();
            length += name.len() + value.len();
            count += usize::from(!value.is_empty());
        }
        if self.limits.labels_max > 0 && count > self.limits.labels_max {
            return Err(Reason::LabelLimit);
        }
        // A label has at most 3 tags and 3 lengths around it.
        if length + self.labels.len() * 18 > LABEL_BYTES_MAX {
            return Err(Reason::LabelsTooLong);
        }
        for (name, value) in &self.labels {
            append_label(out, bytes(name), bytes(value));
        }
        Ok(has_metric_name)
    }

    /// The labels as a person reads them, lossy and cut at `length_max` bytes or a little more.
    pub(crate) fn show(&self, body: &[u8], length_max: usize) -> String {
        let text = |at: &Range<usize>| {
            let bytes = body.get(at.clone()).unwrap_or_default();
            let cut = bytes.get(..length_max).unwrap_or(bytes);
            String::from_utf8_lossy(cut).into_owned()
        };
        let mut shown = String::from("{");
        for (at, (name, value)) in self.labels.iter().enumerate() {
            if shown.len() > length_max {
                shown.push_str(", ...");
                break;
            }
            let comma = if at == 0 { "" } else { ", " };
            shown.push_str(&format!(
                "{comma}{}={:?}",
                text(name).escape_debug(),
                text(value)
            ));
        }
        shown.push('}');
        shown
    }
}

/// Appends the canonical form of labels that come as names and values; nothing is appended if the
/// label set is refused.
pub(crate) fn canonical(labels: &[(&[u8], &[u8])], out: &mut Vec<u8>) -> Result<(), Reason> {
    let mut set = LabelSet {
        has_too_many: labels.len() > LABELS_MAX,
        ..LabelSet::default()
    };
    let mut body = Vec::new();
    for (name, value) in labels.iter().take(LABELS_MAX) {
        let start = body.len();
        body.extend_from_slice(name);
        let middle = body.len();
        body.extend_from_slice(value);
        set.labels.push((start..middle, middle..body.len()));
    }
    set.append_canonical(&body, out)
}

/// Whether a series may have these canonical labels, which rules have made.
pub(crate) fn check_made(canonical: &[u8]) -> Result<(), Reason> {
    if canonical.len() > LABEL_BYTES_MAX {
        return Err(Reason::LabelsTooLong);
    }
    let mut has_metric_name = false;
    for (name, value) in labels_of(canonical) {
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return Err(Reason::InvalidUtf8);
        }
        has_metric_name |= name == METRIC_NAME;
    }
    if has_metric_name {
        Ok(())
    } else {
        Err(Reason::MissingMetricName)
    }
}

/// Appends one label in canonical form; a label without value is left out.
fn append_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !value.is_empty() {
        append_any_label(out, name, value);
    }
}

/// Appends one label, also where it is not allowed.
#[inline]
pub(crate) fn append_any_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let inner = 2 + varint_len(name.len()) + varint_len(value.len()) + name.len() + value.len();
    out.push(LABEL_TAG);
    append_varint(out, inner);
    out.push(LABEL_TAG);
    append_varint(out, name.len());
    out.extend_from_slice(name);
    out.push(VALUE_TAG);
    append_varint(out, value.len());
    out.extend_from_slice(value);
}

/// Appends a field of bytes; nothing where there are none.
pub(crate) fn append_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        append_varint(out, bytes.len());
        out.extend_from_slice(bytes);
    }
}

/// The names and values in label fields that are known to be well-formed.
pub(crate) fn labels_of(fields: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut cursor = Cursor::over(fields, 0..fields.len());
    std::iter::from_fn(move || {
        cursor.key().ok()?;
        let (name, value) = read_label(cursor.message().ok()?).ok()?;
        Some((fields.get(name)?, fields.get(value)?))
    })
}

/// Label fields as a person reads them, as far as they go.
pub(crate) fn shown(fields: &[u8]) -> String {
    let mut set = LabelSet::default();
    let whole = 0..fields.len();
    match set.read(fields, &[whole]) {
        Ok(()) => set.show(fields, SHOWN_BYTES_MAX),
        Err(_) => String::from("{}"),
    }
}

fn varint_len(mut value: usize) -> usize {
    let mut length = 1;
    while value >= 0x80 {
        value >>= 7;
        length += 1;
    }
    length
}

fn append_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Where name and value of a `Label` message are; a repeated field counts the last time.
fn read_label(mut message: Cursor<'_>) -> Result<LabelAt, Malformed> {
    let (mut name, mut value) = (0..0, 0..0);
    while !message.is_done() {
        let key = message.key()?;
        match key.number {
            1 => {
                key.expect(Wire::Bytes)?;
                name = message.span()?;
            }
            2 => {
                key.expect(Wire::Bytes)?;
                value = message.span()?;
            }
            _ => message.skip(key, DEPTH_MAX - 2)?,
        }
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto;

    fn encoded(labels: &[(&str, &str)]) -> Vec<u8> {
        let labels = labels
            .iter()
            .map(|(name, value)| proto::Label {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect();
        proto::TimeSeries {
            labels,
            ..Default::default()
        }
        .encode_to_vec()
    }

    fn canonical(body: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut set = LabelSet::default();
        let whole = 0..body.len();
        set.read(body, &[whole]).unwrap();
        let mut out = Vec::new();
        set.append_canonical(body, &mut out).map(|()| out)
    }

    #[test]
    fn canonical_bytes_stay_as_they_are() {
        let long = "x".repeat(300);
        let body = encoded(&[("__name__", "up"), ("a", &long), ("b", "1")]);
        assert_eq!(canonical(&body), Ok(body));
    }

    #[test]
    fn labels_are_sorted_and_empty_values_dropped() {
        let body = encoded(&[("b", "2"), ("__name__", "up"), ("empty", ""), ("a", "1")]);
        assert_eq!(
            canonical(&body),
            Ok(encoded(&[("__name__", "up"), ("a", "1"), ("b", "2")]))
        );
    }

    #[test]
    fn lengths_and_fields_become_minimal() {
        let body = [
            0x0a, 0x9d, 0x80, 0x00, // 29 bytes, in three length bytes
            0x0a, 0x88, 0x00, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_', // the name
            0x12, 1, b'x', // overridden below
            0x18, 0x05, // an unknown field
            0x53, 0x54, // an unknown empty group
            0x12, 2, b'u', b'p', // the value
            0x18, 0x05, 0x18, 0x05, 0x18, 0x05, 0x00,
        ];
        let body = &body[..body.len() - 1];
        let mut exact = body.to_vec();
        exact[1] = 0x80 | u8::try_from(body.len() - 4).unwrap();
        assert_eq!(canonical(&exact), Ok(encoded(&[("__name__", "up")])));
    }

    #[test]
    fn missing_metric_name_is_refused() {
        for labels in [&[][..], &[("a", "1")], &[("__name__", ""), ("a", "1")]] {
            assert_eq!(canonical(&encoded(labels)), Err(Reason::MissingMetricName));
        }
    }

    #[test]
    fn duplicate_names_are_refused_sorted_or_not() {
        for labels in [
            [("__name__", "up"), ("a", "1"), ("a", "2")],
            [("a", "1"), ("__name__", "up"), ("a", "1")],
            [("a", ""), ("__name__", "up"), ("a", "1")],
        ] {
            assert_eq!(
                canonical(&encoded(&labels)),
                Err(Reason::DuplicateLabelName)
            );
        }
    }

    #[test]
    fn empty_names_are_refused() {
        let body = encoded(&[("", "x"), ("__name__", "up")]);
        assert_eq!(canonical(&body), Err(Reason::EmptyLabelName));
    }

    #[test]
    fn invalid_utf8_is_refused_in_names_and_values() {
        for place in [b'N', b'V'] {
            let mut body = encoded(&[("N", "V"), ("__name__", "up")]);
            let at = body.iter().position(|byte| *byte == place).unwrap();
            body[at] = 0xff;
            assert_eq!(canonical(&body), Err(Reason::InvalidUtf8));
        }
    }

    #[test]
    fn too_long_label_sets_are_refused() {
        let long = "x".repeat(LABEL_BYTES_MAX);
        let body = encoded(&[("__name__", "up"), ("a", &long)]);
        assert_eq!(canonical(&body), Err(Reason::LabelsTooLong));
        let many = vec![("", ""); LABELS_MAX + 1];
        assert_eq!(canonical(&encoded(&many)), Err(Reason::LabelsTooLong));
    }

    #[test]
    fn each_limit_refuses_what_is_beyond_it_under_its_own_name() {
        let body = encoded(&[("__name__", "up"), ("empty", ""), ("job", "12345")]);
        let with = |labels_max, name_bytes_max, value_bytes_max| {
            let mut set = LabelSet {
                limits: LabelLimits {
                    labels_max,
                    name_bytes_max,
                    value_bytes_max,
                },
                ..LabelSet::default()
            };
            let whole = 0..body.len();
            set.read(&body, &[whole]).unwrap();
            set.append_canonical(&body, &mut Vec::new())
        };
        assert_eq!(with(0, 0, 0), Ok(()));
        assert_eq!(with(2, 8, 5), Ok(()), "exactly at each limit");
        assert_eq!(with(1, 0, 0), Err(Reason::LabelLimit));
        assert_eq!(with(0, 7, 0), Err(Reason::LabelNameLengthLimit));
        assert_eq!(with(0, 0, 4), Err(Reason::LabelValueLengthLimit));
    }

    #[test]
    fn shown_labels_are_bounded_and_printable() {
        let long = "\n\u{1}x".repeat(10_000);
        let labels: Vec<_> = (0..100).map(|_| ("name", long.as_str())).collect();
        let body = encoded(&labels);
        let mut set = LabelSet::default();
        let whole = 0..body.len();
        set.read(&body, &[whole]).unwrap();
        let shown = set.show(&body, 200);
        assert!(shown.len() < 2000, "{} bytes", shown.len());
        assert!(shown.chars().all(|c| !c.is_control()));
    }

    #[test]
    fn every_reason_knows_its_place() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }
}
