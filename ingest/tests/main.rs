//! Receivers as senders see them: requests over real sockets into a store on disk.
//!
//! One program for all of them: a test program each would link everything again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

mod battery;
mod common;
mod http;
mod http2;
mod layout;
mod limits;
mod pull;
mod relabel;
mod remote_write_v2;
mod secure;
mod shards;
mod share;
mod tenants;
