//! A store in a scratch directory and a remote-write backend that answers as told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use labels::canonical;
use prost::Message;
use shipper::{Endpoint, EndpointHandle, EndpointOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wal::{NewSeries, RawRecord, Sample, SeriesRef, Store, StoreOptions, SystemClock, Writer};

/// Far beyond what anything here takes; only a hanging test waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<PbSample>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PbSample {
    #[prost(fixed64, tag = "1")]
    pub(crate) value_bits: u64,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exemplar {
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
    #[prost(int64, tag = "3")]
    pub(crate) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricMetadata {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, tag = "2")]
    pub(crate) metric_family_name: String,
}

/// What the backend says to a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Status(u16, Vec<(&'static str, String)>, String),
    /// Nothing, ever.
    Hang,
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self::status(204)
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

/// A request as it arrived and how it was answered; 0 if it was not.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) request: WriteRequest,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn sample_count(&self) -> usize {
        self.request
            .timeseries
            .iter()
            .map(|series| series.samples.len())
            .sum()
    }
}

type Script = Arc<dyn Fn(usize, &Received) -> Reply + Send + Sync>;

/// A backend on loopback; dropping it closes its connections.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    seen: watch::Sender<Vec<Received>>,
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Answers the n-th request (from 0) as `script` says.
    pub(crate) async fn start(
        script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn start_on(
        addr: SocketAddr,
        script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = watch::Sender::new(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(script), seen.clone()));
        Self {
            addr,
            seen,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.addr)
    }

    pub(crate) fn seen(&self) -> Vec<Received> {
        self.seen.borrow().clone()
    }

    /// Waits until the requests so far are enough.
    pub(crate) async fn until(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let mut seen = self.seen.subscribe();
        let result = tokio::time::timeout(LONG, seen.wait_for(|seen| enough(seen))).await;
        result
            .expect("the backend gets what the test waits for")
            .unwrap()
            .clone()
    }

    /// Waits for so many samples in requests that were acked.
    pub(crate) async fn until_samples(&self, count: usize) -> Vec<Received> {
        self.until(|seen| acked_samples(seen) >= count).await
    }
}

pub(crate) fn acked_samples(seen: &[Received]) -> usize {
    seen.iter()
        .filter(|r| r.status / 100 == 2)
        .map(Received::sample_count)
        .sum()
}

async fn serve(listener: TcpListener, script: Script, seen: watch::Sender<Vec<Received>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, seen) = (Arc::clone(&script), seen.clone());
        connections.spawn(async move {
            let answer = |request| answer(request, Arc::clone(&script), seen.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // a client that goes away mid-request is what some tests are about
            connection.await.ok();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Script,
    seen: watch::Sender<Vec<Received>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let message = snap::raw::Decoder::new()
        .decompress_vec(&body)
        .unwrap_or_default();
    let mut received = Received {
        status: 0,
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        request: WriteRequest::decode(&*message).unwrap(),
        body,
        at: Instant::now(),
    };
    let mut reply = Reply::Hang;
    seen.send_modify(|seen| {
        reply = script(seen.len(), &received);
        if let Reply::Status(status, ..) = reply {
            received.status = status;
        }
        seen.push(received);
    });
    let Reply::Status(status, headers, text) = reply else {
        return std::future::pending().await;
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(text.into())).unwrap())
}

/// A store whose log is committed by a thread.
pub(crate) struct Log {
    pub(crate) store: Store,
    writer: Writer,
    committer: Option<std::thread::JoinHandle<()>>,
}

impl Log {
    pub(crate) fn open(dir: &Path) -> Self {
        Self::open_with(dir, |_| {})
    }

    pub(crate) fn open_with(dir: &Path, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let mut options = StoreOptions {
            segment_bytes: 1 << 20,
            ring_bytes: 1 << 20,
            series_chunk_bytes: 1 << 20,
            series_max: 1 << 16,
            ..StoreOptions::default()
        };
        change(&mut options);
        let store = Store::open(dir, options).unwrap();
        let committer = store.committer().unwrap().spawn_thread().unwrap();
        Self {
            writer: store.writer().unwrap(),
            store,
            committer: Some(committer),
        }
    }

    /// Series `0..count`, ten per target.
    pub(crate) fn series(&self, count: usize) -> Vec<SeriesRef> {
        self.define(&(0..count).map(labels_of).collect::<Vec<_>>())
    }

    /// Series of these labels.
    pub(crate) fn define(&self, labels: &[Vec<u8>]) -> Vec<SeriesRef> {
        let table = self.store.series();
        let mut new: Vec<_> = labels
            .iter()
            .map(|labels| NewSeries {
                hash: table.hash(labels),
                labels,
                series: SeriesRef::NONE,
            })
            .collect();
        table.guard().define(&mut new).unwrap();
        new.iter().map(|new| new.series).collect()
    }

    /// Appends one sample per series and timestamp, one frame per timestamp, and waits for the disk.
    pub(crate) async fn write(&mut self, series: &[SeriesRef], timestamps: std::ops::Range<i64>) {
        for timestamp_ms in timestamps {
            self.append(&round(series, timestamp_ms), &[]).await;
        }
    }

    /// Appends as soon as there is room, as the keeper may not have prepared the next segment yet, and
    /// waits for the disk.
    pub(crate) async fn append(&mut self, samples: &[Sample], raw: &[RawRecord<'_>]) {
        let deadline = Instant::now() + LONG;
        let position = loop {
            match self.writer.append(samples, raw) {
                Ok(position) => break position,
                Err(error) => assert!(error.is_full() && Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        };
        self.store.durable().reached(position).await.unwrap();
    }

    pub(crate) fn ship(&self, options: EndpointOptions) -> EndpointHandle {
        let runtime = tokio::runtime::Handle::current();
        Endpoint::start(self.store.clone(), options, SystemClock::shared(), &runtime).unwrap()
    }

    /// Whether an endpoint has acknowledged everything.
    pub(crate) fn is_acked(&self, endpoint: &str) -> bool {
        let acked = self.store.endpoint(endpoint).unwrap().acked();
        acked == self.store.watermarks().durable
    }

    pub(crate) fn close(mut self) {
        self.store.close();
        self.committer.take().unwrap().join().unwrap();
    }
}

/// One sample per series.
fn round(series: &[SeriesRef], timestamp_ms: i64) -> Vec<Sample> {
    let sample = |series: &SeriesRef| Sample {
        series: *series,
        timestamp_ms,
        value_bits: value_bits(timestamp_ms),
    };
    series.iter().map(sample).collect()
}

pub(crate) fn labels_of(series: usize) -> Vec<u8> {
    canonical(&[
        ("__name__", &format!("metric_{series}")),
        ("instance", &format!("host-{}", series / 10)),
        ("job", "test"),
    ])
}

pub(crate) fn value_bits(timestamp_ms: i64) -> u64 {
    (timestamp_ms as f64 + 0.5).to_bits()
}

/// Small batches and short waits.
pub(crate) fn options(name: &str, url: &str) -> EndpointOptions {
    let mut options = EndpointOptions::new(name, url);
    options.queue.capacity = 200;
    options.queue.max_samples_per_send = 50;
    options.queue.min_backoff = Duration::from_millis(1);
    options.queue.max_backoff = Duration::from_millis(20);
    options
}

/// Timestamps by metric name, of the requests that were acked, in order of arrival.
pub(crate) fn delivered(seen: &[Received]) -> BTreeMap<String, Vec<i64>> {
    let mut delivered: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for series in seen
        .iter()
        .filter(|r| r.status / 100 == 2)
        .flat_map(|r| &r.request.timeseries)
    {
        let name = series.labels[0].value.clone();
        for sample in &series.samples {
            assert_eq!(sample.value_bits, value_bits(sample.timestamp));
            delivered
                .entry(name.clone())
                .or_default()
                .push(sample.timestamp);
        }
    }
    delivered
}

/// Every one of `series` series has exactly these timestamps, in order.
pub(crate) fn assert_delivered_once(
    seen: &[Received],
    series: usize,
    timestamps: std::ops::Range<i64>,
) {
    let delivered = delivered(seen);
    assert_eq!(delivered.len(), series);
    for (name, got) in delivered {
        assert!(
            got.iter().copied().eq(timestamps.clone()),
            "{name}: {got:?}"
        );
    }
}

/// Lets the other tasks run until `reached`.
pub(crate) async fn until(reached: impl Fn() -> bool) {
    let running = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, running)
        .await
        .expect("it is reached");
}
