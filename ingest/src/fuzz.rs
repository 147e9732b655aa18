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

use crate::admit::{Flight, Gate};
use crate::http::{Receiver, Settings, Worker};
use crate::options::{Http2Options, ReceiverOptions};
use crate::paths::Paths;
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
    options.body_bytes_max = 64 << 10;
    let (all, own) = (
        options.in_flight_bytes_max,
        options.connection_in_flight_bytes_max,
    );
    let bytes = Flight::new(all, own);
    let stats = ReceiverStats::new("fuzz".into(), 1, bytes, Gate::new(1));
    let worker = Worker {
        cutting: RefCell::default(),
        shard: 0,
        clock: SystemClock::shared(),
        appender: RefCell::default(),
        buffers: RefCell::default(),
    };
    let settings = Settings {
        options: Arc::new(options),
        tls: None,
        guard: None,
        tenants: None,
    };
    let nowhere = Paths::new(1, &[], &[]);
    Receiver::new(Arc::new(stats), Rc::new(worker), settings, nowhere)
}

/// Sends `bytes` to a receiver of HTTP/1.1 and, by prior knowledge, HTTP/2; the first of them says in how
/// large pieces.
///
/// # Panics
/// If a request is lost or counted twice, or anything is still held.
pub fn http_framing(bytes: &[u8]) {
    let (piece, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let pieces = bytes.chunks(usize::from(*piece) + 1);
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
            for piece in pieces {
                // Fails when the receiver closes first, as it may.
                if requests.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            requests.shutdown().await.unwrap_or_default();
        };
        let mut said = Vec::new();
        let hear = answers.read_to_end(&mut said);
        let served = async {
            serve(ours, receiver.clone(), stop).await;
        };
        let ((), (), heard) = tokio::join!(served, peer, hear);
        assert!(heard.is_ok(), "a pipe does not break");
    });
    let now = receiver.stats.snapshot();
    let ended: u64 = now.requests.iter().sum();
    assert_eq!(ended, now.requests_started);
    assert_eq!((now.in_flight_bytes, now.connections_open), (0, 0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole requests, parts of them, and lies, in any order.
    const PARTS: [&[u8]; 12] = [
        b"POST /api/v1/write HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 70000\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Content-Encoding: zstd\r\n",
        b"\r\n",
        b"\x04\x0cabcd",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn parts_of_requests_end_in_order(
            piece in any::<u8>(),
            parts in proptest::collection::vec(0..PARTS.len(), 0..12),
        ) {
            let mut bytes = vec![piece];
            bytes.extend(parts.iter().flat_map(|at| PARTS[*at]));
            http_framing(&bytes);
        }

        #[test]
        fn noise_ends_in_order(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            http_framing(&bytes);
        }
    }

    #[test]
    fn any_bytes_end() {
        let post = b"\xffPOST /api/v1/write HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc";
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // HEADERS of stream 1, that end it: ":method: GET", ":path: /", ":scheme: http".
        let get = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86];
        let whole = [&b"\xff"[..], preface, &settings, &get].concat();
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
            let at = random.usize(1 + preface.len()..bytes.len());
            bytes[at] = random.u8(..);
            http_framing(&bytes);
        }
    }
}
