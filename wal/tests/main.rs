//! The store as its users see it, and what crashes, faults and broken bytes do to it.
//!
//! One program for all of them: a test program each would link everything again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

mod ahead;
mod bad_device;
mod common;
mod corruption;
mod crash;
mod fault;
mod format_document;
mod full_disk;
mod golden;
mod inspect;
mod limits;
mod live;
mod log;
mod model;
mod power_cut;
mod recycle;
mod strict;
