//! Turns the requests of the git protocol into requests of the shipper's HTTP client.
//!
//! # Invariants
//! - The login goes to the server that was configured and to no other.
//!
//! # Limits
//! - All requests of a look share one deadline and [`FETCH_BYTES_MAX`]; a request is held in memory, it is
//!   names and ids; an answer is read as it comes.
//!
//! # Threads
//! - All of it happens on the thread that looks, which may wait.

use std::any::Any;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use gix::error::{Error, Result};
use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use parking_lot::Mutex;
use reqwest::Url;
use shipper::fetch::{Answer, Request};
use shipper::{Auth, HttpOptions};
use tokio::runtime::{Builder, Runtime};

use super::allowance::Allowance;
use super::{FETCH_BYTES_MAX, Place};

/// What all requests of a look have in common.
pub(super) struct Client {
    runtime: Runtime,
    /// What was configured, user and password included.
    login: Url,
    http: HttpOptions,
    pub(super) allowance: Allowance,
}

impl Client {
    pub(super) fn new(place: &Place) -> std::result::Result<Arc<Self>, String> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Arc::new(Self {
            runtime: runtime.map_err(|error| format!("start a runtime: {error}"))?,
            login: place.login.clone(),
            http: place.http.clone(),
            allowance: Allowance::new(place.time_max),
        }))
    }

    /// Credentials for requests to the server that was configured.
    fn logged_in(&self, url: &str) -> std::result::Result<(Url, HttpOptions), String> {
        let mut url = Url::parse(url).map_err(|error| format!("url: {error}"))?;
        let mut http = self.http.clone();
        if url.origin() != self.login.origin() {
            http.auth = Auth::None;
            return Ok((url, http));
        }
        let set = url
            .set_username(self.login.username())
            .and_then(|()| url.set_password(self.login.password()));
        assert!(set.is_ok(), "an http url has a host");
        Ok((url, http))
    }

    fn send(&self, asked: &Asked) -> io::Result<Answer> {
        let (url, http) = self
            .logged_in(&asked.url)
            .map_err(|problem| self.allowance.failed(problem))?;
        let body = String::from_utf8(asked.body.clone());
        let body = body.map_err(|_| self.allowance.failed("a request is not text".to_owned()))?;
        let headers = asked
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let request = Request {
            url: url.as_str(),
            method: asked.method,
            headers: headers.collect(),
            body,
            timeout: self.allowance.time(),
            http: &http,
            unix_socket: None,
            answer_bytes_max: FETCH_BYTES_MAX,
        };
        let answer = self.runtime.block_on(shipper::fetch::open(&request));
        answer.map_err(|problem| self.allowance.failed(problem))
    }

    /// More of an answer; empty at its end.
    fn chunk(&self, answer: &mut Answer) -> io::Result<Bytes> {
        let next = async {
            // An empty one is not the end.
            while let Some(chunk) = answer.chunk().await? {
                if !chunk.is_empty() {
                    return Ok(chunk);
                }
            }
            Ok(Bytes::new())
        };
        let allowance = &self.allowance;
        let chunk = self.runtime.block_on(allowance.in_time(next))?;
        let chunk = chunk.map_err(|problem| allowance.failed(problem))?;
        allowance.take(chunk.len())?;
        Ok(chunk)
    }
}

/// A request that is not sent yet.
struct Asked {
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    /// Headers come as lines.
    fn new<'h>(method: &'static str, url: &str, lines: impl Iterator<Item = &'h str>) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = lines
            .filter_map(pair)
            .filter(|(name, _)| name != "user-agent");
        Self {
            method,
            url: url.to_owned(),
            headers: headers.collect(),
            body: Vec::new(),
        }
    }
}

/// A request and its answer. Sent when the first byte of the answer is wanted.
enum Exchange {
    Asked(Asked),
    Answered(Answer),
    Failed,
}

/// The transport's client.
pub(super) struct Web {
    client: Arc<Client>,
    /// Where requests go from now on.
    moved: Option<String>,
}

impl Web {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            moved: None,
        }
    }
}

impl Http for Web {
    type Headers = Lines;
    type ResponseBody = Body;
    type PostBody = Post;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<GetResponse<Lines, Body>> {
        let headers: Vec<String> = headers
            .into_iter()
            .map(|one| one.as_ref().to_owned())
            .collect();
        let asked = Asked::new("GET", url, headers.iter().map(String::as_str));
        let answer = self.client.send(&asked).map_err(Error::from_error)?;
        if let Some(tail) = url.strip_prefix(base_url)
            && let Some(base) = answer.url().strip_suffix(tail)
            && base != base_url
        {
            self.moved = Some(base.to_owned());
        }
        let both = Arc::new(Mutex::new(Exchange::Answered(answer)));
        Ok(GetResponse {
            headers: Lines::new(&self.client, &both),
            body: Body::new(&self.client, both),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> Result<PostResponse<Lines, Body, Post>> {
        let headers: Vec<String> = headers
            .into_iter()
            .map(|one| one.as_ref().to_owned())
            .collect();
        let asked = Asked::new("POST", url, headers.iter().map(String::as_str));
        let all = Arc::new(Mutex::new(Exchange::Asked(asked)));
        Ok(PostResponse {
            post_body: Post(all.clone()),
            headers: Lines::new(&self.client, &all),
            body: Body::new(&self.client, all),
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.moved.clone()
    }
}

/// The body of a request.
pub(super) struct Post(Arc<Mutex<Exchange>>);

impl Write for Post {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock() {
            Exchange::Asked(asked) => asked.body.extend_from_slice(bytes),
            Exchange::Answered(_) | Exchange::Failed => {
                return Err(io::Error::other("the request is already sent"));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what is not sent yet.
fn answered<T>(
    client: &Client,
    exchange: &Mutex<Exchange>,
    then: impl FnOnce(&mut Answer) -> io::Result<T>,
) -> io::Result<T> {
    let mut exchange = exchange.lock();
    if let Exchange::Asked(asked) = &*exchange {
        let answer = client.send(asked);
        *exchange = Exchange::Failed;
        *exchange = Exchange::Answered(answer?);
    }
    match &mut *exchange {
        Exchange::Answered(answer) => then(answer),
        _ => Err(io::Error::other("the request failed")),
    }
}

/// The header of an answer that the protocol looks at, as a line.
pub(super) struct Lines {
    client: Arc<Client>,
    exchange: Arc<Mutex<Exchange>>,
    text: Option<io::Cursor<String>>,
}

impl Lines {
    fn new(client: &Arc<Client>, exchange: &Arc<Mutex<Exchange>>) -> Self {
        Self {
            client: client.clone(),
            exchange: exchange.clone(),
            text: None,
        }
    }

    fn text(&mut self) -> io::Result<&mut io::Cursor<String>> {
        let text = match self.text.take() {
            Some(text) => text,
            None => answered(&self.client, &self.exchange, |answer| {
                let content_type = answer.content_type().unwrap_or_default();
                Ok(io::Cursor::new(format!("content-type: {content_type}\n")))
            })?,
        };
        Ok(self.text.insert(text))
    }
}

impl Read for Lines {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.text()?.read(into)
    }
}

impl BufRead for Lines {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.text()?.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Some(text) = &mut self.text {
            text.consume(count);
        }
    }
}

/// The body of an answer.
pub(super) struct Body {
    client: Arc<Client>,
    exchange: Arc<Mutex<Exchange>>,
    chunk: Bytes,
}

impl Body {
    fn new(client: &Arc<Client>, exchange: Arc<Mutex<Exchange>>) -> Self {
        Self {
            client: client.clone(),
            exchange,
            chunk: Bytes::new(),
        }
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() {
            let client = &self.client;
            self.chunk = answered(client, &self.exchange, |answer| client.chunk(answer))?;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        drop(self.chunk.split_to(count.min(self.chunk.len())));
    }
}
