//! Turns a configuration into the same configuration in the one form everybody writes.
//!
//! One tab per level, one blank around operators, `=` below `=`; what stands on a line of its own inside
//! brackets stays there. The files: `fmt` walks the tree and says what stands where, `fmt::page` puts
//! comments between and keeps blank lines, `fmt::tabs` makes columns.
//!
//! # Invariants
//! The result means the same, has the same comments, and formatting it again changes nothing.
//!
//! # Failure
//! A text that does not parse is not formatted: its diagnostics are returned.

mod page;
mod tabs;

use std::sync::Arc;

use self::page::Page;
use crate::ast::{Attribute, Block, Expr, ExprKind, Field, LiteralKind, Statement};
use crate::diag::Diagnostics;
use crate::parser::parse_with_comments;
use crate::source::{Pos, Source, Span};

/// Formats a configuration.
///
/// # Errors
/// Every syntax error.
pub fn format(file_name: &str, text: &str) -> Result<String, Diagnostics> {
    let source = Arc::new(Source::new(file_name, text));
    let (statements, comments) = parse_with_comments(&source)?;
    let mut writer = Writer {
        page: Page::new(&comments),
    };
    writer.statements(&statements);
    Ok(writer.page.finish())
}

struct Writer<'a> {
    page: Page<'a>,
}

impl Writer<'_> {
    fn statements(&mut self, statements: &[Statement]) {
        let mut breaks = true;
        for (at, statement) in statements.iter().enumerate() {
            if at > 0 {
                let is_block = matches!(statement, Statement::Block(_));
                self.page.line(breaks || is_block, is_block);
            }
            breaks = match statement {
                Statement::Attribute(attribute) => self.attribute(attribute),
                Statement::Block(block) => {
                    self.block(block);
                    true
                }
            };
        }
    }

    /// Tells whether it took several lines.
    fn attribute(&mut self, attribute: &Attribute) -> bool {
        self.page.token(attribute.name.span, &attribute.name.name);
        let lines = self.page.lines();
        self.page.cell();
        self.page.text("= ");
        self.expr(&attribute.value);
        self.page.lines() > lines
    }

    fn block(&mut self, block: &Block) {
        self.page.token(block.name.span, &block.name.name);
        if let Some(label) = &block.label {
            self.page.text(" ");
            self.page.token(label.span, &format!("\"{}\"", label.name));
        }
        self.page.text(" ");
        self.page.token(Span::at(block.header.end), "{");
        let close = Span::at(block.span.end);
        if block.body.is_empty() && !self.page.has_line_comment_before(close.start) {
            self.page.text(" ");
            self.page.token(close, "}");
        } else {
            self.page.indent();
            self.page.opening_line();
            self.statements(&block.body);
            self.page.unindent();
            self.page.closing_line(true);
            self.page.token(close, "}");
        }
    }

    fn expr(&mut self, expr: &Expr) {
        let (first, last) = (Span::at(expr.span.start), Span::at(expr.span.end));
        match &expr.kind {
            ExprKind::Literal(literal) => self.page.token(expr.span, &literal.text),
            ExprKind::Identifier(name) => self.page.token(expr.span, name),
            ExprKind::Array(items) => {
                self.page.token(first, "[");
                self.list(items, first.start, last.start);
                self.page.token(last, "]");
            }
            ExprKind::Object(fields) => self.object(fields, expr.span),
            ExprKind::Paren(inner) => {
                self.page.token(first, "(");
                self.expr(inner);
                self.page.token(last, ")");
            }
            ExprKind::Unary(op, operand) => {
                self.page.token(first, &op.to_string());
                self.expr(operand);
            }
            ExprKind::Binary(left, op, right) => {
                self.expr(left);
                self.page.text(&format!(" {op} "));
                self.expr(right);
            }
            ExprKind::Access(target, name) => {
                self.expr(target);
                self.page.text(before_access(target));
                self.page.text(".");
                self.page.token(name.span, &name.name);
            }
            ExprKind::Index(target, index) => {
                self.expr(target);
                self.page.text("[");
                self.expr(index);
                self.page.token(last, "]");
            }
            ExprKind::Call(function, args) => {
                self.expr(function);
                self.page.text("(");
                self.list(args, function.span.end, last.start);
                self.page.token(last, ")");
            }
        }
    }

    /// What stands between two brackets: what began on a new line does so again.
    fn list(&mut self, items: &[Expr], open: Pos, close: Pos) {
        let mut end = open;
        let mut is_deeper = false;
        for (at, item) in items.iter().enumerate() {
            is_deeper |= self.separate(is_deeper, end, item.span.start, true);
            if at > 0 && end.line == item.span.start.line {
                self.page.text(" ");
            }
            self.expr(item);
            end = item.span.end;
            self.comma(at + 1 == items.len(), end, close);
        }
        self.close(items.is_empty(), is_deeper, end, close);
    }

    fn object(&mut self, fields: &[Field], span: Span) {
        self.page.token(Span::at(span.start), "{");
        let mut end = span.start;
        let mut breaks = true;
        let mut is_deeper = false;
        for (at, field) in fields.iter().enumerate() {
            let start = field.name.span.start;
            is_deeper |= self.separate(is_deeper, end, start, breaks);
            if at > 0 && end.line == start.line {
                self.page.text(" ");
            }
            let quote = if field.quoted { "\"" } else { "" };
            let name = format!("{quote}{}{quote}", field.name.name);
            self.page.token(field.name.span, &name);
            let lines = self.page.lines();
            self.page.cell();
            self.page.text("= ");
            self.expr(&field.value);
            end = field.value.span.end;
            breaks = self.page.lines() > lines;
            self.comma(at + 1 == fields.len(), end, span.end);
        }
        self.close(fields.is_empty(), is_deeper, end, span.end);
        self.page.token(Span::at(span.end), "}");
    }

    /// What began on a new line does so again; the first to do so is where a level begins.
    fn separate(&mut self, is_deeper: bool, end: Pos, start: Pos, breaks: bool) -> bool {
        if end.line == start.line {
            return false;
        }
        if !is_deeper {
            self.page.indent();
        }
        self.page.inner_line(breaks);
        true
    }

    fn comma(&mut self, is_last: bool, end: Pos, close: Pos) {
        if !is_last || end.line != close.line {
            self.page.text(",");
        }
    }

    fn close(&mut self, is_empty: bool, is_deeper: bool, end: Pos, close: Pos) {
        if is_deeper {
            self.page.unindent();
        }
        // Nothing between the brackets needs no line.
        let has_lines = !is_empty || self.page.has_line_comment_before(close);
        if has_lines && end.line != close.line {
            self.page.closing_line(is_deeper);
        }
    }
}

/// A point right after digits would be read as part of the number.
fn before_access(target: &Expr) -> &'static str {
    match &target.kind {
        ExprKind::Literal(literal) if literal.kind == LiteralKind::Number => " ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    fn formatted(text: &str) -> String {
        crate::format("t", text).unwrap()
    }

    #[test]
    fn values_are_aligned_and_lines_inside_brackets_stay() {
        let text = "a=1\nbbb = 2 // c1\nc= [1,2,\n 3]\n\n\nd = {x = 1, yyy = 2,\n zz = 3}\n\
                    blk \"l\" {\n\n x=1\n inner {}\n yy = f(a,\nb)\n}\ne = string.format(\"%s\",\n\"a\",\n)\n\
                    f = [\n{ a=1 },\n{b = 2},\n]\ng = {\n \"q k\" = 1,\nbb = 22, // cc\n}";
        let want = "a   = 1\nbbb = 2 // c1\nc   = [1, 2,\n\t3]\n\nd = {x = 1, yyy = 2,\n\tzz   = 3}\n\n\
                    blk \"l\" {\n\tx = 1\n\n\tinner { }\n\tyy = f(a,\n\t\tb)\n}\ne = string.format(\"%s\",\n\t\"a\",\n)\n\
                    f = [\n\t{a = 1},\n\t{b = 2},\n]\ng = {\n\t\"q k\" = 1,\n\tbb    = 22, // cc\n}\n";
        assert_eq!(formatted(text), want);
    }

    #[test]
    fn comments_stay_where_they_are() {
        let table = [
            ("", "\n"),
            ("// a\n\n\n// b", "// a\n\n// b\n"),
            ("a { // x\n}", "a { // x\n}\n"),
            ("a { /* x */ }", "a { /* x */ }\n"),
            (
                "a {\n// x\n\nb = 1\n// y\n}",
                "a {\n\t// x\n\n\tb = 1\n\t// y\n}\n",
            ),
            ("a {}\n// x\nb {}", "a { }\n// x\nb { }\n"),
            ("x = [ /*none*/ ]", "x = [ /*none*/ ]\n"),
            (
                "x = [\n// y\n1,\n// z\n]",
                "x = [\n\t// y\n\t1,\n\t// z\n]\n",
            ),
            ("x = 1 .a", "x = 1 .a\n"),
            ("//~\t", "//~\n"),
            ("//~\r\t", "//~\n"),
        ];
        for (text, want) in table {
            assert_eq!(formatted(text), want, "{text}");
        }
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        let all = crate::format("t", "a = [1,\n2\n]").unwrap_err();
        assert_eq!(all.to_string(), "t:2:2: missing ',' in expression list");
    }
}
