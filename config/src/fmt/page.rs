//! Turns tokens in order into rows, with the comments between them and the blank lines kept.
//!
//! A line break waits until the next token is known: a comment may come first, which belongs to the line
//! before, or stands on a line of its own.

use super::tabs::Rows;
use crate::scanner::Comment;
use crate::source::{Pos, Span};

/// A line break to come.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Columns end here.
    breaks: bool,
    /// A blank line of the text stays.
    keeps_blank: bool,
    /// There is a blank line, whatever the text has.
    is_blank: bool,
    /// Levels that what comes first, if it is a comment, is deeper than the token after it.
    deeper: usize,
}

/// Within brackets: columns end, blank lines go.
const INNER: Line = Line {
    breaks: true,
    keeps_blank: false,
    is_blank: false,
    deeper: 0,
};

/// The text being written.
#[derive(Debug)]
pub(super) struct Page<'a> {
    rows: Rows,
    comments: std::iter::Peekable<std::slice::Iter<'a, Comment<'a>>>,
    line: Option<Line>,
    depth: usize,
    /// Line of the text on which the last thing written ended.
    last_line: Option<u32>,
    lines: usize,
    /// A comment was written that a blank separates from what follows.
    wants_blank: bool,
}

impl<'a> Page<'a> {
    pub(super) fn new(comments: &'a [Comment<'a>]) -> Self {
        Self {
            rows: Rows::default(),
            comments: comments.iter().peekable(),
            line: None,
            depth: 0,
            last_line: None,
            lines: 0,
            wants_blank: false,
        }
    }

    /// Writes a token that stands at `span` of the text, after the comments before it.
    pub(super) fn token(&mut self, span: Span, text: &str) {
        self.comments_before(Some(span.start));
        if let Some(line) = self.line.take() {
            self.end_line(line, span.start.line, self.depth);
        } else if std::mem::take(&mut self.wants_blank) {
            self.rows.text(" ");
        }
        self.wants_blank = false;
        self.rows.text(text);
        self.lines += text.matches('\n').count();
        self.last_line = Some(span.end.line);
    }

    /// Writes what stands at no particular place of the text.
    pub(super) fn text(&mut self, text: &str) {
        self.rows.text(text);
    }

    /// What follows stands in the next column.
    pub(super) fn cell(&mut self) {
        self.rows.cell();
    }

    pub(super) fn indent(&mut self) {
        self.depth += 1;
    }

    pub(super) fn unindent(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// The next statement follows.
    pub(super) fn line(&mut self, breaks: bool, is_blank: bool) {
        self.line = Some(Line {
            breaks,
            keeps_blank: true,
            is_blank,
            deeper: 0,
        });
    }

    /// The first statement of a body follows.
    pub(super) fn opening_line(&mut self) {
        self.line = Some(INNER);
    }

    /// The next element follows on a line of its own.
    pub(super) fn inner_line(&mut self, breaks: bool) {
        self.line = Some(Line { breaks, ..INNER });
    }

    /// The closing bracket follows on a line of its own; comments before it are of the level it ends, if
    /// that is one.
    pub(super) fn closing_line(&mut self, is_deeper: bool) {
        let deeper = usize::from(is_deeper);
        self.line = Some(Line { deeper, ..INNER });
    }

    /// Number of line breaks written, to tell whether something took several lines.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Whether a comment comes first that cannot stay on the line.
    pub(super) fn has_line_comment_before(&mut self, pos: Pos) -> bool {
        let last_line = self.last_line;
        self.comments.peek().is_some_and(|comment| {
            let is_inline = !comment.text.starts_with("//")
                && comment.span.end.line == pos.line
                && last_line == Some(comment.span.start.line);
            comment.span.start < pos && !is_inline
        })
    }

    /// The whole text, with the comments that are left.
    pub(super) fn finish(mut self) -> String {
        if self.line.is_none() {
            self.line(true, false);
        }
        self.comments_before(None);
        self.rows.finish()
    }

    fn comments_before(&mut self, pos: Option<Pos>) {
        while let Some(comment) = self
            .comments
            .next_if(|comment| pos.is_none_or(|pos| comment.span.start < pos))
        {
            let next = self.comments.peek().map(|next| next.span.start);
            let next = [next, pos].into_iter().flatten().min();
            self.comment(comment, next.map(|pos| pos.line));
            self.last_line = Some(comment.span.end.line);
        }
    }

    /// Writes a comment; `next_line` is where what follows it stands, if anything does.
    fn comment(&mut self, comment: &Comment<'_>, next_line: Option<u32>) {
        let Span { start, end } = comment.span;
        let text = comment.text.trim_end_matches([' ', '\t', '\r']);
        self.lines += text.matches('\n').count();
        let is_last = text.starts_with("//") || next_line.is_none_or(|line| line > end.line);
        let is_first = self.last_line.is_none_or(|line| line != start.line);
        if !is_first && (is_last || self.line.is_some()) {
            self.rows.cell();
            self.rows.text(text);
            self.line.get_or_insert(INNER);
            return;
        }
        let mut line = self.line.unwrap_or(Line { deeper: 1, ..INNER });
        if is_first && self.last_line.is_some() && (is_last || self.line.is_some()) {
            // Before a comment the blank lines are those of the text.
            line.is_blank &= !is_last;
            line.keeps_blank = true;
            line.breaks = true;
            let deeper = if is_last { line.deeper } else { 0 };
            self.end_line(line, start.line, self.depth + deeper);
        } else if !self.rows.ends_with_blank() {
            self.rows.text(" ");
        }
        self.rows.text(text);
        self.line = is_last.then_some(line);
        self.wants_blank = !is_last;
        if self.last_line.is_none() && is_last {
            self.line(true, false);
        }
    }

    fn end_line(&mut self, line: Line, to: u32, depth: usize) {
        let from = self.last_line.unwrap_or(to);
        let is_blank = line.is_blank || (line.keeps_blank && to > from.saturating_add(1));
        self.lines += 1;
        self.rows.end_row(line.breaks || is_blank);
        if is_blank {
            self.rows.end_row(true);
        }
        for _ in 0..depth {
            self.rows.cell();
        }
    }
}
