//! The seam to the network: turns one request into its answer, however that travels.
//!
//! Below it are connections, credentials and redirects (`http`), or a simulation; above it
//! every answer is judged by the same code (`send`).

use std::pin::Pin;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, Url};

use crate::http::HttpClient;

/// An answer to come, or in words why there is none.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, String>> + Send + 'a>>;

/// Carries requests to an endpoint.
pub trait Transport: Send + Sync {
    /// One POST; ends within the endpoint's `remote_timeout`. Dropped before that, it may have
    /// arrived or not.
    fn post<'a>(&'a self, url: &'a Url, headers: HeaderMap, body: Bytes) -> Answer<'a>;
}

impl Transport for HttpClient {
    fn post<'a>(&'a self, url: &'a Url, headers: HeaderMap, body: Bytes) -> Answer<'a> {
        Box::pin(self.send((Method::POST, url), headers, body))
    }
}
