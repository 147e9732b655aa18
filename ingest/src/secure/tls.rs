//! Turns a socket into an encrypted one, and changed certificate files into other settings.
//!
//! # Failure
//! - Changed files that cannot be used are logged and counted once; the settings from before stay
//!   and the files are looked at again.
//!
//! # Limits
//! - Files are read at most once per [`REREAD_EVERY`], and only when somebody connects; one read
//!   at a time, whatever the file system does.
//!
//! # Threads
//! - Shared by all shards. Files are read on a thread for blocking work; the lock is held for
//!   moments.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wal::SharedClock;

use super::config::{Material, server_config};
use super::options::{InvalidTls, TlsOptions};
use super::stats::{Handshake, Reload, SecureStats};

const REREAD_EVERY: Duration = Duration::from_secs(2);

/// The TLS of one listener.
pub struct Tls {
    /// The listener, for the log.
    name: String,
    options: TlsOptions,
    clock: SharedClock,
    http2: bool,
    stats: Arc<SecureStats>,
    present: Mutex<Present>,
}

struct Present {
    config: Arc<ServerConfig>,
    /// What the files held when they were last read, usable or not.
    material: Result<Material, InvalidTls>,
    read_at: Duration,
    is_reading: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files; HTTP/2 is offered if `http2`.
    ///
    /// # Errors
    ///
    /// What cannot be used, and why.
    pub fn new(
        name: impl Into<String>,
        options: TlsOptions,
        clock: SharedClock,
        http2: bool,
        stats: Arc<SecureStats>,
    ) -> Result<Self, InvalidTls> {
        let read_at = clock.monotonic();
        let material = Material::read(&options)?;
        let config = Arc::new(server_config(&options, &material, &clock, http2)?);
        Ok(Self {
            name: name.into(),
            options,
            clock,
            http2,
            stats,
            present: Mutex::new(Present {
                config,
                material: Ok(material),
                read_at,
                is_reading: false,
            }),
        })
    }

    /// Shakes hands within `time`; nothing if that failed, which is counted.
    pub async fn accept<S>(self: &Arc<Self>, stream: S, time: Duration) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = async {
            let acceptor = TlsAcceptor::from(self.settings().await);
            acceptor.accept(stream).await
        };
        let (ended, how) = match tokio::time::timeout(time, accepting).await {
            Ok(Ok(stream)) => (Some(stream), Handshake::Done),
            Ok(Err(error)) => {
                tracing::debug!(listener = self.name, %error, "a TLS handshake failed");
                (None, Handshake::of(&error))
            }
            Err(_) => (None, Handshake::TimedOut),
        };
        self.stats.shook_hands(how);
        ended
    }

    /// The settings to use now, after a look at the files if it is time.
    async fn settings(self: &Arc<Self>) -> Arc<ServerConfig> {
        if self.begin_reading() {
            let this = Arc::clone(self);
            let read = tokio::task::spawn_blocking(move || this.read_again());
            if let Err(error) = read.await {
                tracing::error!(listener = self.name, %error, "cannot look at certificate files");
            }
        }
        Arc::clone(&self.present.lock().config)
    }

    /// Whether it is time, and nobody else is at it.
    fn begin_reading(&self) -> bool {
        if !self.options.has_files() {
            return false;
        }
        let now = self.clock.monotonic();
        let mut present = self.present.lock();
        if present.is_reading || now.saturating_sub(present.read_at) < REREAD_EVERY {
            return false;
        }
        present.is_reading = true;
        true
    }

    fn read_again(&self) {
        let material = Material::read(&self.options);
        let is_same = self.present.lock().material == material;
        let config = if is_same {
            None
        } else {
            let built = material.clone().and_then(|material| {
                server_config(&self.options, &material, &self.clock, self.http2)
            });
            self.report(&built);
            built.ok()
        };
        let mut present = self.present.lock();
        present.material = material;
        present.read_at = self.clock.monotonic();
        present.is_reading = false;
        if let Some(config) = config {
            present.config = Arc::new(config);
        }
    }

    fn report(&self, built: &Result<ServerConfig, InvalidTls>) {
        match built {
            Ok(_) => {
                self.stats.reloaded(Reload::Done);
                tracing::info!(listener = self.name, "changed certificates are in use");
            }
            Err(problem) => {
                self.stats.reloaded(Reload::Failed);
                tracing::warn!(
                    listener = self.name,
                    %problem,
                    "changed certificates cannot be used, those from before stay"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::PemSource;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Stands still until told.
    #[derive(Debug, Default)]
    struct ManualClock(AtomicU64);

    impl wal::Clock for ManualClock {
        fn unix_ms(&self) -> i64 {
            1_700_000_000_000
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    /// Writes a new pair; its certificate.
    fn renew(dir: &Path) -> String {
        let pair = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        std::fs::write(dir.join("cert"), pair.cert.pem()).unwrap();
        std::fs::write(dir.join("key"), pair.signing_key.serialize_pem()).unwrap();
        pair.cert.pem()
    }

    /// Whether a client that trusts this certificate alone gets through.
    async fn shows(tls: &Arc<Tls>, pem: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("h").unwrap();
        let accept = tls.accept(ours, Duration::from_secs(30));
        let (accepted, connected) = tokio::join!(accept, connector.connect(name, theirs));
        assert_eq!(accepted.is_some(), connected.is_ok());
        connected.is_ok()
    }

    #[tokio::test]
    async fn changed_files_are_used_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = renew(dir.path());
        let file = |name: &str| PemSource::File(dir.path().join(name));
        let options = TlsOptions::new(file("cert"), file("key"));
        let clock = Arc::new(ManualClock::default());
        let stats = Arc::new(SecureStats::default());
        let tls = Tls::new("t", options, clock.clone(), false, stats.clone()).unwrap();
        let tls = Arc::new(tls);
        let pass = || clock.0.fetch_add(REREAD_EVERY.as_secs(), Ordering::Relaxed);

        let second = renew(dir.path());
        assert!(shows(&tls, &first).await, "it is not yet time");
        pass();
        assert!(shows(&tls, &second).await);
        assert_eq!(stats.reloads(Reload::Done), 1);

        // Half of a change, and it stays so for a while.
        std::fs::write(dir.path().join("key"), "hunter2").unwrap();
        for _ in 0..3 {
            pass();
            assert!(shows(&tls, &second).await);
        }
        std::fs::remove_file(dir.path().join("cert")).unwrap();
        for _ in 0..3 {
            pass();
            assert!(shows(&tls, &second).await);
        }
        let counted = (stats.reloads(Reload::Done), stats.reloads(Reload::Failed));
        assert_eq!(counted, (1, 2), "each broken state once");

        let third = renew(dir.path());
        pass();
        assert!(!shows(&tls, &second).await);
        assert!(shows(&tls, &third).await);
        assert_eq!(stats.reloads(Reload::Done), 2);
    }
}
