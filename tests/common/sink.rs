//! Turns remote-write requests into a log of every delivery: how often, in which order, by which run.
//!
//! A real backend hides what came twice; this one keeps it. It can refuse connections, answer 503,
//! and answer late. While it refuses connections its port stays taken, as nobody else must get it.
//!
//! # Threads
//! - One accepts; one per connection reads requests and answers them. All end with the sink.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ingest::proto::{Histogram, Label, TimeSeries, WriteRequest};
use parking_lot::{Condvar, Mutex, MutexGuard};
use prost::Message;
use socket2::{Domain, Socket, Type};

use super::backend::{Samples, url};
use super::server::read_request;
use super::{now, on_free_port};

const ACCEPT_BACKLOG: i32 = 128;
/// Tells the sink which run of the agent a request is of.
pub(crate) const RUN_HEADER: &str = "X-Run";

/// A request that was answered with 204, or whose sender was gone by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) run: usize,
    pub(crate) connection: u64,
    /// When the answer was about to be sent.
    pub(crate) answered: Option<Instant>,
}

/// A sample of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) request: usize,
    pub(crate) series: u32,
    pub(crate) timestamp: i64,
    /// The bits of a float, a hash of a histogram.
    pub(crate) value: u64,
}

/// Everything that came, in the order it came.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) requests: Vec<Request>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Labels as sorted JSON.
    series: BTreeMap<String, u32>,
    malformed: u64,
}

/// Samples (milliseconds, value as in [`Delivery`]) in order of time, by labels as sorted JSON.
pub(crate) type Expected = BTreeMap<String, Vec<(i64, u64)>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Up,
    Down,
    Stopped,
}

#[derive(Debug)]
struct Connections {
    mode: Mode,
    open: Vec<(TcpStream, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Shared {
    socket: Socket,
    connections: Mutex<Connections>,
    changed: Condvar,
    delay_ms: AtomicU64,
    log: Mutex<Log>,
}

/// A running sink.
#[derive(Debug)]
pub(crate) struct Sink {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        // A port the system chose would not stay ours while nobody listens.
        let (port, socket) = on_free_port(|port| Some((port, listen(port)?)));
        let shared = Arc::new(Shared {
            socket,
            connections: Mutex::new(Connections {
                mode: Mode::Up,
                open: Vec::new(),
            }),
            changed: Condvar::new(),
            delay_ms: AtomicU64::new(0),
            log: Mutex::default(),
        });
        let acceptor = std::thread::Builder::new().name("sink".to_owned());
        let acceptor = acceptor.spawn({
            let shared = shared.clone();
            move || accept(&shared)
        });
        Self {
            port,
            shared,
            acceptor: Some(acceptor.unwrap()),
        }
    }

    /// Where it receives.
    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Answers so much later than it takes what it gets.
    pub(crate) fn delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap();
        self.shared.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.shared.connections.lock().mode == Mode::Up
    }

    /// Closes the port and all connections; nothing of them is taken any more.
    pub(crate) fn go_down(&self) {
        self.close(Mode::Down);
    }

    /// Opens the port again.
    pub(crate) fn come_back(&self) {
        self.shared.socket.listen(ACCEPT_BACKLOG).unwrap();
        self.shared.connections.lock().mode = Mode::Up;
        self.shared.changed.notify_all();
    }

    fn close(&self, mode: Mode) {
        let mut connections = self.shared.connections.lock();
        if connections.mode == Mode::Up {
            // Listening ends, the address stays bound.
            self.shared.socket.shutdown(Shutdown::Both).unwrap();
        }
        connections.mode = mode;
        self.shared.changed.notify_all();
        let open = std::mem::take(&mut connections.open);
        drop(connections);
        for (stream, _) in &open {
            // Fails if the other end has closed it, which is as good.
            stream.shutdown(Shutdown::Both).unwrap_or(());
        }
        for (_, thread) in open {
            thread.join().unwrap();
        }
    }

    /// What came so far.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock()
    }

    /// Deliveries so far, those of the same sample counted each.
    pub(crate) fn deliveries(&self) -> usize {
        self.log().deliveries.len()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.close(Mode::Stopped);
        self.acceptor.take().unwrap().join().unwrap();
    }
}

/// `None` if the port is taken.
fn listen(port: u16) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(&address.into()).ok()?;
    socket.listen(ACCEPT_BACKLOG).ok()?;
    Some(socket)
}

fn accept(shared: &Arc<Shared>) {
    for number in 0.. {
        let stream = loop {
            if let Ok((socket, _)) = shared.socket.accept() {
                break TcpStream::from(socket);
            }
            let mut connections = shared.connections.lock();
            while connections.mode == Mode::Down {
                shared.changed.wait(&mut connections);
            }
            if connections.mode == Mode::Stopped {
                return;
            }
        };
        // Under the lock, so that whoever goes down finds it or it finds that out.
        let mut connections = shared.connections.lock();
        if connections.mode == Mode::Up {
            stream.set_nodelay(true).unwrap();
            let reader = stream.try_clone().unwrap();
            let thread = std::thread::Builder::new().name(format!("sink-{number}"));
            let shared = shared.clone();
            // It ends with the connection, however that is.
            let thread = thread.spawn(move || serve(reader, number, &shared).unwrap_or(()));
            connections.open.push((stream, thread.unwrap()));
        }
    }
}

/// Answers requests until the connection ends.
fn serve(stream: TcpStream, connection: u64, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read_request(&mut stream)?;
        let run = request
            .header(RUN_HEADER)
            .map_or(0, |run| run.parse().unwrap());
        let status = if let Some(request) = take(&request.body, run, connection, shared) {
            // The time of a slow backend, not a wait for anything.
            let delay_ms = shared.delay_ms.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(delay_ms));
            shared.log.lock().requests[request].answered = Some(now());
            "204 No Content"
        } else {
            shared.log.lock().malformed += 1;
            "400 Bad Request"
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}

/// Logs what a request holds; its number, or `None` if it is no request.
fn take(body: &[u8], run: usize, connection: u64, shared: &Shared) -> Option<usize> {
    let message = snap::raw::Decoder::new().decompress_vec(body).ok()?;
    let message = WriteRequest::decode(message.as_slice()).ok()?;
    let mut log = shared.log.lock();
    let request = log.requests.len();
    log.requests.push(Request {
        run,
        connection,
        answered: None,
    });
    for series in message.timeseries {
        log.take(request, &series);
    }
    Some(request)
}

impl Log {
    fn take(&mut self, request: usize, timeseries: &TimeSeries) {
        let next = u32::try_from(self.series.len()).unwrap();
        let labels = labels(&timeseries.labels);
        let series = *self.series.entry(labels).or_insert(next);
        let floats = timeseries.samples.iter();
        let floats = floats.map(|sample| (sample.timestamp, sample.value.to_bits()));
        let histograms = timeseries.histograms.iter();
        let histograms = histograms.map(|histogram| (histogram.timestamp, hash(histogram)));
        let deliveries = floats.chain(histograms).map(|(timestamp, value)| Delivery {
            request,
            series,
            timestamp,
            value,
        });
        self.deliveries.extend(deliveries);
    }

    /// These samples by the numbers their series have here.
    pub(crate) fn known(&self, samples: &Expected) -> BTreeSet<(u32, i64)> {
        let known = samples.iter().filter_map(|(labels, samples)| {
            let series = *self.series.get(labels)?;
            Some(samples.iter().map(move |(time, _)| (series, *time)))
        });
        known.flatten().collect()
    }

    /// Fails unless everything expected came at least once, and nothing else.
    pub(crate) fn assert_holds(&self, expected: &Expected) {
        self.assert_holds_between(expected, expected);
    }

    /// Fails unless everything acknowledged came at least once, and nothing that was not sent. What is
    /// refused may become durable all the same, and then it is delivered.
    pub(crate) fn assert_holds_between(&self, acked: &Expected, sent: &Expected) {
        assert_eq!(self.malformed, 0, "bodies that are no request");
        let mut came: Vec<Vec<(i64, u64)>> = vec![Vec::new(); self.series.len()];
        for delivery in &self.deliveries {
            came[delivery.series as usize].push((delivery.timestamp, delivery.value));
        }
        let mut differences = Vec::new();
        for labels in self.series.keys() {
            if !sent.contains_key(labels) {
                differences.push(format!("unexpected series {labels}"));
            }
        }
        for (labels, sent) in sent {
            let acked = acked.get(labels).map_or(&[][..], Vec::as_slice);
            let series = self.series.get(labels);
            let mut found = series.map_or_else(Vec::new, |at| came[*at as usize].clone());
            found.sort_unstable();
            found.dedup();
            let missing = acked.iter().filter(|s| found.binary_search(s).is_err());
            let more = found.iter().filter(|s| sent.binary_search(s).is_err());
            let (missing, more) = (missing.count(), more.count());
            if missing + more > 0 {
                differences.push(format!(
                    "{labels}: {} samples instead of {}, {missing} missing, {more} unexpected",
                    found.len(),
                    acked.len(),
                ));
            }
        }
        let count = differences.len();
        differences.truncate(10);
        let differences = differences.join("\n");
        assert!(count == 0, "{count} series differ:\n{differences}");
    }
}

/// What a histogram is remembered by.
pub(crate) fn hash(histogram: &Histogram) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&histogram.encode_to_vec());
    hasher.finish()
}

/// Sorted JSON.
pub(crate) fn labels(labels: &[Label]) -> String {
    let labels = labels.iter().map(|label| (&label.name, &label.value));
    serde_json::to_string(&labels.collect::<BTreeMap<_, _>>()).unwrap()
}

/// What senders had acknowledged, as a sink tells it.
pub(crate) fn expected(acked: Samples) -> Expected {
    let number = |text: String| text.parse::<f64>().unwrap().to_bits();
    let samples = |samples: Vec<(i64, String)>| {
        let samples = samples.into_iter().map(|(time, text)| (time, number(text)));
        samples.collect()
    };
    acked.into_iter().map(|(l, s)| (l, samples(s))).collect()
}
