//! Turns what is wrong with a scrape body into where it is and what was expected there.
//!
//! The parsers carry the small [`Wrong`]; the line number and the excerpt are made once, when a
//! body is given up.

use std::fmt;

use crate::decode::wire::Malformed;

/// How many bytes of the body an error shows.
const SHOWN_BYTES_MAX: usize = 32;

/// Why a body is refused from here on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The line, from 1; none for protobuf, which has no lines.
    pub line: Option<usize>,
    /// The byte of the body, from 0.
    pub offset: usize,
    /// What was expected, or what is wrong.
    pub what: &'static str,
    /// The next few bytes of the body, escaped; none for protobuf.
    pub shown: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            offset,
            what,
            shown,
        } = self;
        match line {
            Some(line) if shown.is_empty() => write!(f, "line {line}, byte {offset}: {what}"),
            Some(line) => write!(f, "line {line}, byte {offset}: {what}, found \"{shown}\""),
            None => write!(f, "byte {offset}: {what}"),
        }
    }
}

impl std::error::Error for ParseError {}

/// What is wrong, and at which byte of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

impl From<Malformed> for Wrong {
    fn from(malformed: Malformed) -> Self {
        Self {
            at: malformed.offset,
            what: malformed.what,
        }
    }
}

impl Wrong {
    /// The error of a body of lines.
    #[cold]
    pub(super) fn in_lines(self, body: &[u8]) -> ParseError {
        let at = self.at.min(body.len());
        let (before, rest) = body.split_at(at);
        let shown = rest.get(..SHOWN_BYTES_MAX).unwrap_or(rest);
        ParseError {
            line: Some(1 + memchr::memchr_iter(b'\n', before).count()),
            offset: at,
            what: self.what,
            shown: shown.escape_ascii().to_string(),
        }
    }

    /// The error of a protobuf body.
    #[cold]
    pub(super) fn in_messages(self) -> ParseError {
        ParseError {
            line: None,
            offset: self.at,
            what: self.what,
            shown: String::new(),
        }
    }
}
