//! The shipper against servers in the test: what arrives, in which order, and what failures do.
//!
//! One program for all of them: a test program each would link everything again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

mod backlog;
mod common;
mod deliver;
mod failures;
mod forgotten;
mod fresh;
mod held;
mod http_client;
mod isolation;
mod limits;
mod refused;
mod relabel;
mod remote_write_v2;
mod servers;
mod simulation;
