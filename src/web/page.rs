//! Turns paths into the files of the page. Whatever is no file is the page itself, which knows its own paths.

use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION,
    X_CONTENT_TYPE_OPTIONS,
};

use super::assets::{self, Asset};
use super::not_found;
use super::request::{Asked, Prefix};
use crate::server::{Answer, text, whole};

/// The page itself.
const INDEX: &str = "index.html";

/// What is at a path `below` the prefix.
pub(super) fn at(below: &str, prefix: &Prefix, asked: &Asked<'_>) -> Answer {
    if !asked.path.starts_with(prefix.as_str()) {
        // What the page refers to is found from the slash on.
        let mut answer = text(StatusCode::PERMANENT_REDIRECT, "");
        if let Ok(location) = HeaderValue::from_str(prefix.as_str()) {
            answer.headers_mut().insert(LOCATION, location);
        }
        return answer;
    }
    let found = match assets::find(below) {
        Some(file) => Some(file),
        None if below.starts_with("assets/") || below.starts_with("api/") => None,
        None => assets::find(INDEX),
    };
    found.map_or_else(not_found, |file| told(file, asked))
}

fn told(file: Asset, asked: &Asked<'_>) -> Answer {
    let known = asked.headers.get_all(IF_NONE_MATCH).iter();
    let mut known = known.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_known = known.any(|etag| etag.trim_ascii() == file.etag.as_bytes());
    let mut answer = if is_known {
        whole(StatusCode::NOT_MODIFIED, file.content_type, "")
    } else {
        whole(StatusCode::OK, file.content_type, file.bytes)
    };
    let headers = answer.headers_mut();
    // Kept, and asked for each time: another version of the agent has other files.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, HeaderValue::from_static(file.etag));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static("default-src 'self'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    answer
}
