//! Turns the label bytes of a series into what receiving and shipping need from them.
//!
//! Labels are never taken apart into strings. The canonical form of a label set, everywhere from
//! decode to encode, is its remote-write 1.0 encoding: concatenated `0x0a <len> <Label>` fields,
//! `Label` = `0x0a <len> name 0x12 <len> value`, sorted by name, each name once, nothing empty.
//!
//! | file | turns |
//! |---|---|
//! | `walk` | label bytes into labels, one after the other |
//! | `external` | label bytes and external labels into both, merged |
//! | [`relabel`] | label bytes into others, or into none, by rules |
//! | [`wire`] | numbers into varints, protobuf bytes into fields |
//!
//! Receiving relabels between the socket and the log, shipping between the log and an endpoint: the
//! same rules, in a crate of their own because the two never see each other.

#![forbid(unsafe_code)]

mod external;
pub mod relabel;
mod walk;
pub mod wire;

pub use external::ExternalLabels;
pub use walk::{Label, Labels, canonical, compare_first, first_label, for_each, target_hash};
