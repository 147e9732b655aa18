//! The cluster without sockets or clocks: agents that are alone, and thousands of lives of many.
//!
//! One program for all of them: a test program each would link everything again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

mod few;
mod simulation;
