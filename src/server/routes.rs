//! Turns a request into the answer to it: credentials, method, path, in this order.

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode, Uri};

use super::body::{Answer, text};
use super::secured::Secured;
use super::{ServerStats, count};
use crate::telemetry::families;
use crate::telemetry::metrics::Sources;
use crate::web::{Asked, Web, decoded};

use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What of a request is looked at.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

/// The answer to a request, for who may have one.
pub(super) async fn answer(
    head: Head,
    secured: &Secured,
    stats: &ServerStats,
    web: &Arc<Web>,
) -> Answer {
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
    if !matches!(head.method, Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    page(&head, web).await
}

async fn page(head: &Head, web: &Arc<Web>) -> Answer {
    match head.uri.path() {
        "/metrics" => metrics(&web.sources()),
        "/-/ready" if web.is_ready() => text(StatusCode::OK, "Penstock is ready.\n"),
        "/-/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "Penstock is not ready.\n"),
        "/-/healthy" => healthy(&web.sources()),
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

fn metrics(sources: &Sources) -> Answer {
    match sources.collect().encode() {
        Ok(metrics) => {
            let mut answer = text(StatusCode::OK, metrics);
            let kind = HeaderValue::from_static(families::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Unhealthy is a store that cannot take data.
fn healthy(sources: &Sources) -> Answer {
    let sick = sources.stores.iter().filter(|source| {
        let full = source.store.stats().out_of_space.load(Ordering::Relaxed) == 1;
        full || source.store.failure().is_some()
    });
    let names: Vec<&str> = sick.map(|source| source.id.as_str()).collect();
    if names.is_empty() {
        return text(StatusCode::OK, "All Penstock components are healthy.\n");
    }
    let names = format!("unhealthy components: {}\n", names.join(", "));
    text(StatusCode::INTERNAL_SERVER_ERROR, names)
}
