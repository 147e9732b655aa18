//! Turns the containers and networks of a Docker host into targets.
//!
//! A container has a target for every TCP port in every network it is in; one without ports has one for every
//! network, with the port of the configuration.
//!
//! # Failure
//! - Anything but the two lists in JSON is an error. What is missing in them is an empty label.

mod containers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use shipper::HttpOptions;
use shipper::fetch::{Answer, Request, open};

use super::refresh::{self, Found};
use super::target::sorted_group;
use super::{TEXT_BYTES_MAX, blocking};

/// A host to ask.
#[derive(Clone, Debug)]
pub(crate) struct DockerPlace {
    pub(crate) host: Host,
    pub(crate) http: HttpOptions,
    pub(crate) filters: Vec<Filter>,
    /// Of containers without ports.
    pub(crate) port: u16,
    /// The address of containers in the host's own network.
    pub(crate) host_networking_host: String,
    /// Whether only the first network of a container counts.
    pub(crate) match_first_network: bool,
}

/// Where the API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    Socket(PathBuf),
    Url(String),
}

/// Which containers are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

impl Host {
    /// As in a configuration. With certificates, `tcp` is TLS.
    pub(crate) fn from_text(text: &str, is_tls: bool) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let rest = rest.trim_end_matches('/');
        let url = |scheme: &str| Some(Self::Url(format!("{scheme}://{rest}")));
        match scheme {
            _ if rest.is_empty() => None,
            "unix" => Some(Self::Socket(PathBuf::from(rest))),
            "tcp" if is_tls => url("https"),
            "tcp" => url("http"),
            "http" | "https" => url(scheme),
            _ => None,
        }
    }

    /// The URL of a path, and the socket to ask there.
    fn url(&self, path: &str) -> (String, Option<&Path>) {
        match self {
            Self::Socket(socket) => (format!("http://localhost{path}"), Some(socket)),
            Self::Url(url) => (format!("{url}{path}"), None),
        }
    }
}

pub(super) struct Look {
    place: DockerPlace,
    timeout: Duration,
    /// `?filters=...`, or nothing.
    filters: String,
}

impl Look {
    pub(super) fn new(place: DockerPlace, timeout: Duration) -> Self {
        Self {
            filters: query(&place.filters),
            place,
            timeout,
        }
    }

    async fn ask(&self, path: &str) -> Result<Answer, String> {
        let (url, unix_socket) = self.place.host.url(path);
        let request = Request {
            url: &url,
            method: "GET",
            headers: Vec::new(),
            body: String::new(),
            timeout: self.timeout,
            http: &self.place.http,
            unix_socket,
            answer_bytes_max: TEXT_BYTES_MAX,
        };
        open(&request).await
    }

    async fn list(&self, path: &str, what: &str) -> Result<Value, String> {
        let wrong = |problem: String| format!("error while listing {what}: {problem}");
        let answer = self.ask(path).await.map_err(wrong)?;
        let text = answer.text(TEXT_BYTES_MAX).await.map_err(wrong)?;
        let parse = move || serde_json::from_str(&text).map_err(|error| error.to_string());
        blocking(parse).await.map_err(wrong)
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        let answer = self.ask("/_ping").await;
        let answer =
            answer.map_err(|problem| format!("error while asking for its version: {problem}"))?;
        // Without a version the API is a deprecated one.
        let version = answer
            .header("api-version")
            .map(|version| format!("/v{version}"));
        let version = version.unwrap_or_default();
        let containers = format!("{version}/containers/json{}", self.filters);
        let containers = self.list(&containers, "containers").await?;
        let networks = self
            .list(&format!("{version}/networks"), "networks")
            .await?;
        let place = self.place.clone();
        let group = blocking(move || {
            let targets = containers::targets(&containers, &networks, &place)?;
            Ok(sorted_group(targets))
        });
        Ok(vec![("Docker".to_owned(), Ok(group.await?))])
    }
}

/// The filters as a query.
fn query(filters: &[Filter]) -> String {
    if filters.is_empty() {
        return String::new();
    }
    let mut all = serde_json::Map::new();
    for filter in filters {
        let values = all
            .entry(filter.name.clone())
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.extend(filter.values.iter().map(|value| value.as_str().into()));
        }
    }
    let text = Value::Object(all).to_string();
    let text: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    format!("?filters={text}")
}

#[cfg(test)]
mod tests;
