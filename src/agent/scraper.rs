//! Turns what a `prometheus.scrape` block asks for into a scraper of the ingest threads: targets prepared, a client
//! that asks them, a file that tells of failures.
//!
//! # Invariants
//! - What is at the in-memory address is asked for without a socket, whatever the arguments say of TLS and
//!   credentials: it is this process.
//!
//! # Failure
//! - A target that cannot be scraped is left out, and told once, as long as it stays so.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ingest::Path;
use ingest::pull::{
    Assigned, Client, Clients, FailureLog, FetchError, Fetched, Fetching, Get, Rules,
    ScraperOptions, Target,
};
use shipper::HttpOptions;
use shipper::fetch::{self, HeaderName};

use super::failure_log::Failures;
use crate::component::Scrape;

/// Idle connections kept for each host: many targets may be paths of one.
const CONNECTIONS: usize = 100;

/// A request is bounded by the timeout of its target; this is for what forgets to.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// What answers without a socket.
pub(crate) trait InProcess: std::fmt::Debug + Send + Sync {
    /// Asks for the metrics of a path.
    fn exposition<'p>(&'p self, path: &'p str) -> Exposing<'p>;
}

/// The content type and the body of a path, or why they cannot be had; nothing if there is none of that name.
pub(crate) type Exposing<'p> =
    Pin<Box<dyn Future<Output = Option<Result<(String, Vec<u8>), String>>> + Send + 'p>>;

/// What a scraper was made of, and what it is.
#[derive(Debug)]
pub(super) struct Scraper {
    http: HttpOptions,
    failure_log: Option<String>,
    rules: Arc<Rules>,
    clients: Arc<dyn Clients>,
    failures: Option<Arc<dyn FailureLog>>,
    /// Targets that were left out: each is told once.
    left_out: BTreeSet<String>,
}

/// Where this process is asked without a socket.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// `host:port` that means it.
    pub(crate) address: String,
    pub(crate) answers: Arc<dyn InProcess>,
}

impl Scraper {
    /// The scraper that is asked for, in place of the one there was. Where a file cannot be used: that one, as it
    /// was, and why.
    pub(super) fn next(
        before: Option<Self>,
        component: &Scrape,
        memory: &Memory,
    ) -> (Option<Self>, Option<anyhow::Error>) {
        let made = Self::clients(before.as_ref(), component, memory)
            .and_then(|clients| Ok((clients, Self::failures(before.as_ref(), component)?)));
        let (clients, failures) = match made {
            Ok(made) => made,
            Err(error) => return (before, Some(error)),
        };
        let (rules, left_out) = match before {
            Some(before) if *before.rules == component.rules => (before.rules, before.left_out),
            Some(before) => (Arc::new(component.rules.clone()), before.left_out),
            None => (Arc::new(component.rules.clone()), BTreeSet::new()),
        };
        let next = Self {
            http: component.http.clone(),
            failure_log: component.failure_log.clone(),
            rules,
            clients,
            failures,
            left_out,
        };
        (Some(next), None)
    }

    fn clients(
        before: Option<&Self>,
        component: &Scrape,
        memory: &Memory,
    ) -> anyhow::Result<Arc<dyn Clients>> {
        Ok(match before {
            Some(before) if before.http == component.http => before.clients.clone(),
            _ => Arc::new(HttpClients::new(&component.http, memory)?),
        })
    }

    fn failures(
        before: Option<&Self>,
        component: &Scrape,
    ) -> anyhow::Result<Option<Arc<dyn FailureLog>>> {
        Ok(match (before, &component.failure_log) {
            (Some(before), path) if before.failure_log == *path => before.failures.clone(),
            (_, None) => None,
            (_, Some(path)) => Some(Arc::new(Failures::open(path)?)),
        })
    }

    /// What the ingest threads are to do. `is_ours` says by its key whether a target is scraped here.
    pub(super) fn options(
        &mut self,
        id: &str,
        component: &Scrape,
        paths: Vec<Path>,
        is_ours: impl Fn(u64) -> bool,
    ) -> ScraperOptions {
        let defaults = component.defaults(id);
        let mut left_out = BTreeSet::new();
        let mut targets = Vec::with_capacity(component.targets.len());
        for labels in &component.targets {
            match Target::prepare(labels, &defaults) {
                Ok(target) => targets.push(Assigned {
                    is_ours: is_ours(target.key),
                    target: Arc::new(target),
                }),
                Err(problem) => {
                    let address = labels.get("__address__").map_or("", String::as_str);
                    let told = format!("{address:?}: {problem}");
                    if !self.left_out.contains(&told) {
                        tracing::error!(component = id, target = address, problem, "not scraped");
                    }
                    left_out.insert(told);
                }
            }
        }
        self.left_out = left_out;
        ScraperOptions {
            name: id.to_owned(),
            paths,
            targets: targets.into(),
            rules: self.rules.clone(),
            clients: self.clients.clone(),
            failures: self.failures.clone(),
        }
    }
}

/// Makes clients for threads.
#[derive(Debug)]
struct HttpClients {
    http: HttpOptions,
    memory: Memory,
}

impl HttpClients {
    fn new(http: &HttpOptions, memory: &Memory) -> anyhow::Result<Self> {
        // What keeps it from working shows now, not at the first scrape.
        fetch::Client::new(http, TIMEOUT_MAX, CONNECTIONS).map_err(anyhow::Error::msg)?;
        Ok(Self {
            http: http.clone(),
            memory: memory.clone(),
        })
    }
}

impl Clients for HttpClients {
    fn client(&self) -> Rc<dyn Client> {
        Rc::new(HttpClient {
            client: fetch::Client::new(&self.http, TIMEOUT_MAX, CONNECTIONS),
            memory: self.memory.clone(),
        })
    }
}

#[derive(Debug)]
struct HttpClient {
    client: Result<fetch::Client, String>,
    memory: Memory,
}

impl HttpClient {
    /// The path of a URL that means this process.
    fn own_path<'u>(&self, url: &'u str) -> Option<&'u str> {
        let behind = url
            .split_once("://")?
            .1
            .strip_prefix(&*self.memory.address)?;
        let path = behind.split('?').next().unwrap_or_default();
        (path.is_empty() || path.starts_with('/')).then_some(path)
    }

    async fn fetch(&self, get: Get<'_>) -> Result<Fetched, FetchError> {
        if let Some(path) = self.own_path(get.url) {
            let found = self.memory.answers.exposition(path);
            let Some(found) = found.await else {
                return Err(status(404, "Not Found"));
            };
            let (content_type, body) = found.map_err(FetchError::Failed)?;
            if body.len() > get.body_bytes_max {
                return Err(FetchError::TooLarge);
            }
            *get.body = body;
            return Ok(Fetched {
                content_type: Some(content_type),
                is_gzip: false,
            });
        }
        let client = self.client.as_ref();
        let client = client.map_err(|why| FetchError::Failed(why.clone()))?;
        let timeout = get.timeout.as_secs_f64().to_string();
        let headers = [
            (HeaderName::from_static("accept"), get.accept),
            (
                HeaderName::from_static("accept-encoding"),
                get.accept_encoding,
            ),
            (
                HeaderName::from_static("x-prometheus-scrape-timeout-seconds"),
                &*timeout,
            ),
        ];
        let answer = client.get(get.url, &headers).await;
        let mut answer = answer.map_err(FetchError::Failed)?;
        let (code, reason) = answer.status();
        if code != 200 {
            return Err(status(code, reason));
        }
        let most = get.body_bytes_max;
        let promised = answer.content_length().unwrap_or(0);
        let promised = usize::try_from(promised).unwrap_or(usize::MAX);
        if promised > most {
            return Err(FetchError::TooLarge);
        }
        get.body.reserve(promised.min(FIRST_BYTES_MAX));
        while let Some(chunk) = answer.chunk().await.map_err(FetchError::Failed)? {
            if get.body.len() + chunk.len() > most {
                return Err(FetchError::TooLarge);
            }
            get.body.extend_from_slice(&chunk);
        }
        Ok(Fetched {
            content_type: answer.content_type().map(str::to_owned),
            is_gzip: answer.content_encoding() == Some("gzip"),
        })
    }
}

/// Room made for a body because it was promised.
const FIRST_BYTES_MAX: usize = 1 << 20;

fn status(code: u16, reason: &str) -> FetchError {
    FetchError::Failed(format!("server returned HTTP status {code} {reason}"))
}

impl Client for HttpClient {
    fn get<'g>(&'g self, get: Get<'g>) -> Fetching<'g> {
        Box::pin(self.fetch(get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl InProcess for Nothing {
        fn exposition<'p>(&'p self, _: &'p str) -> Exposing<'p> {
            Box::pin(async { None })
        }
    }

    #[test]
    fn only_the_in_memory_address_is_this_process() {
        let client = HttpClient {
            client: Err(String::new()),
            memory: Memory {
                address: "alloy.internal:12345".to_owned(),
                answers: Arc::new(Nothing),
            },
        };
        let own = |url: &str| client.own_path(url).map(str::to_owned);
        assert_eq!(
            own("http://alloy.internal:12345/metrics?a=b").unwrap(),
            "/metrics"
        );
        assert_eq!(own("https://alloy.internal:12345/x/y").unwrap(), "/x/y");
        assert_eq!(own("http://alloy.internal:123456/metrics"), None);
        assert_eq!(own("http://alloy.internal/metrics"), None);
        assert_eq!(own("http://other:12345/metrics"), None);
    }
}
