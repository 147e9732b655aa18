//! Turns the requests of kube into those of the client that every component has.
//!
//! So every argument of an HTTP client means here what it means elsewhere, and files of credentials and
//! certificates are read again when they change.
//!
//! # Failure
//! - A watch that is longer than it may be ends, as it does when a server ends it: it is resumed.
//!
//! # Limits
//! - [`ANSWER_TIMEOUT`] until an answer begins, and until a list is complete; [`WATCH_MAX`] of a watch.
//! - [`TEXT_BYTES_MAX`] of a list or an error, [`LINE_BYTES_MAX`] of one line of a watch.
//! - A watch begins at least [`APART`] after the one before it: also a server that ends all of them at once is
//!   asked no more often.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use shipper::fetch::{Answer, Client};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::super::TEXT_BYTES_MAX;

/// How long the beginning of an answer may take, and a whole list.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest watch: the server is asked to end each after 290 s.
const WATCH_MAX: Duration = Duration::from_secs(320);
/// Of the client: never the first to end.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(400);
/// Most bytes of an event: some 5 times as much as a server stores for an object.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Least time from one watch to the next.
const APART: Duration = Duration::from_secs(1);

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Chunks = BoxStream<'static, Result<Frame<Bytes>, String>>;

/// What is known of the requests of one watch.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether the last answer was a good one, and nobody has looked at that yet.
    is_answered: AtomicBool,
    /// When the last watch began.
    began: Mutex<Option<Instant>>,
}

impl Link {
    /// Whether there was a good answer since this was asked.
    pub(super) fn take_answered(&self) -> bool {
        self.is_answered.swap(false, Ordering::Relaxed)
    }

    /// Waits until the last watch began long enough ago.
    async fn wait_apart(&self) {
        let began = *self.began.lock();
        if let Some(began) = began {
            tokio::time::sleep_until(began + APART).await;
        }
        *self.began.lock() = Some(Instant::now());
    }
}

/// Sends the requests of one watch.
#[derive(Clone)]
pub(super) struct Transport {
    client: Arc<Client>,
    /// Where the API is, without a slash at its end.
    url: Arc<str>,
    link: Arc<Link>,
    /// Told of every good answer.
    answered: Arc<Notify>,
}

impl Transport {
    pub(super) fn new(
        client: &Arc<Client>,
        url: &Arc<str>,
        link: &Arc<Link>,
        answered: &Arc<Notify>,
    ) -> Self {
        Self {
            client: client.clone(),
            url: url.clone(),
            link: link.clone(),
            answered: answered.clone(),
        }
    }

    async fn send(self, request: Request<Body>) -> Result<Response<StreamBody<Chunks>>, Problem> {
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        let is_watch = path.contains("watch=true");
        if is_watch {
            self.link.wait_apart().await;
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let url = format!("{}{path}", self.url);
        let asked = self.client.get_with(&url, request.headers().clone());
        let answer = match timeout_at(deadline, asked).await {
            Ok(answer) => answer?,
            Err(_) => return Err("operation timed out".into()),
        };
        let (status, _) = answer.status();
        if (200..300).contains(&status) {
            self.link.is_answered.store(true, Ordering::Relaxed);
            self.answered.notify_one();
        }
        let rest = if is_watch && status == 200 {
            Rest::watch(answer)
        } else {
            Rest::list(answer, deadline)
        };
        let body = StreamBody::new(rest.stream());
        Ok(Response::builder().status(status).body(body)?)
    }
}

impl tower_service::Service<Request<Body>> for Transport {
    type Response = Response<StreamBody<Chunks>>;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Problem>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

/// What is to come of an answer.
struct Rest {
    answer: Answer,
    is_watch: bool,
    deadline: Instant,
    /// Of the list, or of the line of a watch that is not complete yet.
    bytes: u64,
    is_over: bool,
}

impl Rest {
    const fn list(answer: Answer, deadline: Instant) -> Self {
        Self {
            answer,
            is_watch: false,
            deadline,
            bytes: 0,
            is_over: false,
        }
    }

    fn watch(answer: Answer) -> Self {
        Self {
            is_watch: true,
            ..Self::list(answer, Instant::now() + WATCH_MAX)
        }
    }

    fn stream(self) -> Chunks {
        let next = |mut rest: Self| async move {
            if rest.is_over {
                return None;
            }
            let chunk = rest.chunk().await.transpose()?;
            rest.is_over = chunk.is_err();
            Some((chunk.map(Frame::data), rest))
        };
        Box::pin(stream::unfold(self, next))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let chunk = match timeout_at(self.deadline, self.answer.chunk()).await {
            Ok(chunk) => chunk?,
            Err(_) if self.is_watch => None,
            Err(_) => return Err("operation timed out".to_owned()),
        };
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        let (start, max) = match self.is_watch {
            // Lines before the last end were counted; a new one begins behind it.
            true => (
                chunk.iter().rposition(|byte| *byte == b'\n'),
                LINE_BYTES_MAX,
            ),
            false => (None, TEXT_BYTES_MAX),
        };
        self.bytes = match start {
            Some(end) => (chunk.len() - end - 1) as u64,
            None => self.bytes + chunk.len() as u64,
        };
        if self.bytes > max {
            return Err(format!("the answer has more than {max} bytes"));
        }
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_ends_every_watch_is_not_asked_all_the_time() {
        let (link, start) = (Link::default(), Instant::now());
        for watch in 0..10 {
            link.wait_apart().await;
            assert_eq!(start.elapsed(), APART * watch);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let late = Instant::now();
        link.wait_apart().await;
        assert_eq!(
            late.elapsed(),
            Duration::ZERO,
            "a long watch is followed at once"
        );
    }
}
