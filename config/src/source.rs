//! Names the text being read and turns byte offsets into line and column.
//!
//! # Invariants
//! Lines and columns start at 1; a column counts bytes, so a tab is one column and `é` is two.
//! `span.start <= span.end`, and `end` is the position of the last character, not the one after.

use std::fmt;

/// A named text, kept so that diagnostics can quote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A source called `name`, usually a file path, holding `text`.
    pub fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The name positions are printed with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A place in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Byte column, from 1.
    pub column: u32,
}

impl Pos {
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The position after `c`, when `c` stands at this position.
    pub(crate) fn after(self, c: char) -> Self {
        if c == '\n' {
            return Self {
                line: self.line.saturating_add(1),
                column: 1,
            };
        }
        let width = match c.len_utf8() {
            1 => 1,
            2 => 2,
            3 => 3,
            _ => 4,
        };
        Self {
            line: self.line,
            column: self.column.saturating_add(width),
        }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// From the first to the last character of something, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First character.
    pub start: Pos,
    /// Last character.
    pub end: Pos,
}

impl Span {
    /// The span of a single position.
    pub fn at(pos: Pos) -> Self {
        Self {
            start: pos,
            end: pos,
        }
    }

    /// From the start of `self` to the end of `other`.
    pub fn to(self, other: Self) -> Self {
        Self {
            start: self.start,
            end: other.end.max(self.start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_bytes() {
        let mut pos = Pos::START;
        for c in "\té€x\ny".chars() {
            pos = pos.after(c);
        }
        assert_eq!(pos, Pos { line: 2, column: 2 });
        assert_eq!(
            Pos::START.after('\t').after('é').after('€'),
            Pos { line: 1, column: 7 }
        );
    }
}
