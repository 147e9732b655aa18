//! Turns text, JSON and endless lines into answers.
//!
//! # Limits
//! An endless answer is a bounded channel and a permit: who writes to it waits for the peer, and finds
//! the channel closed once the peer is gone or was too slow.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::deadline::{Deadline, Held};

/// An answer.
pub(crate) type Answer = Response<Body>;

/// What an answer holds.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Full<Bytes>),
    Endless(Endless),
}

/// Chunks as they come.
#[derive(Debug)]
pub(crate) struct Endless {
    chunks: mpsc::Receiver<Bytes>,
    deadline: Option<Arc<Deadline>>,
    _held: Option<Held>,
    _permit: OwnedSemaphorePermit,
}

impl Body {
    /// Chunks as they come, for as long as somebody takes them.
    pub(crate) const fn endless(
        chunks: mpsc::Receiver<Bytes>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self::Endless(Endless {
            chunks,
            deadline: None,
            _held: None,
            _permit: permit,
        })
    }

    /// Tells `deadline` when the peer has something to take.
    pub(super) fn watch(&mut self, deadline: &Arc<Deadline>, held: Option<Held>) {
        if let Self::Endless(endless) = self {
            endless.deadline = Some(Arc::clone(deadline));
            endless._held = held;
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let endless = match self.get_mut() {
            Self::Whole(whole) => return Pin::new(whole).poll_frame(context),
            Self::Endless(endless) => endless,
        };
        let polled = endless.chunks.poll_recv(context);
        match (&endless.deadline, &polled) {
            (Some(deadline), Poll::Pending) => deadline.pause(),
            (Some(deadline), Poll::Ready(_)) => deadline.restart(),
            (None, _) => {}
        }
        polled.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Endless(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Endless(_) => SizeHint::default(),
        }
    }
}

/// An answer of one piece.
pub(crate) fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Whole(Full::new(body.into())));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// Lines for people.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    whole(status, "text/plain; charset=utf-8", body)
}

/// What is true now only, for programs.
pub(crate) fn json(value: &serde_json::Value) -> Answer {
    fresh(whole(
        StatusCode::OK,
        "application/json; charset=utf-8",
        value.to_string(),
    ))
}

/// An answer that is not to be kept, nor taken for something else than it says.
pub(crate) fn fresh(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
