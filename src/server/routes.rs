//! Turns a request into the answer to it: credentials, method, path, in this order. Of one path the body counts: messages
//! of the other agents in a cluster.

use hyper::body::Body;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode, Uri};

use super::body::{Answer, text};
use super::secured::Secured;
use super::{ServerStats, count};
use crate::cluster;
use crate::telemetry::families;
use crate::web::{Asked, Web, decoded};

use std::sync::Arc;

/// What of a request is looked at.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

/// The answer to a request, for who may have one.
pub(super) async fn answer<B>(
    head: Head,
    body: B,
    secured: &Secured,
    stats: &ServerStats,
    web: &Arc<Web>,
) -> Answer
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some((guard, auth)) = &secured.guard {
        // Also as it is understood: a path written in another way is the same one.
        let path = head.uri.path();
        let is_covered = auth.covers(path) || auth.covers(&decoded(path));
        if is_covered && !guard.admits(&head.headers) {
            count(&stats.unauthorized);
            let mut answer = text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
            let challenge = guard.challenge();
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return answer;
        }
    }
    if head.uri.path() == cluster::MESSAGE_PATH && head.method == Method::POST {
        return cluster::answer(web.clustering(), body).await;
    }
    if head.uri.path() == cluster::PARTS_PATH && head.method == Method::POST {
        return cluster::take_part(web.clustering(), head.headers, body).await;
    }
    let is_reload = head.uri.path() == "/-/reload";
    let is_post = is_reload && head.method == Method::POST;
    if !matches!(head.method, Method::GET | Method::HEAD) && !is_post {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    page(&head, web).await
}

async fn page(head: &Head, web: &Arc<Web>) -> Answer {
    match head.uri.path() {
        "/metrics" => metrics(web),
        "/-/ready" if web.is_ready() => text(StatusCode::OK, "Penstock is ready.\n"),
        "/-/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "Penstock is not ready.\n"),
        "/-/healthy" => healthy(web),
        "/-/reload" => match web.reload().await {
            Ok(()) => text(StatusCode::OK, "config reloaded\n"),
            Err(problem) => text(StatusCode::BAD_REQUEST, problem),
        },
        cluster::HANDOVER_PATH => match web.clustering() {
            Some(clustering) => clustering
                .handover()
                .answer(head.uri.query().unwrap_or_default()),
            None => text(StatusCode::NOT_FOUND, "clustering is disabled\n"),
        },
        path => {
            let asked = Asked {
                path,
                query: head.uri.query().unwrap_or_default(),
                headers: &head.headers,
                is_head: head.method == Method::HEAD,
            };
            web.answer(&asked).await
        }
    }
}

/// Every metric family.
fn metrics(web: &Web) -> Answer {
    match web.metrics().encode() {
        Ok(metrics) => {
            let mut answer = text(StatusCode::OK, metrics);
            let kind = HeaderValue::from_static(families::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The state of the components of the root.
fn healthy(web: &Web) -> Answer {
    let sick = web.unhealthy();
    if sick.is_empty() {
        return text(StatusCode::OK, "All Penstock components are healthy.\n");
    }
    let names = format!("unhealthy components: {}\n", sick.join(", "));
    text(StatusCode::INTERNAL_SERVER_ERROR, names)
}
