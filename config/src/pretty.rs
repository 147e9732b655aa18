//! Turns diagnostics into terminal text: header, and the lines around with the range marked, by ariadne.
//!
//! Ariadne draws what it is given, all of it, and has its own mind about where lines end. So it is given an
//! excerpt: the lines that are shown, without what a terminal would act upon, and no more of a long one than
//! a screen has.
//!
//! # Invariants
//! The header is `Error: file:line:col: message`, in one piece: it is what is searched for.
//!
//! # Limits
//! [`LINE_BYTES_MAX`] of a line; of a range over many lines the first and the last.

use std::ops::Range;

use ariadne::{CharSet, Color, Config, IndexType, Label, Report, ReportKind};

use crate::diag::{Diagnostic, Diagnostics, Severity};
use crate::source::{Pos, Span};

/// Lines shown before and after the range.
const CONTEXT_LINES: usize = 1;
/// What is shown of a line.
const LINE_BYTES_MAX: usize = 240;
/// What is shown of a line that is cut before the place it is about.
const BEFORE_BYTES_MAX: usize = 80;
/// Stands for what is not shown of a line.
const CUT: &str = "...";
/// A place that no excerpt has.
const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// Prints every diagnostic, separated by blank lines.
pub(crate) fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let all = diagnostics.iter().map(|one| render_one(one, color));
    all.collect::<Vec<String>>().join("\n")
}

fn render_one(diagnostic: &Diagnostic, color: bool) -> String {
    let (kind, paint) = match diagnostic.severity {
        Severity::Error => (ReportKind::Error, Color::Red),
        Severity::Warning => (ReportKind::Warning, Color::Yellow),
    };
    // Files and pipes are read with who knows what.
    let chars = match color {
        true => CharSet::Unicode,
        false => CharSet::Ascii,
    };
    let config = Config::default()
        .with_color(color)
        .with_char_set(chars)
        .with_index_type(IndexType::Char);
    let excerpt = Excerpt::of(diagnostic.source.text(), diagnostic.span);
    // Ariadne would count characters of the excerpt: the place is part of the name instead.
    let place = format!("{}:{}", diagnostic.source.name(), diagnostic.span.start);
    let label = Label::new((place.as_str(), excerpt.range));
    let mut report = Report::build(kind, (place.as_str(), NOWHERE))
        .with_config(config)
        .with_message(diagnostic)
        .with_label(label.with_message("here").with_color(paint));
    for (order, at) in excerpt.around {
        // A label that says nothing at least shows its line.
        report.add_label(Label::new((place.as_str(), at..at)).with_order(order));
    }
    let cache = (place.as_str(), ariadne::Source::from(excerpt.text));
    let mut out = Vec::new();
    match report.finish().write(cache, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).replacen(&format!("{place}:?:?"), &place, 1),
        // Nothing that writes to memory fails; the type belongs to the trait.
        Err(_) => format!("{diagnostic}\n"),
    }
}

/// What ariadne is given. All places in it are counted in characters, as ariadne does.
#[derive(Debug, Default)]
struct Excerpt {
    /// As many lines as the source has up to there, for their numbers; those that are not shown are empty.
    text: String,
    chars: usize,
    range: Range<usize>,
    /// Lines that are shown beside the range, before (-1) and after (1) it: a place in each.
    around: Vec<(i32, usize)>,
}

impl Excerpt {
    fn of(text: &str, span: Span) -> Self {
        let count = text.split('\n').count();
        let line_of = |pos: Pos| index(pos.line).min(count - 1);
        let start = line_of(span.start);
        let end = line_of(span.end).max(start);
        let shown = start.saturating_sub(CONTEXT_LINES)..=end.saturating_add(CONTEXT_LINES);

        let mut excerpt = Self::default();
        for (number, line) in text.split('\n').enumerate().take(shown.end() + 1) {
            if shown.contains(&number) {
                // Where the range starts is what matters; its end is shown where that has room for it.
                let column = match number {
                    _ if number == start => span.start.column,
                    _ if number == end => span.end.column,
                    _ => 1,
                };
                let line = Line::of(line, index(column));
                if number == start {
                    let at = excerpt.chars + line.chars_before(index(span.start.column));
                    excerpt.range = at..at + 1;
                }
                if number == end {
                    let at = excerpt.chars + line.chars_before(index(span.end.column));
                    excerpt.range.end = excerpt.range.end.max(at + 1);
                }
                if number < start {
                    excerpt.around.push((-1, excerpt.chars + 1));
                }
                // What is behind the last line end is no line to look at.
                if number > end && (number + 1 < count || !line.line.is_empty()) {
                    excerpt.around.push((1, excerpt.chars + 1));
                }
                excerpt.push(&line.text());
                // The end of a line, and of the file, is a place too. It is not printed.
                excerpt.push(" ");
            }
            excerpt.push("\n");
        }
        excerpt
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.chars += text.chars().count();
    }
}

/// What is shown of a line.
struct Line<'a> {
    line: &'a str,
    shown: Range<usize>,
}

impl<'a> Line<'a> {
    fn of(line: &'a str, column: usize) -> Self {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let start = match line.len() > LINE_BYTES_MAX {
            true => column.min(line.len()).saturating_sub(BEFORE_BYTES_MAX),
            false => 0,
        };
        let start = line.floor_char_boundary(start);
        let end = line.floor_char_boundary(start + LINE_BYTES_MAX);
        Self {
            line,
            shown: start..end,
        }
    }

    fn text(&self) -> String {
        let shown = self.line.get(self.shown.clone()).unwrap_or_default();
        let before = if self.shown.start > 0 { CUT } else { "" };
        let after = match self.shown.end < self.line.len() {
            true => CUT,
            false => "",
        };
        let clean: String = shown.chars().map(clean).collect();
        format!("{before}{clean}{after}")
    }

    /// How many characters of what is shown are before a byte of the line.
    fn chars_before(&self, byte: usize) -> usize {
        let cut = if self.shown.start > 0 { CUT.len() } else { 0 };
        let byte = byte.clamp(self.shown.start, self.shown.end);
        let byte = self.line.floor_char_boundary(byte);
        let before = self.line.get(self.shown.start..byte).unwrap_or_default();
        cut + before.chars().count()
    }
}

/// A character that ends no line here, moves no cursor and turns no text around.
fn clean(c: char) -> char {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends = matches!(c, '\u{2028}' | '\u{2029}');
    match c != '\t' && (c.is_control() || turns || ends) {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    }
}

/// Lines and columns are counted from 1.
fn index(from_one: u32) -> usize {
    usize::try_from(from_one)
        .unwrap_or(usize::MAX)
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::source::Source;

    fn render_one(text: &str, start: (u32, u32), end: (u32, u32), color: bool) -> String {
        let source = Arc::new(Source::new("main.alloy", text));
        let pos = |(line, column)| Pos { line, column };
        let span = Span {
            start: pos(start),
            end: pos(end),
        };
        Diagnostics::from(Diagnostic::error(&source, span, "wrong")).pretty(color)
    }

    fn plain(text: &str, start: (u32, u32), end: (u32, u32)) -> String {
        render_one(text, start, end, false)
    }

    /// Without the blanks at the ends of lines.
    fn trimmed(shown: &str) -> String {
        shown
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }

    #[test]
    fn a_range_is_underlined_between_the_lines_around() {
        let text = "// one\n\nlogging {\n}\nprometheus.scrape \"x\" {\n  foo = 1\n}\n";
        let want = "\
Error: main.alloy:6:3: wrong
   ,-[ main.alloy:6:3 ]
   |
 5 | prometheus.scrape \"x\" {
 6 |   foo = 1
   |   ^^^|^^^
   |      `----- here
 7 | }
---'
";
        assert_eq!(trimmed(&plain(text, (6, 3), (6, 9))), want);
    }

    #[test]
    fn marks_stand_under_what_they_are_about_behind_tabs_and_wide_characters() {
        let tab = plain("\n\n\n\n\n\n\n\n\tfoo = 1\nx", (9, 2), (9, 4));
        let want = "  9 |     foo = 1\n    |     ^|^\n    |      `--- here\n 10 | x\n";
        assert!(trimmed(&tab).contains(want), "{tab}");
        let wide = plain("日本 = é\tx\r\n", (1, 13), (1, 13));
        let want = " 1 | 日本 = é  x\n   |           |\n";
        assert!(trimmed(&wide).contains(want), "{wide}");
    }

    #[test]
    fn of_a_range_over_lines_the_first_and_the_last_are_shown() {
        let want = "   |
 1 | ,-> a {
   : :
 5 | |-> }
   | |
   | `-------- here
 6 |     c
---'
";
        let text = "a {\n  b = 1\n  d = 1\n  e = 1\n}\nc";
        let shown = trimmed(&plain(text, (1, 1), (5, 1)));
        assert!(shown.ends_with(want), "{shown}");
    }

    #[test]
    fn the_end_of_a_line_and_of_the_file_are_places() {
        for (text, at, want) in [
            ("a {", (1, 4), " 1 | a {\n   |    |\n"),
            ("a {\nb", (1, 4), " 1 | a {\n   |    |\n"),
            ("a {\n", (2, 1), " 1 | a {\n 2 |\n   | |\n"),
            ("", (1, 1), " 1 |\n   | |\n"),
        ] {
            let shown = trimmed(&plain(text, at, at));
            assert!(shown.contains(want), "{text:?}: {shown}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}{{odd}}{}", "x".repeat(1 << 20), "日".repeat(1 << 20));
        let start = (1 << 20) + 2;
        let shown = trimmed(&plain(&text, (1, start), (1, start + 2)));
        assert!(
            shown.contains("...xxx") && shown.contains("日..."),
            "{shown}"
        );
        let line = shown.lines().position(|line| line.contains("{odd}"));
        let line = line.unwrap_or_else(|| panic!("{shown}"));
        let mut lines = shown.lines().skip(line);
        let (text, marks) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(text.find("odd"), marks.find("^|^"), "{shown}");
        assert!(shown.len() < 2000);
    }

    #[test]
    fn what_a_terminal_would_act_upon_is_not_printed() {
        let shown = plain("a = \u{1b}]0;x\u{7} \u{202e}\u{2028}\n", (1, 5), (1, 5));
        assert!(shown.contains(" 1 | a = \u{fffd}]0;x\u{fffd} \u{fffd}\u{fffd}"));
        assert_eq!(shown.matches("\n 2 |").count(), 0, "{shown}");
    }

    #[test]
    fn color_paints_the_severity() {
        let source = Arc::new(Source::new("f", "x"));
        let warning = Diagnostic::warning(&source, Span::at(Pos::START), "odd");
        let text = Diagnostics::from(warning).pretty(true);
        assert!(
            text.starts_with("\u{1b}[33mWarning:\u{1b}[0m f:1:1: odd\n"),
            "{text:?}"
        );
    }

    proptest! {
        #[test]
        fn any_place_is_shown(
            text in "[a\t\r\n é日\u{2028}\u{85}\u{1b}]{0,300}",
            a in (0u32..12, 0u32..90), b in (0u32..12, 0u32..90),
            color in any::<bool>(),
        ) {
            let shown = render_one(&text, a, b, color);
            let header = format!("main.alloy:{}:{}: wrong\n", a.0, a.1);
            prop_assert!(shown.contains(&header) && shown.contains("here"), "{}", shown);
            prop_assert!(!shown.contains(":?"), "{}", shown);
        }
    }
}
