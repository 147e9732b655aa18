//! The real binary with real peers. What each part shows is in its own module.
//!
//! One program for all of them: a test program each would link everything again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

mod account;
mod bad_input;
mod browser;
mod cluster;
mod commands;
mod common;
mod components;
mod demo;
mod device;
mod discovery;
mod full_disk;
mod isolation;
mod kill;
mod kill_many;
mod kubernetes;
mod main_path;
mod ownership;
mod pass_through;
mod relabel;
mod reload;
mod scrape;
mod secure;
mod start;
mod templates;
mod tidy;
mod unix;
mod upgrade;
mod wal_import;
mod wal_tools;
mod web;
