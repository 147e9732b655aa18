//! Turns a number of series into label bytes and remote-write 1.0 requests.
//!
//! The series look like those of a Kubernetes cluster: 11 labels, about 320 bytes. Every sample can
//! be told from every other and be checked on its own: the label `series_id` says which series,
//! the value which sample of it (1, 2, 3, ...), and the timestamp follows from that.

use std::ops::Range;

use super::wire::{put_bytes, put_varint};

/// Series per request.
pub(super) const SERIES_PER_REQUEST: u32 = 2000;
/// Time from a sample to the next of the same series.
pub(super) const STEP_MS: u32 = 250;
/// The label that names the series by number.
pub(super) const ID_LABEL: &str = "series_id";

/// All series of the demo.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The label bytes of all series, one after the other.
    arena: Vec<u8>,
    /// Where each series' bytes end.
    ends: Vec<usize>,
    /// The time of sample number zero, which is never sent.
    start_ms: i64,
}

impl Fleet {
    /// `series` series whose samples begin behind `start_ms`.
    pub(super) fn new(series: u32, start_ms: i64) -> Self {
        let mut arena = Vec::new();
        let mut ends = Vec::new();
        for number in 0..series {
            for (name, value) in labels(number) {
                put_label(name, &value, &mut arena);
            }
            ends.push(arena.len());
        }
        Self {
            arena,
            ends,
            start_ms,
        }
    }

    /// How many series.
    pub(super) fn series(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// How many requests carry one sample of every series.
    pub(super) fn requests(&self) -> u32 {
        self.series().div_ceil(SERIES_PER_REQUEST)
    }

    /// Which series a request carries.
    pub(super) fn series_of(&self, request: u32) -> Range<u32> {
        let first = request * SERIES_PER_REQUEST;
        first..(first + SERIES_PER_REQUEST).min(self.series())
    }

    /// The request that carries a series.
    pub(super) const fn request_of(series: u32) -> u32 {
        series / SERIES_PER_REQUEST
    }

    /// The label bytes of a series, `None` if there is no such series.
    pub(super) fn labels(&self, series: u32) -> Option<&[u8]> {
        let at = usize::try_from(series).ok()?;
        let end = *self.ends.get(at)?;
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.arena.get(start..end)
    }

    /// The timestamp of a sample.
    pub(super) fn timestamp_ms(&self, sequence: u32) -> i64 {
        self.start_ms + i64::from(sequence) * i64::from(STEP_MS)
    }

    /// Sample number `sequence` of each series of a request, as a `WriteRequest`.
    pub(super) fn encode(&self, request: u32, sequence: u32, message: &mut Vec<u8>) {
        message.clear();
        let mut sample = vec![0x09];
        sample.extend(f64::from(sequence).to_le_bytes());
        sample.push(0x10);
        put_varint(self.timestamp_ms(sequence).cast_unsigned(), &mut sample);
        let mut series_message = Vec::new();
        for series in self.series_of(request) {
            series_message.clear();
            series_message.extend_from_slice(self.labels(series).unwrap_or_default());
            put_bytes(0x12, &sample, &mut series_message);
            put_bytes(0x0a, &series_message, message);
        }
    }
}

fn put_label(name: &str, value: &str, out: &mut Vec<u8>) {
    let mut label = Vec::with_capacity(name.len() + value.len() + 4);
    put_bytes(0x0a, name.as_bytes(), &mut label);
    put_bytes(0x12, value.as_bytes(), &mut label);
    put_bytes(0x0a, &label, out);
}

/// Names and values, sorted by name. Neighbours differ in the metric, then in the pod.
fn labels(number: u32) -> [(&'static str, String); 11] {
    let (pod, metric) = (number / 100, number % 100);
    let application = pod % 40;
    let node = format!("ip-10-{}-{}-17.internal", pod / 250, pod % 250);
    let suffix = pod.wrapping_mul(2_654_435_761);
    [
        (
            "__name__",
            format!("container_network_receive_bytes_total_{metric:02}"),
        ),
        ("cluster", "production-eu-west-1".into()),
        ("container", format!("payment-gateway-{application}")),
        ("endpoint", "https-metrics".into()),
        (
            "instance",
            format!("10.{}.{}.17:10250", pod / 250, pod % 250),
        ),
        ("job", "kubelet".into()),
        ("namespace", format!("team-{}", pod % 25)),
        ("node", node),
        (
            "pod",
            format!("payment-gateway-{application}-{suffix:08x}-{pod:05}"),
        ),
        (ID_LABEL, number.to_string()),
        ("service", "kubelet-metrics".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_sorted_distinct_and_of_realistic_size() {
        let fleet = Fleet::new(10_000, 0);
        let mut sets = std::collections::BTreeSet::new();
        for number in 0..fleet.series() {
            let bytes = fleet.labels(number).unwrap();
            assert!((290..350).contains(&bytes.len()), "{}", bytes.len());
            assert!(sets.insert(bytes));
        }
        assert!(labels(7).is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(fleet.labels(10_000), None);
    }

    #[test]
    fn requests_cover_every_series_once() {
        let fleet = Fleet::new(4_001, 0);
        let covered: Vec<u32> = (0..fleet.requests())
            .flat_map(|request| fleet.series_of(request))
            .collect();
        assert_eq!(covered, (0..4_001).collect::<Vec<_>>());
        assert_eq!(Fleet::request_of(4_000), 2);
    }
}
