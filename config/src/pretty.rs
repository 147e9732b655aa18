//! Turns diagnostics into terminal text: header, the lines around, and carets under the range.
//!
//! Kept apart from `diag` because it is the only part that looks at source lines.
//!
//! # Invariants
//! A caret stands under the character it is about: tabs are widened the same way in both lines.

use std::fmt::Write;

use crate::diag::{Diagnostic, Diagnostics, Severity};
use crate::source::Span;

/// Lines shown before and after the range.
const CONTEXT_LINES: u32 = 1;
/// A tab is printed as this many spaces, so that carets line up whatever the terminal does.
const TAB: &str = "    ";

/// Prints every diagnostic, separated by blank lines.
pub(crate) fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let mut out = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        header(&mut out, diagnostic, color);
        excerpt(&mut out, diagnostic);
    }
    out
}

fn header(out: &mut String, diagnostic: &Diagnostic, color: bool) {
    let (word, paint) = match diagnostic.severity {
        Severity::Error => ("Error: ", "\x1b[31;1m"),
        Severity::Warning => ("Warning: ", "\x1b[33;1m"),
    };
    let (paint, bold, reset) = if color {
        (paint, "\x1b[1m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    push(
        out,
        format_args!("{paint}{word}{reset}{bold}{diagnostic}{reset}\n"),
    );
}

fn excerpt(out: &mut String, diagnostic: &Diagnostic) {
    let span = diagnostic.span;
    let lines: Vec<&str> = diagnostic.source.text().split('\n').collect();
    let first = span.start.line.saturating_sub(CONTEXT_LINES).max(1);
    let last = span.end.line.saturating_add(CONTEXT_LINES);
    let last = last.min(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    let width = last.to_string().len();
    let multiline = span.end.line > span.start.line;

    out.push('\n');
    for (number, line) in (1_u32..).zip(lines) {
        if number < first || number > last {
            continue;
        }
        let bar = match multiline {
            false => "",
            true if number > span.start.line && number <= span.end.line => "| ",
            true => "  ",
        };
        push(
            out,
            format_args!("{number:>width$} | {bar}{}\n", widen(line)),
        );
        if number == span.start.line || (multiline && number == span.end.line) {
            let corner = match multiline {
                false => " | ",
                true if number == span.start.line => " |  _",
                true => " | |_",
            };
            push(
                out,
                format_args!("{:width$}{corner}{}\n", "", carets(line, number, span)),
            );
        }
    }
}

/// The line under a source line: blanks, then a caret under each character of the range.
fn carets(line: &str, number: u32, span: Span) -> String {
    let blank = if span.end.line > span.start.line {
        '_'
    } else {
        ' '
    };
    let mut out = String::new();
    for (offset, c) in line.char_indices() {
        let column = u32::try_from(offset).unwrap_or(u32::MAX).saturating_add(1);
        if number == span.end.line && column > span.end.column {
            break;
        }
        let marked = number > span.start.line || column >= span.start.column;
        match c {
            '\r' => {}
            '\t' => out.extend(TAB.chars().map(|_| blank)),
            _ if marked => out.push('^'),
            _ => out.push(blank),
        }
    }
    // A finding at the end of a line or of the file has no character to stand under.
    let past_end = usize::try_from(span.start.column).is_ok_and(|c| c > line.len());
    if number == span.start.line && past_end && !out.ends_with('^') {
        out.push('^');
    }
    out
}

fn widen(line: &str) -> String {
    line.replace('\r', "").replace('\t', TAB)
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail; the result type belongs to the trait.
    if out.write_fmt(text).is_err() {
        out.push('?');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::source::{Pos, Source};

    fn render_one(text: &str, start: (u32, u32), end: (u32, u32)) -> String {
        let source = Arc::new(Source::new("main.alloy", text));
        let span = Span {
            start: Pos {
                line: start.0,
                column: start.1,
            },
            end: Pos {
                line: end.0,
                column: end.1,
            },
        };
        Diagnostics::from(Diagnostic::error(&source, span, "wrong")).pretty(false)
    }

    #[test]
    fn one_line_range_is_underlined() {
        let text = "// one\n\nlogging {\n}\nprometheus.scrape \"x\" {\n  foo = 1\n}\n";
        let want = "Error: main.alloy:6:3: wrong\n\n\
                    5 | prometheus.scrape \"x\" {\n\
                    6 |   foo = 1\n  |   ^^^^^^^\n\
                    7 | }\n";
        assert_eq!(render_one(text, (6, 3), (6, 9)), want);
    }

    #[test]
    fn tabs_keep_carets_aligned_and_numbers_are_padded() {
        let text = "\n\n\n\n\n\n\n\n\tfoo = 1\nx";
        let want = "Error: main.alloy:9:2: wrong\n\n \
                    8 | \n 9 |     foo = 1\n   |     ^^^\n10 | x\n";
        assert_eq!(render_one(text, (9, 2), (9, 4)), want);
    }

    #[test]
    fn range_over_lines_draws_a_bar() {
        let want = "Error: main.alloy:1:1: wrong\n\n\
                    1 |   a {\n  |  _^^^\n\
                    2 | |   b = 1\n\
                    3 | | }\n  | |_^\n\
                    4 |   c\n";
        assert_eq!(render_one("a {\n  b = 1\n}\nc", (1, 1), (3, 1)), want);
    }

    #[test]
    fn end_of_file_still_gets_a_caret() {
        let want = "Error: main.alloy:1:4: wrong\n\n1 | a {\n  |    ^\n";
        assert_eq!(render_one("a {", (1, 4), (1, 4)), want);
    }

    #[test]
    fn color_paints_the_header() {
        let source = Arc::new(Source::new("f", "x"));
        let warning = Diagnostic::warning(&source, Span::at(Pos::START), "odd");
        let text = Diagnostics::from(warning).pretty(true);
        assert!(text.starts_with("\x1b[33;1mWarning: \x1b[0m\x1b[1mf:1:1: odd\x1b[0m\n"));
    }
}
