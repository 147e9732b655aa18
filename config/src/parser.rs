//! Turns tokens into a tree of blocks and attributes, and goes on after an error.
//!
//! Expressions are in `parser::expr`; this file has the statements, the recovery and the entry points.
//!
//! # Invariants
//! At most one parser error per line (the scanner may add its own). Blocks and expressions together
//! nest no deeper than [`MAX_DEPTH`]; no expression is higher than `MAX_HEIGHT`.
//!
//! # Failure
//! After an error the parser skips to where a statement may start again. Every error found is
//! returned, in reading order; a tree is returned only when there is none.
//!
//! # Limits
//! Going beyond one of the two is an error that ends parsing. After [`DIAGNOSTICS_MAX`] errors the
//! rest go unreported.

mod expr;

use std::sync::Arc;

use crate::ast::{Attribute, Block, Expr, File, Ident, Statement};
use crate::diag::{Diagnostic, Diagnostics};
use crate::scanner::{Comment, Scanner, is_identifier};
use crate::source::{Source, Span};
use crate::token::{Token, TokenKind};

/// Deepest nesting of blocks and expressions. Hand-written configurations stay below twenty; the
/// bound keeps recursive walks within a 2 MiB thread stack even in unoptimized builds.
pub const MAX_DEPTH: u32 = 100;

/// Most levels of operations in one expression. A chain such as `a + b + c` adds a level per
/// operator without any brackets, so this is wider than [`MAX_DEPTH`].
pub(crate) const MAX_HEIGHT: u32 = 250;

/// Most errors reported for one text. Nobody fixes more at a time, and a binary file would otherwise
/// give one for each byte.
const DIAGNOSTICS_MAX: usize = 1000;

/// Parses a configuration: a list of blocks.
///
/// # Errors
/// Every syntax error; else every attribute outside a block.
pub fn parse(file_name: &str, text: &str) -> Result<File, Diagnostics> {
    let (source, statements) = parse_body(file_name, text)?;
    let mut blocks = Vec::new();
    let mut diagnostics = Diagnostics::new();
    for statement in statements {
        match statement {
            Statement::Block(block) => blocks.push(block),
            Statement::Attribute(attribute) => {
                let message = format!("unrecognized attribute {}", attribute.name.name);
                diagnostics.push(Diagnostic::error(&source, attribute.span(), message));
            }
        }
    }
    if diagnostics.is_empty() {
        Ok(File { source, blocks })
    } else {
        Err(diagnostics)
    }
}

/// Parses statements without asking what may stand at the top level.
///
/// # Errors
/// Every syntax error.
pub fn parse_body(
    file_name: &str,
    text: &str,
) -> Result<(Arc<Source>, Vec<Statement>), Diagnostics> {
    let source = Arc::new(Source::new(file_name, text));
    let mut parser = Parser::new(&source);
    let statements = parser.statements(TokenKind::Eof);
    parser.finish().map(|()| (source, statements))
}

/// As [`parse_body`], with the comments.
pub(crate) fn parse_with_comments(
    source: &Arc<Source>,
) -> Result<(Vec<Statement>, Vec<Comment<'_>>), Diagnostics> {
    let mut parser = Parser::new(source);
    let statements = parser.statements(TokenKind::Eof);
    let comments = parser.scanner.take_comments();
    parser.finish().map(|()| (statements, comments))
}

/// Parses a single expression.
///
/// # Errors
/// Every syntax error, and anything but the end after the expression.
pub fn parse_expression(file_name: &str, text: &str) -> Result<(Arc<Source>, Expr), Diagnostics> {
    let source = Arc::new(Source::new(file_name, text));
    let mut parser = Parser::new(&source);
    let expr = parser.expression();
    if parser.token.kind != TokenKind::Eof {
        parser.expect(TokenKind::Terminator);
    }
    if parser.token.kind != TokenKind::Eof {
        parser.expected("EOF");
    }
    parser.finish().map(|()| (source, expr))
}

struct Parser<'a> {
    source: &'a Arc<Source>,
    scanner: Scanner<'a>,
    token: Token<'a>,
    diagnostics: Diagnostics,
    /// Line of the last parser error; further ones on it are consequences more often than news.
    error_line: u32,
    depth: u32,
    too_deep: bool,
}

/// What precedes `=` or `{` in a statement.
struct Head {
    name: Ident,
    dotted: bool,
    label: Option<Ident>,
    label_span: Option<Span>,
}

impl<'a> Parser<'a> {
    fn new(source: &'a Arc<Source>) -> Self {
        let mut scanner = Scanner::new(source.text());
        let token = scanner.scan();
        let mut parser = Self {
            source,
            scanner,
            token,
            diagnostics: Diagnostics::new(),
            error_line: 0,
            depth: 0,
            too_deep: false,
        };
        parser.collect_scanner_errors();
        parser
    }

    fn finish(mut self) -> Result<(), Diagnostics> {
        self.diagnostics.sort_by_position();
        if self.diagnostics.is_empty() {
            Ok(())
        } else {
            Err(self.diagnostics)
        }
    }

    /// Statements up to `until`, which is left for the caller.
    fn statements(&mut self, until: TokenKind) -> Vec<Statement> {
        let mut statements = Vec::new();
        if !self.enter() {
            return statements;
        }
        while self.token.kind != until && self.token.kind != TokenKind::Eof {
            statements.extend(self.statement());
            if self.token.kind == until {
                break;
            }
            if self.token.kind != TokenKind::Terminator {
                self.expected("TERMINATOR");
                self.skip_statement();
            }
            self.next();
        }
        self.leave();
        statements
    }

    fn statement(&mut self) -> Option<Statement> {
        let head = self.head()?;
        match self.token.kind {
            TokenKind::Assign => {
                self.next();
                Some(Statement::Attribute(self.attribute(head)))
            }
            TokenKind::LeftCurly => Some(Statement::Block(self.block(head))),
            _ => {
                if head.dotted || head.label.is_some() {
                    self.expected("block body");
                } else {
                    self.expected("attribute assignment or block body");
                }
                self.skip_to(TokenKind::Ident);
                None
            }
        }
    }

    fn attribute(&mut self, head: Head) -> Attribute {
        // Both are worth saying even if the line has another error.
        if head.dotted {
            let message = "attribute names may only consist of a single identifier with no \".\"";
            self.report(head.name.span, message);
        } else if let Some(span) = head.label_span {
            self.report(span, "attribute names may not have labels");
        }
        Attribute {
            name: head.name,
            value: self.expression(),
        }
    }

    fn block(&mut self, head: Head) -> Block {
        let open = self.expect(TokenKind::LeftCurly).span;
        let body = self.statements(TokenKind::RightCurly);
        let close = self.expect(TokenKind::RightCurly).span;
        Block {
            source: Arc::clone(self.source),
            span: head.name.span.to(close),
            header: head.name.span.to(open),
            name: head.name,
            label: head.label,
            body,
        }
    }

    fn head(&mut self) -> Option<Head> {
        if self.token.kind != TokenKind::Ident {
            self.expected("identifier");
            self.skip_to(TokenKind::Ident);
            return None;
        }
        let first = self.next();
        let mut name = Ident {
            name: first.text.to_owned(),
            span: first.span,
        };
        let mut dotted = false;
        while self.token.kind == TokenKind::Dot {
            dotted = true;
            self.next();
            if self.token.kind != TokenKind::Ident {
                self.expected("identifier");
            }
            let part = self.next();
            name.name.push('.');
            name.name.push_str(part.text);
            name.span = name.span.to(part.span);
        }
        let mut head = Head {
            name,
            dotted,
            label: None,
            label_span: None,
        };
        if !matches!(self.token.kind, TokenKind::Assign | TokenKind::LeftCurly) {
            self.label(&mut head);
        }
        Some(head)
    }

    fn label(&mut self, head: &mut Head) {
        if self.token.kind != TokenKind::String {
            self.expected("block label");
            self.next();
            return;
        }
        let text = self.token.text;
        if !text.starts_with('"') {
            let wanted = "expected block label to be a double quoted string, but got";
            self.error(format!("{wanted} {text:?}"));
        }
        let label = unwrap_quotes(text);
        if !label.is_empty() && !is_identifier(label) {
            let wanted = "expected block label to be a valid identifier, but got";
            self.error(format!("{wanted} {label:?}"));
        }
        let token = self.next();
        head.label_span = Some(token.span);
        if !label.is_empty() {
            head.label = Some(Ident {
                name: label.to_owned(),
                span: token.span,
            });
        }
    }

    /// Moves past the current token and returns it.
    fn next(&mut self) -> Token<'a> {
        let token = std::mem::replace(&mut self.token, self.scanner.scan());
        self.collect_scanner_errors();
        token
    }

    /// Moves past the current token, complaining if it is not a `kind`.
    fn expect(&mut self, kind: TokenKind) -> Token<'a> {
        if self.token.kind != kind {
            self.expected(&kind.to_string());
        }
        self.next()
    }

    fn skip_to(&mut self, kind: TokenKind) {
        while self.token.kind != TokenKind::Eof && self.token.kind != kind {
            self.next();
        }
    }

    /// Skips to the terminator of this statement, over those inside brackets opened on the way.
    fn skip_statement(&mut self) {
        // One count per kind of bracket: a stray `]` must not make up for an open `{`.
        let (mut curly, mut bracket, mut paren) = (0_i64, 0_i64, 0_i64);
        while self.token.kind != TokenKind::Eof {
            match self.token.kind {
                TokenKind::LeftCurly => curly += 1,
                TokenKind::RightCurly => curly -= 1,
                TokenKind::LeftBracket => bracket += 1,
                TokenKind::RightBracket => bracket -= 1,
                TokenKind::LeftParen => paren += 1,
                TokenKind::RightParen => paren -= 1,
                TokenKind::Terminator if curly <= 0 && bracket <= 0 && paren <= 0 => return,
                _ => {}
            }
            self.next();
        }
    }

    /// Counts one more level; every `true` needs a `leave`.
    fn enter(&mut self) -> bool {
        if self.depth >= MAX_DEPTH {
            self.stop_too_deep(MAX_DEPTH);
            return false;
        }
        self.depth += 1;
        true
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reports the nesting once and moves to the end, so that nothing more is built.
    fn stop_too_deep(&mut self, levels: u32) {
        if !self.too_deep {
            let message = format!("nesting is deeper than {levels} levels");
            self.report(self.token.span, message);
        }
        self.too_deep = true;
        self.scanner.skip_to_end();
        self.next();
    }

    fn expected(&mut self, wanted: &str) {
        self.error(format!("expected {wanted}, got {}", self.token.kind));
    }

    fn error(&mut self, message: String) {
        let line = self.token.span.start.line;
        if self.error_line == line || self.too_deep {
            return;
        }
        self.error_line = line;
        self.report(Span::at(self.token.span.start), message);
    }

    fn report(&mut self, span: Span, message: impl Into<String>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            let diagnostic = Diagnostic::error(self.source, span, message);
            self.diagnostics.push(diagnostic);
        }
    }

    fn collect_scanner_errors(&mut self) {
        for (pos, message) in self.scanner.take_errors() {
            self.report(Span::at(pos), message);
        }
    }
}

/// The text between the quotes of a string token; an unterminated one may lack the second.
fn unwrap_quotes(text: &str) -> &str {
    let mut chars = text.chars();
    let quote = chars.next();
    let inner = chars.as_str();
    match quote {
        Some(quote) => inner.strip_suffix(quote).unwrap_or(inner),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        match parse_body("f", text) {
            Ok(_) => Vec::new(),
            Err(all) => all
                .iter()
                .map(|d| format!("{}: {}", d.pos(), d.message))
                .collect(),
        }
    }

    #[test]
    fn verified_parser_results() {
        let table = [
            ("a = 1 b = 2", "1:7: expected TERMINATOR, got IDENT"),
            ("a = [1,\n2\n]", "2:2: missing ',' in expression list"),
            ("a = 1\n + 2", "2:2: expected identifier, got +"),
            (
                "a \"x-y\" {}",
                "1:3: expected block label to be a valid identifier, but got \"x-y\"",
            ),
            (
                "x.y = 1",
                "1:1: attribute names may only consist of a single identifier with no \".\"",
            ),
            ("a = \"abc", "1:5: string literal not terminated"),
            ("a {\n b = 1", "2:7: expected }, got EOF"),
            ("a = 1; b = 2", "1:6: illegal character U+003B ';'"),
            ("a 1", "1:3: expected block label, got NUMBER"),
            ("a", "1:2: expected block label, got TERMINATOR"),
            (
                "a `x` {}",
                "1:3: expected block label to be a double quoted string, but got \"`x`\"",
            ),
            ("a \"\" = 1", "1:3: attribute names may not have labels"),
            (
                "a = b \"c\" { x = 1 }",
                "1:5: cannot use a block as an expression",
            ),
            ("a {} b {}", "1:6: expected TERMINATOR, got IDENT"),
            (
                "a = {1 = 2}",
                "1:6: expected field name (string or identifier), got NUMBER",
            ),
        ];
        for (text, want) in table {
            assert_eq!(
                errors(text).first().map(String::as_str),
                Some(want),
                "{text}"
            );
        }
        for good in [
            "a = 1 +\n2",
            "",
            "\n\n",
            "a { }",
            "a {\n\tb = 1\n}\n",
            "a \"\" {}",
            "// x",
        ] {
            assert_eq!(errors(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn one_error_per_line_and_several_per_file() {
        // Skipping ends at a line break that counts; after `>` it does not, so line 2 goes as well.
        assert_eq!(
            errors("a = <b>\nb = 1 + + 2\nc = [<x>]\n"),
            [
                "1:5: expected expression, got <",
                "3:6: expected expression, got <"
            ]
        );
        let text = "a = 1 + + 2\nc = [<x>, <y>]\n";
        assert_eq!(
            errors(text),
            [
                "1:9: expected expression, got +",
                "2:6: expected expression, got <"
            ]
        );
    }

    #[test]
    fn blocks_carry_name_label_and_places() {
        let file = parse(
            "f",
            "// c\nprometheus.scrape \"x\" {\n  a = 1\n  b { }\n}\n",
        )
        .unwrap();
        let block = &file.blocks[0];
        assert_eq!(block.name.name, "prometheus.scrape");
        assert_eq!(block.id(), "prometheus.scrape.x");
        assert_eq!(block.body.len(), 2);
        assert_eq!((block.span.start.line, block.span.end.line), (2, 5));
        assert_eq!(block.header.end.column, 23);
    }

    #[test]
    fn attribute_at_the_top_level_is_refused() {
        let all = parse("f", "a {}\nb = 1\n").unwrap_err();
        assert_eq!(all.to_string(), "f:2:1: unrecognized attribute b");
    }

    #[test]
    fn errors_of_a_binary_file_are_bounded() {
        assert_eq!(errors(&"\0".repeat(100_000)).len(), DIAGNOSTICS_MAX);
    }

    #[test]
    fn deep_nesting_is_refused_with_one_error() {
        let n = 100_000;
        let hostile = [
            format!("a = {}", "[".repeat(n)),
            format!("a = {}", "(".repeat(n)),
            format!("a = {}", "-".repeat(n)),
            format!("a = {}1", "2^".repeat(n)),
            format!("a = 1{}", "+1".repeat(n)),
            format!("a = x{}", ".y".repeat(n)),
            format!("a = x{}", "[0]".repeat(n)),
            format!("a = x{}", "()".repeat(n)),
            format!("a = {}", "{b=".repeat(n)),
            "a {\n".repeat(n),
            format!("a = {}", "b {\n c = ".repeat(n)),
        ];
        for text in hostile {
            let all = errors(&text);
            assert!(all[0].contains("nesting is deeper than "), "{all:?}");
            assert_eq!(all.len(), 1, "{all:?}");
        }
    }
}
