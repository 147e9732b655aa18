//! Turns Prometheus text (0.0.4 and 1.0.0) into entries.
//!
//! Blanks may stand between any two pieces, empty lines anywhere, and the last line may end
//! without a newline. A line that begins with `#` and is neither `HELP` nor `TYPE` is a comment.
//! What 1.0.0 adds, names in quotes, is taken in both.

use super::error::Wrong;
use super::lines::Lines;
use super::{Entry, Kind, Parser, SampleAt, Span, float};

type Text<'b> = Lines<'b, false>;

impl Parser {
    pub(super) fn next_text(&mut self, body: &[u8]) -> Result<Option<Entry>, Wrong> {
        loop {
            let mut lines = Text { body, at: self.at };
            lines.blanks();
            if lines.is_end() {
                return Ok(None);
            }
            match lines.peek() {
                b'\n' => self.at = lines.at + 1,
                // What a buffer in C has behind its text.
                0 => {
                    self.at = body.len();
                    return Ok(None);
                }
                b'#' => {
                    self.clear_entry();
                    return self.remark(lines).map(Some);
                }
                _ => {
                    self.clear_entry();
                    return self.text_sample(lines).map(|at| Some(Entry::Sample(at)));
                }
            }
        }
    }

    /// A line that begins with `#`.
    fn remark(&mut self, mut lines: Text<'_>) -> Result<Entry, Wrong> {
        lines.at += 1;
        let begun = lines.at;
        lines.blanks();
        let is_apart = lines.at > begun;
        let word = lines.rest().get(..4).unwrap_or_default();
        let is_help = word == b"HELP";
        let next = lines.rest().get(4).copied();
        let is_metadata = is_help || word == b"TYPE";
        if !(is_apart && is_metadata && matches!(next, Some(b' ' | b'\t'))) {
            lines.line();
            self.at = lines.at;
            return Ok(Entry::Comment);
        }
        lines.at += 4;
        lines.blanks();
        let Some(family) = lines.family(&mut self.made)? else {
            return Err(lines.wrong("expected a metric name"));
        };
        let text_at = lines.at;
        let mut text = lines.line();
        // Whatever separates them is one byte.
        text.start = (text.start + 1).min(text.end);
        let entry = if is_help {
            self.help(lines.body, family, text, false)
        } else {
            let word = lines.body.get(text).unwrap_or_default();
            let kind = Kind::of_text(word).ok_or(Wrong {
                at: text_at,
                what: "expected counter, gauge, histogram, summary or untyped",
            })?;
            Ok(self.kind(lines.body, family, kind))
        }?;
        self.at = lines.at;
        Ok(entry)
    }

    /// Takes up the help of a family.
    pub(super) fn help(
        &mut self,
        body: &[u8],
        family: Span,
        text: std::ops::Range<usize>,
        quotes: bool,
    ) -> Result<Entry, Wrong> {
        let raw = body.get(text.clone()).unwrap_or_default();
        if std::str::from_utf8(raw).is_err() {
            return Err(Wrong {
                at: text.start,
                what: "help is not UTF-8",
            });
        }
        let text = if memchr::memchr(b'\\', raw).is_some() {
            self.made.unescape(raw, quotes)
        } else {
            Span::new(text)
        };
        self.begin_family(body, family);
        self.family.help = text;
        self.made.keep();
        Ok(Entry::Help { family, text })
    }

    /// Takes up the type of a family.
    pub(super) fn kind(&mut self, body: &[u8], family: Span, kind: Kind) -> Entry {
        self.begin_family(body, family);
        self.family.kind = kind;
        self.last_type = kind;
        self.made.keep();
        Entry::Type { family, kind }
    }

    #[inline]
    fn text_sample(&mut self, lines: Text<'_>) -> Result<SampleAt, Wrong> {
        let begin = self.at;
        let mut lines = Text {
            at: self.series(lines)?,
            ..lines
        };
        lines.blanks();
        let Some(value_at) = lines.token() else {
            return Err(lines.wrong("expected a value"));
        };
        let token = lines.body.get(value_at.clone()).unwrap_or_default();
        let value = float::parse(token).ok_or(Wrong {
            at: value_at.start,
            what: "expected a decimal number, Inf or NaN",
        })?;
        lines.blanks();
        let mut timestamp_ms = None;
        if lines.newline().is_none() {
            timestamp_ms = Some(milliseconds(&mut lines)?);
            lines.blanks();
            if lines.newline().is_none() {
                return Err(lines.wrong("expected the end of the line"));
            }
        }
        self.at = lines.at;
        Ok(SampleAt {
            value,
            timestamp_ms,
            start_ms: None,
            has_exemplar: false,
            value_at,
            line_at: begin..lines.at,
        })
    }
}

/// A timestamp, which is digits only.
fn milliseconds(lines: &mut Text<'_>) -> Result<i64, Wrong> {
    let begin = lines.at;
    let mut milliseconds = Some(0i64);
    while lines.peek().is_ascii_digit() {
        let digit = i64::from(lines.peek() - b'0');
        milliseconds =
            milliseconds.and_then(|milliseconds| milliseconds.checked_mul(10)?.checked_add(digit));
        lines.at += 1;
    }
    if lines.at == begin {
        return Err(lines.wrong("expected a timestamp or the end of the line"));
    }
    milliseconds.ok_or(Wrong {
        at: begin,
        what: "timestamp out of range",
    })
}
