//! Turns the auth argument into the `Authorization` header of one attempt.
//!
//! # Failure
//! - A file that cannot be read fails the attempt, which is then repeated like any other: the
//!   operator can put it right without a restart.
//!
//! # Limits
//! - A file is read at most once per [`REREAD_EVERY`]; sending hundreds of requests per second
//!   does not mean as many reads, and a rotated secret is used within that time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::RequestBuilder;
use wal::SharedClock;

use crate::options::{Auth, Password, Secret};

const REREAD_EVERY: Duration = Duration::from_secs(1);

/// Adds credentials to requests.
pub(crate) struct Credentials {
    auth: Auth,
    file: SecretFile,
}

impl Credentials {
    pub(crate) fn new(auth: Auth, clock: SharedClock) -> Self {
        Self {
            auth,
            file: SecretFile {
                clock,
                last: Mutex::new(None),
            },
        }
    }

    /// The request with its `Authorization` header, or what keeps it from having one.
    pub(crate) fn apply(&self, request: RequestBuilder) -> Result<RequestBuilder, String> {
        Ok(match &self.auth {
            Auth::None => request,
            Auth::Bearer(token) => request.bearer_auth(token.expose()),
            Auth::BearerFile(path) => request.bearer_auth(self.file.read(path)?.expose()),
            Auth::Basic { username, password } => match password {
                Password::Text(password) => request.basic_auth(username, Some(password.expose())),
                Password::File(path) => {
                    request.basic_auth(username, Some(self.file.read(path)?.expose()))
                }
            },
        })
    }
}

/// The last content of a file and when it was read.
struct SecretFile {
    clock: SharedClock,
    last: Mutex<Option<(Duration, Secret)>>,
}

impl SecretFile {
    fn read(&self, path: &Path) -> Result<Secret, String> {
        let now = self.clock.monotonic();
        let mut last = self.last.lock();
        if let Some((read_at, secret)) = &*last
            && now.saturating_sub(*read_at) < REREAD_EVERY
        {
            return Ok(secret.clone());
        }
        let secret = read_trimmed(path)?;
        *last = Some((now, secret.clone()));
        Ok(secret)
    }
}

/// Blocks the thread for one small read, once per second at most.
fn read_trimmed(path: &Path) -> Result<Secret, String> {
    let content = std::fs::read_to_string(path)
        .map_err(|error| format!("reading {}: {error}", PathBuf::from(path).display()))?;
    Ok(content.trim().into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct ManualClock(AtomicU64);

    impl wal::Clock for ManualClock {
        fn unix_ms(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn header(credentials: &Credentials) -> Result<Option<String>, String> {
        crate::send::install_crypto_provider();
        let request = reqwest::Client::new().post("http://localhost/");
        let request = credentials.apply(request)?.build().unwrap();
        let header = request.headers().get("authorization");
        Ok(header.map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        }))
    }

    #[test]
    fn each_form_gives_its_header() {
        let clock: SharedClock = Arc::new(ManualClock::default());
        let of = |auth| header(&Credentials::new(auth, Arc::clone(&clock))).unwrap();
        assert_eq!(of(Auth::None), None);
        assert_eq!(
            of(Auth::Bearer("t0ken".into())).as_deref(),
            Some("Bearer t0ken")
        );
        let basic = Auth::Basic {
            username: "Aladdin".into(),
            password: Password::Text("open sesame".into()),
        };
        assert_eq!(
            of(basic).as_deref(),
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
    }

    #[test]
    fn file_is_trimmed_and_read_again_after_a_second() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let clock = Arc::new(ManualClock::default());
        let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
        let credentials = Credentials::new(Auth::BearerFile(file.path().into()), shared);
        std::fs::write(file.path(), "one\n").unwrap();
        assert_eq!(header(&credentials).unwrap().as_deref(), Some("Bearer one"));
        std::fs::write(file.path(), "two\n").unwrap();
        clock.0.store(999, Ordering::Relaxed);
        assert_eq!(header(&credentials).unwrap().as_deref(), Some("Bearer one"));
        clock.0.store(1000, Ordering::Relaxed);
        assert_eq!(header(&credentials).unwrap().as_deref(), Some("Bearer two"));
    }

    #[test]
    fn missing_file_fails_the_attempt() {
        let clock: SharedClock = Arc::new(ManualClock::default());
        let credentials = Credentials::new(Auth::BearerFile("/nonexistent/token".into()), clock);
        assert!(
            header(&credentials)
                .unwrap_err()
                .contains("/nonexistent/token")
        );
    }
}
