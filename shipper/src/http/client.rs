//! Turns a request into an answer, over redirects and a renewed token.
//!
//! # Invariants
//! - Only redirects that keep method and body are followed. The others would turn a POST into
//!   a GET, and a friendly 200 of a login page into an acknowledgement. A GET may follow them all.
//! - Behind a redirect to another origin a request goes on without credentials and without headers
//!   that are marked sensitive, also where a further redirect leads back.
//!
//! # Failure
//! - Anything that keeps a request from being answered is an error in words; what is in the answer
//!   is the caller's matter.
//!
//! # Limits
//! - One request takes at most the timeout: credentials, redirects and answer included.
//! - At most [`REDIRECTS_MAX`] redirects, and one new token after a 401.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::Instant;
use wal::SharedClock;

use super::auth::{Content, Credentials};
use super::chain;
use super::connector::{Connections, Connector};
use super::options::HttpOptions;
use super::secret::Secret;

const REDIRECTS_MAX: usize = 10;

/// Sends the requests of one component.
pub(crate) struct HttpClient {
    connector: Connector,
    credentials: Credentials,
    headers: HeaderMap,
    follow_redirects: bool,
    timeout: Duration,
}

/// What a client needs besides its options.
pub(crate) struct Setup {
    /// How long one request may take.
    pub(crate) timeout: Duration,
    /// Idle connections kept per host.
    pub(crate) connections: usize,
    /// Every connection is made to this socket of the machine, whatever the host is.
    pub(crate) unix_socket: Option<PathBuf>,
    /// The time, for tokens, signatures and files.
    pub(crate) clock: SharedClock,
}

impl HttpClient {
    /// A client of valid options, or why their files or the environment do not make one.
    pub(crate) fn new(options: &HttpOptions, setup: Setup) -> Result<Self, String> {
        let connections = Connections {
            tls: options.tls.clone(),
            proxy: options.proxy.clone(),
            http2: options.enable_http2,
            round_robin_dns: options.round_robin_dns,
            idle_max: setup.connections,
            unix_socket: setup.unix_socket,
        };
        Ok(Self {
            connector: Connector::new(connections, SharedClock::clone(&setup.clock))?,
            credentials: Credentials::new(&options.auth, setup.clock)?,
            headers: options.header_map().map_err(|invalid| invalid.problem)?,
            follow_redirects: options.follow_redirects,
            timeout: setup.timeout,
        })
    }

    /// One request. The options' headers give way to those given here.
    pub(crate) async fn send(
        &self,
        (method, url): (Method, &Url),
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, String> {
        let deadline = Instant::now() + self.timeout;
        let mut all = self.headers.clone();
        all.extend(headers);
        let hop = Hop {
            method,
            url: url.clone(),
            headers: all,
            body,
            at_home: true,
        };
        // the deadline of each request does not cover the wait for a token
        match tokio::time::timeout_at(deadline, self.exchange(hop, deadline)).await {
            Ok(result) => result,
            Err(_) => Err("operation timed out".to_owned()),
        }
    }

    async fn exchange(&self, mut hop: Hop, deadline: Instant) -> Result<Response, String> {
        let home = hop.url.clone();
        let mut refused: Option<Secret> = None;
        let mut redirects = 0;
        loop {
            let client = self.connector.client();
            let mut request = client
                .request(hop.method.clone(), hop.url.clone())
                .headers(hop.headers.clone())
                .timeout(deadline.saturating_duration_since(Instant::now()))
                .body(hop.body.clone());
            let mut token = None;
            if hop.at_home {
                let content = Content {
                    url: &hop.url,
                    headers: &hop.headers,
                    body: &hop.body,
                };
                let applied = self.credentials.apply(request, content, refused.as_ref());
                (request, token) = applied.await?;
            }
            let response = request
                .send()
                .await
                .map_err(|error| chain(&error.without_url()))?;
            if response.status() == StatusCode::UNAUTHORIZED && refused.is_none() && token.is_some()
            {
                refused = token;
            } else if self.follow_redirects
                && redirects < REDIRECTS_MAX
                && let Some(target) = target(&hop, &response)
            {
                redirects += 1;
                hop.go(target, &home);
            } else {
                return Ok(response);
            }
        }
    }
}

/// A request on its way.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    /// Whether it was never sent to another origin.
    at_home: bool,
}

impl Hop {
    /// Goes on to `target`. User and password are those of the configured url or none.
    fn go(&mut self, mut target: Url, home: &Url) {
        self.at_home &= target.origin() == home.origin();
        let (user, password) = match self.at_home {
            true => (home.username(), home.password()),
            false => ("", None),
        };
        let set = target
            .set_username(user)
            .and_then(|()| target.set_password(password));
        assert!(set.is_ok(), "an http url has a host");
        if !self.at_home {
            let headers = std::mem::take(&mut self.headers);
            let public = headers.iter().filter(|(_, value)| !value.is_sensitive());
            let public = public.map(|(name, value)| (name.clone(), value.clone()));
            self.headers.extend(public);
        }
        self.url = target;
    }
}

/// Where an answer sends the request, if it does and the request stays what it is.
fn target(from: &Hop, response: &Response) -> Option<Url> {
    let keeps_request = match response.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            from.method == Method::GET
        }
        _ => false,
    };
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let target = from.url.join(location).ok()?;
    let is_http = matches!(target.scheme(), "http" | "https") && target.has_host();
    (keeps_request && is_http).then_some(target)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn hop(url: &str) -> Hop {
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_static("hunter2");
        secret.set_sensitive(true);
        headers.insert("x-key", secret);
        headers.insert("content-type", HeaderValue::from_static("x"));
        Hop {
            method: Method::POST,
            url: Url::parse(url).unwrap(),
            headers,
            body: Bytes::new(),
            at_home: true,
        }
    }

    #[test]
    fn what_is_secret_stays_at_its_origin() {
        let home = Url::parse("https://u:p@h:8443/w").unwrap();
        for (to, url, at_home) in [
            ("/other", "https://u:p@h:8443/other", true),
            ("https://evil:x@h:8443/w", "https://u:p@h:8443/w", true),
            ("http://h:8443/w", "http://h:8443/w", false),
            ("https://h/w", "https://h/w", false),
            ("https://a:b@i:8443/w", "https://i:8443/w", false),
        ] {
            let mut hop = hop(home.as_str());
            hop.go(home.join(to).unwrap(), &home);
            assert_eq!((hop.url.as_str(), hop.at_home), (url, at_home));
            assert_eq!(hop.headers.contains_key("x-key"), at_home);
            assert!(hop.headers.contains_key("content-type"));
        }
    }

    #[test]
    fn a_way_back_does_not_bring_it_back() {
        let home = Url::parse("https://u:p@h/w").unwrap();
        let mut hop = hop(home.as_str());
        hop.go(Url::parse("https://other/").unwrap(), &home);
        hop.go(home.clone(), &home);
        assert_eq!((hop.url.as_str(), hop.at_home), ("https://h/w", false));
        assert!(!hop.headers.contains_key("x-key"));
    }
}
