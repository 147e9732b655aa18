//! Turns a URL into the text that is there, with the client arguments of an endpoint.
//!
//! For components that look at a text again and again: nothing is kept between looks, unless by a [`Client`].
//!
//! # Failure
//! - Anything but a 200, and with text where a text is wanted, is an error in words, without secrets and
//!   without the URL.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
pub use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Response, StatusCode, Url};
use wal::SystemClock;

use crate::http::{HttpClient, HttpOptions, Setup};

/// A request for a text.
#[derive(Debug)]
pub struct Request<'r> {
    /// Where the text is.
    pub url: &'r str,
    /// The method, in upper case.
    pub method: &'r str,
    /// Further headers; values are often secret.
    pub headers: Vec<(&'r str, &'r str)>,
    /// The body sent.
    pub body: String,
    /// How long it may take as a whole.
    pub timeout: Duration,
    /// Credentials, certificates and the way there.
    pub http: &'r HttpOptions,
    /// The socket of the machine that the server listens on; none: it is at the host of the url.
    pub unix_socket: Option<&'r Path>,
    /// Most bytes of the answer.
    pub answer_bytes_max: u64,
}

/// Asks once.
///
/// # Errors
/// Why there is no text.
pub async fn fetch(request: Request<'_>) -> Result<String, String> {
    let deadline = tokio::time::Instant::now() + request.timeout;
    match tokio::time::timeout_at(deadline, ask(&request)).await {
        Ok(answer) => answer,
        Err(_) => Err("operation timed out".to_owned()),
    }
}

async fn ask(request: &Request<'_>) -> Result<String, String> {
    let answer = open(request).await?;
    answer.text(request.answer_bytes_max).await
}

/// An answer whose body is read as it comes.
#[derive(Debug)]
pub struct Answer(Response);

impl Answer {
    /// What its body is; nothing where the server does not say.
    pub fn content_type(&self) -> Option<&str> {
        self.header(CONTENT_TYPE.as_str())
    }

    /// The value of a header; nothing where it is not there, or is no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// How its body is compressed; nothing where it is not.
    pub fn content_encoding(&self) -> Option<&str> {
        self.header(CONTENT_ENCODING.as_str())
    }

    /// The length of its body as it comes, where the server says it.
    pub fn content_length(&self) -> Option<u64> {
        self.0.content_length()
    }

    /// The number of its status, and its name.
    pub fn status(&self) -> (u16, &'static str) {
        let status = self.0.status();
        (
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
        )
    }

    /// Where it came from after redirects.
    pub fn url(&self) -> &str {
        self.0.url().as_str()
    }

    /// More of its body; nothing at its end.
    ///
    /// # Errors
    /// Why there is no more.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let chunk = self.0.chunk().await;
        chunk.map_err(|error| error.without_url().to_string())
    }

    /// All of its body as text.
    ///
    /// # Errors
    /// There is no more of it, there is more of it than `bytes_max`, or it is no text.
    pub async fn text(mut self, bytes_max: u64) -> Result<String, String> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
            if all.len() as u64 > bytes_max {
                return Err(format!("the answer has more than {bytes_max} bytes"));
            }
        }
        String::from_utf8(all).map_err(|_| "the answer is not UTF-8".to_owned())
    }
}

/// A client that keeps connections between requests.
pub struct Client(HttpClient);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// One that keeps so many idle connections for each host. A request takes at most `timeout`, its body
    /// included.
    ///
    /// # Errors
    /// Files or the environment do not make one.
    pub fn new(http: &HttpOptions, timeout: Duration, connections: usize) -> Result<Self, String> {
        let setup = Setup {
            timeout,
            connections,
            unix_socket: None,
            clock: SystemClock::shared(),
        };
        HttpClient::new(http, setup).map(Self)
    }

    /// Asks with GET, and gives the answer whatever its status is. The values of these headers are no secrets.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get(&self, url: &str, headers: &[(HeaderName, &str)]) -> Result<Answer, String> {
        let mut map = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            let value = HeaderValue::from_str(value);
            let value = value.map_err(|_| format!("the value of header {name} is not one"))?;
            map.append(name.clone(), value);
        }
        self.get_with(url, map).await
    }

    /// Asks with GET and these headers; those that are marked sensitive stay at their origin.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get_with(&self, url: &str, headers: HeaderMap) -> Result<Answer, String> {
        let url = Url::parse(url).map_err(|error| format!("url: {error}"))?;
        let sent = self.0.send((Method::GET, &url), headers, Bytes::new());
        sent.await.map(Answer)
    }
}

/// Asks once. The timeout covers the body; its length is the caller's matter.
///
/// # Errors
/// Why there is no answer, or not a 200.
pub async fn open(request: &Request<'_>) -> Result<Answer, String> {
    let setup = Setup {
        timeout: request.timeout,
        connections: 0,
        unix_socket: request.unix_socket.map(Path::to_owned),
        clock: SystemClock::shared(),
    };
    let client = HttpClient::new(request.http, setup)?;
    let url = Url::parse(request.url).map_err(|error| format!("url: {error}"))?;
    let method = Method::from_bytes(request.method.as_bytes());
    let method = method.map_err(|error| format!("method: {error}"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| "the name of a header is not one".to_owned())?;
        let value = HeaderValue::from_str(value);
        let mut value = value.map_err(|_| format!("the value of header {name} is not one"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    let body = Bytes::from(request.body.clone());
    let answer = client.send((method, &url), headers, body).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the answer is {}", answer.status()));
    }
    Ok(Answer(answer))
}
