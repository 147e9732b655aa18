//! Turns a test into a running receiver with a real store, and plain bytes into HTTP exchanges.

pub(crate) mod tls;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use ingest::proto::{Label, Sample, TimeSeries, WriteRequest};
use ingest::{Layout, ReceiverOptions, Shards, ShardsOptions};
use prost::Message;
use ruzstd::encoding::CompressionLevel;
use wal::{IoEngine, Store, StoreOptions, SystemClock};

pub(crate) fn engines() -> Vec<IoEngine> {
    match IoEngine::probe() {
        (IoEngine::Uring, _) => vec![IoEngine::Portable, IoEngine::Uring],
        (_, why) => {
            println!("skipped: io_uring ({})", why.unwrap_or_default());
            vec![IoEngine::Portable]
        }
    }
}

pub(crate) struct Running {
    pub(crate) shards: Shards,
    pub(crate) stores: Vec<Store>,
    _dir: tempfile::TempDir,
}

pub(crate) struct Setup {
    pub(crate) engine: IoEngine,
    pub(crate) threads: usize,
    pub(crate) stores: usize,
    pub(crate) store: StoreOptions,
    pub(crate) grace: Duration,
    pub(crate) receiver: ReceiverOptions,
}

impl Setup {
    pub(crate) fn new(engine: IoEngine) -> Self {
        let mut receiver =
            ReceiverOptions::new("front", SocketAddr::from(([127, 0, 0, 1], 0)), vec![0]);
        receiver.read_timeout = Duration::from_secs(20);
        Self {
            engine,
            threads: 2,
            stores: 1,
            store: StoreOptions {
                segment_bytes: 1 << 20,
                ring_bytes: 1 << 20,
                series_chunk_bytes: 1 << 20,
                series_max: 100_000,
                ..StoreOptions::default()
            },
            grace: Duration::from_secs(20),
            receiver,
        }
    }

    pub(crate) fn start(self) -> Running {
        self.try_start().unwrap()
    }

    pub(crate) fn try_start(self) -> Result<Running, ingest::Error> {
        let dir = tempfile::tempdir().unwrap();
        let stores: Vec<_> = (0..self.stores)
            .map(|at| Store::open(&dir.path().join(at.to_string()), self.store.clone()).unwrap())
            .collect();
        let options = ShardsOptions {
            threads: self.threads,
            scrape_threads: 1,
            scrape_seed: 0,
            inherited: [].into(),
            engine: self.engine,
            shutdown_grace: self.grace,
            clock: SystemClock::shared(),
        };
        let layout = layout(&stores, vec![self.receiver]);
        let shards = Shards::start(&options, layout)?;
        Ok(Running {
            shards,
            stores,
            _dir: dir,
        })
    }
}

/// These stores by their numbers.
pub(crate) fn layout(stores: &[Store], receivers: Vec<ReceiverOptions>) -> Layout {
    let stores = stores.iter().enumerate();
    Layout {
        stores: stores.map(|(at, s)| (at.to_string(), s.clone())).collect(),
        receivers,
        scrapers: Vec::new(),
    }
}

impl Running {
    pub(crate) fn connect(&self) -> Client {
        Client::new(self.shards.addresses()["front"])
    }

    pub(crate) fn snapshot(&self) -> ingest::Snapshot {
        self.shards.stats()["front"].snapshot()
    }

    /// Waits until the numbers are as they should become.
    pub(crate) fn until(&self, what: impl Fn(&ingest::Snapshot) -> bool) {
        while !what(&self.snapshot()) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn stop(self) {
        self.shards.stop_accepting();
        for store in &self.stores {
            store.close();
        }
        self.shards.join().unwrap();
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        // A hang becomes a failure.
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends; whether the peer still takes it.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn post(&mut self, body: &[u8]) -> Reply {
        self.send(&post(body));
        self.reply()
    }

    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("an answer")
    }

    /// The next answer, or `None` if the connection was closed instead.
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.fill(), "the answer ends early");
        }
        let text = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        Some(Reply { status, head, text })
    }

    /// Sends no more; answers still come.
    pub(crate) fn end(&self) {
        // Fails if the peer has closed it, which is as good.
        self.stream.shutdown(Shutdown::Write).unwrap_or_default();
    }

    /// Whether the peer has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // io_uring interrupts other threads of its process.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    with_head("POST /api/v1/metrics/write", "", body)
}

pub(crate) fn with_head(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.into_bytes(), body.to_vec()].concat()
}

pub(crate) fn series(labels: &[(&str, &str)], value: f64, timestamp: i64) -> TimeSeries {
    TimeSeries {
        labels: labels
            .iter()
            .map(|(name, value)| Label {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect(),
        samples: vec![Sample { value, timestamp }],
        ..TimeSeries::default()
    }
}

pub(crate) fn plain(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    let request = WriteRequest {
        timeseries,
        metadata: vec![],
    };
    request.encode_to_vec()
}

pub(crate) fn compressed(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(&plain(timeseries))
        .unwrap()
}

pub(crate) const ZSTD: &str =
    "Content-Encoding: zstd\r\nX-VictoriaMetrics-Remote-Write-Version: 1\r\n";

/// A request whose body is compressed by zstd.
pub(crate) fn zstd_post(message: &[u8]) -> Vec<u8> {
    let frame = ruzstd::encoding::compress_to_vec(message, CompressionLevel::Fastest);
    with_head("POST /api/v1/write", ZSTD, &frame)
}

pub(crate) fn body(name: &str, value: f64) -> Vec<u8> {
    compressed(vec![series(
        &[("__name__", name)],
        value,
        1_700_000_000_000,
    )])
}

/// Everything durable in the store: label bytes, time, value.
pub(crate) fn stored(store: &Store) -> Vec<(Vec<u8>, i64, f64)> {
    let endpoint = store.endpoint("reader").unwrap();
    let mut tail = endpoint.tail();
    let mut all = Vec::new();
    let mut samples = Vec::new();
    while let Some(frame) = tail.next().unwrap() {
        samples.clear();
        frame.samples(&mut samples).unwrap();
        for sample in &samples {
            let labels = store.series().guard().labels(sample.series).to_vec();
            all.push((
                labels,
                sample.timestamp_ms,
                f64::from_bits(sample.value_bits),
            ));
        }
    }
    all
}

pub(crate) fn label_bytes(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut series = series(labels, 0.0, 0);
    series.samples.clear();
    series.encode_to_vec()
}
