//! Turns the HTTP client arguments of a component into requests that carry them out.
//!
//! | file | turns |
//! |---|---|
//! | `options` | arguments into values known to be good |
//! | `secret` | a secret or its file into its present text |
//! | `tls` | a `tls_config` and its files into the settings of connections |
//! | `proxy` | a url into the proxy on the way to it |
//! | `dns` | a host name into addresses, another one first each time |
//! | `connector` | all of these into a client, and changed certificates into another one |
//! | `auth` | credentials into headers (`oauth2`: tokens, `sigv4`: signatures) |
//! | `client` | a body into an answer, over redirects and a renewed token |
//!
//! # Invariants
//! - What is secret is marked sensitive, and nothing sensitive goes to another origin than the one
//!   configured.
//! - No error, log line or `Debug` text holds a secret, nor a url of the configuration.

mod auth;
mod client;
mod connector;
mod dns;
mod oauth2;
mod options;
mod proxy;
mod secret;
mod sigv4;
mod tls;

pub(crate) use client::{HttpClient, Setup};
pub use options::{Auth, HttpOptions, InvalidOption, OAuth2Options, SigV4Options};
pub use proxy::ProxyOptions;
pub use secret::{Secret, SecretSource};
pub use tls::{TlsOptions, TlsVersion, client_tls};

/// An error with its causes: the outermost alone only says that sending failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    crate::report::excerpt(text.as_bytes())
}

/// A variable of the process, as the parts that look for credentials and proxies ask for it.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod clock {
    //! Turns a number into the time.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// A clock that stands still until told; both times are the milliseconds given.
    #[derive(Debug, Default)]
    pub(super) struct ManualClock(AtomicU64);

    impl ManualClock {
        pub(super) fn shared() -> (Arc<Self>, wal::SharedClock) {
            let clock = Arc::new(Self::default());
            (Arc::clone(&clock), clock)
        }

        pub(super) fn set_ms(&self, ms: u64) {
            self.0.store(ms, Ordering::Relaxed);
        }
    }

    impl wal::Clock for ManualClock {
        fn unix_ms(&self) -> i64 {
            i64::try_from(self.0.load(Ordering::Relaxed)).unwrap()
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }
}
