//! Endpoints that fail in every way there is change nothing for the others, and lose nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Backend, LONG, Log, Reply, assert_delivered_once, options};
use shipper::Stopped;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SERIES: usize = 30;
const ROUNDS: i64 = 200;

/// A server that is none; dropping it ends it.
struct Misfit {
    addr: SocketAddr,
    _task: JoinSet<()>,
}

impl Misfit {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { addr, _task: task }
    }
}

/// How long there is nothing more of an answer, at its pace: the time for a whole one is longer.
const DRIP: Duration = Duration::from_millis(50);

/// Answers without an end, a byte at a time.
async fn drip(mut stream: TcpStream) {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request).await;
    let mut answer = b"HTTP/1.1 204 No Content\r\nx: "
        .iter()
        .chain(b"x".iter().cycle());
    while let Some(byte) = answer.next()
        && stream.write_all(&[*byte]).await.is_ok()
    {
        tokio::time::sleep(DRIP).await;
    }
}

/// Reads a little and resets the connection.
async fn reset(mut stream: TcpStream) {
    let mut request = [0; 16];
    let _read = stream.read(&mut request).await;
    // What is unread when it is closed makes it a reset.
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_ten_endpoints_five_fail_and_five_notice_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path());
    let fails = Arc::new(AtomicBool::new(true));
    let answering = |reply: Reply| {
        let fails = Arc::clone(&fails);
        Backend::start(move |_, _| match fails.load(Ordering::Relaxed) {
            true => reply.clone(),
            false => Reply::ok(),
        })
    };
    let (dripping, resetting) = (Misfit::start(drip).await, Misfit::start(reset).await);
    let healing = [
        answering(Reply::Hang).await,
        answering(Reply::status(429)).await,
        answering(Reply::status(500)).await,
    ];
    let mut bad = Vec::new();
    let misfits = [&dripping, &resetting].map(|misfit| format!("http://{}/w", misfit.addr));
    let urls = misfits.into_iter().chain(healing.iter().map(Backend::url));
    for (number, url) in urls.enumerate() {
        let mut options = options(&format!("bad-{number}"), &url);
        options.remote_timeout = Duration::from_millis(300);
        bad.push(log.ship(options));
    }
    let mut good = Vec::new();
    for number in 0..5 {
        let backend = Backend::start(|_, _| Reply::ok()).await;
        let endpoint = log.ship(options(&format!("good-{number}"), &backend.url()));
        good.push((backend, endpoint));
    }
    log.write(&log.series(SERIES), 0..ROUNDS).await;
    let all = SERIES * usize::try_from(ROUNDS).unwrap();
    for (backend, endpoint) in good {
        let seen = backend.until_samples(all).await;
        assert_delivered_once(&seen, SERIES, 0..ROUNDS);
        assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    }
    // What the bad ones hold in memory is what their queues and batches are allowed to.
    let allowed = 5 * (200 + 50) + SERIES;
    for endpoint in &bad {
        let pending = endpoint.stats().snapshot().pending.total();
        assert!(pending > 0 && pending <= allowed as u64, "{pending}");
    }
    fails.store(false, Ordering::Relaxed);
    for backend in &healing {
        backend
            .until(|seen| crate::common::acked_samples(seen) >= all)
            .await;
    }
    for (number, endpoint) in bad.into_iter().enumerate() {
        let account = log
            .store
            .endpoint(&format!("bad-{number}"))
            .unwrap()
            .account();
        assert_eq!(
            account.tally.total(),
            account.tally.delivered,
            "nothing is lost"
        );
        drop(endpoint);
    }
    log.close();
}
