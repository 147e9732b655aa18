//! Turns a request body into an outcome, over HTTP.
//!
//! # Invariants
//! - Outcomes are decided here and nowhere else: [`classify`] for answers, and an error before
//!   there is an answer is always a retry.
//!
//! - What is written of a remote-write 2.0 request is what the answer says, not what was sent.
//!
//! # Failure
//! - Refused connection, timeout, broken answer, unreadable credentials: retry.
//!
//! # Limits
//! - One attempt takes at most `remote_timeout`, answer included. Of an answer at most
//!   [`DRAIN_BYTES_MAX`] are read, so that the connection can be used again.

use std::sync::{Arc, Once};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use wal::SharedClock;

use crate::error::Error;
use crate::http::{HttpClient, Setup};
use crate::options::{ProtobufMessage, Resolved};
use crate::outcome::{Attempt, Outcome};
use crate::report::{EXCERPT_BYTES_MAX, excerpt};
use crate::stats::Counts;
use crate::transport::Transport;

/// What of a remote-write 2.0 request was written; a header that is not there is 0.
const WRITTEN_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const RETRY_ATTEMPT_HEADER: HeaderName = HeaderName::from_static("retry-attempt");
/// A longer answer costs its connection.
const DRAIN_BYTES_MAX: usize = 64 << 10;

/// What a request carries.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// Compressed.
    pub(crate) bytes: Bytes,
    pub(crate) message: ProtobufMessage,
    /// The records in it.
    pub(crate) sent: Counts,
}

impl Body {
    /// The headers that say what it is.
    const fn headers(&self) -> [(HeaderName, HeaderValue); 2] {
        let (content_type, version) = match self.message {
            ProtobufMessage::V1 => ("application/x-protobuf", "0.1.0"),
            ProtobufMessage::V2 => (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "2.0.0",
            ),
        };
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (VERSION_HEADER, HeaderValue::from_static(version)),
        ]
    }
}

/// Sends the requests of one endpoint.
pub(crate) struct Sender {
    transport: Arc<dyn Transport>,
    url: Url,
    headers: HeaderMap,
    retry_on_http_429: bool,
    clock: SharedClock,
}

impl Sender {
    /// A sender over HTTP with at most `connections` idle connections.
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
            unix_socket: None,
            clock: SharedClock::clone(&clock),
        };
        let client = HttpClient::new(&options.http, setup).map_err(|problem| Error::Client {
            endpoint: options.name.clone(),
            problem,
        })?;
        Ok(Self::over(resolved, Arc::new(client), clock))
    }

    /// A sender over any transport.
    pub(crate) fn over(
        resolved: &Resolved,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
    ) -> Self {
        Self {
            transport,
            url: resolved.url.clone(),
            headers: headers(resolved),
            retry_on_http_429: resolved.options.queue.retry_on_http_429,
            clock,
        }
    }

    /// One attempt to deliver `body`; `attempt` counts from 0.
    pub(crate) async fn send(&self, body: &Body, attempt: u64) -> Attempt {
        let mut headers = self.headers.clone();
        headers.extend(body.headers());
        if attempt > 0 {
            headers.insert(RETRY_ATTEMPT_HEADER, attempt.into());
        }
        match self
            .transport
            .post(&self.url, headers, body.bytes.clone())
            .await
        {
            Ok(response) => self.judge(response, body).await,
            Err(detail) => Attempt::retry(detail),
        }
    }

    async fn judge(&self, response: Response, body: &Body) -> Attempt {
        let status = response.status();
        let written = written(response.headers());
        let says_written = WRITTEN_HEADERS
            .iter()
            .any(|name| response.headers().contains_key(name));
        let after = response.headers().get(header::RETRY_AFTER);
        let after = after.and_then(|value| retry_after(value.to_str().ok()?, self.clock.unix_ms()));
        let outcome = classify(status, after, self.retry_on_http_429);
        let answer = read_answer(response).await;
        let mut attempt = Attempt {
            outcome,
            detail: described(status, &answer),
            written: None,
            is_unsupported: status == StatusCode::UNSUPPORTED_MEDIA_TYPE,
            is_about_us: is_about_us(status),
        };
        if body.message == ProtobufMessage::V2 {
            // A receiver of 2.0 has to say; one that does not has read an empty message of 1.0.
            attempt.is_unsupported |= attempt.outcome == Outcome::Ack && !says_written;
            attempt.count(body.sent, written);
        }
        if attempt.outcome == Outcome::Ack {
            attempt.detail.clear();
        }
        attempt
    }
}

impl Attempt {
    fn retry(detail: String) -> Self {
        Self {
            outcome: Outcome::Retry { after: None },
            detail,
            written: None,
            is_unsupported: false,
            is_about_us: false,
        }
    }

    /// Takes into account what a receiver of remote write 2.0 says that it has written.
    ///
    /// - Nothing of a request that it took: it is none, and has read the body as an empty message of
    ///   1.0. That is no success, and the same again would be none either.
    /// - A part: the rest is refused, and there is nothing to look for, as the good is stored.
    fn count(&mut self, sent: Counts, written: Counts) {
        let written = sent.without(sent.without(written));
        let is_all = written == sent;
        match &mut self.outcome {
            Outcome::Ack if !is_all => {
                let some = written.total() > 0;
                let reason = if some {
                    "not_all_written"
                } else {
                    "not_written"
                };
                self.outcome = Outcome::Reject {
                    reason: reason.to_owned(),
                    divisible: false,
                };
                self.detail
                    .push_str("; the answer says that less was written than was sent");
                self.written = Some(written);
            }
            Outcome::Reject { divisible, .. } if written.total() > 0 => {
                *divisible = false;
                self.written = Some(written);
            }
            _ => {}
        }
    }
}

/// The status and the beginning of what is said with it.
fn described(status: StatusCode, answer: &[u8]) -> String {
    match excerpt(answer) {
        text if text.is_empty() => status.to_string(),
        text => format!("{status}: {text}"),
    }
}

/// What the headers of an answer say that was written.
fn written(headers: &HeaderMap) -> Counts {
    let [samples, histograms, exemplars] = WRITTEN_HEADERS.map(|name| {
        let text = headers.get(name).and_then(|value| value.to_str().ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    });
    Counts {
        samples,
        exemplars,
        histograms,
        metadata: 0,
    }
}

/// Redirects not followed; who we are, what we asked for, and how.
fn is_about_us(status: StatusCode) -> bool {
    matches!(status.as_u16(), 300..=399 | 401..=408 | 421 | 423 | 425)
}

/// What an answer means.
fn classify(status: StatusCode, after: Option<Duration>, retry_on_http_429: bool) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Ack,
        429 if retry_on_http_429 => Outcome::Retry { after },
        // a status beyond the known classes is to be read as a server error (RFC 9110, 15)
        500.. => Outcome::Retry { after },
        // nothing is wrong with the data, and it may be put right at either end (decision 15)
        _ if is_about_us(status) => Outcome::Retry { after },
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
        for status in [400, 409, 410, 413, 415, 422, 499] {
            let reason = format!("http_{status}");
            let divisible = [400, 409, 413, 422].contains(&status);
            assert_eq!(
                of(status, Some(7), true),
                Outcome::Reject { reason, divisible }
            );
        }
    }

    #[test]
    fn answers_that_are_not_about_the_data_are_retries() {
        for status in [
            301, 302, 304, 307, 401, 402, 403, 404, 405, 407, 408, 421, 425,
        ] {
            assert_eq!(of(status, None, true), Outcome::Retry { after: None });
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
