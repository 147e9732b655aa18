//! Turns numbers into the series that benches encode.
//!
//! Series as a Kubernetes cluster has them: targets of 250, 11 labels, about 321 encoded bytes each. Values
//! are counters and gauges that move.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several programs, each of which needs a part"
)]

use labels::canonical;
use shipper::ack::FrameNumber;
use shipper::batch::Batch;
use wal::{Sample, SeriesRef};

/// Records of a request.
pub const PER_BATCH: usize = 2000;
pub const METRICS_PER_TARGET: u32 = 250;
const START_MS: i64 = 1_760_000_000_000;
const INTERVAL_MS: i64 = 15_000;

/// What a metric is called: half of one and half of another.
pub const SUBJECTS: [&str; 10] = [
    "container_cpu_usage",
    "container_fs_writes",
    "container_memory_working_set",
    "container_network_receive_packets",
    "kube_pod_container_status",
    "kubelet_runtime_operations",
    "process_resident_memory",
    "rest_client_request_duration",
    "storage_operation_duration",
    "workqueue_queue_duration",
];
pub const ASPECTS: [&str; 5] = [
    "seconds_total",
    "bytes",
    "bucket",
    "errors_total",
    "last_seen",
];

/// The labels of a series, by name.
pub fn labels(series: u32) -> Vec<(&'static str, String)> {
    let (target, metric) = (
        series / METRICS_PER_TARGET,
        (series % METRICS_PER_TARGET) as usize,
    );
    let node = target % 100;
    let name = format!("{}_{}", SUBJECTS[metric / 5 % 10], ASPECTS[metric % 5]);
    vec![
        ("__name__", name),
        ("cluster", "prod-eu-1".into()),
        ("container", format!("checkout-{}", target % 20)),
        (
            "device",
            format!("/dev/nvme{}n1p{}", metric / 50, metric % 7),
        ),
        ("instance", format!("10.42.{node}.{}:10250", target % 250)),
        ("job", "kubelet-cadvisor".into()),
        ("namespace", format!("team-{:02}-production", target % 30)),
        ("node", format!("ip-10-42-{node}-17.internal")),
        ("pod", format!("checkout-7d9f8b6c5d-{target:05}")),
        ("service", "kubelet-svc".into()),
        (
            "zone",
            format!("eu-west-1{}", ["a", "b", "c"][target as usize % 3]),
        ),
    ]
}

/// The sample of a series in an interval: of ten values three never change, three count, two are whole
/// numbers that jump, two are fractions.
pub fn sample(series: u32, interval: u32) -> Sample {
    let random = series.wrapping_mul(2_654_435_761) >> 12;
    let value = match series % 10 {
        0 => 0.0,
        1..=2 => f64::from(random % 100),
        3..=5 => f64::from(random) + f64::from(interval * (random % 50)),
        6..=7 => f64::from(random.rotate_left(interval) % 1000),
        _ => f64::from(random) * 0.123 + f64::from(interval),
    };
    Sample {
        series: SeriesRef::new(series + 1),
        timestamp_ms: START_MS + i64::from(interval) * INTERVAL_MS,
        value_bits: value.to_bits(),
    }
}

/// Samples as batches of so many.
pub fn batches(samples: &[Sample], per_batch: usize) -> Vec<Batch> {
    let batch = |samples: &[Sample]| {
        let mut batch = Batch::default();
        batch.push(FrameNumber::new(0), &[samples], std::iter::empty());
        batch
    };
    samples.chunks(per_batch).map(batch).collect()
}

/// Labels of series, by ref.
pub struct Table {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    pub fn new(series: u32) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for series in 0..series {
            let labels = labels(series);
            let pairs: Vec<_> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
            bytes.extend_from_slice(&canonical(&pairs));
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub fn of(&self, series: SeriesRef) -> &[u8] {
        &self.bytes[self.ends[series.index() - 1]..self.ends[series.index()]]
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}
