//! Random lives of clusters on bad networks, on one thread and in simulated time.
//!
//! | file | turns |
//! |---|---|
//! | `plan` | a seed into settings, a network and what goes wrong |
//! | `world` | a plan into a life: processes, messages, checks |
//! | `network` | messages into deliveries, late, twice or never |
//!
//! What holds in every life, whatever goes wrong:
//! - Once nothing goes wrong any more, all that are there agree on who is there and in which state within a time that
//!   follows from the settings, and keep to it.
//! - Then every key has exactly one owner among them, the same for all.
//! - Whenever ownership changes anywhere, a key only moves from who goes, or to who comes.
//! - Of two with one name one is alone, and nobody knows of it.
//! - Nobody is told of changes more often than once a second, but of its own.
//!
//! `PENSTOCK_TEST_SEED` repeats one seed, `PENSTOCK_TEST_SEEDS` runs so many.

mod network;
mod plan;
mod world;

use std::panic::catch_unwind;

use plan::Plan;
use world::{Lived, live};

/// Seeds of all parts together, unless the environment says otherwise.
const SEEDS: u64 = 5000;
/// Every so manieth seed is lived twice.
const REPEATED_EVERY: u64 = 32;
const PARTS: u64 = 4;
/// From so many lives on there must be some of everything.
const EVENTFUL: u64 = 200;

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

/// Lives the lives of one part.
fn run_part(part: u64) {
    if let Some(seed) = number("PENSTOCK_TEST_SEED") {
        if part == 0 {
            println!("{:?}", run_seed(seed));
        }
        return;
    }
    let seeds = number("PENSTOCK_TEST_SEEDS").unwrap_or(SEEDS);
    let mut all = Lived::default();
    let mut lives = 0;
    for seed in (part..seeds).step_by(usize::try_from(PARTS).unwrap()) {
        match catch_unwind(|| run_seed(seed)) {
            Ok(lived) => all.add(&lived),
            Err(_) => panic!("PENSTOCK_TEST_SEED={seed} repeats this"),
        }
        lives += 1;
    }
    println!("{lives} lives: {all:?}");
    if lives >= EVENTFUL {
        all.assert_eventful();
    }
}

#[test]
fn clusters_agree_in_the_end_1() {
    run_part(0);
}

#[test]
fn clusters_agree_in_the_end_2() {
    run_part(1);
}

#[test]
fn clusters_agree_in_the_end_3() {
    run_part(2);
}

#[test]
fn clusters_agree_in_the_end_4() {
    run_part(3);
}
