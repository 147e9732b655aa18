//! Turns what can be measured here into pages that scrapers read.
//!
//! | file | turns |
//! |---|---|
//! | `page` | samples into the text format |
//! | `flight` | many who ask into one collection |
//! | `unix` | what the kernel tells of this machine into samples |
//!
//! # Threads
//! - A collection has a thread of its own: whoever asks only waits, and stops waiting when it takes too long.

mod flight;
mod page;
pub(crate) mod unix;

pub(crate) use page::CONTENT_TYPE;
