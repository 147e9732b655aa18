//! Cuts the power of random lives at random disk operations, and of the recoveries that follow, and
//! proves that what was acknowledged is handed out, in order, and nothing else is.
//!
//! A seed is a cut; [`CUTS`] of them share the life they cut. `PENSTOCK_TEST_SEED` repeats one,
//! `PENSTOCK_TEST_SEEDS` runs so many.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::common::journal::{Cut, Image, JournalDisk, Lie, Platter, lay_out};
use crate::common::life::{ENDPOINTS, Habits, Life, clean, live, repeatable};
use crate::common::{HastyDisk, scratch};
use wal::{Store, StoreOptions};

/// Cuts of one life.
const CUTS: u64 = 50;
/// Seeds of a test, unless the environment says otherwise.
const SEEDS: u64 = 2500;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// A cut of power, or now and then of the process only.
fn random_cut(random: &mut fastrand::Rng) -> Cut {
    match random.u8(0..8) {
        0 => Cut::Kill,
        1 => Cut::PowerAll,
        2 | 3 => Cut::PowerSome { unit: 512 },
        _ => Cut::PowerSome { unit: 4096 },
    }
}

/// A start that is cut off in turn: what it leaves.
fn cut_recovery(image: &Image, dir: &Path, lie: Option<Lie>, random: &mut fastrand::Rng) -> Image {
    lay_out(image, dir);
    let disk = JournalDisk::lying(dir, lie);
    let store = Store::open(dir, repeatable(disk.clone(), random.u64(..))).unwrap();
    for name in ENDPOINTS {
        let endpoint = store.endpoint(name).unwrap();
        while endpoint.tail().next().unwrap().is_some() && random.bool() {}
    }
    store.endpoints_complete();
    if random.bool() {
        store.keep();
        clean(&store);
    }
    if random.bool() {
        store.close();
    }
    drop(store);
    let ops = disk.ops();
    let mut platter = Platter::of(image);
    for op in &ops[..random.usize(0..=ops.len())] {
        platter.apply(op);
    }
    platter.cut(random_cut(random), random)
}

/// What a cut of `life` after `at` operations left must be a whole store.
fn check(life: &Life, at: usize, mut image: Image, lie: Option<Lie>, random: &mut fastrand::Rng) {
    for _ in 0..random.u8(0..=3) {
        let dir = scratch();
        image = cut_recovery(&image, dir.path(), lie, random);
    }
    let dir = scratch();
    lay_out(&image, dir.path());
    let options = repeatable(Arc::new(HastyDisk), random.u64(..));
    let store = Store::open(dir.path(), StoreOptions { ..options }).unwrap();
    for (at_endpoint, name) in ENDPOINTS.into_iter().enumerate() {
        let endpoint = store.endpoint(name).unwrap();
        let delivered = life.delivered(at_endpoint, at);
        life.truth.settle(&store, &endpoint, delivered, at);
    }
    // One nobody has heard of gets what is still there.
    let late = store.endpoint("late").unwrap();
    life.truth.settle(&store, &late, life.truth.len(), at);
    assert_eq!(store.lost_bytes(), BTreeMap::new());
    store.endpoints_complete();
    store.keep();
    life.truth.clone().goes_on(&store);
}

/// Runs the cuts of one life, in the order of the operations; the first that fails.
fn cut_life(life_seed: u64, seeds: &[u64], lie: Option<Lie>) -> Option<u64> {
    let dir = scratch();
    let habits = Habits {
        lie,
        ..Habits::default()
    };
    let lived = catch_unwind(|| live(dir.path(), life_seed, habits));
    let Ok(life) = lived else {
        return seeds.first().copied();
    };
    let mut cuts: Vec<_> = seeds
        .iter()
        .map(|&seed| {
            let mut random = fastrand::Rng::with_seed(seed ^ 0xc0ff_ee00);
            (random.usize(0..=life.ops.len()), seed, random)
        })
        .collect();
    cuts.sort_by_key(|(at, ..)| *at);
    let mut platter = Platter::default();
    let mut done = 0;
    for (at, seed, mut random) in cuts {
        for op in &life.ops[done..at] {
            platter.apply(op);
        }
        done = at;
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let image = platter.cut(random_cut(&mut random), &mut random);
            check(&life, at, image, lie, &mut random);
        }));
        if checked.is_err() {
            let all = life.ops.len();
            println!("PENSTOCK_TEST_SEED={seed}: cut after operation {at} of {all}");
            return Some(seed);
        }
    }
    None
}

/// The first seed that fails.
fn first_failure(seeds: std::ops::Range<u64>, lie: Option<Lie>) -> Option<u64> {
    let seeds: Vec<_> = seeds.collect();
    let mut lives = seeds.chunk_by(|a, b| a / CUTS == b / CUTS);
    lives.find_map(|seeds| cut_life(seeds[0] / CUTS, seeds, lie))
}

/// The `part`th part of all seeds, so that the parts can run side by side.
fn run(part: u64) {
    let count = number("PENSTOCK_TEST_SEEDS").map_or(SEEDS, |all| all.div_ceil(4));
    let seeds = match number("PENSTOCK_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => part * count..(part + 1) * count,
    };
    println!("seeds {seeds:?}");
    assert_eq!(
        first_failure(seeds, None),
        None,
        "repeat it with PENSTOCK_TEST_SEED"
    );
}

#[test]
fn what_was_acknowledged_survives_any_power_cut_1_of_4() {
    run(0);
}

#[test]
fn what_was_acknowledged_survives_any_power_cut_2_of_4() {
    run(1);
}

#[test]
fn what_was_acknowledged_survives_any_power_cut_3_of_4() {
    run(2);
}

#[test]
fn what_was_acknowledged_survives_any_power_cut_4_of_4() {
    run(3);
}

/// Seeds within which a lying disk must be found out.
const FOUND_WITHIN: u64 = 500;

fn is_found_out(lie: Lie) {
    let found = first_failure(0..FOUND_WITHIN, Some(lie));
    println!("{lie:?} is found out by seed {found:?}");
    assert!(found.is_some());
}

#[test]
fn mutation_names_are_not_synced() {
    is_found_out(Lie::SyncDir);
}

/// Segments are removed before the positions beyond them are durable.
#[test]
fn mutation_positions_are_not_synced() {
    is_found_out(Lie::Sync("positions"));
}

/// Frames become durable before the series they name.
#[test]
fn mutation_series_are_not_synced() {
    is_found_out(Lie::Sync("series"));
}

#[test]
fn mutation_segments_are_not_synced() {
    is_found_out(Lie::Sync("segments"));
}
