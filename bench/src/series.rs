//! Turns numbers of series into remote-write messages, and into where in them is what changes.
//!
//! The series look like those of a Kubernetes cluster: 11 labels, about 320 bytes. Three of four
//! values are integers, one uses its whole mantissa; they differ between series, not over time.

use std::collections::HashMap;
use std::ops::Range;

/// Series of a pod, which come and go together: a target.
pub(crate) const SERIES_PER_POD: usize = 100;
/// Hexadecimal digits of a pod's hash.
pub(crate) const HASH_BYTES: usize = 8;
/// Bytes of a timestamp as a varint, for a few hundred years around now.
pub(crate) const TIMESTAMP_BYTES: usize = 6;
/// Keys of the fields of messages.
const V1_SERIES: u8 = 0x0a;
const V2_SYMBOL: u8 = 0x22;
const V2_SERIES: u8 = 0x2a;
const LABELS: u8 = 0x0a;
const SAMPLE: u8 = 0x12;

/// The message that requests hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// How series are written down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The message.
    pub(crate) protocol: Protocol,
    /// Whether the labels of every series come in reverse order.
    pub(crate) is_unsorted: bool,
}

/// A message and where in it is what changes.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// The message.
    pub(crate) message: Vec<u8>,
    /// Where the timestamps are.
    pub(crate) stamps: Vec<usize>,
    /// The pods in it.
    pub(crate) pods: Vec<EncodedPod>,
}

/// A pod in a message.
#[derive(Debug)]
pub(crate) struct EncodedPod {
    /// Its number.
    pub(crate) number: usize,
    /// Where its hash is.
    pub(crate) hashes: Vec<usize>,
    /// How many of its series are in the message.
    pub(crate) series: u64,
}

/// The message of some series at a time, of pods whose hashes are told.
pub(crate) fn encode(
    shape: Shape,
    series: Range<usize>,
    timestamp_ms: i64,
    hash_of: impl Fn(usize) -> String,
) -> Encoded {
    match shape.protocol {
        Protocol::V1 => encode_v1(shape, series, timestamp_ms, hash_of),
        Protocol::V2 => encode_v2(shape, series, timestamp_ms, hash_of),
    }
}

fn encode_v1(
    shape: Shape,
    series: Range<usize>,
    timestamp_ms: i64,
    hash_of: impl Fn(usize) -> String,
) -> Encoded {
    let mut encoded = Encoded::default();
    for number in series {
        let hash = hash_of(number / SERIES_PER_POD);
        let mut body = Vec::with_capacity(360);
        for (name, value) in in_order(shape, labels(number, &hash)) {
            put_label(name, &value, &mut body);
        }
        put_bytes(SAMPLE, &sample(number, timestamp_ms), &mut body);
        put_bytes(V1_SERIES, &body, &mut encoded.message);
        let start = encoded.message.len() - body.len();
        encoded.note(number, find(&body, &hash, start));
    }
    encoded
}

fn encode_v2(
    shape: Shape,
    series: Range<usize>,
    timestamp_ms: i64,
    hash_of: impl Fn(usize) -> String,
) -> Encoded {
    let mut symbols = Symbols::default();
    symbols.refer(String::new(), "");
    let mut all = Encoded::default();
    for number in series {
        let pod = number / SERIES_PER_POD;
        let written = hash_of(pod);
        // What stands for a hash may do so for two pods; the first hashes differ.
        let keys = labels(number, &hash(pod, 0));
        let mut refs = Vec::with_capacity(32);
        let mut hashes = Vec::new();
        let pairs = keys.into_iter().zip(labels(number, &written));
        for ((name, key), (_, value)) in in_order(shape, pairs) {
            put_number(symbols.refer(name.to_owned(), name).0, &mut refs);
            let (symbol, at) = symbols.refer(key, &value);
            put_number(symbol, &mut refs);
            hashes.extend(
                at.into_iter()
                    .flat_map(|at| find(value.as_bytes(), &written, at)),
            );
        }
        let mut body = Vec::with_capacity(64);
        put_bytes(LABELS, &refs, &mut body);
        put_bytes(SAMPLE, &sample(number, timestamp_ms), &mut body);
        put_bytes(V2_SERIES, &body, &mut all.message);
        all.note(number, hashes);
    }
    for stamp in &mut all.stamps {
        *stamp += symbols.bytes.len();
    }
    all.message.splice(..0, symbols.bytes);
    all
}

impl Encoded {
    /// Notes the series that ends the message so far, and where the hash of its pod is.
    fn note(&mut self, number: usize, hashes: Vec<usize>) {
        self.stamps.push(self.message.len() - TIMESTAMP_BYTES);
        let number = number / SERIES_PER_POD;
        match self.pods.last_mut() {
            Some(pod) if pod.number == number => {
                pod.hashes.extend(hashes);
                pod.series += 1;
            }
            _ => self.pods.push(EncodedPod {
                number,
                hashes,
                series: 1,
            }),
        }
    }
}

/// The symbol table of a message of 2.0.
#[derive(Default)]
struct Symbols {
    numbers: HashMap<String, usize>,
    bytes: Vec<u8>,
}

impl Symbols {
    /// The number of what is known by `key`; where `text` was put, if it is new.
    fn refer(&mut self, key: String, text: &str) -> (usize, Option<usize>) {
        if let Some(number) = self.numbers.get(&key) {
            return (*number, None);
        }
        let number = self.numbers.len();
        self.numbers.insert(key, number);
        put_bytes(V2_SYMBOL, text.as_bytes(), &mut self.bytes);
        (number, Some(self.bytes.len() - text.len()))
    }
}

/// Where a hash stands in bytes that are at `start` of something greater.
fn find(bytes: &[u8], hash: &str, start: usize) -> Vec<usize> {
    let windows = bytes.windows(HASH_BYTES).enumerate();
    let found = windows.filter(|(_, window)| *window == hash.as_bytes());
    found.map(|(at, _)| start + at).collect()
}

fn in_order<T>(shape: Shape, items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    if shape.is_unsorted {
        items.reverse();
    }
    items
}

fn sample(number: usize, timestamp_ms: i64) -> Vec<u8> {
    let mut sample = vec![0x09];
    sample.extend(value(number).to_le_bytes());
    sample.push(0x10);
    sample.extend(timestamp_bytes(timestamp_ms));
    sample
}

/// A timestamp as it stands in messages.
pub(crate) fn timestamp_bytes(timestamp_ms: i64) -> [u8; TIMESTAMP_BYTES] {
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

/// Appends a varint.
pub(crate) fn put_number(mut number: usize, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn put_bytes(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(key);
    put_number(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_label(name: &str, value: &str, out: &mut Vec<u8>) {
    let mut label = Vec::with_capacity(name.len() + value.len() + 4);
    put_bytes(0x0a, name.as_bytes(), &mut label);
    put_bytes(0x12, value.as_bytes(), &mut label);
    put_bytes(LABELS, &label, out);
}

/// The hash of a pod: new with each generation.
pub(crate) fn hash(pod: usize, generation: u32) -> String {
    const HASHES: u64 = 0xffff_ffff;
    // Multiples of a prime that does not divide it differ modulo HASHES: no pod has a hash twice.
    let turn = (pod as u64 + u64::from(generation) * 1_000_003) % HASHES;
    format!("{:08x}", turn * 2_654_435_761 % HASHES)
}

/// Stands for a hash while a template is built: not a byte of it occurs in other labels, and neither
/// its first nor its last at the same place in the next 25 pods, of which the compressor could
/// otherwise make copies that begin or end within a hash.
pub(crate) fn placeholder(pod: usize, attempt: u64) -> String {
    let mut random = fastrand::Rng::with_seed(pod as u64 | attempt << 32);
    let end = ('A'..='Z').cycle().nth(pod % 26).unwrap_or('A');
    let inner = (2..HASH_BYTES).map(|_| random.uppercase());
    [end].into_iter().chain(inner).chain([end]).collect()
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
    use ingest::proto::{WriteRequest, v2};
    use prost::Message;

    use super::*;

    const MS: i64 = 1_767_225_600_000;

    fn encoded(protocol: Protocol, is_unsorted: bool) -> Encoded {
        let shape = Shape {
            protocol,
            is_unsorted,
        };
        encode(shape, 50..250, MS, |pod| hash(pod, 3))
    }

    #[test]
    fn both_messages_say_the_same() {
        let one = encoded(Protocol::V1, false);
        let two = encoded(Protocol::V2, false);
        let first = WriteRequest::decode(&*one.message).unwrap();
        let second = v2::Request::decode(&*two.message).unwrap();
        assert_eq!(second.symbols[0], b"");
        assert_eq!(second.timeseries.len(), 200);
        for (a, b) in first.timeseries.iter().zip(&second.timeseries) {
            let texts = a
                .labels
                .iter()
                .flat_map(|label| [&label.name, &label.value]);
            let texts: Vec<_> = texts.map(|text| text.as_bytes()).collect();
            let refs = b
                .labels_refs
                .iter()
                .map(|at| &*second.symbols[*at as usize]);
            assert_eq!(texts, refs.collect::<Vec<_>>());
            assert_eq!(a.samples[0].timestamp, MS);
            assert_eq!(b.samples[0].timestamp, MS);
        }
    }

    #[test]
    fn places_are_those_of_hashes_and_timestamps() {
        for protocol in [Protocol::V1, Protocol::V2] {
            let Encoded {
                message,
                stamps,
                pods,
            } = encoded(protocol, false);
            assert_eq!(stamps.len(), 200);
            for at in stamps {
                assert_eq!(message[at..at + TIMESTAMP_BYTES], timestamp_bytes(MS));
            }
            let series: Vec<_> = pods.iter().map(|pod| (pod.number, pod.series)).collect();
            assert_eq!(series, [(0, 50), (1, 100), (2, 50)]);
            for pod in pods {
                assert!(pod.hashes.len() >= 2);
                for at in pod.hashes {
                    assert_eq!(
                        message[at..at + HASH_BYTES],
                        *hash(pod.number, 3).as_bytes()
                    );
                }
            }
        }
    }

    #[test]
    fn an_unsorted_sender_reverses_the_labels() {
        let request = WriteRequest::decode(&*encoded(Protocol::V1, true).message).unwrap();
        for series in request.timeseries {
            assert!(
                series
                    .labels
                    .iter()
                    .rev()
                    .is_sorted_by_key(|label| &label.name)
            );
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
