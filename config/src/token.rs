//! Names the kinds of token and how diagnostics call them.

use std::fmt;

use crate::source::Span;

/// A token with its text as written and its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'a str,
    pub(crate) span: Span,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Illegal,
    Eof,
    Terminator,
    Ident,
    Null,
    Bool,
    Number,
    Float,
    String,
    Or,
    And,
    Not,
    Assign,
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    LeftCurly,
    RightCurly,
    LeftParen,
    RightParen,
    LeftBracket,
    RightBracket,
    Comma,
    Dot,
}

impl TokenKind {
    /// Whether a line break after this token ends the statement.
    pub(crate) fn ends_statement(self) -> bool {
        matches!(
            self,
            Self::Ident
                | Self::Null
                | Self::Bool
                | Self::Number
                | Self::Float
                | Self::String
                | Self::RightCurly
                | Self::RightParen
                | Self::RightBracket
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::Illegal => "ILLEGAL",
            Self::Eof => "EOF",
            Self::Terminator => "TERMINATOR",
            Self::Ident => "IDENT",
            Self::Null => "NULL",
            Self::Bool => "BOOL",
            Self::Number => "NUMBER",
            Self::Float => "FLOAT",
            Self::String => "STRING",
            Self::Or => "||",
            Self::And => "&&",
            Self::Not => "!",
            Self::Assign => "=",
            Self::Eq => "==",
            Self::NotEq => "!=",
            Self::Less => "<",
            Self::LessEq => "<=",
            Self::Greater => ">",
            Self::GreaterEq => ">=",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::LeftCurly => "{",
            Self::RightCurly => "}",
            Self::LeftParen => "(",
            Self::RightParen => ")",
            Self::LeftBracket => "[",
            Self::RightBracket => "]",
            Self::Comma => ",",
            Self::Dot => ".",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
