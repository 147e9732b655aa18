//! Turns a made-up shop into the load of the documents' pictures: series with names one has seen before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ingest::proto::{Label, Sample, TimeSeries};

use crate::common::http::Client;
use crate::common::load::compressed;
use crate::common::unix_ms;

const SERVICES: [&str; 8] = [
    "cart", "catalog", "checkout", "frontend", "payments", "search", "shipping", "users",
];
const PODS: usize = 12;
const PATHS: [&str; 6] = [
    "/",
    "/api/items",
    "/api/orders",
    "/healthz",
    "/login",
    "/metrics",
];
const BOUNDS: [&str; 6] = ["0.01", "0.05", "0.1", "0.5", "1", "+Inf"];
const PLAIN: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "go_goroutines",
    "go_gc_duration_seconds_count",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "debug_allocations_total",
];
/// Series of a request.
const BATCH: usize = 1000;
/// Between requests: leaves the machine some time for those who watch.
const PACE: Duration = Duration::from_millis(10);

/// A thread that sends all of them again and again.
pub(super) struct Fleet {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Fleet {
    /// Starts sending what a region has to the agent that receives on `port`.
    pub(super) fn start(port: u16, region: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name(region.to_owned());
        let thread = thread.spawn({
            let stop = stop.clone();
            move || send(port, region, &stop)
        });
        let thread = thread.unwrap();
        Self { stop, thread }
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn send(port: u16, region: &str, stop: &AtomicBool) {
    let mut client = Client::new(port);
    let all = series(region);
    for (batch, round) in all.chunks(BATCH).cycle().zip(0_u32..) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut batch = batch.to_vec();
        for one in &mut batch {
            one.samples = vec![Sample {
                value: f64::from(round),
                timestamp: unix_ms(),
            }];
        }
        assert_eq!(client.write(&compressed(batch)).unwrap().status, 204);
        std::thread::sleep(PACE);
    }
}

fn series(region: &str) -> Vec<TimeSeries> {
    let mut all = Vec::new();
    for service in SERVICES {
        for pod in 0..PODS {
            let pod = format!("{service}-7f9c{pod:02x}");
            let mut add = |name: &str, more: &[(&str, &str)]| {
                let fixed = [
                    ("__name__", name),
                    ("job", service),
                    ("namespace", "shop"),
                    ("pod", &pod),
                    ("region", region),
                ];
                all.push(labelled(&[&fixed, more].concat()));
            };
            for name in PLAIN {
                add(name, &[]);
            }
            for path in PATHS {
                add("http_requests_total", &[("path", path), ("status", "200")]);
                add("http_requests_total", &[("path", path), ("status", "500")]);
                for bound in BOUNDS {
                    let labels = [("le", bound), ("path", path)];
                    add("http_request_duration_seconds_bucket", &labels);
                }
            }
        }
    }
    all
}

fn labelled(labels: &[(&str, &str)]) -> TimeSeries {
    let mut labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        })
        .collect();
    labels.sort_by(|one, other| one.name.cmp(&other.name));
    TimeSeries {
        labels,
        ..TimeSeries::default()
    }
}
