//! Random lives of an agent between senders and bad backends, on one thread and in simulated time.
//!
//! | file | turns |
//! |---|---|
//! | `plan` | a seed into settings, weather and a backend |
//! | `world` | a plan into a life: appends, restarts, checks |
//! | `log` | samples into durable frames |
//! | `site` | an endpoint's options into a part of the world (`clock`: with its own time) |
//! | `network` | requests into answers and faults |
//! | `attempts` | the times of requests into a verdict on order and backoff |
//! | `backend` | requests into what is stored, and its order into a verdict |
//!
//! What holds in every life, whatever goes wrong:
//! - What was acknowledged to senders reaches each endpoint, or is counted as refused.
//! - Each series is stored in the order it was appended, without gaps, or in the order of each of two
//!   lanes where what is new comes first; what comes twice is what was sent
//!   before a restart, or the repetition of a request whose answer got lost.
//! - No position is ahead of what the backend stored.
//! - Attempts keep to the backoff, and one shard at a time asks an endpoint that answers nobody.
//! - Once a backend is healthy, it has everything within a time that follows from the settings.
//!
//! `PENSTOCK_TEST_SEED` repeats one seed, `PENSTOCK_TEST_SEEDS` runs so many.

mod attempts;
mod backend;
mod clock;
mod log;
mod network;
mod plan;
mod site;
mod world;

use std::panic::catch_unwind;

use network::Trace;
use plan::{Lie, Plan};
use world::{Lived, live};

/// Seeds of all parts together, unless the environment says otherwise.
const SEEDS: u64 = 5000;
/// Every so manieth seed is lived twice.
const REPEATED_EVERY: u64 = 16;
const PARTS: u64 = 4;
/// From so many lives on there must be some of everything.
const EVENTFUL: usize = 200;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

fn run_seed(seed: u64) -> Lived {
    let lived = live(&Plan::of(seed));
    if seed.is_multiple_of(REPEATED_EVERY) {
        let again = live(&Plan::of(seed));
        assert_eq!(lived, again, "the same seed is the same life");
    }
    lived
}

/// Without any of this little was proved.
fn assert_eventful(lives: &[Lived]) {
    let traces = || lives.iter().flat_map(|lived| &lived.traces);
    let sum = |of: fn(&Trace) -> u64| traces().map(of).sum::<u64>();
    let count = |of: fn(&Lived) -> u32| lives.iter().map(|lived| u64::from(of(lived))).sum::<u64>();
    let events = [
        ("requests", sum(|trace| trace.requests)),
        ("failures", sum(|trace| trace.failures)),
        ("refusals", sum(|trace| trace.refusals)),
        ("packed requests", sum(|trace| trace.packed)),
        ("samples stored", sum(|trace| trace.stored)),
        ("duplicates", sum(|trace| trace.duplicates)),
        ("sent before the backlog", sum(|trace| trace.ahead)),
        ("restarts", count(|lived| lived.restarts)),
        ("reshards", count(|lived| lived.reshards)),
    ];
    println!("{} lives: {events:?}", lives.len());
    let slowest = lives.iter().map(|lived| lived.recovery_permille).max();
    println!("the slowest recovery took {slowest:?} thousandths of what it may");
    if lives.len() >= EVENTFUL {
        let rare = events.iter().find(|(_, count)| *count < 100);
        assert_eq!(rare, None, "hardly any");
    }
}

/// The `part`th part of all seeds, so that the parts can run side by side.
fn run(part: u64) {
    let count = number("PENSTOCK_TEST_SEEDS")
        .unwrap_or(SEEDS)
        .div_ceil(PARTS);
    let seeds = match number("PENSTOCK_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => part * count..(part + 1) * count,
    };
    println!("seeds {seeds:?}");
    let live = |seed| {
        let lived = catch_unwind(|| run_seed(seed));
        lived.unwrap_or_else(|_| panic!("PENSTOCK_TEST_SEED={seed}: {}", Plan::of(seed)))
    };
    assert_eventful(&seeds.map(live).collect::<Vec<_>>());
}

#[test]
fn acknowledged_means_delivered_under_any_faults_1_of_4() {
    run(0);
}

#[test]
fn acknowledged_means_delivered_under_any_faults_2_of_4() {
    run(1);
}

#[test]
fn acknowledged_means_delivered_under_any_faults_3_of_4() {
    run(2);
}

#[test]
fn acknowledged_means_delivered_under_any_faults_4_of_4() {
    run(3);
}

/// Seeds within which a network that lies must be found out.
const FOUND_WITHIN: u64 = 100;

fn is_found_out(lie: Lie) {
    let found = (0..FOUND_WITHIN).find(|seed| {
        let plan = Plan {
            lie: Some(lie),
            ..Plan::of(*seed)
        };
        catch_unwind(|| live(&plan)).is_err()
    });
    println!("{lie:?} is found out by seed {found:?}");
    assert!(found.is_some());
}

#[test]
fn mutation_lost_requests_are_taken_for_stored() {
    is_found_out(Lie::Taken);
}

#[test]
fn mutation_retry_after_is_not_heard() {
    is_found_out(Lie::NoRetryAfter);
}

#[test]
fn mutation_requests_have_no_timeout() {
    is_found_out(Lie::NoTimeout);
}
