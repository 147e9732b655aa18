//! Turns a number of series into remote-write 1.0 bodies whose timestamps can be changed in place.
//!
//! Encoding and compressing would cost the generator more than the agent spends on ingesting, so
//! each request is built once. Of a snappy block it is known which of its bytes are literals; where
//! these hold a timestamp they are overwritten, and every copy of them follows. Each template is
//! proved when it is built: patched, decompressed, and compared with the message it should be.
//!
//! The series look like those of a Kubernetes cluster: 11 labels, about 320 bytes. Three of four
//! values are integers, one uses its whole mantissa; they differ between series, not over time.

use anyhow::{Context, Result, bail};

/// Series per request.
pub(crate) const SERIES_PER_REQUEST: usize = 2000;
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
    /// Samples in the request.
    pub(crate) samples: u64,
}

impl Template {
    /// The body of a round. Rounds follow each other by a second from `start_ms` on.
    pub(crate) fn at_round(&mut self, start_ms: i64, round: u32) -> &[u8] {
        self.patch(start_ms + STEP_MS * i64::from(round));
        &self.body
    }

    fn patch(&mut self, timestamp_ms: i64) {
        let bytes = timestamp_bytes(timestamp_ms);
        for (place, byte) in &self.places {
            self.body[*place] = bytes[*byte];
        }
    }

    fn build(series: std::ops::Range<usize>) -> Result<Self> {
        for attempt in 0..ATTEMPTS {
            let first_ms = START_MS + attempt * 1_234_567;
            let (message, stamps) = encode(series.clone(), first_ms);
            let body = snap::raw::Encoder::new().compress_vec(&message)?;
            let literals = literals(&body, message.len()).context("walk a snappy block")?;
            let places = stamps
                .iter()
                .flat_map(|at| (0..TIMESTAMP_BYTES).map(move |byte| (at + byte, byte)))
                .filter_map(|(at, byte)| Some((literals[at]?, byte)))
                .collect();
            let mut template = Self {
                body,
                places,
                samples: series.len() as u64,
            };
            if template.is_right(&series)? {
                return Ok(template);
            }
        }
        bail!("no timestamp makes a template of the series {series:?}")
    }

    /// Whether patching gives what encoding would.
    fn is_right(&mut self, series: &std::ops::Range<usize>) -> Result<bool> {
        for timestamp_ms in [START_MS, START_MS + 777_777_777, START_MS * 2 - 1] {
            self.patch(timestamp_ms);
            let patched = snap::raw::Decoder::new().decompress_vec(&self.body)?;
            if patched != encode(series.clone(), timestamp_ms).0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The requests of a round.
pub(crate) fn templates(series: usize) -> Result<Vec<Template>> {
    (0..series)
        .step_by(SERIES_PER_REQUEST)
        .map(|first| Template::build(first..(first + SERIES_PER_REQUEST).min(series)))
        .collect()
}

/// A `WriteRequest` and where its timestamps are.
fn encode(series: std::ops::Range<usize>, timestamp_ms: i64) -> (Vec<u8>, Vec<usize>) {
    let mut message = Vec::new();
    let mut stamps = Vec::new();
    for number in series {
        let mut body = Vec::with_capacity(360);
        for (name, value) in labels(number) {
            put_label(name, &value, &mut body);
        }
        let mut sample = vec![0x09];
        sample.extend(value(number).to_le_bytes());
        sample.push(0x10);
        sample.extend(timestamp_bytes(timestamp_ms));
        put_bytes(0x12, &sample, &mut body);
        put_bytes(0x0a, &body, &mut message);
        stamps.push(message.len() - TIMESTAMP_BYTES);
    }
    (message, stamps)
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

/// Names and values, sorted by name: 100 metrics of each pod.
fn labels(number: usize) -> [(&'static str, String); 11] {
    let (pod, metric) = (number / 100, number % 100);
    let hash = (pod * 2_654_435_761) % 0xffff_ffff;
    let (third, fourth) = (pod / 250, pod % 250);
    [
        (
            "__name__",
            format!("container_network_receive_bytes_total_{metric:03}"),
        ),
        ("cluster", "prod-eu-west-1".into()),
        ("container", format!("payment-gateway-{}", pod % 40)),
        ("endpoint", "https".into()),
        ("image", format!("registry.local/payment@{hash:08x}")),
        ("instance", format!("10.{third}.{fourth}.17:10250")),
        ("job", "kubelet".into()),
        ("metrics_path", "/metrics".into()),
        ("namespace", format!("team-{}", pod % 25)),
        ("node", format!("ip-10-{third}-{fourth}-17")),
        ("pod", format!("payment-{hash:08x}-{pod:05}")),
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
    fn label_sets_are_sorted_and_of_realistic_size() {
        let names = labels(7).map(|(name, _)| name);
        assert!(names.is_sorted());
        let mut bytes = Vec::new();
        for (name, value) in labels(99_999) {
            put_label(name, &value, &mut bytes);
        }
        assert!((300..345).contains(&bytes.len()), "{}", bytes.len());
    }
}
