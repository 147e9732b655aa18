//! Turns the arguments of an endpoint into values that are known to be good.
//!
//! # Invariants
//! - [`EndpointOptions`] may hold anything; a `Resolved` is valid and nothing is checked later.
//! - Nothing here prints a secret: not passwords, tokens or headers, nor the userinfo of a url.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::drain::DrainOptions;
use crate::error::Error;
use crate::http::{Auth, HttpOptions, Secret};
use crate::lanes::Lane;
use crate::outgoing::Outgoing;
use labels::ExternalLabels;
use labels::relabel::{Rule, RuleOptions};

/// More shards than this are a typing error: each holds a queue and a connection.
const SHARDS_MAX: u16 = 1024;
/// A larger queue per shard is a typing error: it is memory, and the log is the real queue.
const CAPACITY_MAX: usize = 10_000_000;

/// A shorter interval is a typing error: all that is known is sent each time.
const METADATA_INTERVAL_LEAST: Duration = Duration::from_secs(1);

/// Headers that belong to the protocol or the connection. `authorization` has its own argument.
const RESERVED_HEADERS: [&str; 16] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "retry-attempt",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "www-authenticate",
    "x-prometheus-remote-write-version",
];

/// Queues, batches and waits of an endpoint; the `queue_config` block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueOptions {
    /// Records a shard may have queued.
    pub capacity: usize,
    /// At least so many shards.
    pub min_shards: u16,
    /// At most so many shards.
    pub max_shards: u16,
    /// Records that make a full batch.
    pub max_samples_per_send: usize,
    /// How long a record may wait for its batch to fill.
    pub batch_send_deadline: Duration,
    /// The first wait after a failure.
    pub min_backoff: Duration,
    /// The longest wait that nobody asked for.
    pub max_backoff: Duration,
    /// Whether 429 means later rather than never.
    pub retry_on_http_429: bool,
    /// Between two decisions on the number of shards.
    pub reshard_every: Duration,
    /// Records with an older timestamp are not sent; zero: there is no such age.
    pub sample_age_limit: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            min_shards: 1,
            max_shards: 50,
            max_samples_per_send: 2000,
            batch_send_deadline: Duration::from_secs(5),
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_secs(5),
            retry_on_http_429: true,
            reshard_every: Duration::from_secs(10),
            sample_age_limit: Duration::ZERO,
        }
    }
}

/// What an endpoint that was away gets first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Priority {
    /// What it missed: each series in order.
    #[default]
    InOrder,
    /// What is new, and what it missed beside that: for backends that take samples out of order.
    Fresh,
}

impl Priority {
    /// Its name, as in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InOrder => "in_order",
            Self::Fresh => "fresh",
        }
    }

    /// Lanes an endpoint may have at a time.
    pub(crate) const fn lanes(self) -> usize {
        match self {
            Self::InOrder => 1,
            Self::Fresh => Lane::COUNT,
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::InOrder, Self::Fresh]
            .into_iter()
            .find(|one| one.as_str() == name)
    }
}

/// The message that requests hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProtobufMessage {
    /// `prometheus.WriteRequest` of remote write 1.0.
    #[default]
    V1,
    /// `io.prometheus.write.v2.Request` of remote write 2.0.
    V2,
}

impl ProtobufMessage {
    /// Its name, as in configurations and content types.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// The message of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::V1, Self::V2]
            .into_iter()
            .find(|one| one.as_str() == name)
    }
}

/// How metadata is sent; the `metadata_config` block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataOptions {
    /// Whether it is sent.
    pub send: bool,
    /// Remote write 1.0: how often what is known is sent again.
    pub send_interval: Duration,
    /// Remote write 1.0: most metric families per request of these.
    pub max_samples_per_send: usize,
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self {
            send: true,
            send_interval: Duration::from_secs(60),
            max_samples_per_send: 2000,
        }
    }
}

/// The arguments of one endpoint.
#[derive(Clone)]
pub struct EndpointOptions {
    /// Names its position in the store; keep it and everything else may change.
    pub name: String,
    /// Where requests go.
    pub url: String,
    /// How long one request may take.
    pub remote_timeout: Duration,
    /// Further headers. Values are often tokens, hence secret.
    pub headers: BTreeMap<String, Secret>,
    /// Credentials, certificates and the way there.
    pub http: HttpOptions,
    /// Whether exemplars are sent.
    pub send_exemplars: bool,
    /// Whether native histograms are sent.
    pub send_native_histograms: bool,
    /// The message that requests hold.
    pub protobuf_message: ProtobufMessage,
    /// Whether an endpoint that answers 415 to remote write 2.0 is sent 1.0 until the next start.
    pub fallback_to_v1: bool,
    /// How metadata is sent.
    pub metadata: MetadataOptions,
    /// Queues, batches and waits.
    pub queue: QueueOptions,
    /// How fast a backlog may be sent.
    pub drain: DrainOptions,
    /// What it gets first after it was away.
    pub priority: Priority,
    /// Labels for series that do not have them.
    pub external_labels: BTreeMap<String, String>,
    /// Rules for the labels of every series, after the external ones were added.
    pub write_relabel: Vec<RuleOptions>,
}

impl EndpointOptions {
    /// An endpoint with default arguments.
    #[must_use]
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            remote_timeout: Duration::from_secs(30),
            headers: BTreeMap::new(),
            http: HttpOptions {
                // one connection per shard does without it, as the reference's endpoints do
                enable_http2: false,
                ..HttpOptions::default()
            },
            send_exemplars: true,
            send_native_histograms: false,
            protobuf_message: ProtobufMessage::default(),
            fallback_to_v1: true,
            metadata: MetadataOptions::default(),
            queue: QueueOptions::default(),
            drain: DrainOptions::default(),
            priority: Priority::default(),
            external_labels: BTreeMap::new(),
            write_relabel: Vec::new(),
        }
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`Error::Option`] names the first argument that is not valid.
    pub fn validate(&self) -> Result<(), Error> {
        self.clone().resolve().map(|_| ())
    }

    pub(crate) fn resolve(self) -> Result<Resolved, Error> {
        let mut url = self.checked_url()?;
        let url_redacted = redact(&url);
        if self.http.auth != Auth::None {
            // else the client would send both
            strip_userinfo(&mut url);
        }
        self.check_queue()?;
        self.http
            .validate()
            .map_err(|invalid| self.invalid(invalid.option, invalid.problem))?;
        if self.name.is_empty() {
            return Err(self.invalid("name", "must not be empty"));
        }
        if self.remote_timeout.is_zero() {
            return Err(self.invalid("remote_timeout", "must be more than 0"));
        }
        if self.metadata.send_interval < METADATA_INTERVAL_LEAST {
            return Err(self.invalid("metadata_config.send_interval", "must be at least 1s"));
        }
        if !(1..=CAPACITY_MAX).contains(&self.metadata.max_samples_per_send) {
            let problem = "must be between 1 and 10000000";
            return Err(self.invalid("metadata_config.max_samples_per_send", problem));
        }
        if self.external_labels.keys().any(String::is_empty) {
            return Err(self.invalid("external_labels", "a label name must not be empty"));
        }
        let external = ExternalLabels::new(&self.external_labels);
        Ok(Resolved {
            url_redacted,
            url,
            headers: self.checked_headers()?,
            outgoing: Arc::new(Outgoing::new(external, self.checked_rules()?)),
            options: self,
        })
    }

    fn checked_rules(&self) -> Result<Vec<Rule>, Error> {
        let rules = self.write_relabel.iter().map(RuleOptions::build);
        rules
            .collect::<Result<_, _>>()
            .map_err(|error| self.invalid("write_relabel_config", error.to_string()))
    }

    fn checked_url(&self) -> Result<Url, Error> {
        let url = Url::parse(&self.url)
            .map_err(|error| self.invalid("url", format!("is not a url: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(self.invalid("url", "must begin with http:// or https:// and have a host"));
        }
        Ok(url)
    }

    fn checked_headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| self.invalid("headers", format!("{name:?} is no header name")))?;
            if RESERVED_HEADERS.contains(&header.as_str()) {
                return Err(self.invalid("headers", format!("{name:?} is reserved")));
            }
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
                self.invalid("headers", format!("the value of {name:?} is not legal"))
            })?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(headers)
    }

    fn check_queue(&self) -> Result<(), Error> {
        let queue = &self.queue;
        let checks = [
            (
                "queue_config.capacity",
                (1..=CAPACITY_MAX).contains(&queue.capacity),
                "must be between 1 and 10000000",
            ),
            (
                "queue_config.max_samples_per_send",
                (1..=CAPACITY_MAX).contains(&queue.max_samples_per_send),
                "must be between 1 and 10000000",
            ),
            (
                "queue_config.max_shards",
                (1..=SHARDS_MAX).contains(&queue.max_shards),
                "must be between 1 and 1024",
            ),
            (
                "queue_config.min_shards",
                (1..=queue.max_shards).contains(&queue.min_shards),
                "must be between 1 and max_shards",
            ),
            (
                "queue_config.reshard_every",
                !queue.reshard_every.is_zero(),
                "must be more than 0",
            ),
            (
                "queue_config.min_backoff",
                !queue.min_backoff.is_zero(),
                "must be more than 0",
            ),
            (
                "queue_config.max_backoff",
                queue.max_backoff >= queue.min_backoff,
                "must not be less than min_backoff",
            ),
            (
                "drain.max_bytes_per_second",
                self.drain
                    .max_bytes_per_second
                    .is_none_or(|bytes| bytes > 0),
                "must be more than 0",
            ),
            (
                "drain.read_ahead",
                self.drain.read_ahead <= CAPACITY_MAX,
                "must be at most 10000000",
            ),
            (
                "drain.max_share",
                (self.drain.max_share).is_none_or(|share| share > 0.0 && share <= 1.0),
                "must be more than 0 and at most 1",
            ),
        ];
        match checks.into_iter().find(|(_, valid, _)| !valid) {
            Some((option, _, problem)) => Err(self.invalid(option, problem)),
            None => Ok(()),
        }
    }

    fn invalid(&self, option: &'static str, problem: impl Into<String>) -> Error {
        Error::Option {
            endpoint: self.name.clone(),
            option,
            problem: problem.into(),
        }
    }
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).ok().filter(Url::has_host);
        let url = url.map_or_else(|| "(not a url)".to_owned(), |url| redact(&url));
        f.debug_struct("EndpointOptions")
            .field("name", &self.name)
            .field("url", &url)
            .field("remote_timeout", &self.remote_timeout)
            .field("headers", &self.headers)
            .field("http", &self.http)
            .field("send_exemplars", &self.send_exemplars)
            .field("send_native_histograms", &self.send_native_histograms)
            .field("protobuf_message", &self.protobuf_message)
            .field("fallback_to_v1", &self.fallback_to_v1)
            .field("metadata", &self.metadata)
            .field("queue", &self.queue)
            .field("drain", &self.drain)
            .field("priority", &self.priority)
            .field("external_labels", &self.external_labels)
            .field("write_relabel", &self.write_relabel)
            .finish()
    }
}

/// Valid options, with what had to be parsed or built to be checked.
pub(crate) struct Resolved {
    pub(crate) options: EndpointOptions,
    pub(crate) url: Url,
    pub(crate) url_redacted: String,
    pub(crate) headers: HeaderMap,
    pub(crate) outgoing: Arc<Outgoing>,
}

/// The url without the userinfo: even a user name may be a token.
pub(crate) fn redact(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }
    let mut url = url.clone();
    strip_userinfo(&mut url);
    if url.set_username("xxxxx").is_err() {
        return "(redacted url)".to_owned();
    }
    url.to_string()
}

/// Takes user name and password out of a url with a host.
fn strip_userinfo(url: &mut Url) {
    let stripped = url.set_username("").and_then(|()| url.set_password(None));
    debug_assert!(stripped.is_ok(), "a url with a host may have userinfo");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{OAuth2Options, SecretSource, SigV4Options};

    fn options() -> EndpointOptions {
        EndpointOptions::new("a", "http://user:hunter2@localhost:9009/push?x=y")
    }

    fn problem(change: impl FnOnce(&mut EndpointOptions)) -> String {
        let mut options = options();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_valid() {
        options().validate().unwrap();
    }

    #[test]
    fn debug_prints_no_secret() {
        let mut options = options();
        options.headers.insert("x-scope".into(), "hunter2".into());
        for auth in [
            Auth::bearer(SecretSource::Text("hunter2".into())),
            Auth::Basic {
                username: "u".into(),
                password: SecretSource::Text("hunter2".into()),
            },
            Auth::OAuth2(Box::new(OAuth2Options {
                client_secret: SecretSource::Text("hunter2".into()),
                token_url: "http://u:hunter2@h/".into(),
                endpoint_params: BTreeMap::from([("p".into(), "hunter2".into())]),
                ..OAuth2Options::default()
            })),
            Auth::SigV4(SigV4Options {
                secret_key: "hunter2".into(),
                ..SigV4Options::default()
            }),
        ] {
            options.http.auth = auth;
            options.http.proxy.proxy_url = Some("http://u:hunter2@proxy".into());
            options.http.tls.key = Some(SecretSource::Text("hunter2".into()));
            let printed = format!("{options:?}");
            assert!(!printed.contains("hunter2"), "{printed}");
            assert!(
                printed.contains("http://xxxxx@localhost:9009/push?x=y"),
                "{printed}"
            );
        }
        options.url = "hunter2".into();
        assert!(!format!("{options:?}").contains("hunter2\""));
    }

    #[test]
    fn token_in_place_of_a_user_name_is_redacted() {
        let url = Url::parse("https://token@host/").unwrap();
        assert_eq!(redact(&url), "https://xxxxx@host/");
    }

    #[test]
    fn userinfo_gives_way_to_the_auth_argument() {
        let mut options = options();
        assert_eq!(options.clone().resolve().unwrap().url.username(), "user");
        options.http.auth = Auth::bearer(SecretSource::Text("t0ken".into()));
        let resolved = options.resolve().unwrap();
        assert_eq!(resolved.url.as_str(), "http://localhost:9009/push?x=y");
    }

    #[test]
    fn reserved_headers_are_refused_in_any_case() {
        for name in [
            "Content-Type",
            "AUTHORIZATION",
            "x-prometheus-remote-write-version",
        ] {
            let problem = problem(|o| {
                o.headers.insert(name.into(), "x".into());
            });
            assert!(problem.contains("reserved"), "{problem}");
        }
    }

    #[test]
    fn illegal_header_value_is_not_repeated() {
        let problem = problem(|o| {
            o.headers.insert("x-token".into(), "hunter2\n".into());
        });
        assert!(!problem.contains("hunter2"), "{problem}");
    }

    #[test]
    fn only_http_urls_are_taken() {
        for url in ["", "localhost:9009", "ftp://host/", "unix:/tmp/x"] {
            let problem = problem(|o| o.url = url.into());
            assert!(problem.contains("url"), "{problem}");
        }
    }

    #[test]
    fn queue_values_that_cannot_work_are_refused() {
        type Change = fn(&mut QueueOptions);
        let changes: [(&str, Change); 6] = [
            ("capacity", |q| q.capacity = 0),
            ("max_samples_per_send", |q| q.max_samples_per_send = 0),
            ("min_shards", |q| q.min_shards = 51),
            ("max_shards", |q| q.max_shards = 0),
            ("min_backoff", |q| q.min_backoff = Duration::ZERO),
            ("max_backoff", |q| q.max_backoff = Duration::from_millis(1)),
        ];
        for (option, change) in changes {
            let problem = problem(|o| change(&mut o.queue));
            assert!(problem.contains(option), "{problem}");
        }
    }
}
