//! Turns targets into samples: the second front door, where data is fetched instead of received.
//!
//! ```text
//! target -> schedule -> fetch -> known or parsed -> labels merged -> the line of all requests -> log
//! ```
//!
//! | file | does |
//! |---|---|
//! | `options` | settings, resolved; what targets are asked |
//! | `target` | labels of discovery -> URL, interval, labels |
//! | `duration` | `1m30s` -> time |
//! | `schedule` | target -> moments |
//! | `assign` | what scrapers are to do -> what each thread does of it |
//! | `pool` | targets -> tasks of a thread |
//! | `fetch` | what a scrape needs of an HTTP client |
//! | `gzip` | compressed body -> body |
//! | `known` | the body of last time with other values -> samples |
//! | `scrape` | body -> batch |
//! | `line` | bodies -> positions without a target, for benches |
//! | `take` | what the parser found -> samples and records |
//! | `merge` | exposed labels and those of the target -> labels of the series |
//! | `starts` | since when metrics count -> samples of 0 there |
//! | `ending` | this scrape beside the last -> stale markers |
//! | `report` | how a scrape went -> `up` and its kind |
//! | `families` | what targets say about families -> metadata |
//! | `stats` | what happened -> numbers to read |
//!
//! # Invariants
//! - A scrape is one frame of the log, or none.
//!
//! # Threads
//! - `scrape-N`, beside the shard threads: a large body must not keep requests waiting.

pub(crate) mod assign;
mod duration;
mod ending;
mod families;
mod fetch;
mod gzip;
mod known;
mod line;
mod merge;
mod options;
pub(crate) mod pool;
mod report;
pub(crate) mod schedule;
mod scrape;
mod starts;
mod stats;
mod take;
mod target;
#[cfg(test)]
mod tests;

pub use fetch::{Client, Clients, FailureLog, FetchError, Fetched, Fetching, Get};
#[doc(hidden)]
pub use gzip::{Gunzip, Refused};
#[doc(hidden)]
pub use line::{ScrapeLine, Scraped};
pub use options::{Assigned, Protocol, Rules, SCRAPE_BODY_BYTES_MAX, ScraperOptions};
pub use stats::{LastScrape, ScrapeFailure, ScraperSnapshot, ScraperStats, TargetState};
pub use target::{Defaults, Labels, Target};

/// What a host adds to the times of its scrapes, so that two hosts do not scrape a target at the same time.
#[must_use]
pub fn scrape_seed(hostname: &str) -> u64 {
    schedule::seed(hostname)
}
