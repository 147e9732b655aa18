//! Names what a scrape needs of an HTTP client.
//!
//! The client itself is somebody else's: this crate has none, and some targets are reached without one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::target::Target;

/// A scrape as a request.
#[derive(Debug)]
pub struct Get<'g> {
    /// What is asked for.
    pub url: &'g str,
    /// The `Accept` header.
    pub accept: &'g str,
    /// The `Accept-Encoding` header.
    pub accept_encoding: &'static str,
    /// How long it may take as a whole; told to the target, too.
    pub timeout: Duration,
    /// Most bytes of the body as it comes.
    pub body_bytes_max: usize,
    /// Where the body goes; empty.
    pub body: &'g mut Vec<u8>,
}

/// What a target answered with 200.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fetched {
    /// The `Content-Type` header; nothing where there is none.
    pub content_type: Option<String>,
    /// Whether the body is compressed by gzip.
    pub is_gzip: bool,
}

/// Why there is no body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// It has more bytes than it may have.
    TooLarge,
    /// Anything else, in words.
    Failed(String),
}

/// Asks a target once.
pub type Fetching<'g> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + 'g>>;

/// The client of one scraper on one thread: it keeps connections from scrape to scrape.
pub trait Client: fmt::Debug {
    /// Asks a target.
    fn get<'g>(&'g self, get: Get<'g>) -> Fetching<'g>;
}

/// Makes a client for each thread.
pub trait Clients: fmt::Debug + Send + Sync {
    /// A client for the thread that calls. One that cannot work says so each time it is asked.
    fn client(&self) -> Rc<dyn Client>;
}

/// Is told of scrapes that failed.
pub trait FailureLog: fmt::Debug + Send + Sync {
    /// A scrape of `target` that began at `time_ms` (since the epoch) failed.
    fn failed(&self, target: &Target, time_ms: i64, error: &str);
}
