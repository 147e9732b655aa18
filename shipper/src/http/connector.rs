//! Turns TLS, proxy and address options into a client, and changed certificates into another one.
//!
//! # Failure
//! - At the start, files that cannot be used are an error. Later the client of the old files stays
//!   in use, and what is wrong with the new ones is logged once.
//!
//! # Limits
//! - Files are read at most once per [`CHECK_EVERY`]. Requests under way keep their client; new
//!   ones have new connections.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Client, Proxy, redirect};
use wal::SharedClock;

use super::chain;
use super::dns::RoundRobin;
use super::proxy::{ProxyOptions, ProxyRules};
use super::tls::{Material, TlsOptions, client_config};

const CHECK_EVERY: Duration = Duration::from_secs(2);
const USER_AGENT: &str = concat!("Penstock/", env!("CARGO_PKG_VERSION"));

/// What a client is made of.
pub(super) struct Connections {
    pub(super) tls: TlsOptions,
    pub(super) proxy: ProxyOptions,
    pub(super) http2: bool,
    pub(super) round_robin_dns: bool,
    /// Idle connections kept.
    pub(super) idle_max: usize,
    /// Every connection is made to this socket of the machine.
    pub(super) unix_socket: Option<PathBuf>,
}

/// A client that follows its certificate files.
pub(super) struct Connector {
    connections: Connections,
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    client: Client,
    material: Material,
    checked_at: Duration,
    /// What was last wrong with the files.
    complaint: Option<String>,
}

impl Connector {
    pub(super) fn new(connections: Connections, clock: SharedClock) -> Result<Self, String> {
        let material = Material::read(&connections.tls)?;
        let state = Mutex::new(State {
            client: build(&connections, &material)?,
            material,
            checked_at: clock.monotonic(),
            complaint: None,
        });
        Ok(Self {
            connections,
            clock,
            state,
        })
    }

    /// The client to be used now.
    pub(super) fn client(&self) -> Client {
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
        if self.connections.tls.has_files() && now.saturating_sub(state.checked_at) >= CHECK_EVERY {
            state.checked_at = now;
            self.follow_files(&mut state);
        }
        state.client.clone()
    }

    fn follow_files(&self, state: &mut State) {
        let changed = Material::read(&self.connections.tls).and_then(|material| {
            if material == state.material {
                return Ok(None);
            }
            let client = build(&self.connections, &material)?;
            Ok(Some((client, material)))
        });
        match changed {
            Ok(None) => state.complaint = None,
            Ok(Some((client, material))) => {
                tracing::info!("certificates or keys have changed and are used from now on");
                state.client = client;
                state.material = material;
                state.complaint = None;
            }
            Err(problem) if state.complaint.as_ref() != Some(&problem) => {
                tracing::error!(
                    problem,
                    "the certificates in use stay: new ones are of no use"
                );
                state.complaint = Some(problem);
            }
            Err(_) => {}
        }
    }
}

/// Redirects are followed by our own client, which knows what may go where, and nothing is repeated
/// behind its back.
fn build(connections: &Connections, material: &Material) -> Result<Client, String> {
    let tls = client_config(&connections.tls, material, connections.http2)?;
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .pool_max_idle_per_host(connections.idle_max)
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy();
    if !connections.http2 {
        builder = builder.http1_only();
    }
    if connections.round_robin_dns {
        builder = builder.dns_resolver(RoundRobin::default());
    }
    if let Some(path) = &connections.unix_socket {
        builder = builder.unix_socket(path.as_path());
    }
    let invalid =
        |invalid: super::InvalidOption| format!("{}: {}", invalid.option, invalid.problem);
    let rules = ProxyRules::new(&connections.proxy, super::environment).map_err(invalid)?;
    if !rules.is_empty() {
        let headers = connections.proxy.headers().map_err(invalid)?;
        builder = builder.proxy(Proxy::custom(move |url| rules.proxy_for(url)).headers(headers));
    }
    builder.build().map_err(|error| chain(&error.without_url()))
}

#[cfg(test)]
mod tests {
    use super::super::clock::ManualClock;
    use super::super::secret::SecretSource;
    use super::*;

    fn ca() -> String {
        let pair = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        pair.cert.pem()
    }

    fn connections(ca: &std::path::Path) -> Connections {
        Connections {
            tls: TlsOptions {
                ca: Some(SecretSource::File(ca.into())),
                ..TlsOptions::default()
            },
            proxy: ProxyOptions::default(),
            http2: false,
            round_robin_dns: false,
            idle_max: 1,
            unix_socket: None,
        }
    }

    #[test]
    fn changed_files_are_used_when_they_are_good_and_looked_at_now_and_then() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        let (time, clock) = ManualClock::shared();
        write(&ca());
        let connector = Connector::new(connections(file.path()), clock).unwrap();
        let material = || {
            connector.client();
            connector.state.lock().material.clone()
        };
        let complaint = || connector.state.lock().complaint.clone();
        let first = material();
        write("broken");
        time.set_ms(1999);
        assert!(material() == first && complaint().is_none());
        time.set_ms(2000);
        assert!(material() == first);
        assert!(complaint().unwrap().contains("the ca holds"));
        write(&ca());
        time.set_ms(4000);
        assert!(material() != first && complaint().is_none());
    }

    #[test]
    fn a_start_without_the_files_fails() {
        let (_, clock) = ManualClock::shared();
        let missing = connections("/nonexistent/ca.pem".as_ref());
        let problem = Connector::new(missing, clock).err().unwrap();
        assert!(problem.contains("/nonexistent/ca.pem"), "{problem}");
    }
}
