//! Turns rounds of the same series, more or less, into bodies with and without templates, which must
//! say the same.

mod disk;

use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use proptest::prelude::*;
use wal::{RecordKind, Sample, SeriesRef};

use super::body::Body;
use super::builder::Builder;
use super::counters::{Miss, TemplateCounts, TemplateStats};
use super::fragment::{Fragment, PLACE_BYTES, Place};
use super::prover::Prover;
use super::put;
use crate::ack::FrameNumber;
use crate::batch::{Batch, OwnedRecord};
use crate::encode::RemoteWriteV1;
use crate::encode::remote_write_v1::put_series;
use labels::canonical;

const TIME_MS: i64 = 1_760_000_000_000;
const STALE: u64 = 0x7ff0_0000_0000_0002;
const BYTES_MAX: usize = 1 << 20;

/// An encoder with templates beside one without, and the series they are asked to send.
struct Both {
    templated: RemoteWriteV1,
    plain: RemoteWriteV1,
    stats: Arc<TemplateStats>,
    /// By ref; empty where a series is unknown.
    labels: Vec<Vec<u8>>,
    generation: u64,
}

impl Both {
    fn new(bytes_max: usize, series: u32) -> Self {
        Self::in_dir(&std::env::temp_dir(), bytes_max, series)
    }

    fn in_dir(dir: &Path, bytes_max: usize, series: u32) -> Self {
        let stats = Arc::new(TemplateStats::default());
        Self {
            templated: RemoteWriteV1::new().with_templates(dir, bytes_max, Arc::clone(&stats)),
            plain: RemoteWriteV1::new(),
            stats,
            labels: (0..series).map(|number| labels(number, 0)).collect(),
            generation: 0,
        }
    }

    /// Encodes a batch both ways and compares; what became of the samples.
    fn encode(&mut self, batch: &Batch) -> TemplateCounts {
        let before = self.stats.snapshot();
        let labels_of = |series: SeriesRef| self.labels.get(series.index()).map_or(&[][..], |l| l);
        self.templated.set_generation(self.generation);
        let templated = self.templated.encode(batch, labels_of).unwrap();
        let plain = self.plain.encode(batch, labels_of).unwrap();
        assert!(
            decoded(templated.body) == decoded(plain.body),
            "another message"
        );
        assert_eq!(
            (templated.sent, templated.left_out),
            (plain.sent, plain.left_out)
        );
        let after = self.stats.snapshot();
        TemplateCounts {
            hits: after.hits - before.hits,
            misses: std::array::from_fn(|n| after.misses[n] - before.misses[n]),
            built: after.built - before.built,
            refused: after.refused - before.refused,
            evicted: after.evicted - before.evicted,
            ..after
        }
    }

    fn encode_samples(&mut self, samples: &[Sample]) -> TemplateCounts {
        self.encode(&batch(samples))
    }
}

fn decoded(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

/// Labels of one of many series of a target; `version` tells those that a ref had in turn.
fn labels(series: u32, version: u32) -> Vec<u8> {
    let (name, pod) = (
        format!("metric_{}_seconds_total", series % 40),
        format!("checkout-7d9f8b6c5d-{:05}-{version}", series / 40),
    );
    let device = "x".repeat(series as usize % 7 * 13);
    let mut all = vec![("__name__", name.as_str()), ("cluster", "prod-eu-1")];
    all.extend(Some(("device", device.as_str())).filter(|(_, device)| !device.is_empty()));
    all.extend([("job", "kubelet"), ("pod", pod.as_str())]);
    canonical(&all)
}

fn batch(samples: &[Sample]) -> Batch {
    let mut batch = Batch::default();
    batch.push(FrameNumber::new(0), &[samples], std::iter::empty());
    batch
}

/// One sample of each series, all of the time of the round.
fn round(series: impl IntoIterator<Item = u32>, number: u32) -> Vec<Sample> {
    let sample = |series: u32| Sample {
        series: SeriesRef::new(series),
        timestamp_ms: TIME_MS + i64::from(number) * 15_000,
        value_bits: f64::from(series % 17 + number % 2).to_bits(),
    };
    series.into_iter().map(sample).collect()
}

fn misses(reason: Miss, samples: u64) -> [u64; Miss::ALL.len()] {
    Miss::ALL.map(|one| if one == reason { samples } else { 0 })
}

#[test]
fn series_that_come_again_are_hits_from_the_third_time_on() {
    let mut both = Both::new(BYTES_MAX, 1000);
    let first = both.encode_samples(&round(1..600, 0));
    assert_eq!((first.hits, first.misses), (0, misses(Miss::New, 599)));
    let second = both.encode_samples(&round(1..600, 1));
    assert_eq!((second.hits, second.misses), (0, misses(Miss::New, 599)));
    assert_eq!(second.built, 5, "of 128, and the rest");
    for number in 2..5 {
        let hit = both.encode_samples(&round(1..600, number));
        assert_eq!((hit.hits, hit.built), (599, 0));
        assert!(hit.bytes > 0);
    }
}

#[test]
fn a_large_fleet_is_seen_whole_before_anything_of_it_is_forgotten() {
    let series = 60_000;
    let mut both = Both::new(8 << 20, series);
    for number in 0..2 {
        both.encode_samples(&round(1..series, number));
    }
    assert_eq!(both.encode_samples(&round(1..series, 2)).hits, 59_999);
}

#[test]
fn templates_are_found_again_wherever_a_batch_begins() {
    let mut both = Both::new(BYTES_MAX, 1000);
    for number in 0..3 {
        both.encode_samples(&round(1..900, number));
    }
    let cut = both.encode_samples(&round(50..700, 3));
    // what is left of the first run, and what there is of the last
    assert_eq!(cut.hits, 4 * 128);
    assert_eq!(cut.misses[Miss::New as usize], 128 - 49);
}

#[test]
fn series_whose_refs_are_scattered_have_templates_too() {
    let mut both = Both::new(BYTES_MAX, 1000);
    let scattered = |number| round((1..300).map(|n| n * 331 % 997), number);
    for number in 0..2 {
        both.encode_samples(&scattered(number));
    }
    assert!(both.encode_samples(&scattered(2)).hits >= 299 - 15);
}

#[test]
fn a_ref_that_names_another_series_is_not_sent_with_the_old_labels() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    // same length, so that nothing but the hash can tell
    both.labels[50] = labels(50, 1);
    both.generation += 1;
    let other = both.encode_samples(&round(1..101, 3));
    assert_eq!((other.hits, other.misses), (0, misses(Miss::New, 100)));
    both.encode_samples(&round(1..101, 4));
    assert_eq!(both.encode_samples(&round(1..101, 5)).hits, 100);
    // a ref elsewhere was given to another
    both.generation += 1;
    assert_eq!(both.encode_samples(&round(1..101, 6)).hits, 100);
}

#[test]
fn without_a_generation_no_template_is_used() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    let labels_of = |_: SeriesRef| &*both.labels[7];
    let batch = batch(&round(1..101, 3));
    let encoded = both.templated.encode(&batch, labels_of).unwrap();
    let plain = both.plain.encode(&batch, labels_of).unwrap();
    assert!(decoded(encoded.body) == decoded(plain.body));
}

#[test]
fn a_value_with_more_bytes_makes_room_for_good() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    let mut earlier = Vec::new();
    for (series, value) in [(10, 0.1), (20, 300_000.0), (30, 1e300)] {
        let mut samples = round(1..101, 3);
        samples[series].value_bits = f64::to_bits(value);
        let wide = both.encode_samples(&samples);
        assert_eq!((wide.misses, wide.built), (misses(Miss::Values, 100), 1));
        let narrow = both.encode_samples(&round(1..101, 4));
        assert_eq!(narrow.hits, 100, "less fits");
        earlier.push(samples);
        for samples in &earlier {
            assert_eq!(both.encode_samples(samples).hits, 100, "remembered");
        }
    }
}

#[test]
fn a_nan_costs_one_run_and_builds_nothing_unless_it_stays() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    let mut stale = round(1..101, 3);
    stale[40].value_bits = STALE;
    let once = both.encode_samples(&stale);
    assert_eq!((once.misses, once.built), (misses(Miss::Values, 100), 0));
    assert_eq!(both.encode_samples(&round(1..101, 4)).hits, 100);
    both.encode_samples(&stale);
    assert_eq!(both.encode_samples(&stale).built, 1);
    assert_eq!(both.encode_samples(&stale).hits, 100);
}

#[test]
fn a_timestamp_that_leaves_its_neighbours_makes_room_for_good() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    let mut apart = round(1..101, 3);
    apart[40].timestamp_ms += 1;
    let built = both.encode_samples(&apart);
    assert_eq!(
        (built.misses, built.built),
        (misses(Miss::Timestamps, 100), 1)
    );
    assert_eq!(both.encode_samples(&apart).hits, 100);
    assert_eq!(both.encode_samples(&round(1..101, 4)).hits, 100);
    assert_eq!(both.encode_samples(&apart).hits, 100);
    for unusual in [-1, 0, 1 << 42] {
        apart[40].timestamp_ms = unusual;
        let left = both.encode_samples(&apart);
        assert_eq!((left.misses, left.built), (misses(Miss::Unsuited, 100), 0));
    }
}

#[test]
fn samples_that_share_a_message_across_the_end_of_a_run_do_so() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    let mut twice = round(1..101, 3);
    twice.extend(round(100..101, 4));
    assert_eq!(both.encode_samples(&twice).hits, 0);
    let behind: Vec<_> = (1..101)
        .flat_map(|series| (0..10).flat_map(move |number| round([series], number)))
        .collect();
    let counts = both.encode_samples(&behind);
    assert_eq!(counts.misses, misses(Miss::Unsuited, 1000));
}

#[test]
fn an_encoder_that_ends_gives_its_bytes_back() {
    let mut both = Both::new(BYTES_MAX, 200);
    for number in 0..3 {
        both.encode_samples(&round(1..101, number));
    }
    let Both {
        templated, stats, ..
    } = both;
    let some = stats.snapshot();
    assert!(some.bytes > some.file_bytes && some.file_bytes > 0);
    drop(templated);
    let none = stats.snapshot();
    assert_eq!((none.bytes, none.file_bytes), (0, 0));
}

#[test]
fn more_series_than_there_is_room_for_are_sent_all_the_same() {
    let mut both = Both::new(20_000, 2000);
    let mut hits = 0;
    for number in 0..12 {
        let counts = both.encode_samples(&round(1..1800, number));
        assert!(counts.bytes <= 20_000);
        hits += u64::from(number >= 6) * counts.hits;
    }
    assert!(hits >= 6 * 128, "some stay: {hits}");
    assert!(both.stats.snapshot().misses[Miss::Full as usize] > 0);
}

#[test]
fn a_fragment_that_says_something_else_is_refused() {
    let samples = round(1..40, 0);
    let table: Vec<_> = (0..40).map(|series| labels(series, 0)).collect();
    let labels_of = |series: SeriesRef| &*table[series.index()];
    let mut builder = Builder::new();
    let right = builder.build(&samples, labels_of, None).unwrap();
    let mut prover = Prover::default();
    let series = || samples.iter().map(|sample| sample.series);
    assert!(prover.is_right(right, series(), labels_of));

    let mut places: Vec<[u8; PLACE_BYTES]> = right.places.to_vec();
    places[3] = Place::new(1, 0, true).to_bytes();
    let moved = Fragment {
        places: &places,
        ..right
    };
    assert!(
        !prover.is_right(moved, series(), labels_of),
        "a value elsewhere"
    );
    let mut plain = Vec::new();
    for sample in &samples {
        put_series(&mut plain, labels_of(sample.series), &[*sample]);
    }
    let mut refused = 0;
    for (at, bit) in (0..right.element_bytes()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = right.bytes.to_vec();
        bytes[at] ^= 1 << bit;
        let other = Fragment {
            bytes: &bytes,
            ..right
        };
        if !prover.is_right(other, series(), labels_of) {
            refused += 1;
            continue;
        }
        // a copy of the same bytes from elsewhere
        let mut body = Body::new();
        assert_eq!(put(other, &samples, &mut body).unwrap(), Ok(()));
        assert!(decoded(body.finish().unwrap()) == plain, "byte {at}");
    }
    assert!(refused > right.element_bytes() * 7, "{refused}");
    let mut copied = table.clone();
    copied[7] = labels(7, 1);
    let labels_of = |series: SeriesRef| &*copied[series.index()];
    assert!(!prover.is_right(right, series(), labels_of), "other labels");
}

/// A few targets that live through absence, churn, restarts and reuse.
struct Fleet {
    rng: Rng,
    /// The refs of each target, in the order they are sent.
    targets: Vec<Vec<u32>>,
    value_bits: Vec<u64>,
    version: u32,
}

impl Fleet {
    fn new(seed: u64, series: u32) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (mut targets, mut next) = (Vec::new(), 1);
        while next < series {
            let end = series.min(next + rng.u32(1..200));
            let mut target: Vec<u32> = (next..end).collect();
            if rng.u8(..4) == 0 {
                rng.shuffle(&mut target);
            }
            targets.push(target);
            next = end;
        }
        let value_bits = (0..series).map(|_| value_bits(&mut rng)).collect();
        Self {
            rng,
            targets,
            value_bits,
            version: 0,
        }
    }

    /// The samples of a round, as they are pushed: in steady state everything once and in order.
    fn round(&mut self, number: u32) -> Vec<Sample> {
        let mut samples = Vec::new();
        for target in &self.targets {
            if self.rng.u8(..20) == 0 {
                continue;
            }
            let offset_ms = [0, self.rng.i64(0..9)][usize::from(self.rng.u8(..4) == 0)];
            for series in target {
                let mut sample = round([*series], number)[0];
                sample.timestamp_ms += offset_ms;
                let bits = &mut self.value_bits[*series as usize];
                match self.rng.u16(..2000) {
                    0 => continue,
                    1 => samples.push(sample),
                    2 => sample.timestamp_ms = [-5, 0, i64::MIN, TIME_MS][self.rng.usize(..4)],
                    3 => *bits = value_bits(&mut self.rng),
                    4 => sample.series = SeriesRef::new(u32::MAX),
                    _ => {}
                }
                sample.value_bits = match self.rng.u16(..2000) {
                    0 => STALE,
                    1 => f64::NAN.to_bits() | self.rng.u64(..100),
                    _ => *bits,
                };
                samples.push(sample);
            }
        }
        samples
    }

    /// Some refs name other series now.
    fn reuse(&mut self, both: &mut Both) {
        self.version += 1;
        both.generation += 1;
        for _ in 0..self.rng.u8(..4) {
            let series = self.rng.usize(1..both.labels.len());
            both.labels[series] = labels(u32::try_from(series).unwrap(), self.version);
        }
    }
}

fn value_bits(rng: &mut Rng) -> u64 {
    match rng.u8(..6) {
        0 => 0,
        1 => f64::from(rng.u8(..)).to_bits(),
        2 => f64::from(rng.u16(..)).to_bits(),
        3 => f64::from(rng.u32(..)).to_bits(),
        4 => rng.f64().to_bits(),
        _ => rng.u64(..),
    }
}

/// Cuts samples into batches, some with other records between them.
fn batches(rng: &mut Rng, samples: &[Sample]) -> Vec<Batch> {
    let mut all = Vec::new();
    let mut rest = samples;
    while !rest.is_empty() {
        let whole = rng.bool();
        let (now, later) = rest.split_at(if whole {
            rest.len()
        } else {
            rng.usize(1..=rest.len())
        });
        let mut batch = batch(now);
        if rng.u8(..4) == 0 {
            let exemplar = OwnedRecord {
                series: now[0].series,
                kind: RecordKind::Exemplar,
                bytes: vec![0x10, 7].into(),
            };
            let more = &later[..later.len().min(40)];
            batch.push(FrameNumber::new(1), &[more], [exemplar].into_iter());
        }
        all.push(batch);
        rest = later;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn bodies_say_what_the_plain_encoder_says(
        seed: u64,
        bytes_max in prop_oneof![Just(BYTES_MAX), 0..60_000_usize],
        series in 2..900_u32,
    ) {
        let mut both = Both::new(bytes_max, series);
        let mut fleet = Fleet::new(seed, series);
        for number in 0..12 {
            let samples = fleet.round(number);
            for batch in batches(&mut fleet.rng, &samples) {
                let counts = both.encode(&batch);
                prop_assert_eq!(counts.refused, 0);
                prop_assert!(counts.bytes <= bytes_max as u64);
            }
            if fleet.rng.u8(..3) == 0 {
                fleet.reuse(&mut both);
            }
        }
    }
}
