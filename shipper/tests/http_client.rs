//! From a real log to TLS servers, token servers, proxies and redirects.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{LONG, Log, options, until};
use crate::servers::{Answer, Authority, Proxy, Seen, Server, Tls};
use shipper::{
    Auth, Endpoint, EndpointHandle, EndpointOptions, OAuth2Options, SecretSource, SigV4Options,
    Stopped, TlsOptions, TlsVersion,
};

fn text(secret: &str) -> SecretSource {
    SecretSource::Text(secret.into())
}

fn file(path: &Path) -> SecretSource {
    SecretSource::File(path.into())
}

/// One shard, so that attempts come one after the other.
fn endpoint(name: &str, url: &str) -> EndpointOptions {
    let mut options = options(name, url);
    options.queue.max_shards = 1;
    options
}

fn trusting(authority: &Authority) -> TlsOptions {
    TlsOptions {
        ca: Some(text(&authority.pem())),
        ..TlsOptions::default()
    }
}

/// Ships one sample until it has been tried and retried, and stops.
async fn is_retried(log: &Log, options: EndpointOptions) {
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    until(|| stats.snapshot().retried.total() > 0).await;
    assert!(matches!(
        endpoint.stop(Duration::ZERO).await,
        Stopped::GaveUp { .. }
    ));
    assert_eq!(stats.snapshot().sent.total(), 0);
}

/// Ships one sample until it has been acked.
async fn is_delivered(log: &Log, options: EndpointOptions) {
    let name = options.name.clone();
    let endpoint = log.ship(options);
    until(|| log.is_acked(&name)).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
}

async fn log_of_one(dir: &Path) -> Log {
    let mut log = Log::open(dir);
    let series = log.series(1);
    log.write(&series, 0..1).await;
    log
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = Tls::new(&authority, "127.0.0.1").asks_for(&clients);
    let server = Server::start(Some(tls), |_, _| Answer::status(204)).await;
    let mut without = endpoint("without", &server.url());
    without.http.tls = trusting(&authority);
    is_retried(&log, without.clone()).await;
    let mut stranger = without.clone();
    stranger.name = "stranger".into();
    let (cert, key) = authority.issue("client");
    (stranger.http.tls.cert, stranger.http.tls.key) = (Some(text(&cert)), Some(text(&key)));
    is_retried(&log, stranger).await;
    assert!(server.seen().is_empty());
    let mut with = without;
    with.name = "with".into();
    let (cert, key) = clients.issue("client");
    let key_file = dir.path().join("client.key");
    std::fs::write(&key_file, key).unwrap();
    (with.http.tls.cert, with.http.tls.key) = (Some(text(&cert)), Some(file(&key_file)));
    is_delivered(&log, with).await;
    assert_eq!(server.seen().len(), 1);
    log.close();
}

#[tokio::test]
async fn a_replaced_ca_file_is_used_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let authority = Authority::new();
    let tls = Tls::new(&authority, "127.0.0.1");
    let server = Server::start(Some(tls), |_, _| Answer::status(204)).await;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, Authority::new().pem()).unwrap();
    let mut options = endpoint("a", &server.url());
    options.http.tls.ca = Some(file(&ca));
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    until(|| stats.snapshot().retried.total() > 0).await;
    assert!(server.seen().is_empty());
    std::fs::write(&ca, "neither the old one nor a new one").unwrap();
    let retried = stats.snapshot().retried.total();
    until(|| stats.snapshot().retried.total() > retried).await;
    std::fs::write(&ca, authority.pem()).unwrap();
    until(|| log.is_acked("a")).await;
    assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
    log.close();
}

#[tokio::test]
async fn the_certificate_s_name_is_the_one_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let authority = Authority::new();
    let tls = Tls::new(&authority, "metrics.example");
    let server = Server::start(Some(tls), |_, _| Answer::status(204)).await;
    let named = |name: &str, server_name: &str| {
        let mut options = endpoint(name, &server.url());
        options.http.tls = trusting(&authority);
        options.http.tls.server_name = server_name.into();
        options
    };
    is_retried(&log, named("url", "")).await;
    is_retried(&log, named("other", "other.example")).await;
    is_delivered(&log, named("right", "metrics.example")).await;
    let mut untrusted = named("untrusted", "metrics.example");
    untrusted.http.tls.ca = Some(text(&Authority::new().pem()));
    is_retried(&log, untrusted).await;
    let mut any = endpoint("any", &server.url());
    any.http.tls.insecure_skip_verify = true;
    is_delivered(&log, any).await;
    log.close();
}

#[tokio::test]
async fn an_older_version_than_the_least_is_not_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let authority = Authority::new();
    let tls = Tls::new(&authority, "127.0.0.1").only_tls12();
    let server = Server::start(Some(tls), |_, _| Answer::status(204)).await;
    let least = |name: &str, version| {
        let mut options = endpoint(name, &server.url());
        options.http.tls = trusting(&authority);
        options.http.tls.min_version = version;
        options
    };
    is_retried(&log, least("13", TlsVersion::Tls13)).await;
    is_delivered(&log, least("12", TlsVersion::Tls12)).await;
    is_delivered(&log, least("10", TlsVersion::Tls10)).await;
    log.close();
}

#[tokio::test]
async fn http2_is_spoken_if_enabled() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let authority = Authority::new();
    let tls = Tls::new(&authority, "127.0.0.1");
    let server = Server::start(Some(tls), |_, _| Answer::status(204)).await;
    for (name, enable_http2, version) in [("one", false, "HTTP/1.1"), ("two", true, "HTTP/2.0")] {
        let mut options = endpoint(name, &server.url());
        options.http.tls = trusting(&authority);
        options.http.enable_http2 = enable_http2;
        is_delivered(&log, options).await;
        assert_eq!(server.seen().last().unwrap().version, version);
    }
    log.close();
}

fn oauth2(token_server: &Server) -> OAuth2Options {
    OAuth2Options {
        client_id: "id".into(),
        client_secret: text("s:cret"),
        scopes: vec!["write".into(), "read".into()],
        token_url: token_server.url().as_str().into(),
        ..OAuth2Options::default()
    }
}

/// Hands out `token-1`, `token-2` and so on.
fn issue(n: usize, expires_in: &str) -> Answer {
    let body = format!(
        "{{\"access_token\": \"token-{}\", \"expires_in\": {expires_in}}}",
        n + 1
    );
    Answer::status(200).with_body(body)
}

#[tokio::test]
async fn a_token_comes_from_a_server_with_its_own_ca_that_takes_the_client_from_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let authority = Authority::new();
    let tls = Tls::new(&authority, "127.0.0.1");
    let token_server = Server::start(Some(tls), |n, seen| match n {
        0 => Answer::status(503),
        _ if seen.header("authorization").is_some() => Answer::status(401),
        _ => issue(0, "3600"),
    })
    .await;
    let backend = Server::start(None, |_, _| Answer::status(204)).await;
    let mut options = endpoint("a", &backend.url());
    let mut oauth2 = oauth2(&token_server);
    oauth2.tls = trusting(&authority);
    oauth2
        .endpoint_params
        .insert("audience".into(), "a&b".into());
    options.http.auth = Auth::OAuth2(Box::new(oauth2));
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    until(|| log.is_acked("a")).await;
    endpoint.stop(LONG).await;
    assert_eq!(stats.snapshot().retried.total(), 1, "for the 503");
    assert_eq!(
        backend.seen()[0].header("authorization"),
        Some("Bearer token-1")
    );
    let asked = token_server.seen();
    assert_eq!(asked.len(), 3);
    assert_eq!(
        asked[0].header("authorization"),
        Some("Basic aWQ6cyUzQWNyZXQ=")
    );
    assert_eq!(
        asked[0].text(),
        "grant_type=client_credentials&scope=write+read&audience=a%26b"
    );
    assert_eq!(
        asked[2].text(),
        "grant_type=client_credentials&scope=write+read&client_id=id&client_secret=s%3Acret\
         &audience=a%26b"
    );
    log.close();
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_per_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of_one(dir.path()).await;
    let token_server = Server::start(None, |n, _| issue(n, "3600")).await;
    let backend = Server::start(None, |_, seen| match seen.header("authorization") {
        Some("Bearer token-2") => Answer::status(204),
        _ => Answer::status(401),
    })
    .await;
    let mut options = endpoint("a", &backend.url());
    options.http.auth = Auth::OAuth2(Box::new(oauth2(&token_server)));
    is_delivered(&log, options).await;
    assert_eq!((token_server.seen().len(), backend.seen().len()), (2, 2));
    assert_eq!(backend.seen()[1].header("retry-attempt"), None);

    let hostile = Server::start(None, |_, _| Answer::status(401)).await;
    let mut options = endpoint("b", &hostile.url());
    options.http.auth = Auth::OAuth2(Box::new(oauth2(&token_server)));
    let endpoint = log.ship(options);
    let stats = endpoint.stats();
    let series = log.series(1);
    log.write(&series, 1..2).await;
    until(|| stats.snapshot().retried.total() > 0).await;
    endpoint.stop(Duration::ZERO).await;
    assert!(stats.snapshot().failed.is_empty());
    assert!(hostile.seen().len() >= 2, "each attempt asks twice");
    log.close();
}

/// The system's time and what a test adds to it.
#[derive(Debug)]
struct AheadClock(wal::SharedClock, AtomicU64);

impl wal::Clock for AheadClock {
    fn unix_ms(&self) -> i64 {
        self.0.unix_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + Duration::from_secs(self.1.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_token_is_used_until_shortly_before_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of_one(dir.path()).await;
    let token_server = Server::start(None, |n, _| issue(n, "3600")).await;
    let backend = Server::start(None, |_, _| Answer::status(204)).await;
    let mut options = endpoint("a", &backend.url());
    options.queue.batch_send_deadline = Duration::from_millis(10);
    options.http.auth = Auth::OAuth2(Box::new(oauth2(&token_server)));
    let clock = Arc::new(AheadClock(wal::SystemClock::shared(), AtomicU64::new(0)));
    let shared: wal::SharedClock = Arc::<AheadClock>::clone(&clock);
    let runtime = tokio::runtime::Handle::current();
    let endpoint = Endpoint::start(log.store.clone(), options, shared, &runtime).unwrap();
    let series = log.series(1);
    for (sent, ahead, token) in [(1, 0, 1), (2, 3000, 1), (3, 3595, 2)] {
        clock.1.store(ahead, Ordering::Relaxed);
        if sent > 1 {
            log.write(&series, sent..sent + 1).await;
        }
        until(|| log.is_acked("a")).await;
        let seen = backend.seen();
        let expected = format!("Bearer token-{token}");
        assert_eq!(
            seen.last().unwrap().header("authorization"),
            Some(&*expected)
        );
    }
    endpoint.stop(LONG).await;
    log.close();
}

#[tokio::test]
async fn a_plain_request_goes_through_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let backend = Server::start(None, |_, _| Answer::status(204)).await;
    let proxy = Proxy::start(backend.addr).await;
    let mut options = endpoint("a", "http://backend.invalid/write");
    options.http.proxy.proxy_url = Some(proxy.url("user:pass@").as_str().into());
    is_delivered(&log, options).await;
    let head = proxy.heads().remove(0);
    assert!(
        head.starts_with("POST http://backend.invalid/write HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: Basic dXNlcjpwYXNz\r\n"),
        "{head}"
    );
    let mut direct = endpoint("b", &backend.url());
    direct.http.proxy.proxy_url = Some(proxy.url("").as_str().into());
    direct.http.proxy.no_proxy = "127.0.0.0/8".into();
    is_delivered(&log, direct).await;
    assert_eq!((proxy.heads().len(), backend.seen().len()), (1, 2));
    log.close();
}

#[tokio::test]
async fn a_request_over_tls_goes_through_a_tunnel_of_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let authority = Authority::new();
    let tls = Tls::new(&authority, "backend.invalid");
    let backend = Server::start(Some(tls), |_, _| Answer::status(204)).await;
    let proxy = Proxy::start(backend.addr).await;
    let mut options = endpoint("a", "https://backend.invalid/write");
    options.http.tls = trusting(&authority);
    options.http.auth = Auth::bearer(text("t0ken"));
    options.http.proxy.proxy_url = Some(proxy.url("user:pass@").as_str().into());
    let headers = &mut options.http.proxy.connect_headers;
    headers.insert("X-Team".into(), vec!["metrics".into()]);
    is_delivered(&log, options).await;
    let head = proxy.heads().remove(0).to_lowercase();
    assert!(
        head.starts_with("connect backend.invalid:443 http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: basic dxnlcjpwyxnz\r\n"),
        "{head}"
    );
    assert!(head.contains("x-team: metrics\r\n"), "{head}");
    assert!(!head.contains("t0ken"), "{head}");
    let seen = backend.seen().remove(0);
    assert_eq!(seen.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(seen.header("x-team"), None);
    assert_eq!(seen.header("proxy-authorization"), None);
    log.close();
}

fn redirecting(to: String) -> impl Fn(usize, &Seen) -> Answer + Send + Sync {
    move |_, seen| match &*seen.path {
        "/write" => Answer::status(308).with_header("location", &to),
        _ => Answer::status(204),
    }
}

#[tokio::test]
async fn credentials_follow_a_redirect_only_within_their_origin() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let other = Server::start(None, |_, _| Answer::status(204)).await;
    let away = Server::start(None, redirecting(format!("http://x:y@{}/new", other.addr))).await;
    let within = Server::start(None, redirecting("/new".into())).await;
    let sigv4 = SigV4Options {
        region: "eu-west-1".into(),
        access_key: "AKID".into(),
        secret_key: "s3cret".into(),
        ..SigV4Options::default()
    };
    let forms = [Auth::bearer(text("t0ken")), Auth::SigV4(sigv4)];
    for (n, auth) in forms.into_iter().enumerate() {
        let options = |name: &str, server: &Server| {
            let mut options = endpoint(&format!("{name}-{n}"), &server.url());
            options.http.auth = auth.clone();
            options.headers.insert("X-Api-Key".into(), "k3y".into());
            options
                .http
                .headers
                .insert("X-Other".into(), vec!["k3y".into()]);
            options
        };
        is_delivered(&log, options("within", &within)).await;
        is_delivered(&log, options("away", &away)).await;
        let seen = within.seen();
        let [first, second] = &seen[seen.len() - 2..] else {
            panic!("a request and its redirect");
        };
        for name in ["authorization", "x-api-key", "x-other"] {
            assert!(
                first.header(name).is_some() && second.header(name).is_some(),
                "{name}"
            );
            assert!(other.seen()[n].header(name).is_none(), "{name}");
        }
        // another path has another signature, another request the same token
        let is_same = first.header("authorization") == second.header("authorization");
        assert_eq!(is_same, matches!(auth, Auth::Authorization { .. }));
        assert_eq!(other.seen()[n].header("content-encoding"), Some("snappy"));
        assert!(!other.seen()[n].body.is_empty());
    }
    log.close();
}

/// An endpoint with every secret there is, at a server that answers with errors.
fn secretive(backend: &Server, proxy: &Proxy, auth: Auth, n: usize) -> EndpointOptions {
    let url = backend.url().replace("//", "//user:hunter2@");
    let mut options = endpoint(&format!("secretive-{n}"), &url);
    options.headers.insert("X-Key".into(), "hunter2".into());
    options
        .http
        .headers
        .insert("X-Key-2".into(), vec!["hunter2".into()]);
    options.http.proxy.proxy_url = Some(proxy.url("u:hunter2@").as_str().into());
    options
        .http
        .proxy
        .connect_headers
        .insert("X".into(), vec!["hunter2".into()]);
    options.http.auth = auth;
    options
}

fn forms(token_server: &Server, dir: &Path) -> Vec<Auth> {
    let secret_file = dir.join("secret");
    std::fs::write(&secret_file, "hunter2").unwrap();
    let mut oauth2 = oauth2(token_server);
    oauth2.client_secret = text("hunter2");
    oauth2
        .endpoint_params
        .insert("key".into(), "hunter2".into());
    vec![
        Auth::None,
        Auth::bearer(file(&secret_file)),
        Auth::bearer(text("hunter2\n")),
        Auth::Basic {
            username: "u".into(),
            password: text("hunter2"),
        },
        Auth::OAuth2(Box::new(oauth2)),
        Auth::SigV4(SigV4Options {
            region: "r".into(),
            access_key: "AKID".into(),
            secret_key: "hunter2".into(),
            ..SigV4Options::default()
        }),
    ]
}

#[tokio::test]
async fn nothing_that_is_logged_holds_a_secret() {
    let logged = crate::servers::Logged::default();
    let _guard = logged.capture();
    let dir = tempfile::tempdir().unwrap();
    let log = log_of_one(dir.path()).await;
    let token_server = Server::start(None, |n, _| match n {
        1 => Answer::status(500).with_body("{\"error\": \"Not hunter2\"}".into()),
        _ => Answer::status(200).with_body("{\"access_token\": \"hunter2\"}".into()),
    })
    .await;
    let backend = Server::start(None, |n, _| Answer::status([500, 401][n % 2])).await;
    let proxy = Proxy::start(backend.addr).await;
    for (n, auth) in forms(&token_server, dir.path()).into_iter().enumerate() {
        let options = secretive(&backend, &proxy, auth, n);
        logged.write(&format!("{options:?}"));
        let endpoint: EndpointHandle = log.ship(options);
        logged.write(&format!("{endpoint:?}"));
        let stats = endpoint.stats();
        until(|| {
            let numbers = stats.snapshot();
            numbers.retried.total() > 0 || !numbers.failed.is_empty()
        })
        .await;
        endpoint.stop(Duration::ZERO).await;
        logged.write(&format!("{:?}", stats.snapshot()));
    }
    let mut broken = secretive(&backend, &proxy, Auth::None, 99);
    broken.http.tls.key = Some(text("hunter2"));
    broken.http.tls.cert = Some(text("hunter2"));
    let runtime = tokio::runtime::Handle::current();
    let clock = wal::SystemClock::shared();
    let error = Endpoint::start(log.store.clone(), broken, clock, &runtime).unwrap_err();
    logged.write(&error.to_string());
    let text = logged.text();
    assert!(
        text.contains("secretive-5") && text.contains("client certificate"),
        "{text}"
    );
    // as it is, and in base64 behind any number of other bytes
    for secret in ["hunter2", "aHVudGVyM", "odW50ZXIy", "1bnRlcjI"] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    log.close();
}
