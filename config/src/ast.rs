//! The tree a configuration text is turned into.
//!
//! # Invariants
//! Every node knows its place. The parser bounds how deep blocks nest and how high an expression is,
//! so walking a tree recursively cannot exhaust the stack.

use std::fmt;
use std::sync::Arc;

use crate::source::{Source, Span};

/// A parsed configuration.
#[derive(Debug, Clone)]
pub struct File {
    /// The text it came from.
    pub source: Arc<Source>,
    /// Its blocks in order.
    pub blocks: Vec<Block>,
}

/// One line of a body: an attribute or a block.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `name = value`.
    Attribute(Attribute),
    /// `name "label" { ... }`.
    Block(Block),
}

/// `name = value`.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// The name.
    pub name: Ident,
    /// The value.
    pub value: Expr,
}

impl Attribute {
    /// From the name to the end of the value.
    pub fn span(&self) -> Span {
        self.name.span.to(self.value.span)
    }
}

/// A name and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ident {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// `name "label" { ... }`.
#[derive(Debug, Clone)]
pub struct Block {
    /// The text it came from.
    pub source: Arc<Source>,
    /// The dotted name, such as `prometheus.remote_write`.
    pub name: Ident,
    /// The label; an empty one counts as none.
    pub label: Option<Ident>,
    /// The statements between the braces.
    pub body: Vec<Statement>,
    /// From the name to the closing brace.
    pub span: Span,
    /// From the name to the opening brace.
    pub header: Span,
}

impl Block {
    /// The label's text, or nothing.
    pub fn label(&self) -> Option<&str> {
        self.label.as_ref().map(|label| label.name.as_str())
    }

    /// Name and label joined by a dot: how other blocks refer to this one.
    pub fn id(&self) -> String {
        match self.label() {
            Some(label) => format!("{}.{label}", self.name.name),
            None => self.name.name.clone(),
        }
    }
}

/// An expression and its place.
#[derive(Debug, Clone)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
    /// Longest way down to a leaf, kept so that the parser can bound it.
    pub(crate) height: u32,
}

/// What an expression is.
#[derive(Debug, Clone)]
pub enum ExprKind {
    /// A constant.
    Literal(Literal),
    /// A bare name.
    Identifier(String),
    /// `[a, b]`.
    Array(Vec<Expr>),
    /// `{a = b}`.
    Object(Vec<Field>),
    /// `(a)`.
    Paren(Box<Expr>),
    /// `-a`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`.
    Binary(Box<Expr>, BinaryOp, Box<Expr>),
    /// `a.b`.
    Access(Box<Expr>, Ident),
    /// `a[b]`.
    Index(Box<Expr>, Box<Expr>),
    /// `a(b, c)`.
    Call(Box<Expr>, Vec<Expr>),
}

/// A constant as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// Which kind of constant.
    pub kind: LiteralKind,
    /// The text, with quotes for a string.
    pub text: String,
}

/// Kinds of constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// Digits only.
    Number,
    /// Digits with a point or an exponent.
    Float,
    /// Quoted text.
    String,
}

/// A field of an object literal.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key; the text between quotes when it is quoted, without decoding escapes.
    pub name: Ident,
    /// Whether the key was quoted.
    pub quoted: bool,
    /// The value.
    pub value: Expr,
}

/// Operators before their operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `!`.
    Not,
    /// `-`.
    Negate,
}

/// Operators between their operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each variant is one operator, spelled in `Display`"
)]
pub enum BinaryOp {
    Or,
    And,
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
}

impl fmt::Display for UnaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Not => "!",
            Self::Negate => "-",
        })
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Or => "||",
            Self::And => "&&",
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
        })
    }
}

impl ExprKind {
    /// One more than the highest child.
    pub(crate) fn height(&self) -> u32 {
        let below = match self {
            Self::Literal(_) | Self::Identifier(_) => 0,
            Self::Array(items) => items.iter().map(|e| e.height).max().unwrap_or(0),
            Self::Object(fields) => fields.iter().map(|f| f.value.height).max().unwrap_or(0),
            Self::Paren(inner) | Self::Unary(_, inner) | Self::Access(inner, _) => inner.height,
            Self::Binary(left, _, right) => left.height.max(right.height),
            Self::Index(target, index) => target.height.max(index.height),
            Self::Call(function, args) => args
                .iter()
                .map(|e| e.height)
                .fold(function.height, u32::max),
        };
        below.saturating_add(1)
    }
}
