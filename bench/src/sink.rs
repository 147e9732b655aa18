//! Turns remote-write requests, 1.0 and 2.0, into counts, and answers 204 at once.
//!
//! # Threads
//! - `bench-sink` accepts; `bench-sink-N` serves a connection. They end with their connections and
//!   are joined when the sink is dropped, which must be after the subject has ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use wal::SystemClock;

use crate::http::Connection;

/// Keys of the series in the messages of remote write 1.0 and 2.0.
const V1_SERIES: u8 = 0x0a;
const V2_SERIES: u8 = 0x2a;
/// In the head of a request of 2.0.
const V2_MESSAGE: &str = "io.prometheus.write.v2.Request";
const WRITTEN: &str = "X-Prometheus-Remote-Write-Samples-Written";

/// What arrived.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    /// Samples in all requests.
    pub(crate) samples: AtomicU64,
    /// Bytes of all bodies, as received.
    pub(crate) body_bytes: AtomicU64,
    /// Bodies that could not be read.
    pub(crate) malformed: AtomicU64,
    /// Whether to note how old samples are.
    is_recording: AtomicBool,
    ages: Mutex<Vec<Duration>>,
    stop: AtomicBool,
}

impl Counts {
    /// Whether to note, from now on, how old samples are by their timestamps.
    pub(crate) fn record(&self, is_recording: bool) {
        self.is_recording.store(is_recording, Ordering::Relaxed);
    }

    /// How old the samples were that arrived while recording, sorted.
    pub(crate) fn ages(&self) -> Vec<Duration> {
        let mut ages = self
            .ages
            .lock()
            .map(|ages| ages.clone())
            .unwrap_or_default();
        ages.sort_unstable();
        ages
    }

    /// Notes the age of the samples in a message.
    fn note_ages(&self, message: &[u8], series_key: u8, now_ms: i64) {
        if let Ok(mut ages) = self.ages.lock() {
            each_sample(message, series_key, |sample| {
                let age = timestamp(sample).map(|stamp| now_ms.saturating_sub(stamp));
                let age = u64::try_from(age.unwrap_or(0)).unwrap_or(0);
                ages.push(Duration::from_millis(age));
            });
        }
    }
}

/// How a sink behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// It takes everything.
    Well,
    /// It reads and says nothing.
    Hangs,
    /// It answers a byte per second.
    Drips,
    /// It closes connections with something unread.
    Resets,
    /// It always gives this status.
    Says(&'static str),
}

/// A listening sink.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What arrived so far.
    pub(crate) counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of the loopback interface.
    pub(crate) fn start() -> Result<Self> {
        Self::start_as(Manner::Well)
    }

    /// One that behaves in some manner.
    pub(crate) fn start_as(manner: Manner) -> Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), manner)
    }

    /// Listens where another did before.
    pub(crate) fn start_at(address: SocketAddr) -> Result<Self> {
        Self::listen(address, Manner::Well)
    }

    fn listen(address: SocketAddr, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let thread = std::thread::Builder::new()
            .name("bench-sink".to_owned())
            .spawn({
                let counts = counts.clone();
                move || accept(&listener, &counts, manner)
            })?;
        Ok(Self {
            address,
            counts,
            thread: Some(thread),
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let woken = TcpStream::connect(self.address);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take())
            && thread.join().is_err()
        {
            crate::table::print("a thread of the sink panicked");
        }
    }
}

fn accept(listener: &TcpListener, counts: &Arc<Counts>, manner: Manner) {
    let mut threads = Vec::new();
    for (number, stream) in listener.incoming().enumerate() {
        if counts.stop.load(Ordering::Relaxed) {
            break;
        }
        let counts = counts.clone();
        let spawned = std::thread::Builder::new()
            .name(format!("bench-sink-{number}"))
            .spawn(move || {
                let stream = stream?;
                match manner {
                    Manner::Well => serve(stream, &counts),
                    bad => serve_badly(stream, bad),
                }
            });
        threads.extend(spawned);
    }
    for thread in threads {
        // A connection that broke off is the subject's affair; what it did not deliver is missing
        // from the counts.
        drop(thread.join());
    }
}

/// Counts nothing.
fn serve_badly(stream: TcpStream, manner: Manner) -> io::Result<()> {
    if matches!(manner, Manner::Resets) {
        // A connection that is closed with something unread is reset.
        return stream.peek(&mut [0]).map(drop);
    }
    let mut connection = Connection::over(stream)?;
    while let Some(request) = connection.receive()? {
        connection.consume(request);
        match manner {
            Manner::Says(status) => {
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                connection.send(answer.as_bytes())?;
            }
            Manner::Drips => {
                for byte in b"HTTP/1.1 204 No Content\r\n\r\n" {
                    std::thread::sleep(Duration::from_secs(1));
                    connection.send(&[*byte])?;
                }
            }
            Manner::Hangs | Manner::Resets | Manner::Well => {}
        }
    }
    Ok(())
}

fn serve(stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut connection = Connection::over(stream)?;
    let mut message = Vec::new();
    let clock = SystemClock::shared();
    while let Some(request) = connection.receive()? {
        let is_v2 = connection.head(request).contains(V2_MESSAGE);
        let series_key = if is_v2 { V2_SERIES } else { V1_SERIES };
        let body = connection.body(request);
        counts
            .body_bytes
            .fetch_add(body.len() as u64, Ordering::Relaxed);
        let length = decompress(body, &mut message);
        let samples = length.and_then(|length| count_samples(&message[..length], series_key));
        if let (Some(length), true) = (length, counts.is_recording.load(Ordering::Relaxed)) {
            counts.note_ages(&message[..length], series_key, clock.unix_ms());
        }
        match samples {
            Some(samples) => counts.samples.fetch_add(samples, Ordering::Relaxed),
            None => counts.malformed.fetch_add(1, Ordering::Relaxed),
        };
        connection.consume(request);
        // Of 2.0 only what was written counts, and that in full.
        let written = match samples {
            Some(samples) if is_v2 => format!("{WRITTEN}: {samples}\r\n"),
            _ => String::new(),
        };
        connection.send(format!("HTTP/1.1 204 No Content\r\n{written}\r\n").as_bytes())?;
    }
    Ok(())
}

fn decompress(body: &[u8], message: &mut Vec<u8>) -> Option<usize> {
    let length = snap::raw::decompress_len(body).ok()?;
    if message.len() < length {
        message.resize(length, 0);
    }
    snap::raw::Decoder::new().decompress(body, message).ok()
}

/// Float samples in a request.
fn count_samples(message: &[u8], series_key: u8) -> Option<u64> {
    let mut samples = 0;
    each_sample(message, series_key, |_| samples += 1)?;
    Some(samples)
}

/// Calls for every float sample in a request, found by jumping from field to field.
fn each_sample(message: &[u8], series_key: u8, mut call: impl FnMut(&[u8])) -> Option<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let (key, mut series) = field(&mut rest)?;
        while key == series_key && !series.is_empty() {
            let (key, bytes) = field(&mut series)?;
            if key == 0x12 {
                call(bytes);
            }
        }
    }
    Some(())
}

/// The timestamp of a sample whose fields are in order.
fn timestamp(sample: &[u8]) -> Option<i64> {
    let rest = match sample {
        [0x09, rest @ ..] => rest.get(8..)?,
        rest => rest,
    };
    let varint = rest.strip_prefix(&[0x10])?;
    let mut number = 0_i64;
    for (byte, shift) in varint.iter().zip((0..63).step_by(7)) {
        number |= i64::from(byte & 0x7f) << shift;
    }
    Some(number)
}

/// The next length-delimited field: its key byte and its bytes.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (key, behind) = rest.split_first()?;
    if key & 7 != 2 {
        return None;
    }
    let (mut length, mut shift, mut behind) = (0, 0, behind);
    loop {
        let (byte, more) = behind.split_first()?;
        behind = more;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
    let (bytes, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some((*key, bytes))
}

#[cfg(test)]
mod tests {
    use ingest::proto::{MetricMetadata, Sample, TimeSeries, WriteRequest};
    use prost::Message;

    use super::*;
    use crate::series::Protocol;

    #[test]
    fn samples_are_counted_and_metadata_is_not() {
        let series = |count: usize| TimeSeries {
            labels: vec![],
            samples: vec![
                Sample {
                    value: 1.0,
                    timestamp: 1
                };
                count
            ],
            ..TimeSeries::default()
        };
        let mut request = WriteRequest {
            timeseries: vec![series(1), series(3)],
            metadata: vec![MetricMetadata::default()],
        };
        request.metadata[0].help = "h".repeat(300);
        assert_eq!(count_samples(&request.encode_to_vec(), V1_SERIES), Some(4));
        assert_eq!(count_samples(&[0x0a], V1_SERIES), None);
        // Symbols, and a series with its labels and two samples.
        let v2 = [0x22, 1, b'a', 0x2a, 6, 0x0a, 0, 0x12, 0, 0x12, 0];
        assert_eq!(count_samples(&v2, V2_SERIES), Some(2));
    }

    #[test]
    fn what_is_pushed_is_counted() {
        let sink = Sink::start().unwrap();
        sink.counts.record(true);
        let fleet = crate::fleet::Fleet::in_order(3_000).unwrap();
        let mut decks = crate::deck::Deck::deal(&fleet, 1);
        let mut connection = Connection::open(sink.address).unwrap();
        let before_ms = SystemClock::shared().unix_ms();
        for at in 0..decks[0].requests() {
            let body = decks[0].request(at, before_ms - 5_000).body;
            assert_eq!(connection.push(Protocol::V1, body).unwrap(), 204);
        }
        let ages = sink.counts.ages();
        assert_eq!(ages.len(), 3_000);
        assert!(ages[0] >= Duration::from_secs(5), "{:?}", ages[0]);
        assert_eq!(sink.counts.samples.load(Ordering::Relaxed), 3_000);
        assert_eq!(sink.counts.malformed.load(Ordering::Relaxed), 0);
        drop(connection);
    }
}
