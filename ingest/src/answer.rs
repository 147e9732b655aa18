//! Turns the outcome of a request into a status and a line of text, in one place.
//!
//! Senders log the first kilobyte of an answer and drop or retry by its status: 4xx is dropped,
//! 429 and 5xx are retried.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Response, StatusCode};

use crate::admit::Shed;
use crate::decode::labels::Reason;
use crate::decode::snappy::Refused;
use crate::decode::{Malformed, Refusals, Written};
use crate::negotiate::{Encoding, Message};
use crate::tenants::{Tenant, Tenants, TooFast};

/// What of the request was written: headers of every answer to a remote-write 2.0 message, also
/// where that is nothing.
const WRITTEN_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// An answer on its way out.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    text: String,
    header: Option<(HeaderName, HeaderValue)>,
    /// What remote write 2.0 is told; none to other senders.
    written: Option<Box<Written>>,
    closes: bool,
}

impl Answer {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            header: None,
            written: None,
            closes: false,
        }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// Nothing was written, and a sender of this message is told so unless it was told otherwise.
    pub(crate) fn for_message(mut self, message: Message) -> Self {
        if message == Message::V2 {
            self.written.get_or_insert_default();
        }
        self
    }

    /// So much was written.
    pub(crate) fn with_written(mut self, written: Written) -> Self {
        self.written = Some(Box::new(written));
        self
    }

    /// Everything is durable.
    pub(crate) fn stored() -> Self {
        Self::new(StatusCode::NO_CONTENT, "")
    }

    pub(crate) fn not_found(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("not found; remote write is at {path}"),
        )
    }

    pub(crate) fn unauthorized(challenge: HeaderValue) -> Self {
        let text = "unauthorized, credentials are missing or wrong";
        let mut answer = Self::new(StatusCode::UNAUTHORIZED, text);
        answer.header = Some((WWW_AUTHENTICATE, challenge));
        answer
    }

    pub(crate) fn only_post() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed, only POST",
        )
        .with(ALLOW, "POST")
    }

    pub(crate) fn unsupported(reason: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason)
    }

    pub(crate) fn too_large(what: &str, bytes: Option<u64>, limit: usize) -> Self {
        let bytes = bytes.map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
        let text = format!("{what}{bytes} is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    /// To an agent of VictoriaMetrics that asks whether zstd is understood.
    pub(crate) fn victoria_metrics() -> Self {
        Self::new(StatusCode::OK, "1")
    }

    pub(crate) fn compression(encoding: Encoding, refused: Refused, limit: usize) -> Self {
        match refused {
            Refused::TooLong { claimed } => {
                let claimed = u64::try_from(claimed).ok();
                Self::too_large("the decompressed body", claimed, limit)
            }
            Refused::Broken(what) => {
                let of = match encoding {
                    Encoding::Snappy => "snappy block",
                    Encoding::Zstd => "zstd frame",
                    Encoding::Plain => "body",
                };
                Self::new(StatusCode::BAD_REQUEST, format!("bad {of}: {what}"))
            }
        }
    }

    pub(crate) fn malformed(malformed: Malformed) -> Self {
        let text = format!("bad protobuf: {malformed} of the decompressed body");
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn body_ended_early(error: &hyper::Error) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("the body could not be read: {error}"),
        )
        .and_close()
    }

    pub(crate) fn body_too_slow(timeout: Duration) -> Self {
        let text = format!("the body did not arrive within {timeout:?}");
        Self::new(StatusCode::REQUEST_TIMEOUT, text).and_close()
    }

    /// Not now.
    pub(crate) fn shed(why: Shed) -> Self {
        let what = match why {
            Shed::Full => "too many bytes are in flight, try again later",
            Shed::Connection => "too many bytes of this connection are in flight, try again later",
            Shed::Share => {
                "too many bytes are in flight, and this connection has more than its share, \
                 try again later"
            }
            Shed::LogBehind => {
                let text = "the log is behind, and this connection has more than its share in \
                            flight, try again later";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, "5");
            }
        };
        Self::new(StatusCode::TOO_MANY_REQUESTS, what).with(RETRY_AFTER, "1")
    }

    /// The tenant has used up what it may send.
    pub(crate) fn too_fast(tenant: Option<(&Tenants, &Tenant)>, too_fast: TooFast) -> Self {
        let mut text = String::from("too many samples per second");
        if let Some((_, tenant)) = tenant {
            let limits = tenant.limits();
            let (rate, burst) = (limits.samples_per_second, limits.burst_samples);
            let name = tenant.name();
            text = format!(
                "tenant {name:?} sends more than {rate} samples per second (max_samples_per_second) and \
                 {burst} at once (max_burst_samples); nothing is stored, try again later"
            );
        }
        let seconds = too_fast.wait.as_nanos().div_ceil(1_000_000_000).max(1);
        let mut answer = Self::new(StatusCode::TOO_MANY_REQUESTS, text);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        answer.header = Some((RETRY_AFTER, HeaderValue::from(seconds)));
        answer
    }

    /// 400 rather than 413: a sender drops what is answered 400, while some repeat a 413 for ever, with
    /// everything behind it waiting.
    pub(crate) fn too_many_series(count: usize, limit: usize) -> Self {
        let text = format!(
            "the request has {count} series, more than the limit of {limit} (series_limit); nothing \
             of it is stored and it is not to be sent again: lower the sender's batch size"
        );
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Part of the request is durable, the rest is not allowed.
    pub(crate) fn refused(refused: &Refusals) -> Self {
        let mut text = String::from("some series were refused, the others are stored:");
        for reason in Reason::ALL {
            let at = reason.index();
            if refused.series[at] > 0 {
                let (series, items) = (refused.series[at], refused.items[at]);
                // Writing to a string cannot fail.
                write!(text, " {reason}: {series} series with {items} samples;").unwrap_or(());
            }
        }
        if let Some((shown, reason)) = &refused.first {
            write!(text, " first: {reason} in {shown}").unwrap_or(());
        }
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// It is not known now who owns which series.
    pub(crate) fn no_view() -> Self {
        let text = "who owns which series is being found out, try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, "1")
    }

    /// To another agent, which has passed on a part by a view that does not hold here.
    pub(crate) fn other_view() -> Self {
        let text = "who owns which series is seen otherwise here";
        Self::new(StatusCode::CONFLICT, text)
    }

    /// An owner does not have its part.
    pub(crate) fn not_passed(why: &str) -> Self {
        let text = format!("the owner of some series does not have them, try again later: {why}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, "1")
    }

    /// What an owner answers, to be told to the sender.
    pub(crate) fn passed_back(status: StatusCode, text: String) -> Self {
        Self::new(status, text).with(RETRY_AFTER, "1")
    }

    /// And an owner has not allowed some of its series.
    pub(crate) fn and_refused(mut self, text: &str) -> Self {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(text);
        self.status = StatusCode::BAD_REQUEST;
        self
    }

    /// What was written, as far as it is known.
    pub(crate) fn written(&self) -> Written {
        self.written.as_deref().copied().unwrap_or_default()
    }

    /// What an answer says that was written.
    pub(crate) fn written_in(headers: &HeaderMap) -> Written {
        let count = |name: &HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let [samples, histograms, exemplars] = WRITTEN_HEADERS.each_ref().map(count);
        Written {
            samples,
            histograms,
            exemplars,
        }
    }

    pub(crate) fn log(error: &wal::Error) -> Self {
        let text = error.to_string();
        if error.is_full() || matches!(error, wal::Error::Io { .. }) {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, "5")
        } else if error.is_poisoned() {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
        } else if error.is_too_large() {
            Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        } else {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }

    /// The connection is closed after this answer.
    pub(crate) fn and_close(mut self) -> Self {
        self.closes = true;
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn into_response(mut self) -> Response<Full<Bytes>> {
        // For people; what a program reads is not an error.
        if !self.text.is_empty() && !self.status.is_success() {
            self.text.push('\n');
        }
        let is_text = !self.text.is_empty();
        let mut response = Response::new(Full::new(Bytes::from(self.text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if is_text {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        if let Some(written) = self.written {
            let counts = [written.samples, written.histograms, written.exemplars];
            for (name, count) in WRITTEN_HEADERS.into_iter().zip(counts) {
                headers.insert(name, HeaderValue::from(count));
            }
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_and_header(error: &wal::Error) -> (u16, Option<HeaderName>) {
        let answer = Answer::log(error);
        (
            answer.status().as_u16(),
            answer.header.map(|(name, _)| name),
        )
    }

    #[test]
    fn every_failure_of_the_log_has_its_status() {
        let full = wal::Error::Full {
            reason: wal::FullReason::Segments,
        };
        assert_eq!(status_and_header(&full), (503, Some(RETRY_AFTER)));
        let poisoned = wal::Error::Poisoned("sync failed".into());
        assert_eq!(status_and_header(&poisoned), (503, None));
        let large = wal::Error::TooLarge { bytes: 2, limit: 1 };
        assert_eq!(status_and_header(&large), (413, None));
        assert_eq!(
            status_and_header(&wal::Error::Options("x".into())),
            (500, None)
        );
    }
}
