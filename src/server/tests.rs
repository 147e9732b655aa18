//! Peers that are slow, gone or not let in, over streams in memory and time that passes at once.

use std::process::Command;

use ingest::secure::{AuthOptions, PemSource, TlsOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wal::SystemClock;

use super::*;
use crate::component::PathAuth;
use crate::web::fake::{self, Fake};

fn shared() -> Shared {
    shared_with(Fake::default())
}

fn shared_with(fake: Fake) -> Shared {
    let http = HttpService::default();
    let stats = Arc::clone(&fake.server);
    let secured = Secured::new(&http, &SystemClock::shared(), &stats.secure).unwrap();
    Shared {
        secured: Arc::new(watch::Sender::new(Arc::new(secured))),
        web: fake::web(fake),
        stats,
    }
}

async fn serve(stream: DuplexStream, shared: Shared) {
    let changes = shared.secured.subscribe();
    connection(stream, shared, changes).await;
}

/// One whose next debugged component says what is sent here.
fn debugged() -> (Shared, mpsc::Sender<String>) {
    let (lines, said) = mpsc::channel(1);
    let fake = Fake::default();
    *fake.debug.lock() = Some(said);
    (shared_with(fake), lines)
}

const DEBUG: &str = "/api/v0/web/debug/x";

/// A GET on stream 1, with an initial window for its answer.
fn http2_get(path: &str, window: u16) -> Vec<u8> {
    let [low, high] = window.to_le_bytes();
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, high, low];
    let path_bytes = u8::try_from(path.len()).unwrap();
    // GET, http, a path that is not to be remembered.
    let fields = [&[0x82, 0x86, 0x04, path_bytes][..], path.as_bytes()].concat();
    let field_bytes = u8::try_from(fields.len()).unwrap();
    let head = [0, 0, field_bytes, 1, 5, 0, 0, 0, 1];
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
    [preface, &settings, &head, &fields].concat()
}

fn http1_get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_or_takes_nothing_is_let_go() {
    let get = http1_get("/metrics");
    for (request, seconds) in [(&b""[..], 10), (b"GET /me", 10), (&get, 60)] {
        let shared = shared();
        // Room for the head of the answer, and not for the page.
        let (ours, mut theirs) = tokio::io::duplex(64);
        let begin = Instant::now();
        let serving = tokio::spawn(serve(ours, shared.clone()));
        theirs.write_all(request).await.unwrap();
        serving.await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_that_stays_shut_holds_no_page_for_ever() {
    let shared = shared();
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let begin = Instant::now();
    let serving = tokio::spawn(serve(ours, shared.clone()));
    theirs.write_all(&http2_get("/metrics", 0)).await.unwrap();
    let mut said = Vec::new();
    theirs.read_to_end(&mut said).await.unwrap();
    serving.await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 60);
    assert_eq!(shared.stats.timed_out.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endless_answer_goes_on_for_as_long_as_it_is_taken() {
    for get in [http1_get(DEBUG), http2_get(DEBUG, 65_535)] {
        let (shared, lines) = debugged();
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let serving = tokio::spawn(serve(ours, shared.clone()));
        theirs.write_all(&get).await.unwrap();
        let mut all = Vec::new();
        for number in 0..20 {
            // Longer than an answer may wait for its peer: here the peer waits.
            tokio::time::sleep(ANSWER_TIMEOUT * 2).await;
            lines.send(format!("line {number}")).await.unwrap();
            let line = format!("line {number}|;|");
            while !all.ends_with(line.as_bytes())
                && !all.ends_with(format!("{line}\r\n").as_bytes())
            {
                let mut some = [0; 1024];
                let count = theirs.read(&mut some).await.unwrap();
                assert!(count > 0, "ended before {line}");
                all.extend_from_slice(some.get(..count).unwrap());
            }
        }
        assert!(!serving.is_finished());
        drop(theirs);
        // The peer is gone: nobody is left to tell.
        lines.closed().await;
        serving.await.unwrap();
        assert_eq!(shared.stats.timed_out.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_answer_that_nobody_takes_ends() {
    for (get, seconds) in [(http1_get(DEBUG), 60), (http2_get(DEBUG, 100), 120)] {
        let (shared, lines) = debugged();
        let (ours, mut theirs) = tokio::io::duplex(512);
        let serving = tokio::spawn(serve(ours, shared.clone()));
        theirs.write_all(&get).await.unwrap();
        let begin = Instant::now();
        let line = "x".repeat(4096);
        let mut taken = 0;
        while lines.send(line.clone()).await.is_ok() {
            taken += line.len();
        }
        // What waits for the peer is bounded.
        assert!(taken < 2 << 20, "{taken} bytes");
        serving.await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), seconds);
        assert_eq!(shared.stats.timed_out.load(Ordering::Relaxed), 1);
    }
}

fn bearer(token: &str, paths: &[&str]) -> HttpService {
    HttpService {
        tls: None,
        auth: Some(PathAuth {
            options: AuthOptions {
                basic: None,
                bearer_tokens: vec![token.into()],
            },
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            is_for_matching: true,
        }),
    }
}

/// A server on a port of its own, and how it says what it says.
struct Running {
    server: Server,
    port: u16,
}

impl Running {
    async fn start(http: &HttpService) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let clock = SystemClock::shared();
        let server = Server::listen(address, &[], http, &clock).await.unwrap();
        let port = server.address().port();
        let fake = Fake {
            server: server.stats(),
            ..Fake::default()
        };
        tokio::spawn(server.clone().serve(fake::web(fake)));
        Self { server, port }
    }

    /// The status curl gets.
    async fn status(&self, scheme: &str, path: &str, token: &str) -> String {
        let url = format!("{scheme}://127.0.0.1:{}{path}", self.port);
        let mut command = Command::new("curl");
        let authorization = format!("Authorization: Bearer {token}");
        command.args([
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--path-as-is",
        ]);
        command.args(["-H", &authorization, "--max-time", "30", &url]);
        let run = tokio::task::spawn_blocking(move || command.output().expect("curl is installed"));
        String::from_utf8(run.await.unwrap().stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_needs_credentials_needs_them_however_it_is_written() {
    let http = bearer("token", &["/api/v0/web/components/prometheus"]);
    let running = Running::start(&http).await;
    for (path, without, with) in [
        ("/api/v0/web/components/prometheus.x", "401", "404"),
        ("/api/v0/web/components/%70rometheus.x", "401", "404"),
        ("/api/v0/web/%63omponents/prometheus.x", "401", "404"),
        ("/api/v0/web/components", "200", "200"),
        ("/metrics", "200", "200"),
    ] {
        assert_eq!(
            running.status("http", path, "other").await,
            without,
            "{path}"
        );
        assert_eq!(running.status("http", path, "token").await, with, "{path}");
    }
}

fn encrypted(dir: &std::path::Path) -> HttpService {
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        PemSource::File(path)
    };
    let cert = file("cert", pair.cert.pem());
    let key = file("key", pair.signing_key.serialize_pem());
    HttpService {
        tls: Some(TlsOptions::new(cert, key)),
        auth: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_ask_and_how_changes_while_it_runs() {
    let running = Running::start(&HttpService::default()).await;
    let status = async |scheme: &str, token: &str| running.status(scheme, "/metrics", token).await;
    assert_eq!(status("http", "").await, "200");

    running.server.reconfigure(&bearer("one", &[])).unwrap();
    assert_eq!(status("http", "").await, "401");
    assert_eq!(status("http", "one").await, "200");
    running.server.reconfigure(&bearer("two", &[])).unwrap();
    assert_eq!(status("http", "one").await, "401");
    assert_eq!(status("http", "two").await, "200");

    // What cannot be used changes nothing.
    let missing = || PemSource::File("/nowhere".into());
    let broken = HttpService {
        tls: Some(TlsOptions::new(missing(), missing())),
        auth: None,
    };
    let error = running.server.reconfigure(&broken).unwrap_err().to_string();
    assert!(error.contains("cannot secure the own address"), "{error}");
    let error = running.server.reconfigure(&bearer("", &[])).unwrap_err();
    assert!(error.to_string().contains("an empty one"), "{error}");
    assert_eq!(status("http", "").await, "401");
    assert_eq!(status("http", "two").await, "200");

    let dir = tempfile::tempdir().unwrap();
    let encrypted = encrypted(dir.path());
    running.server.reconfigure(&encrypted).unwrap();
    assert_eq!(status("http", "").await, "000", "in clear");
    assert_eq!(status("https", "").await, "200");
    running.server.reconfigure(&HttpService::default()).unwrap();
    assert_eq!(status("https", "").await, "000");
    assert_eq!(status("http", "").await, "200");
}

#[tokio::test(start_paused = true)]
async fn a_connection_from_before_a_change_ends_soon() {
    let change = |shared: &Shared| {
        let clock = SystemClock::shared();
        let secured = Secured::new(&bearer("x", &[]), &clock, &shared.stats.secure).unwrap();
        shared.secured.send_replace(Arc::new(secured));
    };
    // One that waits for its next request.
    let idle = shared();
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(serve(ours, idle.clone()));
    theirs.write_all(&http1_get("/-/healthy")).await.unwrap();
    let mut head = [0; 15];
    theirs.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let begin = Instant::now();
    change(&idle);
    serving.await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 0);

    // One with an answer that does not end by itself.
    let (shared, lines) = debugged();
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(serve(ours, shared.clone()));
    theirs.write_all(&http1_get(DEBUG)).await.unwrap();
    lines.send("before".to_owned()).await.unwrap();
    let mut some = [0; 15];
    theirs.read_exact(&mut some).await.unwrap();
    let begin = Instant::now();
    change(&shared);
    serving.await.unwrap();
    assert_eq!(begin.elapsed(), ANSWER_TIMEOUT);
    assert!(lines.is_closed());
}
