//! Turns OpenMetrics text (0.0.1 and 1.0.0) into entries.
//!
//! One space stands where a space stands, every line ends with a newline, and the last line is
//! `# EOF`. That is all of the form that Prometheus insists on; what OpenMetrics further wants of
//! the content is [`super::strict`].

use super::error::Wrong;
use super::lines::Lines;
use super::{Entry, ExemplarAt, Kind, Parser, SampleAt, Span, float};

type Om<'b> = Lines<'b, true>;

impl Parser {
    pub(super) fn next_openmetrics(&mut self, body: &[u8]) -> Result<Option<Entry>, Wrong> {
        loop {
            self.clear_entry();
            let begin = self.at;
            let lines = Om { body, at: begin };
            let entry = if lines.peek() == b'#' {
                self.metadata(lines)?
            } else {
                Some(Entry::Sample(self.openmetrics_sample(lines)?))
            };
            if self.options.strict {
                self.check(body, entry.as_ref())
                    .map_err(|what| Wrong { at: begin, what })?;
            }
            match entry {
                Some(Entry::Sample(at)) => {
                    if let Some(sample) = self.with_start(body, at) {
                        return Ok(Some(Entry::Sample(sample)));
                    }
                }
                entry => return Ok(entry),
            }
        }
    }

    /// A line that begins with `#`; none for the last one.
    fn metadata(&mut self, mut lines: Om<'_>) -> Result<Option<Entry>, Wrong> {
        let word = lines.rest().get(..7).unwrap_or(lines.rest());
        if word.starts_with(b"# EOF") {
            lines.at += 5;
            lines.newline();
            if !lines.is_end() {
                return Err(lines.wrong("data behind # EOF"));
            }
            // It stays the next line.
            return Ok(None);
        }
        if !matches!(word, b"# HELP " | b"# TYPE " | b"# UNIT ") {
            return Err(lines.wrong("expected # HELP, # TYPE, # UNIT, # EOF or a metric name"));
        }
        lines.at += 7;
        let name_at = lines.at;
        let Some(family) = lines.family(&mut self.made)? else {
            return Err(lines.wrong("expected a metric name"));
        };
        if lines.peek() != b' ' {
            return Err(lines.wrong("expected a space and text behind the metric name"));
        }
        lines.at += 1;
        let text_at = lines.line();
        let body = lines.body;
        if text_at.end >= body.len() {
            return Err(lines.wrong("expected a newline"));
        }
        let text = body.get(text_at.clone()).unwrap_or_default();
        let entry = match word {
            b"# HELP " => self.help(body, family, text_at, true)?,
            b"# TYPE " => {
                let kind = Kind::of_openmetrics(text).ok_or(Wrong {
                    at: text_at.start,
                    what: "expected a metric type",
                })?;
                self.kind(body, family, kind)
            }
            _ => {
                let name = self.made.bytes(body, family);
                if !text.is_empty() && !is_unit_of(text, name) {
                    return Err(Wrong {
                        at: name_at,
                        what: "unit is no suffix of the metric name",
                    });
                }
                self.unit(body, family, Span::new(text_at))
            }
        };
        self.at = lines.at;
        Ok(Some(entry))
    }

    /// Takes up the unit of a family.
    fn unit(&mut self, body: &[u8], family: Span, unit: Span) -> Entry {
        self.begin_family(body, family);
        self.family.unit = unit;
        self.made.keep();
        Entry::Unit { family, unit }
    }

    #[inline]
    fn openmetrics_sample(&mut self, lines: Om<'_>) -> Result<SampleAt, Wrong> {
        let begin = self.at;
        if lines.is_end() {
            return Err(lines.wrong("expected # EOF at the end of the body"));
        }
        let mut lines = Om {
            at: self.series(lines)?,
            ..lines
        };
        let (value, value_at) = number(&mut lines, "expected a space and a value")?;
        let mut timestamp_ms = None;
        if lines.peek() == b' ' && !lines.rest().starts_with(b" # {") {
            timestamp_ms = Some(seconds(&mut lines)?);
        }
        let has_exemplar = lines.peek() == b' ';
        if has_exemplar {
            lines = self.exemplar(lines)?;
        }
        if lines.newline().is_none() {
            return Err(lines.wrong("expected the end of the line"));
        }
        self.at = lines.at;
        Ok(SampleAt {
            value,
            timestamp_ms,
            start_ms: None,
            has_exemplar,
            value_at,
            line_at: begin..lines.at,
        })
    }

    /// What follows the value and the timestamp: ` # {` labels `}` value and timestamp.
    #[inline(never)]
    fn exemplar<'b>(&mut self, mut lines: Om<'b>) -> Result<Om<'b>, Wrong> {
        if !lines.rest().starts_with(b" # {") {
            return Err(lines.wrong("expected an exemplar or the end of the line"));
        }
        lines.at += 4;
        lines.at = self.exemplar_labels(lines)?;
        let (value, _) = number(&mut lines, "expected a space and the value of the exemplar")?;
        let mut timestamp_ms = None;
        if lines.peek() == b' ' {
            timestamp_ms = Some(seconds(&mut lines)?);
        }
        self.exemplars.push(ExemplarAt {
            value,
            timestamp_ms,
            labels: 0..self.exemplar_labels.len(),
        });
        Ok(lines)
    }
}

/// Whether a family with this name may have this unit.
pub(super) fn is_unit_of(unit: &[u8], name: &[u8]) -> bool {
    name.strip_suffix(unit)
        .is_some_and(|before| before.ends_with(b"_"))
}

/// A space and a number.
#[inline]
fn number(
    lines: &mut Om<'_>,
    expected: &'static str,
) -> Result<(f64, std::ops::Range<usize>), Wrong> {
    let begin = lines.at;
    if lines.peek() == b' ' {
        lines.at += 1;
        if let Some(at) = lines.token() {
            let token = lines.body.get(at.clone()).unwrap_or_default();
            let value = float::parse(token).ok_or(Wrong {
                at: at.start,
                what: "expected a decimal number, Inf or NaN",
            })?;
            return Ok((value, at));
        }
        lines.at = begin;
    }
    Err(lines.wrong(expected))
}

/// A space and a timestamp in seconds, in milliseconds.
fn seconds(lines: &mut Om<'_>) -> Result<i64, Wrong> {
    let begin = lines.at;
    let (seconds, _) = number(lines, "expected a timestamp or the end of the line")?;
    if !seconds.is_finite() {
        return Err(Wrong {
            at: begin + 1,
            what: "timestamp is not finite",
        });
    }
    Ok(in_milliseconds(seconds))
}

/// Cut to whole milliseconds, as Prometheus does.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
pub(super) fn in_milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}
