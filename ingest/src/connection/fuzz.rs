//! What holds of any bytes that a peer sends: the connection ends, every answer is one, and nothing stays.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use wal::SystemClock;

use super::serve;
use crate::admit::{Flight, Gate};
use crate::append::Appender;
use crate::http::{Receiver, Worker};
use crate::options::ReceiverOptions;
use crate::stats::{ReceiverStats, Snapshot};

/// Far more than any input takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `bytes` over a connection, the first of them says in how large pieces, and then no more.
///
/// # Panics
/// If the connection does not end, something other than HTTP comes back, or anything is still held.
pub fn any_bytes_end_in_order(bytes: &[u8]) {
    let (piece, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let pieces = bytes.chunks(usize::from(*piece) + 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (answers, now) = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, exchange(pieces))
            .await
            .expect("the connection ends")
    });
    assert!(
        answers.is_empty() || answers.starts_with(b"HTTP/1."),
        "{:?}",
        String::from_utf8_lossy(&answers)
    );
    assert_eq!((now.in_flight_bytes, now.connections_open), (0, 0));
    assert_eq!(now.requests_started, now.requests.iter().sum::<u64>());
}

async fn exchange(pieces: impl Iterator<Item = &[u8]>) -> (Vec<u8>, Snapshot) {
    let (peer, ours) = UnixStream::pair().expect("a pair of sockets");
    for end in [&peer, &ours] {
        end.set_nonblocking(true).expect("a socket");
    }
    let mut peer = tokio::net::UnixStream::from_std(peer).expect("a socket");
    // A stream of bytes like any other, only that no network is asked for.
    let ours = TcpStream::from_std(OwnedFd::from(ours).into()).expect("a socket");
    let receiver = receiver();
    let stats = receiver.stats.clone();
    let (_stop, stopped) = watch::channel(false);
    let serving = serve(ours, receiver, stopped);
    let asking = async {
        for piece in pieces {
            // Fails where the connection was closed, which is its right.
            if peer.write_all(piece).await.is_err() {
                break;
            }
        }
        peer.shutdown().await.unwrap_or_default();
        let mut answers = Vec::new();
        peer.read_to_end(&mut answers).await.unwrap_or_default();
        answers
    };
    let ((), answers) = tokio::join!(serving, asking);
    (answers, stats.snapshot())
}

/// A receiver that forwards to nothing: what is looked at is the way there.
fn receiver() -> Rc<Receiver> {
    let mut options = ReceiverOptions::new("fuzz", ([127, 0, 0, 1], 0).into(), Vec::new());
    options.body_bytes_max = 64 << 10;
    let bytes = Flight::new(
        options.in_flight_bytes_max,
        options.connection_in_flight_bytes_max,
    );
    let appender = Appender::new(&[], std::slice::from_ref(&options));
    let appender = RefCell::new(appender.expect("no store is asked"));
    Rc::new(Receiver {
        number: 0,
        options: Arc::new(options),
        stats: Arc::new(ReceiverStats::new("fuzz".into(), 1, bytes, Gate::new(1))),
        worker: Rc::new(Worker {
            shard: 0,
            clock: SystemClock::shared(),
            appender,
            durables: Vec::new(),
            buffers: RefCell::default(),
        }),
    })
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
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn parts_of_requests_end_in_order(
            piece in any::<u8>(),
            parts in proptest::collection::vec(0..PARTS.len(), 0..12),
        ) {
            let mut bytes = vec![piece];
            bytes.extend(parts.iter().flat_map(|at| PARTS[*at]));
            any_bytes_end_in_order(&bytes);
        }

        #[test]
        fn noise_ends_in_order(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            any_bytes_end_in_order(&bytes);
        }
    }
}
