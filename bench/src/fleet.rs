//! Turns a number of series into remote-write 1.0 bodies whose timestamps can be changed in place.
//!
//! Encoding and compressing would cost the generator more than the agent spends on ingesting, so
//! each request is built once. Of a snappy block it is known which of its bytes are literals; where
//! these hold a timestamp they are overwritten, and every copy of them follows. Each template is
//! proved when it is built: patched, decompressed, and compared with the message it should be.
//!
//! The same goes for the hash of a pod, which two labels of its series hold: with another hash they
//! are other series, so a pod is replaced by a new one at the cost of a few dozen bytes.
//!
//! The series look like those of a Kubernetes cluster: 11 labels, about 320 bytes. Three of four
//! values are integers, one uses its whole mantissa; they differ between series, not over time.

use anyhow::{Context, Result, bail};

/// Series per request.
pub(crate) const SERIES_PER_REQUEST: usize = 2000;
/// Series of a pod, which come and go together.
const SERIES_PER_POD: usize = 100;
/// Hexadecimal digits of a pod's hash.
const HASH_BYTES: usize = 8;
/// The timestamp templates are built with.
const START_MS: i64 = 1_767_225_600_000;
/// Time from one round to the next.
const STEP_MS: i64 = 1_000;
/// Bytes of a timestamp as a varint, for a few hundred years around now.
const TIMESTAMP_BYTES: usize = 6;
/// How many first timestamps are tried until a template works.
const ATTEMPTS: i64 = 32;

/// One request: compressed body and where in it bytes of the timestamp are.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    body: Vec<u8>,
    /// Places in the body and the byte of the timestamp that stands there.
    places: Vec<(usize, usize)>,
    pods: Vec<Pod>,
    /// Pods replaced so far, one after the other.
    replaced: u64,
    /// Samples in the request.
    pub(crate) samples: u64,
}

/// Series of a request that are replaced together.
#[derive(Clone, Debug)]
struct Pod {
    number: usize,
    generation: u32,
    /// Places in the body and the byte of the hash that stands there.
    places: Vec<(usize, usize)>,
    series: u64,
}

impl Template {
    /// The body of a round. Rounds follow each other by a second from `start_ms` on.
    pub(crate) fn at_round(&mut self, start_ms: i64, round: u32) -> &[u8] {
        self.patch(start_ms + STEP_MS * i64::from(round));
        &self.body
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

    fn patch(&mut self, timestamp_ms: i64) {
        let bytes = timestamp_bytes(timestamp_ms);
        for (place, byte) in &self.places {
            self.body[*place] = bytes[*byte];
        }
    }

    fn patch_pod(&mut self, at: usize, generation: u32) {
        let pod = &mut self.pods[at];
        pod.generation = generation;
        let hash = hash(pod.number, generation);
        for (place, byte) in &pod.places {
            self.body[*place] = hash.as_bytes()[*byte];
        }
    }

    fn build(series: std::ops::Range<usize>) -> Result<Self> {
        for attempt in 0..ATTEMPTS {
            let first_ms = START_MS + attempt * 1_234_567;
            let encoded = encode(series.clone(), first_ms, placeholder);
            let message = &encoded.message;
            let body = snap::raw::Encoder::new().compress_vec(message)?;
            let literals = literals(&body, message.len()).context("walk a snappy block")?;
            let mut template = Self {
                body,
                places: places(&encoded.stamps, TIMESTAMP_BYTES, &literals),
                pods: Vec::new(),
                replaced: 0,
                samples: series.len() as u64,
            };
            for (number, hashes, series) in encoded.pods {
                let places = places(&hashes, HASH_BYTES, &literals);
                template.pods.push(Pod {
                    number,
                    generation: 0,
                    places,
                    series,
                });
            }
            if template.is_right(&series)? {
                return Ok(template);
            }
        }
        bail!("no timestamp makes a template of the series {series:?}")
    }

    /// Whether patching gives what encoding would; leaves the first generation of every pod.
    fn is_right(&mut self, series: &std::ops::Range<usize>) -> Result<bool> {
        let tries = [START_MS, START_MS + 777_777_777, START_MS * 2 - 1];
        for (generation, timestamp_ms) in (0..3).rev().zip(tries) {
            self.patch(timestamp_ms);
            for at in 0..self.pods.len() {
                self.patch_pod(at, generation);
            }
            let patched = snap::raw::Decoder::new().decompress_vec(&self.body)?;
            let hash = |pod| hash(pod, generation);
            if patched != encode(series.clone(), timestamp_ms, hash).message {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Where the bytes of fields stand as literals, and which byte it is.
fn places(fields: &[usize], bytes: usize, literals: &[Option<usize>]) -> Vec<(usize, usize)> {
    let bytes = fields
        .iter()
        .flat_map(|at| (0..bytes).map(move |byte| (at + byte, byte)));
    bytes
        .filter_map(|(at, byte)| Some((literals[at]?, byte)))
        .collect()
}

/// The requests of a round.
pub(crate) fn templates(series: usize) -> Result<Vec<Template>> {
    (0..series)
        .step_by(SERIES_PER_REQUEST)
        .map(|first| Template::build(first..(first + SERIES_PER_REQUEST).min(series)))
        .collect()
}

/// A `WriteRequest` and where in it is what changes.
#[derive(Debug, Default)]
struct Encoded {
    message: Vec<u8>,
    /// Where the timestamps are.
    stamps: Vec<usize>,
    /// Number, places of the hash, and series of each pod.
    pods: Vec<(usize, Vec<usize>, u64)>,
}

fn encode(
    series: std::ops::Range<usize>,
    timestamp_ms: i64,
    hash_of: impl Fn(usize) -> String,
) -> Encoded {
    let mut encoded = Encoded::default();
    for number in series {
        let pod = number / SERIES_PER_POD;
        let hash = hash_of(pod);
        let mut body = Vec::with_capacity(360);
        for (name, value) in labels(number, &hash) {
            put_label(name, &value, &mut body);
        }
        let mut sample = vec![0x09];
        sample.extend(value(number).to_le_bytes());
        sample.push(0x10);
        sample.extend(timestamp_bytes(timestamp_ms));
        put_bytes(0x12, &sample, &mut body);
        let message = &mut encoded.message;
        put_bytes(0x0a, &body, message);
        encoded.stamps.push(message.len() - TIMESTAMP_BYTES);
        let start = message.len() - body.len();
        if encoded.pods.last().is_none_or(|(last, ..)| *last != pod) {
            encoded.pods.push((pod, Vec::new(), 0));
        }
        if let Some((_, hashes, series)) = encoded.pods.last_mut() {
            let windows = body.windows(HASH_BYTES).enumerate();
            let found = windows.filter(|(_, window)| *window == hash.as_bytes());
            hashes.extend(found.map(|(at, _)| start + at));
            *series += 1;
        }
    }
    encoded
}

/// For each decompressed byte where in `block` it stands as a literal; `None` if it is copied.
fn literals(block: &[u8], length: usize) -> Option<Vec<Option<usize>>> {
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
        places.extend((at..at + count).map(|place| is_literal.then_some(place)));
        if is_literal {
            at += count;
        }
    }
    (places.len() == length).then_some(places)
}

fn timestamp_bytes(timestamp_ms: i64) -> [u8; TIMESTAMP_BYTES] {
    let mut rest = timestamp_ms.cast_unsigned();
    let mut bytes = [0; TIMESTAMP_BYTES];
    for byte in &mut bytes {
        *byte = rest.to_le_bytes()[0] | 0x80;
        rest >>= 7;
    }
    bytes[TIMESTAMP_BYTES - 1] &= 0x7f;
    assert_eq!(rest, 0, "a timestamp of {TIMESTAMP_BYTES} varint bytes");
    bytes
}

fn put_bytes(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(key);
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(bytes);
}

fn put_label(name: &str, value: &str, out: &mut Vec<u8>) {
    let mut label = Vec::with_capacity(name.len() + value.len() + 4);
    put_bytes(0x0a, name.as_bytes(), &mut label);
    put_bytes(0x12, value.as_bytes(), &mut label);
    put_bytes(0x0a, &label, out);
}

/// The hash of a pod: new with each generation.
fn hash(pod: usize, generation: u32) -> String {
    const HASHES: u64 = 0xffff_ffff;
    // Multiples of a prime that does not divide it differ modulo HASHES: no pod has a hash twice.
    let turn = (pod as u64 + u64::from(generation) * 1_000_003) % HASHES;
    format!("{:08x}", turn * 2_654_435_761 % HASHES)
}

/// Stands for a hash while a template is built: not a byte of it occurs in other labels, nor at the
/// same place in the next two pods, of which the compressor could otherwise make copies.
fn placeholder(pod: usize) -> String {
    let letters = (b'A'..=b'Z').cycle().map(char::from);
    letters
        .skip(pod * HASH_BYTES % 26)
        .take(HASH_BYTES)
        .collect()
}

/// Names and values, sorted by name: 100 metrics of each pod.
fn labels(number: usize, hash: &str) -> [(&'static str, String); 11] {
    let (pod, metric) = (number / SERIES_PER_POD, number % SERIES_PER_POD);
    let (third, fourth) = (pod / 250, pod % 250);
    [
        (
            "__name__",
            format!("container_network_receive_bytes_total_{metric:03}"),
        ),
        ("cluster", "prod-eu-west-1".into()),
        ("container", format!("payment-gateway-{}", pod % 40)),
        ("endpoint", "https".into()),
        ("image", format!("registry.local/payment@{hash}")),
        ("instance", format!("10.{third}.{fourth}.17:10250")),
        ("job", "kubelet".into()),
        ("metrics_path", "/metrics".into()),
        ("namespace", format!("team-{}", pod % 25)),
        ("node", format!("ip-10-{third}-{fourth}-17")),
        ("pod", format!("payment-{hash}-{pod:05}")),
    ]
}

fn value(number: usize) -> f64 {
    let mut random = fastrand::Rng::with_seed(number as u64);
    if number.is_multiple_of(4) {
        random.f64()
    } else {
        f64::from(random.u32(..1_000_000))
    }
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
    fn rounds_differ_in_the_timestamp_alone_and_it_advances() {
        let mut templates = templates(5_000).unwrap();
        assert_eq!(templates.len(), 3);
        for template in &mut templates {
            let first = decoded(template.at_round(START_MS, 1));
            let later = decoded(template.at_round(START_MS, 100));
            assert_eq!(first.timeseries.len() as u64, template.samples);
            for (a, b) in first.timeseries.iter().zip(&later.timeseries) {
                assert_eq!(a.labels, b.labels);
                assert_eq!(a.samples[0].value, b.samples[0].value);
                assert_eq!(a.samples[0].timestamp, START_MS + STEP_MS);
                assert_eq!(b.samples[0].timestamp, START_MS + 100 * STEP_MS);
            }
        }
    }

    #[test]
    fn replaced_pods_have_other_series_and_the_rest_stays() {
        let mut template = templates(2_000).unwrap().remove(0);
        assert_eq!(template.pods(), 20);
        let first = decoded(template.at_round(START_MS, 1));
        assert_eq!(template.replace_pods(3), 300);
        assert_eq!(template.replace_pods(3), 0);
        let later = decoded(template.at_round(START_MS, 2));
        for (at, (a, b)) in first.timeseries.iter().zip(&later.timeseries).enumerate() {
            assert_eq!(a.labels != b.labels, at < 300, "series {at}");
        }
        assert_eq!(template.replace_pods(20 + 3), 2_000);
        let again = decoded(template.at_round(START_MS, 3));
        for (a, b) in later.timeseries.iter().zip(&again.timeseries) {
            assert_ne!(a.labels, b.labels);
        }
    }

    #[test]
    fn a_pod_has_no_hash_twice() {
        let hashes: std::collections::BTreeSet<_> = (0..10_000).map(|g| hash(7, g)).collect();
        assert_eq!(hashes.len(), 10_000);
        assert!(hashes.iter().all(|hash| hash.len() == HASH_BYTES));
    }

    #[test]
    fn label_sets_are_sorted_and_of_realistic_size() {
        let names = labels(7, &hash(0, 0)).map(|(name, _)| name);
        assert!(names.is_sorted());
        let mut bytes = Vec::new();
        for (name, value) in labels(99_999, &hash(999, 9)) {
            put_label(name, &value, &mut bytes);
        }
        assert!((300..345).contains(&bytes.len()), "{}", bytes.len());
    }
}
