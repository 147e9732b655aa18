//! Turns any bytes into what a peer sends on a connection: they end, whatever they are, and every
//! request that was seen is counted once.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use wal::SystemClock;

use crate::admit::Gate;
use crate::append::Appender;
use crate::http::{Receiver, Worker};
use crate::options::{Http2Options, ReceiverOptions};
use crate::protocol::serve;
use crate::stats::ReceiverStats;

/// Nothing waits longer than that, so bytes that stop in the middle of something end soon.
const PATIENCE: Duration = Duration::from_millis(20);

/// A receiver that forwards to nothing, on this thread alone.
pub(crate) fn receiver(http2: bool) -> Rc<Receiver> {
    let mut options = ReceiverOptions::new("fuzz", SocketAddr::from(([127, 0, 0, 1], 0)), vec![]);
    options.read_timeout = PATIENCE;
    options.write_timeout = PATIENCE;
    options.idle_timeout = PATIENCE;
    options.http2 = http2.then(Http2Options::default);
    let bytes = Gate::new(options.in_flight_bytes_max);
    let stats = ReceiverStats::new("fuzz".into(), 1, bytes, Gate::new(1));
    #[expect(clippy::unwrap_used, reason = "there is no store that could refuse")]
    let appender = Appender::new(&[]).unwrap();
    Rc::new(Receiver {
        options: Arc::new(options),
        stats: Arc::new(stats),
        worker: Rc::new(Worker {
            shard: 0,
            clock: SystemClock::shared(),
            appender: RefCell::new(appender),
            durables: Vec::new(),
            buffers: RefCell::default(),
        }),
        tls: None,
        guard: None,
    })
}

/// Sends `bytes` to a receiver of HTTP/1.1 and, by prior knowledge, HTTP/2.
///
/// # Panics
/// If a request is lost or counted twice, which is what the fuzzer looks for.
pub fn http_framing(bytes: &[u8]) {
    #[expect(clippy::unwrap_used, reason = "a machine without timers cannot fuzz")]
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let receiver = receiver(true);
    let (_stay, stop) = watch::channel(false);
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    runtime.block_on(async {
        let (mut answers, mut requests) = tokio::io::split(theirs);
        let peer = async {
            // Fails when the receiver closes first, as it may.
            let sent = requests.write_all(bytes).await;
            sent.is_ok() && requests.shutdown().await.is_ok()
        };
        let mut said = Vec::new();
        let hear = answers.read_to_end(&mut said);
        let served = async {
            serve(ours, receiver.clone(), stop).await;
        };
        let ((), _is_heard_out, heard) = tokio::join!(served, peer, hear);
        assert!(heard.is_ok(), "a pipe does not break");
    });
    let now = receiver.stats.snapshot();
    let ended: u64 = now.requests.iter().sum();
    assert_eq!(ended, now.requests_started);
    assert_eq!(now.in_flight_bytes, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_end() {
        let post = b"POST /api/v1/write HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc";
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // HEADERS of stream 1, that end it: ":method: GET", ":path: /", ":scheme: http".
        let get = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86];
        let whole = [&preface[..], &settings, &get].concat();
        for end in 0..=post.len() {
            http_framing(&post[..end]);
        }
        for end in 0..=whole.len() {
            http_framing(&whole[..end]);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&get);
            let at = random.usize(preface.len()..bytes.len());
            bytes[at] = random.u8(..);
            http_framing(&bytes);
        }
    }
}
