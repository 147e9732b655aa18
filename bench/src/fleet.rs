//! Turns a number of series into remote-write bodies whose timestamps can be changed in place.
//!
//! Encoding and compressing would cost the generator more than the agent spends on ingesting, so
//! each request is built once. Of a snappy block it is known which of its bytes are literals; where
//! these hold a timestamp they are overwritten, and every copy of them follows. Each template is
//! proved when it is built: patched, decompressed, and compared with the message it should be.
//!
//! The same goes for the hash of a pod, which two labels of its series hold: with another hash they
//! are other series. So a pod is replaced by a new one at the cost of a few dozen bytes, and a fleet
//! many times as large as its templates takes no more memory than they do.

use std::ops::Range;

use anyhow::{Context, Result, bail};

use crate::series::{
    HASH_BYTES, Protocol, SERIES_PER_POD, Shape, TIMESTAMP_BYTES, encode, hash, placeholder,
    timestamp_bytes,
};

/// Series per request.
pub(crate) const SERIES_PER_REQUEST: usize = 2000;
/// The timestamp templates are built with.
const START_MS: i64 = 1_767_225_600_000;
/// How many first timestamps are tried until a template works.
const ATTEMPTS: u64 = 32;

/// A compressed message and where in it bytes of the timestamp are.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    body: Vec<u8>,
    /// Places in the body and the byte of the timestamp that stands there.
    places: Vec<(u32, u8)>,
    pods: Vec<Pod>,
    /// Pods replaced so far, one after the other.
    replaced: u64,
    /// Bytes of the message.
    pub(crate) message_bytes: usize,
    /// Samples in the message.
    pub(crate) samples: u64,
}

/// Series of a request that are replaced together.
#[derive(Clone, Debug)]
struct Pod {
    number: usize,
    generation: u32,
    /// Places in the body and the byte of the hash that stands there.
    places: Vec<(u32, u8)>,
    series: u64,
}

impl Template {
    /// The body with this timestamp in all its samples.
    pub(crate) fn at(&mut self, timestamp_ms: i64) -> &[u8] {
        let bytes = timestamp_bytes(timestamp_ms);
        for (place, byte) in &self.places {
            self.body[*place as usize] = bytes[usize::from(*byte)];
        }
        &self.body
    }

    /// The same without what says how long the message is. Such elements of several bodies, one
    /// after the other, are the elements of the messages one after the other: copies reach back only
    /// within the body they are in.
    pub(crate) fn elements_at(&mut self, timestamp_ms: i64) -> &[u8] {
        let body = self.at(timestamp_ms);
        let preamble = body.iter().position(|byte| *byte < 0x80).unwrap_or(0) + 1;
        &body[preamble..]
    }

    /// Pods in the request.
    pub(crate) const fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Replaces the pods in turn until `due` have been; how many series are new.
    pub(crate) fn replace_pods(&mut self, due: u64) -> u64 {
        let mut new = 0;
        for turn in self.replaced..due {
            let at = usize::try_from(turn % self.pods.len() as u64).unwrap_or(0);
            let generation = self.pods[at].generation + 1;
            self.patch_pod(at, generation);
            new += self.pods[at].series;
        }
        self.replaced = self.replaced.max(due);
        new
    }

    /// Makes all its pods those of a generation.
    pub(crate) fn become_copy(&mut self, generation: u32) {
        for at in 0..self.pods.len() {
            if self.pods[at].generation != generation {
                self.patch_pod(at, generation);
            }
        }
    }

    fn patch_pod(&mut self, at: usize, generation: u32) {
        let pod = &mut self.pods[at];
        pod.generation = generation;
        let hash = hash(pod.number, generation);
        for (place, byte) in &pod.places {
            self.body[*place as usize] = hash.as_bytes()[usize::from(*byte)];
        }
    }

    fn build(shape: Shape, series: Range<usize>) -> Result<Self> {
        for attempt in 0..ATTEMPTS {
            let first_ms = START_MS + attempt.cast_signed() * 1_234_567;
            let stands_for_hash = |pod| placeholder(pod, attempt);
            let encoded = encode(shape, series.clone(), first_ms, stands_for_hash);
            let message = &encoded.message;
            let body = snap::raw::Encoder::new().compress_vec(message)?;
            let literals = literals(&body, message.len()).context("walk a snappy block")?;
            let pods = encoded.pods.iter().map(|pod| Pod {
                number: pod.number,
                generation: 0,
                places: places(&pod.hashes, HASH_BYTES, &literals),
                series: pod.series,
            });
            let mut template = Self {
                body,
                places: places(&encoded.stamps, TIMESTAMP_BYTES, &literals),
                pods: pods.collect(),
                replaced: 0,
                message_bytes: message.len(),
                samples: series.len() as u64,
            };
            if template.is_right(shape, &series)? {
                return Ok(template);
            }
        }
        bail!("no timestamp makes a template of the series {series:?}")
    }

    /// Whether patching gives what encoding would; leaves the first generation of every pod.
    fn is_right(&mut self, shape: Shape, series: &Range<usize>) -> Result<bool> {
        let tries = [START_MS, START_MS + 777_777_777, START_MS * 2 - 1];
        for (generation, timestamp_ms) in (0..3).rev().zip(tries) {
            for at in 0..self.pods.len() {
                self.patch_pod(at, generation);
            }
            let patched = snap::raw::Decoder::new().decompress_vec(self.at(timestamp_ms))?;
            let hash = |pod| hash(pod, generation);
            if patched != encode(shape, series.clone(), timestamp_ms, hash).message {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Where the bytes of fields stand as literals, and which byte it is.
fn places(fields: &[usize], bytes: usize, literals: &[Option<u32>]) -> Vec<(u32, u8)> {
    let bytes = fields.iter().flat_map(|at| (0..).zip(*at..at + bytes));
    bytes
        .filter_map(|(byte, at)| Some((literals[at]?, byte)))
        .collect()
}

/// Templates and how they are made into the requests of a round.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) templates: Vec<Template>,
    /// The message of all of them.
    pub(crate) protocol: Protocol,
    /// Templates of a request.
    pub(crate) per_request: usize,
    /// Whether their order is another in every round.
    pub(crate) is_shuffled: bool,
    /// Which generations of its pods are in a round, one after the other.
    pub(crate) copies: Range<u32>,
}

impl Fleet {
    /// So many series in requests of remote write 1.0 that are the same in every round.
    pub(crate) fn in_order(series: usize) -> Result<Self> {
        let shape = Shape {
            protocol: Protocol::V1,
            is_unsorted: false,
        };
        Self::shaped(shape, series, SERIES_PER_REQUEST)
    }

    /// So many series of a shape in requests of `series_per_request` that stay the same.
    pub(crate) fn shaped(shape: Shape, series: usize, series_per_request: usize) -> Result<Self> {
        let templates = (0..series)
            .step_by(series_per_request)
            .map(|first| Template::build(shape, first..(first + series_per_request).min(series)))
            .collect::<Result<_>>()?;
        Ok(Self {
            templates,
            protocol: shape.protocol,
            per_request: 1,
            is_shuffled: false,
            copies: 0..1,
        })
    }

    /// So many series whose targets come in another order every round.
    pub(crate) fn shuffled(series: usize) -> Result<Self> {
        let shape = Shape {
            protocol: Protocol::V1,
            is_unsorted: false,
        };
        Ok(Self {
            per_request: SERIES_PER_REQUEST / SERIES_PER_POD,
            is_shuffled: true,
            ..Self::shaped(shape, series, SERIES_PER_POD)?
        })
    }

    /// The same templates as other series: those of these generations.
    pub(crate) fn with_copies(&self, copies: Range<u32>) -> Self {
        Self {
            copies,
            ..self.clone()
        }
    }

    /// Samples of a round.
    pub(crate) fn samples(&self) -> u64 {
        let once: u64 = self.templates.iter().map(|template| template.samples).sum();
        once * self.copies.len() as u64
    }

    /// Requests of a round.
    pub(crate) fn requests(&self) -> usize {
        self.templates.len().div_ceil(self.per_request) * self.copies.len()
    }
}

/// For each decompressed byte where in `block` it stands as a literal; `None` if it is copied.
fn literals(block: &[u8], length: usize) -> Option<Vec<Option<u32>>> {
    let mut places = Vec::with_capacity(length);
    let mut at = block.iter().position(|byte| *byte < 0x80)? + 1;
    while at < block.len() {
        let tag = usize::from(block[at]);
        let (head, count) = match tag & 3 {
            0 if tag >> 2 < 60 => (1, (tag >> 2) + 1),
            0 => {
                let extra = (tag >> 2) - 59;
                let mut bytes = [0; 8];
                bytes[..extra].copy_from_slice(block.get(at + 1..at + 1 + extra)?);
                let count = usize::try_from(u64::from_le_bytes(bytes)).ok()? + 1;
                (1 + extra, count)
            }
            1 => (2, ((tag >> 2) & 7) + 4),
            2 => (3, (tag >> 2) + 1),
            _ => (5, (tag >> 2) + 1),
        };
        at += head;
        let is_literal = tag & 3 == 0;
        let from = u32::try_from(at).ok()?;
        let to = from + u32::try_from(count).ok()?;
        places.extend((from..to).map(|place| is_literal.then_some(place)));
        if is_literal {
            at += count;
        }
    }
    (places.len() == length).then_some(places)
}

#[cfg(test)]
mod tests {
    use ingest::proto::WriteRequest;
    use prost::Message;

    use super::*;

    fn decoded(body: &[u8]) -> WriteRequest {
        let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        WriteRequest::decode(message.as_slice()).unwrap()
    }

    #[test]
    fn rounds_differ_in_the_timestamp_alone() {
        let mut templates = Fleet::in_order(5_000).unwrap().templates;
        assert_eq!(templates.len(), 3);
        for template in &mut templates {
            let first = decoded(template.at(START_MS + 1));
            let later = decoded(template.at(START_MS + 100_000));
            assert_eq!(first.timeseries.len() as u64, template.samples);
            for (a, b) in first.timeseries.iter().zip(&later.timeseries) {
                assert_eq!(a.labels, b.labels);
                assert_eq!(a.samples[0].value, b.samples[0].value);
                assert_eq!(a.samples[0].timestamp, START_MS + 1);
                assert_eq!(b.samples[0].timestamp, START_MS + 100_000);
            }
        }
    }

    #[test]
    fn replaced_pods_have_other_series_and_the_rest_stays() {
        let mut template = Fleet::in_order(2_000).unwrap().templates.remove(0);
        assert_eq!(template.pods(), 20);
        let first = decoded(template.at(START_MS));
        assert_eq!(template.replace_pods(3), 300);
        assert_eq!(template.replace_pods(3), 0);
        let later = decoded(template.at(START_MS));
        for (at, (a, b)) in first.timeseries.iter().zip(&later.timeseries).enumerate() {
            assert_eq!(a.labels != b.labels, at < 300, "series {at}");
        }
        assert_eq!(template.replace_pods(20 + 3), 2_000);
        let again = decoded(template.at(START_MS));
        for (a, b) in later.timeseries.iter().zip(&again.timeseries) {
            assert_ne!(a.labels, b.labels);
        }
    }

    #[test]
    fn a_copy_has_other_series_and_can_be_taken_back() {
        let mut template = Fleet::in_order(300).unwrap().templates.remove(0);
        let first = decoded(template.at(START_MS));
        template.become_copy(7);
        let copy = decoded(template.at(START_MS));
        for (a, b) in first.timeseries.iter().zip(&copy.timeseries) {
            assert_ne!(a.labels, b.labels);
        }
        template.become_copy(0);
        assert_eq!(decoded(template.at(START_MS)), first);
    }

    #[test]
    fn every_shape_has_templates() {
        for protocol in [Protocol::V1, Protocol::V2] {
            for is_unsorted in [false, true] {
                let shape = Shape {
                    protocol,
                    is_unsorted,
                };
                let fleet = Fleet::shaped(shape, 6_000, SERIES_PER_REQUEST).unwrap();
                assert_eq!((fleet.samples(), fleet.requests()), (6_000, 3));
                assert_eq!(fleet.with_copies(2..4).samples(), 12_000);
            }
        }
    }
}
