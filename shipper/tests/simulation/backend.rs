//! Turns requests into what a backend stores, and the order in which it does into a verdict.

use std::collections::BTreeMap;

use prost::Message;
use shipper::ProtobufMessage;

use super::clock::EPOCH_MS;
use super::plan::{BackendPlan, Dialect};
use crate::common::{PbSample, WriteRequest};

/// Between two samples of a series.
const STEP_MS: i64 = 15_000;
const WRITTEN: &str = "x-prometheus-remote-write-samples-written";

#[derive(Clone, PartialEq, Message)]
struct RequestV2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeriesV2>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PbSample>,
}

/// The `number`th sample of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Numbered {
    pub(crate) series: u32,
    pub(crate) number: u64,
}

/// When the `number`th sample of any series was taken.
pub(crate) fn timestamp_ms(number: u64) -> i64 {
    EPOCH_MS + STEP_MS * i64::try_from(number).unwrap()
}

pub(crate) fn value_bits(number: u64) -> u64 {
    (number as f64).to_bits()
}

pub(crate) fn name(series: u32) -> String {
    format!("metric_{series}")
}

/// The samples of a request in the order they are there.
pub(crate) fn read(body: &[u8], message: ProtobufMessage) -> Vec<Numbered> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let mut all = Vec::new();
    let mut add = |name: &str, samples: &[PbSample]| {
        let series = name.strip_prefix("metric_").unwrap().parse().unwrap();
        for sample in samples {
            let number = u64::try_from((sample.timestamp - EPOCH_MS) / STEP_MS).unwrap();
            assert_eq!(sample.timestamp, timestamp_ms(number));
            assert_eq!(sample.value_bits, value_bits(number), "its own value");
            all.push(Numbered { series, number });
        }
    };
    match message {
        ProtobufMessage::V1 => {
            for series in WriteRequest::decode(&*bytes).unwrap().timeseries {
                add(&series.labels[0].value, &series.samples);
            }
        }
        ProtobufMessage::V2 => {
            let request = RequestV2::decode(&*bytes).unwrap();
            for series in &request.timeseries {
                let name = series.labels_refs[1] as usize;
                add(&request.symbols[name], &series.samples);
            }
        }
    }
    all
}

/// A request on its way to the backend.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) message: ProtobufMessage,
    pub(crate) samples: Vec<Numbered>,
    /// The process it came from, and which of its requests it repeats.
    pub(crate) life: u32,
    pub(crate) batch: u64,
}

/// A status and headers.
pub(crate) type Reply = (u16, Vec<(&'static str, String)>);

/// The headers of a remote-write 2.0 answer; remote write 1.0 knows nothing of them.
pub(crate) fn written(samples: usize) -> Vec<(&'static str, String)> {
    vec![(WRITTEN, samples.to_string())]
}

/// What a backend has of one series.
#[derive(Debug, Default)]
struct Stored {
    /// Everything before is stored or bad.
    next: u64,
    /// The life in which a sample was stored ahead of those before it, and the sample.
    ahead: Option<(u32, u64)>,
    /// Which request brought each sample: its life and batch.
    by: BTreeMap<u64, (u32, u64)>,
}

/// A backend and what it was sent.
#[derive(Debug)]
pub(crate) struct Backend {
    plan: BackendPlan,
    series: Vec<Stored>,
    pub(crate) stored: u64,
    pub(crate) duplicates: u64,
    /// How often a series got a sample ahead of those before it.
    pub(crate) ahead: u64,
    lanes: usize,
}

impl Backend {
    pub(crate) fn new(plan: BackendPlan, series: u32, lanes: usize) -> Self {
        Self {
            plan,
            ahead: 0,
            lanes,
            series: (0..series).map(|_| Stored::default()).collect(),
            stored: 0,
            duplicates: 0,
        }
    }

    /// Whether it has the sample, or will never take it.
    pub(crate) fn is_decided(&self, sample: Numbered) -> bool {
        let stored = &self.series[sample.series as usize];
        stored.by.contains_key(&sample.number) || self.plan.is_bad(sample.series, sample.number)
    }

    /// Takes a request as its dialect wants it.
    ///
    /// # Errors
    /// What must never happen.
    pub(crate) fn take(&mut self, incoming: &Incoming) -> Result<Reply, String> {
        let is_v2 = incoming.message == ProtobufMessage::V2;
        match self.plan.dialect {
            Dialect::V1 if is_v2 => return Ok((415, Vec::new())),
            Dialect::V1Unaware if is_v2 => return Ok((204, Vec::new())),
            _ => {}
        }
        let all = incoming.samples.len();
        if all > self.plan.samples_max {
            return Ok((413, written(0)));
        }
        let good: Vec<_> = self.good(&incoming.samples);
        if good.len() < all && self.plan.dialect != Dialect::V2Partial {
            return Ok((self.plan.bad_status, written(0)));
        }
        for sample in &good {
            self.store(*sample, incoming)?;
        }
        let status = if good.len() < all {
            self.plan.bad_status
        } else {
            204
        };
        Ok((status, written(good.len())))
    }

    /// Those of the samples that it takes.
    fn good(&self, samples: &[Numbered]) -> Vec<Numbered> {
        let is_good = |sample: &&Numbered| {
            let known = &self.series[sample.series as usize];
            let twice = self.plan.takes_nothing_twice && known.by.contains_key(&sample.number);
            !twice && !self.plan.is_bad(sample.series, sample.number)
        };
        samples.iter().filter(is_good).copied().collect()
    }

    fn store(&mut self, sample: Numbered, incoming: &Incoming) -> Result<(), String> {
        let Numbered { series, number } = sample;
        let stored = &mut self.series[series as usize];
        let by = (incoming.life, incoming.batch);
        if let Some(before) = stored.by.get(&number) {
            self.duplicates += 1;
            if before.0 == by.0 && *before != by {
                return Err(format!(
                    "{sample:?} is stored twice: by {before:?} and {by:?}"
                ));
            }
            return Ok(());
        }
        let is_decided = |one: u64| stored.by.contains_key(&one) || self.plan.is_bad(series, one);
        let goes_on = number == 0 || is_decided(number - 1);
        if !goes_on {
            // In order there is no such thing; else once, until those before it are there too.
            let ahead = stored.ahead.filter(|(life, _)| *life == incoming.life);
            if self.lanes == 1 || ahead.is_some_and(|(_, from)| stored.next < from) {
                let next = stored.next;
                return Err(format!("{sample:?} is stored before number {next}"));
            }
            stored.ahead = Some((incoming.life, number));
            self.ahead += 1;
        }
        stored.by.insert(number, by);
        while stored.by.contains_key(&stored.next) || self.plan.is_bad(series, stored.next) {
            stored.next += 1;
        }
        self.stored += 1;
        Ok(())
    }
}
