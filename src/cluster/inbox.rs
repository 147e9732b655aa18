//! Turns requests of the others into messages, and what is answered into answers.
//!
//! # Failure
//! - 404 where there is no cluster, 409 with the reason where the message is refused, 400 and 413 where it cannot be
//!   one, 503 where too many wait.
//!
//! # Limits
//! - [`MESSAGE_BYTES_MAX`] in [`BODY_WITHIN`].

use std::time::Duration;

use bytes::Bytes;
use cluster::{MESSAGE_BYTES_MAX, Refusal};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Clustering;
use super::driver::Told;
use crate::server::{Answer, fresh, text, whole};

/// Where the others send their messages.
pub(crate) const MESSAGE_PATH: &str = "/api/v1/cluster/message";
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// The answer to a message in `body`.
pub(crate) async fn answer<B>(clustering: Option<&Clustering>, body: B) -> Answer
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(clustering) = clustering else {
        return text(StatusCode::NOT_FOUND, "clustering is disabled\n");
    };
    let way = &clustering.numbers().received;
    let read = timeout(BODY_WITHIN, Limited::new(body, MESSAGE_BYTES_MAX).collect()).await;
    let message = match read {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            way.failed();
            let status = match error.is::<LengthLimitError>() {
                true => StatusCode::PAYLOAD_TOO_LARGE,
                false => StatusCode::BAD_REQUEST,
            };
            return text(status, "the message cannot be read\n");
        }
        Err(_) => {
            way.failed();
            return text(StatusCode::REQUEST_TIMEOUT, "the message is too slow\n");
        }
    };
    way.passed(message.len());
    let (asked, answered) = oneshot::channel();
    let is_taken = clustering
        .told
        .try_send(Told::Message(message, asked))
        .is_ok();
    let answer = match is_taken {
        true => answered.await.ok(),
        false => None,
    };
    let Some(answer) = answer else {
        way.failed();
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many messages wait\n");
    };
    let status = match answer.refusal {
        None => StatusCode::OK,
        Some(Refusal::Malformed) => {
            let problem = format!("{}\n", Refusal::Malformed.as_str());
            return text(StatusCode::BAD_REQUEST, problem);
        }
        Some(_) => StatusCode::CONFLICT,
    };
    fresh(whole(
        status,
        "application/octet-stream",
        Bytes::clone(&answer.bytes),
    ))
}
