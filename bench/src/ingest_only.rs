//! Turns the agent without an endpoint, and the bare pipeline, into how much of the limit it reaches.
//!
//! The same series in the order of the round before, with the targets in another order every round,
//! and from a sender that does not sort its labels.

use std::path::PathBuf;

use anyhow::Result;

use crate::Common;
use crate::e2e::{Measured, measure, setting, version_of};
use crate::fleet::{Fleet, SERIES_PER_REQUEST};
use crate::limit;
use crate::measure::{LOAD_CORE, pin_to};
use crate::series::{Protocol, Shape};
use crate::subject::Program;
use crate::table::{Table, millions, millis, print, publish, times, yes_or_no};

/// Of the limit, at least.
const IN_ORDER_GOAL: f64 = 0.7;
const SHUFFLED_GOAL: f64 = 0.5;

/// The arguments of `ingest`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("series", |series| series.hide(true)))]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The agent; by default the release build beside this bench.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// How many series; each number is measured.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    sizes: Vec<usize>,
    /// Requests of remote write 2.0.
    #[arg(long)]
    v2: bool,
    /// Only in order and with the targets in another order every round; 1.0 only.
    #[arg(long, conflicts_with = "v2")]
    shuffle: bool,
    /// Only in order and from a sender that does not sort its labels.
    #[arg(long)]
    unsorted: bool,
}

/// How series come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Steady,
    Shuffled,
    Unsorted,
}

impl Order {
    const fn name(self) -> &'static str {
        match self {
            Self::Steady => "in order",
            Self::Shuffled => "targets shuffled",
            Self::Unsorted => "labels unsorted",
        }
    }

    const fn goal(self) -> Option<f64> {
        match self {
            Self::Steady => Some(IN_ORDER_GOAL),
            Self::Shuffled => Some(SHUFFLED_GOAL),
            Self::Unsorted => None,
        }
    }
}

/// Measures all rows and publishes the result.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = Program::penstock(options.agent.as_deref(), false)?;
    let mut results = Table::new([
        "load",
        "samples/core-s",
        "limit, in order",
        "of the limit",
        "wanted",
        "met",
        "ack p50",
        "ack p99",
    ]);
    for series in &options.sizes {
        let common = Common {
            series: *series,
            ..options.common.clone()
        };
        print(&format!("the limit at {series} series ..."));
        let fleet = options.fleet(Order::Steady, *series)?;
        let limit = limit::per_core_second(&common, &fleet)?;
        drop(fleet);
        for order in options.orders() {
            let name = format!("{series} series, {}", order.name());
            print(&format!("{name} ..."));
            pin_to(LOAD_CORE)?;
            let fleet = options.fleet(order, *series)?;
            let measured = measure(&program, &common, &fleet)?;
            results.row(row(name, order, &measured, limit));
        }
    }
    let notes = [options.describe(), setting(), version_of(&program)];
    let title = if options.v2 {
        "Penstock, ingest only, remote write 2.0"
    } else {
        "Penstock, ingest only"
    };
    publish(title, &notes, &[results], options.common.out())
}

impl Options {
    fn orders(&self) -> Vec<Order> {
        let is_all = !self.shuffle && !self.unsorted;
        let mut orders = vec![Order::Steady];
        if (is_all && !self.v2) || self.shuffle {
            orders.push(Order::Shuffled);
        }
        if is_all || self.unsorted {
            orders.push(Order::Unsorted);
        }
        orders
    }

    fn fleet(&self, order: Order, series: usize) -> Result<Fleet> {
        let protocol = if self.v2 { Protocol::V2 } else { Protocol::V1 };
        if order == Order::Shuffled {
            return Fleet::shuffled(series);
        }
        let shape = Shape {
            protocol,
            is_unsorted: order == Order::Unsorted,
        };
        Fleet::shaped(shape, series, SERIES_PER_REQUEST)
    }

    fn describe(&self) -> String {
        format!(
            "load: series of 11 labels, {SERIES_PER_REQUEST} per request, one sample each, {} requests in \
             flight, {} s measured; no endpoint; an ack waits for fdatasync; the limit is the bare pipeline \
             in process, in order, in the same run; shuffled: the targets, of 100 series, come in another \
             order every round",
            self.common.connections, self.common.seconds
        )
    }
}

fn row(name: String, order: Order, measured: &Measured, limit: f64) -> Vec<String> {
    let share = measured.per_core_second() / limit;
    let (wanted, met) = match order.goal() {
        Some(goal) => (format!(">= {goal:.1} x"), yes_or_no(share >= goal)),
        None => (String::new(), String::new()),
    };
    vec![
        name,
        millions(measured.per_core_second()),
        millions(limit),
        times(share),
        wanted,
        met,
        millis(measured.latency_p50),
        millis(measured.latency_p99),
    ]
}
