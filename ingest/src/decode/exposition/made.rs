//! Turns spans into bytes: those of the body, or those made beside it.
//!
//! # Invariants
//! - A span below the length of the body is one of the body; one from there on is one of `bytes`.
//! - `bytes[..kept]` belongs to the family and lives as long; the rest lives as long as the entry.

use std::ops::Range;

/// A range of a body, or of what was made beside it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// A range of the body.
    #[inline]
    pub(super) fn new(range: Range<usize>) -> Self {
        // Bodies and what is made of them are bounded; see `BODY_BYTES_MAX`.
        let narrow = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: narrow(range.start),
            end: narrow(range.end),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    #[inline]
    pub(super) fn range(self) -> Range<usize> {
        let wide = |at| usize::try_from(at).unwrap_or(usize::MAX);
        wide(self.start)..wide(self.end)
    }
}

/// A name and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabelAt {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// The bytes that are not in the body as they are meant.
#[derive(Default, Debug)]
pub(super) struct Made {
    bytes: Vec<u8>,
    kept: usize,
    body_bytes: usize,
}

impl Made {
    pub(super) fn start(&mut self, body: &[u8]) {
        self.body_bytes = body.len();
        self.forget();
    }

    /// Forgets what was made for the entry.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(self.kept);
    }

    /// Forgets what was made for the family too.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
        self.kept = 0;
    }

    /// What was made until now stays until [`Self::forget`].
    pub(super) fn keep(&mut self) {
        self.kept = self.bytes.len();
    }

    /// How much is made, to [`Self::cut`] there.
    pub(super) fn mark(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what was made since a mark.
    pub(super) fn cut(&mut self, mark: usize) {
        self.bytes.truncate(mark);
    }

    #[inline]
    pub(super) fn bytes<'b>(&'b self, body: &'b [u8], span: Span) -> &'b [u8] {
        let range = span.range();
        if let Some(received) = body.get(range.clone()) {
            return received;
        }
        let start = range.start.saturating_sub(self.body_bytes);
        let end = range.end.saturating_sub(self.body_bytes);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// What `write` writes, as a span.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.body_bytes + self.bytes.len();
        write(&mut self.bytes);
        Span::new(start..self.body_bytes + self.bytes.len())
    }

    /// A range of the body without its escapes: `\\` and `\n`, and `\"` where `quotes` are meant.
    /// Other backslashes stand for themselves.
    pub(super) fn unescape(&mut self, raw: &[u8], quotes: bool) -> Span {
        self.write(|out| {
            let mut rest = raw;
            while let Some(at) = memchr::memchr(b'\\', rest) {
                let (before, escape) = rest.split_at(at);
                out.extend_from_slice(before);
                let (meant, length) = match escape {
                    [_, b'\\', ..] => (b'\\', 2),
                    [_, b'n', ..] => (b'\n', 2),
                    [_, b'"', ..] if quotes => (b'"', 2),
                    _ => (b'\\', 1),
                };
                out.push(meant);
                rest = escape.get(length..).unwrap_or_default();
            }
            out.extend_from_slice(rest);
        })
    }
}
