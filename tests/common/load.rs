//! Turns numbered requests into a record of what was acknowledged.
//!
//! A sender repeats a request until it is acknowledged, whatever happens to the agent, before it
//! sends the next one: so the acknowledged ones are the first ones, and their number says which.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ingest::proto::{Label, Sample, TimeSeries, WriteRequest};
use prost::Message;

use super::backend::Samples;
use super::http::Client;
use super::{PATIENCE, POLL_INTERVAL, now, unix_ms};

/// Series that are in every request of a sender.
const SERIES: i64 = 50;
/// Requests after which a sender's one short-lived series gives way to a new one.
const EPOCH: i64 = 20;
/// Time between the samples of a series.
const STEP_MS: i64 = 10;
/// How far back the samples start, so that they can run ahead of the clock without leaving it.
const START_MS: i64 = 30 * 60 * 1000;

/// A thread that sends one request after the other.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: Stream,
    acked: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    /// Ends with the requests whose answer was lost.
    thread: JoinHandle<Vec<i64>>,
}

impl Sender {
    /// Starts sending to the agent that receives on `port`; `name` tells its series from others'.
    pub(crate) fn start(port: u16, name: &str) -> Self {
        Self::start_paced(port, name, Duration::ZERO)
    }

    /// The same with so much time between an acknowledgement and the next request.
    pub(crate) fn start_paced(port: u16, name: &str, pace: Duration) -> Self {
        let stream = Stream::new(name);
        let (acked, stop) = (
            Arc::new(AtomicI64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (stream, acked, stop) = (stream.clone(), acked.clone(), stop.clone());
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || {
                let mut client = Client::new(port);
                let mut repeated = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = acked.load(Ordering::Relaxed);
                    if until_acked(&mut client, &stream.request(number)).was_lost {
                        repeated.push(number);
                    }
                    acked.store(number + 1, Ordering::Relaxed);
                    std::thread::sleep(pace);
                }
                repeated
            })
        };
        let thread = thread.unwrap();
        Self {
            stream,
            acked,
            stop,
            thread,
        }
    }

    /// Requests acknowledged so far.
    pub(crate) fn acked(&self) -> i64 {
        assert!(!self.thread.is_finished(), "the sender gave up");
        self.acked.load(Ordering::Relaxed)
    }

    /// Stops after the request it is at, which is acknowledged too; what was acknowledged.
    pub(crate) fn stop(self) -> Samples {
        self.finish().0
    }

    /// The same, and which samples of it may have been taken more than once, because the answer to
    /// their request was lost.
    pub(crate) fn finish(self) -> (Samples, Samples) {
        self.stop.store(true, Ordering::Relaxed);
        let repeated = self.thread.join().unwrap();
        let acked = self.acked.load(Ordering::Relaxed);
        let samples = self.stream.samples(0..acked);
        (samples, self.stream.samples(repeated))
    }
}

/// How a request was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Acked {
    /// There was another attempt, which may have been taken too.
    was_lost: bool,
}

fn until_acked(client: &mut Client, request: &[u8]) -> Acked {
    let end = now() + PATIENCE;
    let mut was_lost = false;
    loop {
        let outcome = client.write(request);
        match &outcome {
            Ok(reply) if reply.status == 204 => return Acked { was_lost },
            // 4xx is for good; nothing that is sent here may get it.
            Ok(reply) => assert!(reply.status >= 500, "{reply:?}"),
            Err(error) => was_lost |= error.kind() != ErrorKind::ConnectionRefused,
        }
        assert!(now() < end, "no acknowledgement: {outcome:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The requests of one sender: what they contain follows from their number.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    name: String,
    start_ms: i64,
}

impl Stream {
    pub(crate) fn new(name: &str) -> Self {
        let start_ms = unix_ms() - START_MS;
        Self {
            name: name.to_owned(),
            start_ms,
        }
    }

    /// The labels that get a sample with the request of this number.
    fn labels(&self, number: i64) -> Vec<BTreeMap<String, String>> {
        let label = |kind: &str, which: i64| {
            let pairs = [
                ("__name__", kind.to_owned()),
                ("sender", self.name.clone()),
                ("which", which.to_string()),
            ];
            BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value)))
        };
        let mut all: Vec<_> = (0..SERIES)
            .map(|which| label("load_steady", which))
            .collect();
        all.push(label("load_short", number / EPOCH));
        all
    }

    fn time_ms(&self, number: i64) -> i64 {
        self.start_ms + number * STEP_MS
    }

    /// The body of the request with this number; its number is the value of its samples.
    pub(crate) fn request(&self, number: i64) -> Vec<u8> {
        let value = number.to_string().parse().unwrap();
        let timestamp = self.time_ms(number);
        let series = self.labels(number).into_iter().map(|labels| TimeSeries {
            labels: labels
                .into_iter()
                .map(|(name, value)| Label { name, value })
                .collect(),
            samples: vec![Sample { value, timestamp }],
            ..TimeSeries::default()
        });
        compressed(series.collect())
    }

    /// Sends requests; returns when all are acknowledged.
    pub(crate) fn send(&self, port: u16, numbers: Range<i64>) {
        let mut client = Client::new(port);
        for number in numbers {
            until_acked(&mut client, &self.request(number));
        }
    }

    /// The samples of these requests, as a backend tells them.
    pub(crate) fn samples(&self, numbers: impl IntoIterator<Item = i64>) -> Samples {
        let mut all = Samples::new();
        for number in numbers {
            for labels in self.labels(number) {
                let labels = serde_json::to_string(&labels).unwrap();
                let sample = (self.time_ms(number), number.to_string());
                all.entry(labels).or_default().push(sample);
            }
        }
        all
    }
}

/// The body of a request.
pub(crate) fn compressed(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    let request = WriteRequest {
        timeseries,
        metadata: Vec::new(),
    };
    snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap()
}

/// A series with one sample.
pub(crate) fn series(labels: &[(&str, &str)]) -> TimeSeries {
    let label = |(name, value): &(&str, &str)| Label {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: vec![Sample {
            value: 1.0,
            timestamp: unix_ms(),
        }],
        ..TimeSeries::default()
    }
}
