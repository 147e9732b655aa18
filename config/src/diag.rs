//! Turns a finding about a source into `file:line:col: message`, and collects several of them.
//!
//! # Invariants
//! A diagnostic carries its source, so it can be printed with the offending lines by whoever holds it.

use std::fmt;
use std::sync::Arc;

use crate::pretty;
use crate::source::{Pos, Source, Span};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is usable; something in it deserves attention.
    Warning,
    /// The configuration cannot be used.
    Error,
}

/// One finding about one place in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The text it is about.
    pub source: Arc<Source>,
    /// The place it is about.
    pub span: Span,
    /// What is wrong, lower-case and without a full stop.
    pub message: String,
}

impl Diagnostic {
    /// An error at `span` of `source`.
    pub fn error(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        let source = Arc::clone(source);
        Self {
            severity: Severity::Error,
            source,
            span,
            message: message.into(),
        }
    }

    /// A warning at `span` of `source`.
    pub fn warning(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        let source = Arc::clone(source);
        Self {
            severity: Severity::Warning,
            source,
            span,
            message: message.into(),
        }
    }

    /// Where the finding starts.
    pub fn pos(&self) -> Pos {
        self.span.start
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.source.name(),
            self.span.start,
            self.message
        )
    }
}

impl std::error::Error for Diagnostic {}

/// Findings in the order they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// No findings yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Adds all findings of `other` after the present ones.
    pub fn extend(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of findings.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether any finding makes the configuration unusable.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// The findings in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Puts findings of one source into reading order; equal places keep their order.
    pub(crate) fn sort_by_position(&mut self) {
        self.list.sort_by_key(Diagnostic::pos);
    }

    /// All findings with the source lines they are about, ready for a terminal.
    pub fn pretty(&self, color: bool) -> String {
        pretty::render(self, color)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            list: vec![diagnostic],
        }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.list.first() else {
            return f.write_str("no errors");
        };
        write!(f, "{first}")?;
        match self.list.len() - 1 {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more diagnostic)"),
            more => write!(f, " (and {more} more diagnostics)"),
        }
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_findings_print_the_first_and_count_the_rest() {
        let source = Arc::new(Source::new("a.penstock", "x\ny"));
        let mut all = Diagnostics::new();
        assert_eq!(all.to_string(), "no errors");
        for line in 1..=3 {
            let span = Span::at(Pos { line, column: 2 });
            all.push(Diagnostic::error(&source, span, format!("bad {line}")));
        }
        assert_eq!(
            all.to_string(),
            "a.penstock:1:2: bad 1 (and 2 more diagnostics)"
        );
        assert!(all.has_errors());
    }
}
