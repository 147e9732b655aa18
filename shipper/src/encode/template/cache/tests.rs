//! Turns templates that come and go into what must be left of them.

use super::*;

const TEMPLATE_BYTES: usize = 1000;

fn series(number: u32) -> SeriesRef {
    SeriesRef::new(number)
}

/// Keeps a template that tells whose it is.
fn keep(cache: &mut Cache, number: u32) -> Result<(), NotKept> {
    let bytes = number.to_le_bytes().repeat(TEMPLATE_BYTES / 4);
    let fragment = Fragment {
        bytes: &bytes,
        places: &[],
        plain_bytes: number,
    };
    let contents = Contents {
        refs: &[],
        fragment,
    };
    cache.keep(series(number), contents, (0, None))
}

/// Whether there is a template of this number; it must be its own.
fn has(cache: &mut Cache, number: u32) -> bool {
    let is_start = cache.is_start(series(number));
    let found = cache.template(series(number));
    assert_eq!(found.is_some(), is_start);
    found.is_some_and(|(template, chunks)| {
        let fragment = template.contents(chunks).fragment;
        assert_eq!(fragment.plain_bytes, number);
        assert!(fragment.bytes == number.to_le_bytes().repeat(TEMPLATE_BYTES / 4));
        true
    })
}

#[test]
fn bytes_are_those_of_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::new(dir.path(), 1 << 20);
    assert_eq!(keep(&mut cache, 1), Ok(()));
    let file_bytes = cache.file_bytes();
    assert!(file_bytes >= TEMPLATE_BYTES);
    assert_eq!(keep(&mut cache, 1), Ok(()), "instead of the other");
    assert!(cache.slot(series(2)).is_some());
    assert_eq!(cache.bytes(), 2 * SLOT_BYTES + file_bytes);
    cache.drop_template(series(1));
    assert_eq!(cache.bytes(), 2 * SLOT_BYTES + file_bytes, "the open chunk");
    assert!(!has(&mut cache, 1));
}

#[test]
fn what_is_not_used_for_long_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::new(dir.path(), 1 << 20);
    for number in 0..10 {
        assert_eq!(keep(&mut cache, number), Ok(()));
    }
    let intervals_per_round = STEP_PRICE / HIT_PAYS;
    for interval in 0..3 * intervals_per_round {
        (1..10).for_each(|number| cache.hit(series(number)));
        let is_kept = has(&mut cache, 0);
        assert!(is_kept || interval >= intervals_per_round, "{interval}");
    }
    assert!(!has(&mut cache, 0));
    assert!((1..10).all(|number| has(&mut cache, number)));
    assert_eq!(cache.evicted(), 1);
    assert_eq!(cache.slots_bytes, 9 * SLOT_BYTES);
}

#[test]
fn too_many_runs_in_turn_leave_those_that_fit() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 100 * (SLOT_BYTES + TEMPLATE_BYTES) + 100 * SLOT_BYTES;
    let mut cache = Cache::new(dir.path(), bytes_max);
    let mut hits = 0;
    for interval in 0..50 {
        for number in 0..200 {
            if has(&mut cache, number) {
                cache.hit(series(number));
                hits += u32::from(interval >= 40);
            } else {
                cache.miss();
                let _full = keep(&mut cache, number);
            }
            assert!(cache.bytes() <= bytes_max);
        }
    }
    assert!(hits >= 700, "{hits} of 2000, and half would fit");
}

#[test]
fn templates_that_come_and_go_take_little_more_space_than_those_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::new(dir.path(), 64 << 20);
    let mut rng = fastrand::Rng::with_seed(7);
    let live = 2000;
    for number in 0..20 * live {
        assert_eq!(keep(&mut cache, number), Ok(()));
        if number >= live {
            // whichever of them, so that every chunk is left with some
            let other = rng.u32(number - live..=number);
            cache.drop_template(series(other));
            cache.drop_template(series(number - live));
        }
        if number % 100 == 0 {
            let is_live = |slot: &&Slot| slot.template.is_some();
            let live = cache.slots.iter().flatten().filter(is_live).count();
            let chunk_bytes = 2 << 20;
            // a third dead, and what is left over at the end
            let bytes_max = live * TEMPLATE_BYTES * 8 / 5 + chunk_bytes;
            assert!(cache.file_bytes() <= bytes_max, "{number}");
        }
    }
    let kept = (0..20 * live).filter(|number| has(&mut cache, *number));
    assert!(kept.count() > live as usize / 4);
}

#[test]
fn where_there_is_no_room_the_living_move_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::new(dir.path(), 1 << 20);
    let full = (0..).find(|number| keep(&mut cache, *number).is_err());
    let full = full.unwrap();
    // a fifth of each chunk: less than what a chunk is emptied for while there is room
    let fifth = || (0..full).filter(|number| number % 5 == 0);
    fifth().for_each(|number| cache.drop_template(series(number)));
    let before = cache.file_bytes();
    for number in fifth() {
        assert_eq!(keep(&mut cache, number), Ok(()), "{number} of {full}");
    }
    assert!(cache.file_bytes() <= before && cache.bytes() <= 1 << 20);
    assert!((0..full).all(|number| has(&mut cache, number)));
}

#[test]
fn without_files_nothing_is_kept_and_what_was_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let mut cache = Cache::new(&gone, 1 << 20);
    (0..10).for_each(|number| assert_eq!(keep(&mut cache, number), Ok(())));
    std::fs::remove_dir(&gone).unwrap();
    let first = (10..1000).find(|number| keep(&mut cache, *number) == Err(NotKept::Disk));
    assert!(cache.trouble().is_some() && !cache.may_try());
    // most of a chunk dies, and the others are not given up for that
    (1..60).for_each(|number| cache.drop_template(series(number)));
    assert!(has(&mut cache, 0) && has(&mut cache, first.unwrap() - 1));
    std::fs::create_dir(&gone).unwrap();
    assert_eq!(keep(&mut cache, 1000), Ok(()));
    assert!(cache.trouble().is_none() && cache.may_try());
}
