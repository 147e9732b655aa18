//! Turns configuration text into trees, values and diagnostics. It knows no component.
//!
//! A text goes through the files in this order:
//!
//! | file | what it does |
//! |---|---|
//! | `source` | names the text, counts lines and columns |
//! | `scanner`, `token` | text to tokens |
//! | `parser`, `parser::expr`, `ast` | tokens to a tree of blocks, attributes and expressions |
//! | `references` | a block to the names it needs from elsewhere |
//! | `yaml` | YAML text to nodes and values |
//! | `eval`, `literal`, `operators`, `stdlib` | expressions to values |
//! | `value`, `secret` | the values |
//! | `from_value`, `numbers`, `handle`, `units` | values to Rust types and back |
//! | `reader` | a block's body to one thing a component asks for after another |
//! | `decode` | a block to arguments, a record or a description of them, or what is wrong with them |
//! | `body` | what was asked for and what was given, for displays and for telling whether it changed |
//! | `constant` | which expressions are known from the text alone |
//! | `diag`, `pretty`, `print` | findings to text |
//! | `fmt`, `fmt::page`, `fmt::tabs` | a tree and its comments to text in the one form |
//!
//! A component's arguments are read like this:
//!
//! ```
//! # use std::time::Duration;
//! struct Endpoint { url: String, remote_timeout: Duration, queue: Option<u32> }
//!
//! let text = "prometheus.remote_write \"default\" {\n\turl = \"http://h/push\"\n}\n";
//! let file = config::parse("main.penstock", text).unwrap();
//! let endpoint = config::decode(&file.blocks[0], &config::Scope::new(), |r| Endpoint {
//!     url: r.required("url"),
//!     remote_timeout: r.or("remote_timeout", Duration::from_secs(30)),
//!     queue: r.block("queue_config", |r| r.or("capacity", 10_000)),
//! });
//! assert_eq!(endpoint.unwrap().url, "http://h/push");
//! ```
//!
//! # Invariants
//! - Every diagnostic has a place in a source; secrets never appear in one.
//! - No text, however hostile, makes this crate panic or exhaust the stack: nesting is bounded by
//!   [`MAX_DEPTH`].
//! - The only inputs besides the text are the environment (`sys.env`) and the host's name.

#![forbid(unsafe_code)]

mod ast;
mod body;
mod constant;
mod decode;
mod diag;
mod eval;
mod fmt;
mod from_value;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handle;
mod literal;
mod numbers;
mod operators;
mod parser;
mod pretty;
mod print;
mod reader;
mod references;
mod scanner;
mod secret;
mod source;
mod stdlib;
mod token;
mod units;
mod value;
pub mod yaml;

pub use ast::{
    Attribute, BinaryOp, Block, Expr, ExprKind, Field, File, Ident, Literal, LiteralKind,
    Statement, UnaryOp,
};
pub use body::{Argument, Body, Nested, Schema, Shown};
pub use decode::{check, decode, decode_recorded, describe};
pub use diag::{Diagnostic, Diagnostics, Severity};
pub use eval::{Scope, evaluate};
pub use fmt::format;
pub use from_value::FromValue;
pub use handle::{CapsuleKind, Handle};
pub use parser::{MAX_DEPTH, parse, parse_body, parse_expression};
pub use reader::BodyReader;
pub use references::{Reference, Target, references};
pub use secret::{OptionalSecret, Secret};
pub use source::{Pos, Source, Span};
pub use stdlib::{deprecated, is_experimental};
pub use units::{ByteSize, SignedDuration};
pub use value::{Capsule, Function, Object, Type, Value, ValueError};
