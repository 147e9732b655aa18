//! Turns the others of a cluster into owners of series: parts of requests for them into requests, and such requests
//! into parts for this agent's receivers.
//!
//! # Failure
//! - A part without an answer within [`PASS_WITHIN`] is not passed on, as far as it is known here.
//! - Of a part that comes: 404 where there is no such receiver, 503 where there is no room, what the receiver says
//!   otherwise.
//!
//! # Limits
//! - [`BODIES_KIB_MAX`] of parts are read at a time; what is read counts among the bytes in flight of its receiver.
//!   A part has a length and is as large as a request to the receiver may be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::Moment;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use ingest::Message;
use ingest::share::{NoRoom, Part, Passing, Peers};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Clustering;
use super::dial::Lines;
use crate::server::{self, Answer, text};

/// Where the others send parts.
pub(crate) const PARTS_PATH: &str = "/api/v1/cluster/write";
const RECEIVER: HeaderName = HeaderName::from_static("x-penstock-receiver");
const VIEW: HeaderName = HeaderName::from_static("x-penstock-view");
/// Of an answer, and of the reading of a part.
const PASS_WITHIN: Duration = Duration::from_secs(10);
/// 256 MiB.
pub(super) const BODIES_KIB_MAX: u32 = 256 << 10;

/// Who owns what at one moment, and the way to them.
#[derive(Debug)]
pub(super) struct Owners {
    pub(super) moment: Moment,
    pub(super) lines: Arc<Lines>,
    pub(super) runtime: Handle,
}

impl Peers for Owners {
    fn owner(&self, key: u64) -> Option<usize> {
        let at = self.moment.owner(key)?;
        let is_other = self.moment.peers.get(at).is_some_and(|peer| !peer.is_self);
        is_other.then_some(at)
    }

    fn count(&self) -> usize {
        self.moment.peers.len()
    }

    fn pass(&self, to: usize, part: Part) -> Passing {
        let address = self.moment.peers.get(to);
        let Some(address) = address.map(|peer| Arc::clone(&peer.address)) else {
            return Box::pin(async { Err("it is gone".to_owned()) });
        };
        let lines = Arc::clone(&self.lines);
        let passing = self.runtime.spawn(async move {
            let asked = async { lines.ask(&address, request(part)?).await };
            match timeout(PASS_WITHIN, asked).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(format!("{address}: {error:#}")),
                Err(_) => Err(format!("{address}: no answer within {PASS_WITHIN:?}")),
            }
        });
        Box::pin(async move {
            let ended = passing.await;
            ended.unwrap_or_else(|_| Err("the agent is ending".to_owned()))
        })
    }
}

fn request(part: Part) -> anyhow::Result<Request<Full<Bytes>>> {
    let kind = format!("application/x-protobuf;proto={}", part.message.as_str());
    let mut request = Request::post(PARTS_PATH)
        .header(CONTENT_TYPE, kind)
        .header(CONTENT_ENCODING, "snappy")
        .header(RECEIVER, HeaderValue::from_str(&part.receiver)?)
        .header(VIEW, format!("{:016x}", part.view))
        .body(Full::new(part.body))?;
    request.headers_mut().extend(part.headers);
    Ok(request)
}

/// The answer to a part.
pub(crate) async fn take<B>(clustering: Option<&Clustering>, headers: HeaderMap, body: B) -> Answer
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(clustering) = clustering else {
        return text(StatusCode::NOT_FOUND, "clustering is disabled\n");
    };
    match stored(clustering, headers, body).await {
        Ok(answer) => answer.map(server::Body::Whole),
        Err((status, problem)) => text(status, format!("{problem}\n")),
    }
}

type Refused = (StatusCode, &'static str);

async fn stored<B>(
    clustering: &Clustering,
    mut headers: HeaderMap,
    body: B,
) -> Result<Response<Full<Bytes>>, Refused>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bad = |what| (StatusCode::BAD_REQUEST, what);
    let named = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let receiver: Arc<str> = named(RECEIVER).ok_or(bad("no receiver is named"))?.into();
    let view = named(VIEW).and_then(|view| u64::from_str_radix(view, 16).ok());
    let view = view.ok_or(bad("no view is named"))?;
    let kind = named(CONTENT_TYPE).and_then(|kind| kind.split_once("proto="));
    let message = kind.and_then(|(_, name)| Message::from_name(name));
    let message = message.ok_or(bad("the message is not known"))?;
    let inlet = clustering.handover().inlet(&receiver);
    let inlet = inlet.ok_or((StatusCode::NOT_FOUND, "no such receiver shares its series"))?;
    let (bytes, bytes_max) = (body.size_hint().exact(), inlet.body_bytes_max());
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.filter(|bytes| *bytes <= bytes_max).ok_or((
        StatusCode::PAYLOAD_TOO_LARGE,
        "the part has no length, or too much of it",
    ))?;
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    let room = clustering.handover().room();
    let _room = room.try_acquire_many(kib).map_err(|_| NO_ROOM)?;
    let read = timeout(PASS_WITHIN, Limited::new(body, bytes_max).collect()).await;
    let body = match read {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(bad("the part cannot be read")),
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the part is too slow")),
    };
    headers.remove(RECEIVER);
    headers.remove(VIEW);
    let part = Part {
        receiver,
        view,
        message,
        body,
        headers,
    };
    match inlet.take(part).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err((StatusCode::SERVICE_UNAVAILABLE, "the receiver is ending")),
        Err(NoRoom) => Err(NO_ROOM),
    }
}

const NO_ROOM: Refused = (StatusCode::SERVICE_UNAVAILABLE, "too many parts wait");
