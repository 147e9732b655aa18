//! Turns text into tokens, inserting the terminators that line breaks stand for.
//!
//! Comments are no tokens; they are kept beside for the formatter. Letters are Rust's alphabetic characters and digits its numeric ones,
//! which takes in a few marks and number forms beyond the letter and decimal digit classes.
//!
//! # Invariants
//! Every call makes progress until `Eof`, which then repeats. A terminator is produced only after a
//! token that can end a statement, at a line break, a comment running to the line break, or the end.
//!
//! # Failure
//! Bad input yields the nearest sensible token and a message; reading goes on.

use crate::source::{Pos, Span};
use crate::token::{Token, TokenKind};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads tokens from a text.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    offset: usize,
    /// Position of the next character.
    pos: Pos,
    /// Position of the character read last.
    last: Pos,
    /// The previous token can end a statement, so the next line break is a terminator.
    line_break_counts: bool,
    /// Messages since they were last taken, in order.
    errors: Vec<(Pos, String)>,
    comments: Vec<Comment<'a>>,
}

/// A comment as written, without the line break that ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comment<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut scanner = Self {
            text,
            offset: 0,
            pos: Pos::START,
            last: Pos::START,
            line_break_counts: false,
            errors: Vec::new(),
            comments: Vec::new(),
        };
        if scanner.peek() == Some(BYTE_ORDER_MARK) {
            scanner.bump();
        }
        scanner
    }

    pub(crate) fn take_errors(&mut self) -> Vec<(Pos, String)> {
        std::mem::take(&mut self.errors)
    }

    /// The comments passed so far, in order.
    pub(crate) fn take_comments(&mut self) -> Vec<Comment<'a>> {
        std::mem::take(&mut self.comments)
    }

    /// Jumps to the end of the text.
    pub(crate) fn skip_to_end(&mut self) {
        self.offset = self.text.len();
        self.line_break_counts = false;
    }

    /// The next token.
    pub(crate) fn scan(&mut self) -> Token<'a> {
        loop {
            self.skip_blanks();
            let start = self.pos;
            if self.rest().starts_with("//") || self.rest().starts_with("/*") {
                if self.line_break_counts && comment_ends_line(self.rest()) {
                    self.line_break_counts = false;
                    return Token {
                        kind: TokenKind::Terminator,
                        text: "",
                        span: Span::at(start),
                    };
                }
                self.line_break_counts = false;
                let offset = self.offset;
                self.skip_comment();
                let text = self.text.get(offset..self.offset).unwrap_or_default();
                let end = self.last;
                let span = Span { start, end };
                self.comments.push(Comment { text, span });
                continue;
            }
            let offset = self.offset;
            let kind = self.scan_kind();
            let text = self.text.get(offset..self.offset).unwrap_or_default();
            let end = if self.offset > offset {
                self.last
            } else {
                start
            };
            if kind != TokenKind::Illegal || text.starts_with('\'') {
                self.line_break_counts = kind.ends_statement() || kind == TokenKind::Illegal;
            }
            return Token {
                kind,
                text,
                span: Span { start, end },
            };
        }
    }

    fn scan_kind(&mut self) -> TokenKind {
        let start = self.pos;
        let Some(c) = self.peek() else {
            return if self.line_break_counts {
                TokenKind::Terminator
            } else {
                TokenKind::Eof
            };
        };
        if is_letter(c) {
            return self.scan_word();
        }
        if c.is_ascii_digit() || (c == '.' && self.peek_second_is_digit()) {
            return self.scan_number();
        }
        self.bump();
        match c {
            '\n' => TokenKind::Terminator,
            '"' => {
                self.scan_string('"', start);
                TokenKind::String
            }
            '`' => {
                self.scan_string('`', start);
                TokenKind::String
            }
            '\'' => {
                self.error(start, "illegal single-quoted string; use double quotes");
                self.scan_string('\'', start);
                TokenKind::Illegal
            }
            _ => self.scan_operator(c, start),
        }
    }

    fn scan_operator(&mut self, c: char, start: Pos) -> TokenKind {
        match c {
            '|' => self.scan_doubled('|', TokenKind::Or),
            '&' => self.scan_doubled('&', TokenKind::And),
            '!' => self.either('=', TokenKind::NotEq, TokenKind::Not),
            '=' => self.either('=', TokenKind::Eq, TokenKind::Assign),
            '<' => self.either('=', TokenKind::LessEq, TokenKind::Less),
            '>' => self.either('=', TokenKind::GreaterEq, TokenKind::Greater),
            '+' => TokenKind::Add,
            '-' => TokenKind::Sub,
            '*' => TokenKind::Mul,
            '/' => TokenKind::Div,
            '%' => TokenKind::Mod,
            '^' => TokenKind::Pow,
            '{' => TokenKind::LeftCurly,
            '}' => TokenKind::RightCurly,
            '(' => TokenKind::LeftParen,
            ')' => TokenKind::RightParen,
            '[' => TokenKind::LeftBracket,
            ']' => TokenKind::RightBracket,
            ',' => TokenKind::Comma,
            '.' => TokenKind::Dot,
            _ => {
                // Reading a stray byte order mark has already said so.
                if c != BYTE_ORDER_MARK {
                    self.error(start, &format!("illegal character {}", describe(c)));
                }
                TokenKind::Illegal
            }
        }
    }

    fn scan_word(&mut self) -> TokenKind {
        let offset = self.offset;
        while self.peek().is_some_and(|c| is_letter(c) || is_digit(c)) {
            self.bump();
        }
        match self.text.get(offset..self.offset) {
            Some("true" | "false") => TokenKind::Bool,
            Some("null") => TokenKind::Null,
            _ => TokenKind::Ident,
        }
    }

    fn scan_number(&mut self) -> TokenKind {
        let start = self.pos;
        let mut kind = TokenKind::Number;
        self.skip_digits();
        if self.peek() == Some('.') {
            kind = TokenKind::Float;
            self.bump();
            self.skip_digits();
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            kind = TokenKind::Float;
            self.bump();
            if matches!(self.peek(), Some('+' | '-')) {
                self.bump();
            }
            if self.skip_digits() == 0 {
                self.error(start, "exponent has no digits");
            }
        }
        kind
    }

    fn skip_digits(&mut self) -> usize {
        let mut count = 0;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.bump();
            count += 1;
        }
        count
    }

    /// Reads up to and with the closing quote; the opening one at `start` is already read.
    fn scan_string(&mut self, quote: char, start: Pos) {
        let raw = quote == '`';
        loop {
            match self.peek() {
                None => break,
                Some('\n') if !raw => break,
                Some(c) => {
                    self.bump();
                    if c == quote {
                        return;
                    }
                    if c == '\\' && !raw {
                        self.scan_escape();
                    }
                }
            }
        }
        self.error(start, "string literal not terminated");
    }

    fn scan_escape(&mut self) {
        let start = self.pos;
        let (digits, radix, most) = match self.peek() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"') => {
                self.bump();
                return;
            }
            Some('0'..='7') => (3, 8, 255),
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            Some(_) => return self.error(start, "unknown escape sequence"),
            None => return self.error(start, "escape sequence not terminated"),
        };
        if radix == 16 {
            self.bump();
        }
        let mut value: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.peek() else {
                return self.error(start, "escape sequence not terminated");
            };
            let Some(digit) = c.to_digit(radix) else {
                let message = format!("illegal character {} in escape sequence", describe(c));
                return self.error(start, &message);
            };
            value = value.wrapping_mul(radix).wrapping_add(digit);
            self.bump();
        }
        if value > most || (0xD800..0xE000).contains(&value) {
            self.error(start, "escape sequence is invalid Unicode code point");
        }
    }

    fn scan_doubled(&mut self, second: char, kind: TokenKind) -> TokenKind {
        if self.peek() == Some(second) {
            self.bump();
        } else {
            self.error(self.pos, &format!("missing second {second} in {kind}"));
        }
        kind
    }

    fn either(&mut self, second: char, with: TokenKind, without: TokenKind) -> TokenKind {
        if self.peek() == Some(second) {
            self.bump();
            return with;
        }
        without
    }

    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' => self.bump(),
                '\n' if !self.line_break_counts => self.bump(),
                _ => return,
            }
        }
    }

    fn skip_comment(&mut self) {
        let start = self.pos;
        if self.rest().starts_with("//") {
            while self.peek().is_some_and(|c| c != '\n') {
                self.bump();
            }
            return;
        }
        self.bump();
        self.bump();
        while !self.rest().starts_with("*/") {
            if self.peek().is_none() {
                return self.error(start, "block comment not terminated");
            }
            self.bump();
        }
        self.bump();
        self.bump();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn peek_second_is_digit(&self) -> bool {
        self.rest()
            .chars()
            .nth(1)
            .is_some_and(|c| c.is_ascii_digit())
    }

    fn bump(&mut self) {
        let Some(c) = self.peek() else { return };
        if c == '\0' {
            self.error(self.pos, "illegal character NUL");
        } else if c == BYTE_ORDER_MARK && self.offset > 0 {
            self.error(self.pos, "illegal byte order mark");
        }
        self.last = self.pos;
        self.pos = self.pos.after(c);
        self.offset += c.len_utf8();
    }

    fn error(&mut self, pos: Pos, message: &str) {
        self.errors.push((pos, message.to_owned()));
    }
}

/// Whether `name` can name an attribute, a block or a label.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(is_letter)
        && chars.all(|c| is_letter(c) || is_digit(c))
        && !matches!(name, "true" | "false" | "null")
}

fn is_letter(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}

/// Whether nothing but comments and blanks stands between here and the end of the line.
fn comment_ends_line(mut rest: &str) -> bool {
    loop {
        if rest.starts_with("//") {
            return true;
        }
        let Some(inner) = rest.strip_prefix("/*") else {
            return false;
        };
        let Some((comment, after)) = inner.split_once("*/") else {
            return true;
        };
        if comment.contains('\n') {
            return true;
        }
        rest = after.trim_start_matches([' ', '\t', '\r']);
        if rest.is_empty() || rest.starts_with('\n') {
            return true;
        }
    }
}

/// A character for a message: its code point, and itself where it can be shown.
fn describe(c: char) -> String {
    if c.is_control() {
        return format!("U+{:04X}", u32::from(c));
    }
    format!("U+{:04X} '{c}'", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> String {
        let mut scanner = Scanner::new(text);
        let mut out = Vec::new();
        loop {
            let token = scanner.scan();
            if token.kind == TokenKind::Eof {
                return out.join(" ");
            }
            out.push(token.kind.to_string());
        }
    }

    fn errors(text: &str) -> Vec<String> {
        let mut scanner = Scanner::new(text);
        while scanner.scan().kind != TokenKind::Eof {}
        scanner
            .take_errors()
            .iter()
            .map(|(pos, message)| format!("{pos}: {message}"))
            .collect()
    }

    #[test]
    fn tokens_are_recognized() {
        assert_eq!(kinds("|| && ! = == != < <= > >= + - * / % ^"), {
            "|| && ! = == != < <= > >= + - * / % ^"
        });
        assert_eq!(kinds("{ } ( ) [ ] , ."), "{ } ( ) [ ] , .");
        assert_eq!(kinds("a _b é1 true null 10 1. .5 1e3 1.5e-3 ,"), {
            "IDENT IDENT IDENT BOOL NULL NUMBER FLOAT FLOAT FLOAT FLOAT ,"
        });
        assert_eq!(kinds("\"a\\\"b\" `x\ny` ,"), "STRING STRING ,");
        assert_eq!(kinds("True a-b ,"), "IDENT IDENT - IDENT ,");
    }

    #[test]
    fn line_breaks_terminate_only_after_operands() {
        assert_eq!(kinds("a\n\nb = [\n1,\n]\n"), {
            "IDENT TERMINATOR IDENT = [ NUMBER , ] TERMINATOR"
        });
        assert_eq!(kinds("a +\nb"), "IDENT + IDENT TERMINATOR");
        assert_eq!(kinds("a // c\nb"), "IDENT TERMINATOR IDENT TERMINATOR");
        assert_eq!(kinds("a /* c */ b"), "IDENT IDENT TERMINATOR");
        assert_eq!(
            kinds("a /* c */ /* d */\nb"),
            "IDENT TERMINATOR IDENT TERMINATOR"
        );
        assert_eq!(kinds("a /* c \n */ b"), "IDENT TERMINATOR IDENT TERMINATOR");
    }

    #[test]
    fn positions_are_byte_columns() {
        let mut scanner = Scanner::new("\u{feff}é = \"x\"");
        let spans: Vec<_> = (0..3).map(|_| scanner.scan().span).collect();
        assert_eq!(spans[0], Span::at(Pos { line: 1, column: 4 }));
        assert_eq!(spans[1], Span::at(Pos { line: 1, column: 7 }));
        assert_eq!(spans[2].start, Pos { line: 1, column: 9 });
        assert_eq!(
            spans[2].end,
            Pos {
                line: 1,
                column: 11
            }
        );
    }

    #[test]
    fn bad_text_is_reported_with_its_place() {
        let table = [
            ("a\n \"abc", "2:2: string literal not terminated"),
            ("\"a\nb", "1:1: string literal not terminated"),
            ("/* x", "1:1: block comment not terminated"),
            (
                "'x'",
                "1:1: illegal single-quoted string; use double quotes",
            ),
            ("a ; b", "1:3: illegal character U+003B ';'"),
            ("\"\\'\"", "1:3: unknown escape sequence"),
            (
                "\"\\x4\"",
                "1:3: illegal character U+0022 '\"' in escape sequence",
            ),
            (
                "\"\\ud800\"",
                "1:3: escape sequence is invalid Unicode code point",
            ),
            (
                "\"\\400\"",
                "1:3: escape sequence is invalid Unicode code point",
            ),
            ("1e+", "1:1: exponent has no digits"),
            ("a | b", "1:4: missing second | in ||"),
            ("a \u{feff}", "1:3: illegal byte order mark"),
        ];
        for (text, want) in table {
            assert!(
                errors(text).contains(&want.to_owned()),
                "{text:?}: {:?}",
                errors(text)
            );
        }
    }

    #[test]
    fn identifiers_exclude_reserved_words() {
        assert!(is_identifier("a_1") && is_identifier("_"));
        assert!(!is_identifier("") && !is_identifier("1a") && !is_identifier("x-y"));
        assert!(!is_identifier("true") && !is_identifier("<LABEL>"));
    }
}
