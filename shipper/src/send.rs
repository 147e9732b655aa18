//! Turns a request body into an outcome, over HTTP.
//!
//! # Invariants
//! - Outcomes are decided here and nowhere else: [`classify`] for answers, and an error before
//!   there is an answer is always a retry.
//!
//! # Failure
//! - Refused connection, timeout, broken answer, unreadable credentials: retry.
//!
//! # Limits
//! - One attempt takes at most `remote_timeout`, answer included. Of an answer at most
//!   [`DRAIN_BYTES_MAX`] are read, so that the connection can be used again.

use std::sync::Once;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use wal::SharedClock;

use crate::error::Error;
use crate::http::{HttpClient, Setup};
use crate::options::Resolved;
use crate::outcome::{Attempt, Outcome};
use crate::report::{EXCERPT_BYTES_MAX, excerpt};

const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const RETRY_ATTEMPT_HEADER: HeaderName = HeaderName::from_static("retry-attempt");
/// A longer answer costs its connection.
const DRAIN_BYTES_MAX: usize = 64 << 10;

/// Sends the requests of one endpoint.
pub(crate) struct Sender {
    client: HttpClient,
    url: Url,
    headers: HeaderMap,
    retry_on_http_429: bool,
    clock: SharedClock,
}

impl Sender {
    /// A sender with at most `connections` idle connections.
    pub(crate) fn new(
        resolved: &Resolved,
        connections: usize,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        install_crypto_provider();
        let options = &resolved.options;
        let setup = Setup {
            timeout: options.remote_timeout,
            connections,
            clock: SharedClock::clone(&clock),
        };
        let client = HttpClient::new(&options.http, setup).map_err(|problem| Error::Client {
            endpoint: options.name.clone(),
            problem,
        })?;
        Ok(Self {
            client,
            url: resolved.url.clone(),
            headers: headers(resolved),
            retry_on_http_429: options.queue.retry_on_http_429,
            clock,
        })
    }

    /// One attempt to deliver `body`; `attempt` counts from 0.
    pub(crate) async fn send(&self, body: Bytes, attempt: u64) -> Attempt {
        let mut headers = self.headers.clone();
        if attempt > 0 {
            headers.insert(RETRY_ATTEMPT_HEADER, attempt.into());
        }
        match self.client.post(&self.url, headers, body).await {
            Ok(response) => self.judge(response).await,
            Err(detail) => Attempt {
                outcome: Outcome::Retry { after: None },
                detail,
            },
        }
    }

    async fn judge(&self, response: Response) -> Attempt {
        let status = response.status();
        let after = response.headers().get(header::RETRY_AFTER);
        let after = after.and_then(|value| retry_after(value.to_str().ok()?, self.clock.unix_ms()));
        let outcome = classify(status, after, self.retry_on_http_429);
        let answer = read_answer(response).await;
        let detail = match outcome {
            Outcome::Ack => String::new(),
            _ => format!("{status}: {}", excerpt(&answer)),
        };
        Attempt { outcome, detail }
    }
}

/// What an answer means.
fn classify(status: StatusCode, after: Option<Duration>, retry_on_http_429: bool) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Ack,
        429 if retry_on_http_429 => Outcome::Retry { after },
        // a status beyond the known classes is to be read as a server error (RFC 9110, 15)
        500.. => Outcome::Retry { after },
        status => Outcome::Reject {
            reason: format!("http_{status}"),
            // bad request, conflict, too large, unprocessable: about the content, not about us
            divisible: matches!(status, 400 | 409 | 413 | 422),
        },
    }
}

/// How long `Retry-After` asks to wait: seconds or a date. `None` if it is neither or has passed.
fn retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds)).filter(|wait| !wait.is_zero());
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).ok()?);
    date.duration_since(now).ok().filter(|wait| !wait.is_zero())
}

/// Reads enough to quote and, if the answer is short, all of it. What was read when it breaks off
/// is good enough: the status has decided already.
async fn read_answer(mut response: Response) -> Vec<u8> {
    let mut quoted = Vec::new();
    let mut bytes = 0;
    while bytes < DRAIN_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes += chunk.len();
        let free = EXCERPT_BYTES_MAX - quoted.len();
        quoted.extend_from_slice(&chunk[..chunk.len().min(free)]);
    }
    quoted
}

/// Headers that are the same in every request.
fn headers(resolved: &Resolved) -> HeaderMap {
    let mut headers = resolved.headers.clone();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    headers.insert(VERSION_HEADER, HeaderValue::from_static("0.1.0"));
    headers
}

/// TLS needs a provider for the process; one that is there already is as good.
pub(crate) fn install_crypto_provider() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::debug!("a tls provider was installed before");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, after: Option<u64>, retry_on_http_429: bool) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        classify(status, after.map(Duration::from_secs), retry_on_http_429)
    }

    #[test]
    fn two_hundreds_are_acks() {
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status, None, true), Outcome::Ack);
        }
    }

    #[test]
    fn server_errors_and_unknown_classes_are_retries() {
        for status in [500, 501, 503, 599, 600, 999] {
            assert_eq!(of(status, None, false), Outcome::Retry { after: None });
        }
        let after = Some(Duration::from_secs(7));
        assert_eq!(of(503, Some(7), true), Outcome::Retry { after });
    }

    #[test]
    fn too_many_requests_is_a_retry_if_so_configured() {
        let after = Some(Duration::from_secs(7));
        assert_eq!(of(429, Some(7), true), Outcome::Retry { after });
        assert_eq!(
            of(429, Some(7), false),
            Outcome::Reject {
                reason: "http_429".into(),
                divisible: false
            }
        );
    }

    #[test]
    fn other_answers_are_rejects_with_their_status() {
        for status in [301, 302, 304, 307, 400, 401, 404, 408, 409, 413, 415, 422] {
            let reason = format!("http_{status}");
            let divisible = [400, 409, 413, 422].contains(&status);
            assert_eq!(
                of(status, Some(7), true),
                Outcome::Reject { reason, divisible }
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = |s| Some(Duration::from_secs(s));
        // 1994-11-15 08:12:31 UTC
        let now = 784_887_151_000;
        assert_eq!(retry_after("120", now), seconds(120));
        assert_eq!(retry_after(" 1 ", now), seconds(1));
        assert_eq!(
            retry_after("Tue, 15 Nov 1994 08:13:31 GMT", now),
            seconds(60)
        );
        assert_eq!(
            retry_after("Tuesday, 15-Nov-94 08:13:31 GMT", now),
            seconds(60)
        );
        for none in [
            "0",
            "-1",
            "1.5",
            "soon",
            "",
            "Tue, 15 Nov 1994 08:12:30 GMT",
        ] {
            assert_eq!(retry_after(none, now), None, "{none:?}");
        }
    }
}
