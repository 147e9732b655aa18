//! Turns lines of text into names, quoted text, label lists and tokens.
//!
//! Both text formats are made of the same pieces. They differ in three things, which the flag
//! `OM` (OpenMetrics) decides here: whether blanks may stand between pieces, whether the last
//! line may end without newline, and whether labels need a comma between them.

use std::ops::Range;

use super::Parser;
use super::error::Wrong;
use super::float::{self, Bound};
use super::made::{LabelAt, Made, Span};

const NAME_START: u8 = 1;
const NAME: u8 = 2;
const LABEL_START: u8 = 4;
const LABEL: u8 = 8;
const TEXT_VALUE: u8 = 16;
const OM_VALUE: u8 = 32;
const PLAIN: u8 = 64;

/// What a byte may be part of.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = at as u8;
        let is_letter = byte.is_ascii_alphabetic() || byte == b'_';
        let mut class = 0;
        if is_letter {
            class |= NAME_START | NAME | LABEL_START | LABEL;
        }
        if byte == b':' {
            class |= NAME_START | NAME;
        }
        if byte.is_ascii_digit() {
            class |= NAME | LABEL;
        }
        let is_end = matches!(byte, 0 | b' ' | b'\n');
        if !is_end {
            class |= OM_VALUE;
        }
        if !is_end && !matches!(byte, b'{' | b'\t') {
            class |= TEXT_VALUE;
        }
        if !matches!(byte, b'"' | b'\\' | b'\n' | 0) && byte.is_ascii() {
            class |= PLAIN;
        }
        classes[at] = class;
        at += 1;
    }
    classes
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Quoted text without its quotes.
struct Quoted {
    at: Range<usize>,
    has_escapes: bool,
}

/// What quoted text may hold besides characters that print.
#[derive(Clone, Copy)]
struct Holds {
    newlines: bool,
    nuls: bool,
}

impl Holds {
    const NAME: Self = Self {
        newlines: true,
        nuls: false,
    };
    const EXEMPLAR: Self = Self {
        newlines: false,
        nuls: false,
    };

    const fn value(om: bool) -> Self {
        Self {
            newlines: !om,
            nuls: true,
        }
    }
}

/// A place in a body.
#[derive(Clone, Copy)]
pub(super) struct Lines<'b, const OM: bool> {
    pub(super) body: &'b [u8],
    pub(super) at: usize,
}

impl<'b, const OM: bool> Lines<'b, OM> {
    #[cold]
    pub(super) fn wrong(&self, what: &'static str) -> Wrong {
        Wrong { at: self.at, what }
    }

    #[inline]
    pub(super) fn is_end(&self) -> bool {
        self.at >= self.body.len()
    }

    /// The next byte. Behind the end of Prometheus text that is a newline, which it may lack.
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        let end = if OM { 0 } else { b'\n' };
        self.body.get(self.at).copied().unwrap_or(end)
    }

    #[inline]
    pub(super) fn rest(&self) -> &'b [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    /// Skips blanks, where they may be.
    #[inline]
    pub(super) fn blanks(&mut self) {
        if !OM {
            while matches!(self.peek(), b' ' | b'\t') {
                self.at += 1;
            }
        }
    }

    /// Goes behind the next newline; gives what is before it.
    #[inline]
    pub(super) fn line(&mut self) -> Range<usize> {
        let start = self.at;
        let end = memchr::memchr(b'\n', self.rest());
        let end = end.map_or(self.body.len(), |length| start + length);
        self.at = (end + 1).min(self.body.len());
        start..end
    }

    /// Goes behind the newline that is next.
    #[inline]
    pub(super) fn newline(&mut self) -> Option<()> {
        (self.peek() == b'\n').then(|| self.at = (self.at + 1).min(self.body.len()))
    }

    #[inline]
    fn skip(&mut self, class: u8) -> Range<usize> {
        let start = self.at;
        let rest = self.rest();
        let length = rest.iter().position(|byte| !is(*byte, class));
        self.at += length.unwrap_or(rest.len());
        start..self.at
    }

    /// A metric name that is not quoted.
    #[inline]
    pub(super) fn name(&mut self) -> Option<Range<usize>> {
        is(self.peek(), NAME_START).then(|| self.skip(NAME))
    }

    /// The token of a value or a timestamp.
    #[inline]
    pub(super) fn token(&mut self) -> Option<Range<usize>> {
        let token = self.skip(if OM { OM_VALUE } else { TEXT_VALUE });
        (!token.is_empty()).then_some(token)
    }

    /// The name in a line of metadata, quoted or not.
    pub(super) fn family(&mut self, made: &mut Made) -> Result<Option<Span>, Wrong> {
        if self.peek() == b'"' {
            let quoted = self.quoted(Holds::NAME)?;
            return Ok(Some(self.unescaped(made, &quoted)));
        }
        Ok(self.name().map(Span::new))
    }

    /// Quoted text: what is before the next quote that is not escaped.
    #[inline]
    fn quoted(&mut self, holds: Holds) -> Result<Quoted, Wrong> {
        let opened = self.at;
        self.at += 1;
        let start = self.at;
        let mut has_escapes = false;
        let mut is_ascii = true;
        loop {
            self.skip(PLAIN);
            match self.body.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') if !matches!(self.body.get(self.at + 1), None | Some(b'\n')) => {
                    has_escapes = true;
                    // Only the backslash if what it escapes is a part of a longer character.
                    let next = self.body.get(self.at + 1).copied().unwrap_or(0);
                    self.at += 1 + usize::from(next.is_ascii());
                }
                Some(b'\n') if holds.newlines => self.at += 1,
                Some(0) if holds.nuls => self.at += 1,
                Some(byte) if !byte.is_ascii() => {
                    is_ascii = false;
                    self.at += 1;
                }
                _ => {
                    self.at = opened;
                    return Err(self.wrong("expected a closing quote behind this one"));
                }
            }
        }
        let at = start..self.at;
        self.at += 1;
        let text = self.body.get(at.clone()).unwrap_or_default();
        if !is_ascii && std::str::from_utf8(text).is_err() {
            self.at = opened;
            return Err(self.wrong("quoted text is not UTF-8"));
        }
        Ok(Quoted { at, has_escapes })
    }

    #[inline]
    fn unescaped(&self, made: &mut Made, quoted: &Quoted) -> Span {
        if !quoted.has_escapes {
            return Span::new(quoted.at.clone());
        }
        let raw = self.body.get(quoted.at.clone()).unwrap_or_default();
        made.unescape(raw, true)
    }
}

/// Where the pieces of a label list go.
pub(super) struct LabelList<'p> {
    made: &'p mut Made,
    labels: &'p mut Vec<LabelAt>,
    /// The metric name, once there is one; no place for it in the list of an exemplar.
    name: Option<&'p mut Option<Span>>,
    /// The label whose value is a number.
    bound: Option<&'static [u8]>,
}

impl LabelList<'_> {
    /// The rest of a label list, behind its opening brace. Gives whether its last label had a
    /// comma behind it.
    pub(super) fn read<const OM: bool>(
        &mut self,
        lines: &mut Lines<'_, OM>,
    ) -> Result<bool, Wrong> {
        let mut has_comma = false;
        loop {
            lines.blanks();
            let opened = lines.at;
            let name = match lines.peek() {
                b'}' => {
                    lines.at += 1;
                    return Ok(has_comma);
                }
                b'"' => {
                    let is_exemplar = self.name.is_none();
                    let holds = if is_exemplar {
                        Holds::EXEMPLAR
                    } else {
                        Holds::NAME
                    };
                    let quoted = lines.quoted(holds)?;
                    let name = lines.unescaped(self.made, &quoted);
                    lines.blanks();
                    if matches!(lines.peek(), b',' | b'}') {
                        lines.at = if self.name.is_some() {
                            lines.at
                        } else {
                            opened
                        };
                        has_comma = self.metric(lines, name)?;
                        continue;
                    }
                    name
                }
                byte if is(byte, LABEL_START) => Span::new(lines.skip(LABEL)),
                _ => return Err(lines.wrong("expected a label name")),
            };
            self.label(lines, name)?;
            lines.blanks();
            has_comma = lines.peek() == b',';
            if has_comma {
                lines.at += 1;
            } else if OM && lines.peek() != b'}' {
                return Err(lines.wrong("expected a comma or a closing brace"));
            }
        }
    }

    /// A quoted name that no value follows names the metric.
    #[cold]
    fn metric<const OM: bool>(
        &mut self,
        lines: &mut Lines<'_, OM>,
        name: Span,
    ) -> Result<bool, Wrong> {
        let Some(place) = &mut self.name else {
            return Err(lines.wrong("expected a label name with a value"));
        };
        if place.replace(name).is_some() {
            return Err(lines.wrong("the metric has two names"));
        }
        let has_comma = lines.peek() == b',';
        lines.at += usize::from(has_comma);
        Ok(has_comma)
    }

    #[inline]
    fn label<const OM: bool>(
        &mut self,
        lines: &mut Lines<'_, OM>,
        name: Span,
    ) -> Result<(), Wrong> {
        lines.blanks();
        if lines.peek() != b'=' {
            return Err(lines.wrong("expected an equals sign"));
        }
        lines.at += 1;
        lines.blanks();
        if lines.peek() != b'"' {
            return Err(lines.wrong("expected a label value in double quotes"));
        }
        let is_exemplar = self.name.is_none();
        let holds = if is_exemplar {
            Holds::EXEMPLAR
        } else {
            Holds::value(OM)
        };
        let quoted = lines.quoted(holds)?;
        let mut value = lines.unescaped(self.made, &quoted);
        if self.bound.is_some() && self.bound == Some(self.made.bytes(lines.body, name)) {
            value = normalised(self.made, lines.body, value);
        }
        self.labels.push(LabelAt { name, value });
        Ok(())
    }
}

/// The value of `le` or `quantile` as Prometheus 3 writes it, if it is a number.
fn normalised(made: &mut Made, body: &[u8], value: Span) -> Span {
    let text = made.bytes(body, value);
    match float::bound(text) {
        Bound::Canonical => value,
        // No longer than six digits and a sign.
        Bound::Whole => {
            let mut short = [0u8; 8];
            let length = text.len().min(short.len());
            short
                .iter_mut()
                .zip(text)
                .for_each(|(to, from)| *to = *from);
            let whole = short.get(..length).unwrap_or_default();
            made.write(|out| {
                out.extend_from_slice(whole);
                out.extend_from_slice(b".0");
            })
        }
        Bound::Other => match float::parse(text) {
            Some(bound) => made.write(|out| float::append(out, bound)),
            None => value,
        },
    }
}

/// The name and the labels of a series.
pub(super) struct Series {
    pub(super) name: Span,
    /// The place behind it.
    pub(super) at: usize,
    has_last_comma: bool,
}

/// Reads a name and the labels behind it; `bound` is the label whose value is a number.
#[inline]
pub(super) fn series<const OM: bool>(
    mut lines: Lines<'_, OM>,
    made: &mut Made,
    labels: &mut Vec<LabelAt>,
    bound: Option<&'static [u8]>,
) -> Result<Series, Wrong> {
    let start = lines.at;
    let mut name = lines.name().map(Span::new);
    if name.is_some() {
        lines.blanks();
    }
    let mut has_last_comma = false;
    if lines.peek() == b'{' {
        lines.at += 1;
        let mut list = LabelList {
            made,
            labels,
            name: Some(&mut name),
            bound,
        };
        has_last_comma = list.read(&mut lines)?;
    }
    let Some(name) = name else {
        lines.at = start;
        return Err(lines.wrong("expected a metric name"));
    };
    Ok(Series {
        name,
        at: lines.at,
        has_last_comma,
    })
}

impl Parser {
    /// The name and the labels of the entry; gives the place behind them.
    #[inline]
    pub(super) fn series<const OM: bool>(&mut self, lines: Lines<'_, OM>) -> Result<usize, Wrong> {
        let bound = self.last_type.bound_label();
        let read = series(lines, &mut self.made, &mut self.labels, bound)?;
        self.name = read.name;
        self.has_last_comma = read.has_last_comma;
        Ok(read.at)
    }

    /// The labels of an exemplar, behind their opening brace; gives the place behind them.
    pub(super) fn exemplar_labels<const OM: bool>(
        &mut self,
        mut lines: Lines<'_, OM>,
    ) -> Result<usize, Wrong> {
        let mut list = LabelList {
            made: &mut self.made,
            labels: &mut self.exemplar_labels,
            name: None,
            bound: None,
        };
        self.has_last_comma |= list.read(&mut lines)?;
        Ok(lines.at)
    }

    /// Begins the family of a line of metadata, unless it is the one before.
    pub(super) fn begin_family(&mut self, body: &[u8], name: Span) {
        let is_same = {
            let known = self.made.bytes(body, self.family.name);
            !known.is_empty() && known == self.made.bytes(body, name)
        };
        if is_same {
            return;
        }
        self.family = super::family::Family {
            name,
            ..Default::default()
        };
    }
}
