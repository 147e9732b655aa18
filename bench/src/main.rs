//! Turns a machine into tables: how much the agent does per core, and how much others do.
//!
//! | file | turns |
//! |---|---|
//! | `limit` | bodies into durable samples, in process: the limit |
//! | `ingest_only` | the agent without an endpoint into its share of the limit |
//! | `ship` | the agent with one, less that without, into what shipping costs |
//! | `e2e` | a subject under load into numbers |
//! | `memory` | series at a modest rate into bytes per series, of several subjects |
//! | `cores` | one ingest thread and two into samples per CPU second |
//! | `latency` | a load below saturation into how long acks and samples take |
//! | `capacity`, `search` | more and more series into how many a core sustains |
//! | `compare` | several subjects under the same load into ratios |
//! | `churn` | series that come and go into latency and memory, with cleaning and without |
//! | `drain` | an outage into how fast and how small its backlog is sent |
//! | `isolation` | endpoints that fail into how much later the others get their samples |
//! | `scrape` | targets into what scraping them takes, by several subjects |
//! | `restart` | a filled store into the time until ready, and memory |
//! | `all` | all of these into a run |
//! | `plot`, `svg` | a run into drawings and a document |
//! | `scene` | subject, load and sink into one thing to watch |
//! | `subject` | a program into a process under test |
//! | `series`, `fleet`, `deck`, `load` | series into messages, requests, their order, acknowledgements |
//! | `sink` | delivered requests into counts and ages |
//! | `http` | bytes into messages |
//! | `measure`, `table`, `result` | `/proc` into numbers, numbers into markdown and JSON |
//!
//! Results are kept in `runs/<date>-<machine>/`.

#![forbid(unsafe_code)]

mod all;
mod capacity;
mod churn;
mod compare;
mod cores;
mod deck;
mod drain;
mod e2e;
mod fleet;
mod http;
mod ingest_only;
mod isolation;
mod latency;
mod limit;
mod load;
mod measure;
mod memory;
mod plot;
mod restart;
mod result;
mod scene;
mod scrape;
mod search;
mod series;
mod ship;
mod sink;
mod subject;
mod svg;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

/// Measures the agent, its limit, and others.
#[derive(Debug, Parser)]
enum Command {
    /// The bare pipeline in process: decode, intern, append, group commit.
    Limit(Common),
    /// The agent without an endpoint, beside the limit: in order, shuffled, unsorted.
    Ingest(ingest_only::Options),
    /// What shipping alone costs, by remote write 1.0 and 2.0.
    Ship(ship::Options),
    /// Ingest and ship, pinned to a core of its own.
    E2e(e2e::Options),
    /// Memory per series of the agent, vmagent and the Prometheus agent.
    Memory(memory::Options),
    /// One ingest thread against two, and connections that are unevenly spread over them.
    Cores(cores::Options),
    /// Acks beside the device's sync time, and the age of samples at the backend.
    Latency(latency::Options),
    /// How many series one core sustains at their scrape interval.
    SeriesPerCore(capacity::Options),
    /// The agent, vmagent and the Prometheus agent under the same load.
    Compare(compare::Options),
    /// The agent while series come and go, with idle ones given up and without.
    Churn(churn::Options),
    /// An outage, and how fast and how small its backlog is sent afterwards.
    Drain(drain::Options),
    /// Ten endpoints of which five fail: the lag of the others.
    Isolation(isolation::Options),
    /// The agent killed over a filled store and started again: time until ready, memory.
    Restart(restart::Options),
    /// A thousand targets of a thousand series: CPU, memory, scrapes missed.
    Scrape(scrape::Options),
    /// Everything, one after the other, into a directory: about 20 minutes.
    All(all::Options),
    /// Drawings and the tables of the document from such a directory.
    Plot(plot::Options),
}

/// What all commands take.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// How many series.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// Requests in flight at a time.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Where to write the result as markdown.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where to make the directories the subjects store in; they are removed.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

impl Common {
    fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }

    fn out(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    fn scratch(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("penstock-bench-")
            .tempdir_in(&self.dir)
            .with_context(|| format!("make a directory in {}", self.dir.display()))
    }

    fn describe(&self) -> String {
        format!(
            "load: {} series of 11 labels, {} per request, one sample each, {} requests in flight, \
             {} s measured",
            self.series,
            fleet::SERIES_PER_REQUEST,
            self.connections,
            self.seconds
        )
    }
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Limit(common) => limit::run(&common),
        Command::Ingest(options) => ingest_only::run(&options),
        Command::Ship(options) => ship::run(&options),
        Command::E2e(options) => e2e::run(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Cores(options) => cores::run(&options),
        Command::Latency(options) => latency::run(&options),
        Command::SeriesPerCore(options) => capacity::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Churn(options) => churn::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::Isolation(options) => isolation::run(&options),
        Command::Restart(options) => restart::run(&options),
        Command::Scrape(options) => scrape::run(&options),
        Command::All(options) => all::run(&options),
        Command::Plot(options) => plot::run(&options),
    }
}
