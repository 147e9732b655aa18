//! Turns the labels of a series into other labels, or into none, by rules.
//!
//! | file | turns |
//! |---|---|
//! | `options.rs` | the arguments of a rule into a [`Rule`], or what is wrong with them |
//! | `pattern.rs` | a regular expression as Go writes it into one of the `regex` crate |
//! | `template.rs` | `$1` and `${name}` and the groups of a match into text |
//! | `set.rs` | label bytes into labels that can be changed, and back |
//! | `apply.rs` | rules and labels into new labels |
//!
//! The actions, their defaults and their order are those of Prometheus: `v` is the values of the
//! source labels, joined by the separator; a regular expression must match all of `v`; a label that
//! is set to nothing is gone; a series without labels is dropped.
//!
//! # Invariants
//! - From canonical label bytes come canonical ones: sorted by name, each name once, nothing empty.
//!
//! # Failure
//! - Bytes that are no labels give `None`; a name that a template makes and that is none changes
//!   nothing.
//!
//! # Limits
//! - A compiled expression takes at most 10 MiB, and matching is linear in what is matched.

mod apply;
mod options;
mod pattern;
mod set;
mod template;

pub use apply::{Relabeled, Relabeler};
pub use options::{Action, InvalidRule, Names, Rule, RuleOptions};
