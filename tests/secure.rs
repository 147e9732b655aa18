//! Turns real programs with certificates and passwords, right and wrong, into verdicts on what gets in.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::common::agent::{Agent, config};
use crate::common::backend::{Backend, Kind, assert_same, count};
use crate::common::http::{Client, get, metric};
use crate::common::load::Stream;
use crate::common::scraper::Scraper;
use crate::common::{PATIENCE, eventually};

/// Signs certificates into files of a directory.
pub(crate) struct Authority<'d> {
    dir: &'d Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'d> Authority<'d> {
    /// One whose own certificate is in the file `name`.
    pub(crate) fn new(dir: &'d Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let common_name = rcgen::DnType::CommonName;
        params.distinguished_name.push(common_name, name);
        fs::write(dir.join(name), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub(crate) fn sign(&self, name: &str) {
        self.sign_until(name, 2999);
    }

    fn sign_until(&self, name: &str, year: i32) {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1"].map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.dir.join(format!("{name}.crt")), cert.pem()).unwrap();
        fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

const AUTH: &str = "auth {\n basic {\n username = \"scraper\"\n password = \"hunter2\"\n }\n \
                    bearer_tokens = [\"token\"]\n}\n";

/// A `tls` block with the pair `server` of the directory and more lines.
pub(crate) fn tls(dir: &Path, more: &str) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key, ca) = (path("server.crt"), path("server.key"), path("ca"));
    let more = more.replace("CA", &ca);
    format!("tls {{\n cert_file = {cert:?}\n key_file = {key:?}\n{more}}}\n")
}

pub(crate) const CLIENTS: &str =
    "client_ca_file = \"CA\"\nclient_auth_type = \"RequireAndVerifyClientCert\"\n";

/// A configuration whose receiver has these lines in its `http` block.
fn receiving(port: u16, urls: &[String], http: &str) -> String {
    config(port, urls).replacen("http {\n", &format!("http {{\n{http}"), 1)
}

/// What curl says: the status, the version of HTTP, and the text.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    status: String,
    version: String,
    text: String,
}

/// Runs curl in `dir`; `None` if it got no answer.
fn curl(dir: &Path, arguments: &[&str]) -> Option<Said> {
    let mut command = Command::new("curl");
    command.current_dir(dir).args(arguments);
    command.args([
        "-sS",
        "--max-time",
        "30",
        "-w",
        "\n%{http_code} %{http_version}",
    ]);
    let output = command.output().expect("curl is installed");
    if !output.status.success() {
        return None;
    }
    let all = String::from_utf8(output.stdout).unwrap();
    let (text, end) = all.rsplit_once('\n').unwrap();
    let (status, version) = end.split_once(' ').unwrap();
    let [status, version, text] = [status, version, text].map(ToOwned::to_owned);
    Some(Said {
        status,
        version,
        text,
    })
}

/// Status and version of a request to `url`.
fn answer(dir: &Path, url: &str, arguments: &[&str]) -> Option<(String, String)> {
    let all = [&["--cacert", "ca"], arguments, &[url]].concat();
    curl(dir, &all).map(|said| (said.status, said.version))
}

fn is(status: &str, version: &str) -> Option<(String, String)> {
    Some((status.to_owned(), version.to_owned()))
}

/// A failure may be counted a moment after the client knows.
fn until_handshakes(agent: &Agent, how: &str, count: f64) {
    let name = "penstock_receive_http_tls_handshakes_total";
    eventually(PATIENCE, || {
        let found = agent.metric(name, &[("result", how)]);
        let is_right = found.to_bits() == count.to_bits();
        is_right
            .then_some(())
            .ok_or_else(|| format!("{found} {how}"))
    });
}

#[test]
fn a_receiver_with_certificates_lets_in_who_has_a_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    authority.sign("server");
    authority.sign("client");
    authority.sign_until("expired", 2020);
    Authority::new(dir, "other-ca").sign("stranger");
    let http = tls(dir, CLIENTS) + "http2 {\n enabled = true\n}\n";
    let agent = Agent::start_with(dir, &[], |port| receiving(port, &[], &http));
    let url = format!("https://localhost:{}/api/v1/metrics/write", agent.port);
    let with = |name: &str, more: &[&str]| {
        let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
        let all = [&["--cert", &*cert, "--key", &*key], more].concat();
        answer(dir, &url, &all)
    };
    // What is let in is told that a GET is not what is done here.
    assert_eq!(with("client", &["--http1.1"]), is("405", "1.1"));
    assert_eq!(with("client", &["--http2"]), is("405", "2"));
    assert_eq!(with("client", &["--tls-max", "1.2"]), is("405", "2"));
    until_handshakes(&agent, "done", 3.0);
    assert_eq!(with("stranger", &[]), None);
    assert_eq!(with("expired", &[]), None);
    until_handshakes(&agent, "bad_certificate", 2.0);
    assert_eq!(answer(dir, &url, &[]), None);
    until_handshakes(&agent, "no_certificate", 1.0);
    assert_eq!(with("client", &["--cacert", "other-ca"]), None);
    until_handshakes(&agent, "refused_by_peer", 1.0);
    assert!(Client::new(agent.port).write(&[]).is_err(), "not TLS");
    until_handshakes(&agent, "not_tls", 1.0);
    assert_eq!(with("client", &["--http2"]), is("405", "2"));
}

#[test]
fn a_plain_receiver_speaks_http2_by_prior_knowledge_and_no_tls() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    Authority::new(dir, "ca");
    let http = "http2 {\n enabled = true\n}\n";
    let agent = Agent::start_with(dir, &[], |port| receiving(port, &[], http));
    let url = format!("http://localhost:{}/api/v1/metrics/write", agent.port);
    let with = |arguments: &[&str]| answer(dir, &url, arguments);
    assert_eq!(with(&["--http2-prior-knowledge"]), is("405", "2"));
    assert_eq!(with(&["--http1.1"]), is("405", "1.1"));
    assert_eq!(
        with(&["--http2"]),
        is("405", "1.1"),
        "an upgrade is not taken up"
    );
    let encrypted = url.replace("http:", "https:");
    assert_eq!(answer(dir, &encrypted, &[]), None);
    let broken = || {
        let name = "penstock_receive_http_connections_total";
        agent.metric(name, &[("event", "broken")])
    };
    eventually(PATIENCE, || match broken() {
        1.0 => Ok(()),
        count => Err(format!("{count} broken")),
    });
    Stream::new("only").send(agent.port, 0..1);
}

/// The serial number of the certificate shown on a port.
fn serial(dir: &Path, port: u16) -> String {
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -serial -noout"
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir)
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn a_certificate_is_replaced_while_the_agent_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    authority.sign("server");
    let block = tls(dir, "");
    let agent = Agent::start_with(dir, &[], |port| receiving(port, &[], &block));
    let first = serial(dir, agent.port);
    assert!(first.starts_with("serial="), "{first}");
    authority.sign("server");
    let second = eventually(PATIENCE, || match serial(dir, agent.port) {
        shown if shown == first => Err("it is still the first".to_owned()),
        shown => Ok(shown),
    });
    let reloads = |result: &str| {
        let name = "penstock_receive_http_certificate_reloads_total";
        agent.metric(name, &[("result", result)])
    };
    assert!(reloads("done") >= 1.0);
    let failed = reloads("failed");
    fs::write(dir.join("server.key"), "hunter2").unwrap();
    eventually(PATIENCE, || {
        assert_eq!(serial(dir, agent.port), second);
        let is_seen = reloads("failed") > failed;
        is_seen.then_some(()).ok_or_else(|| "it is seen".to_owned())
    });
    let log = agent.process.log();
    assert!(
        log.contains("cannot be used, those from before stay"),
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
}

/// Several scrapes of everything.
const SAMPLES_MIN: f64 = 10_000.0;

/// Prometheus in agent mode, with a client certificate and a password.
#[test]
fn a_prometheus_sends_everything_over_tls_with_certificate_and_password() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    authority.sign("server");
    authority.sign("client");
    let reference = Backend::start(Kind::Prometheus, dir, "reference");
    let backend = Backend::start(Kind::Prometheus, dir, "backend");
    let http = tls(dir, CLIENTS) + AUTH + "http2 {\n enabled = true\n}\n";
    let urls = [backend.url()];
    let agent = Agent::start_with(dir, &[], |port| receiving(port, &urls, &http));
    let url = agent.url();
    let url = url.replace("http://127.0.0.1", "https://localhost");
    let path = |name: &str| dir.join(name).display().to_string();
    let (ca, cert, key) = (path("ca"), path("client.crt"), path("client.key"));
    let more = format!(
        "    tls_config: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}\n    \
         basic_auth: {{username: scraper, password: hunter2}}\n"
    );
    let scraper = Scraper::start_with(dir, &[(url, &more), (reference.url(), &more)]);
    eventually(PATIENCE, || match scraper.scraped() {
        SAMPLES_MIN.. => Ok(()),
        scraped => Err(format!("{SAMPLES_MIN} samples are scraped, now {scraped}")),
    });
    let scraped = scraper.finish();
    let samples_in = agent.metric("penstock_wal_samples_total", &[]);
    assert_eq!(samples_in, scraped, "each sample is appended once");
    agent.until_delivered(&urls[0]);
    assert_eq!(agent.refused(&urls[0]), 0.0);
    let (expected, found) = (reference.samples(), backend.samples());
    assert!(count(&expected) > 5_000, "only {}", count(&expected));
    assert_same(&expected, &found);
    let name = "penstock_receive_http_tls_handshakes_total";
    assert!(agent.metric(name, &[("result", "done")]) >= 1.0);
}

const PATHS: [&str; 5] = ["/metrics", "/-/ready", "/-/healthy", "/nothing", "/"];

/// Waits on a page that needs no credentials, as the harness looks at it.
fn own(filter: &str, tls: &str) -> impl Fn(u16) -> String {
    let auth = AUTH.trim_end().trim_end_matches('}');
    let block = format!("http {{\n{auth}{filter}\n}}\n{tls}}}\n");
    move |port| config(port, &[]) + &block
}

#[test]
fn the_own_address_asks_for_credentials_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    Authority::new(dir, "ca");
    let filter = "filter {\n paths = [\"/-/ready\"]\n authenticate_matching_paths = false\n}";
    let agent = Agent::start_with(dir, &[], own(filter, ""));
    for path in PATHS {
        let url = format!("http://127.0.0.1:{}{path}", agent.own_port);
        let with = |arguments: &[&str]| answer(dir, &url, arguments).unwrap().0;
        let free = if path == "/-/ready" { "200" } else { "401" };
        let found = match path {
            "/nothing" => "404",
            _ => "200",
        };
        let wrong = ["-u", "scraper:hunter3"];
        assert_eq!(with(&[]), free, "{path}");
        assert_eq!(with(&wrong), free, "{path}");
        assert_eq!(
            with(&["-X", "POST"]),
            if free == "200" { "405" } else { "401" }
        );
        assert_eq!(with(&["-u", "scraper:hunter2"]), found, "{path}");
        assert_eq!(
            with(&["-H", "Authorization: Bearer token"]),
            found,
            "{path}"
        );
        let http2 = answer(
            dir,
            &url,
            &["--http2-prior-knowledge", "-u", "scraper:hunter2"],
        );
        assert_eq!(http2, is(found, "2"), "{path}");
        let http2 = answer(dir, &url, &["--http2-prior-knowledge"]);
        assert_eq!(http2, is(free, "2"), "{path}");
    }
    let reply = get(agent.own_port, "/metrics").unwrap();
    assert!(reply.head.contains("basic realm=") || reply.head.contains("Basic realm="));
    let page = curl(
        dir,
        &[
            "-u",
            "scraper:hunter2",
            &format!("http://127.0.0.1:{}/metrics", agent.own_port),
        ],
    );
    let unauthorized = metric(
        &page.unwrap().text,
        "penstock_http_server_unauthorized_total",
        &[],
    );
    // Four paths, four ways, and the one just above.
    assert_eq!(unauthorized, Some(17.0));
}

#[test]
fn the_own_address_is_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir, "ca");
    authority.sign("server");
    authority.sign("client");
    let block = format!("http {{\n{}}}\n", tls(dir, CLIENTS));
    // Ready is asked for over plain HTTP by others; here it is the first request that gets through.
    let agent = Agent::start_unasked(dir, &[], |port| config(port, &[]) + &block);
    let url = format!("https://localhost:{}/-/ready", agent.own_port);
    let client = ["--cert", "client.crt", "--key", "client.key"];
    let with = |more: &[&str]| answer(dir, &url, &[&client, more].concat());
    eventually(PATIENCE, || {
        let is_ready = with(&["--http1.1"]) == is("200", "1.1");
        is_ready
            .then_some(())
            .ok_or_else(|| "it is ready".to_owned())
    });
    assert_eq!(with(&["--http2"]), is("200", "2"));
    assert_eq!(answer(dir, &url, &[]), None, "no certificate");
    assert!(get(agent.own_port, "/-/ready").is_err(), "no TLS");
    let metrics = format!("https://localhost:{}/metrics", agent.own_port);
    let page = curl(dir, &[&["--cacert", "ca", &metrics], &client[..]].concat()).unwrap();
    for (how, at_least) in [("done", 3.0), ("no_certificate", 1.0), ("not_tls", 1.0)] {
        let name = "penstock_http_server_tls_handshakes_total";
        let found = metric(&page.text, name, &[("result", how)]).unwrap();
        assert!(found >= at_least, "{how}: {found}");
    }
}
