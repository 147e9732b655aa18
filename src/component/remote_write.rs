//! Turns a `prometheus.remote_write` block into a store and the endpoints it ships to.
//!
//! An endpoint's position is found by its name. Without a `name` argument it is derived from the url
//! (without user and password), so that changed headers, credentials or queue settings keep it.

mod texts;

use std::collections::BTreeMap;
use std::time::Duration;

use config::{BodyReader, ByteSize, Secret};
use shipper::{
    DrainOptions, EndpointOptions, MetadataOptions, Priority, ProtobufMessage, QueueOptions,
};
use wal::{LagLimits, OnFull, Recovery};

use super::{http_client, relabel_rule};

pub(crate) use texts::DOCUMENT;

pub(crate) const NAME: &str = "prometheus.remote_write";

/// Less than the batches in flight would be dropped all the time.
const LAG_BYTES_LEAST: u64 = 16 << 20;
const LAG_AGE_LEAST: Duration = Duration::from_secs(60);

/// A `prometheus.remote_write` component.
#[derive(Debug)]
pub(crate) struct RemoteWrite {
    /// How the log is kept.
    pub(crate) wal: WalOptions,
    /// Where everything goes.
    pub(crate) endpoints: Vec<EndpointOptions>,
    /// How far each of them may be behind.
    pub(crate) limits: Vec<LagLimits>,
}

/// The `wal` block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalOptions {
    /// Most bytes of disk; none: the store's own default.
    pub(crate) max_disk_bytes: Option<u64>,
    /// What happens when they are taken.
    pub(crate) on_full: OnFull,
    /// Delivered data is kept so long.
    pub(crate) retain: Duration,
    /// Series nobody sends are given up after so long.
    pub(crate) series_idle_timeout: Duration,
    /// What a start does about what cannot be read.
    pub(crate) recovery: Recovery,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            max_disk_bytes: None,
            on_full: OnFull::Reject,
            retain: Duration::ZERO,
            series_idle_timeout: wal::SERIES_IDLE_TIMEOUT,
            recovery: Recovery::Salvage,
        }
    }
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> RemoteWrite {
    let external_labels: BTreeMap<String, String> = r.or("external_labels", BTreeMap::new());
    let mut endpoints: Vec<EndpointOptions> = Vec::new();
    let mut limits = Vec::new();
    r.blocks("endpoint", |r| {
        limits.push(read_limits(r));
        let endpoint = read_endpoint(r, &external_labels);
        if let Some(twin) = endpoints.iter().find(|e| e.name == endpoint.name) {
            r.refuse_block(duplicate(twin, &endpoint));
        }
        endpoints.push(endpoint);
    });
    RemoteWrite {
        wal: r.block("wal", read_wal).unwrap_or_default(),
        endpoints,
        limits,
    }
}

fn duplicate(twin: &EndpointOptions, endpoint: &EndpointOptions) -> String {
    let name = &endpoint.name;
    if twin.url == endpoint.url {
        let url = without_userinfo(&endpoint.url);
        return format!(
            "duplicate remote write configs are not allowed, found duplicate for URL: {url}; \
             give each a name"
        );
    }
    format!("endpoint name {name:?} is already taken")
}

/// How far behind an endpoint may be before it loses the oldest data; by default as far as the disk
/// allows.
fn read_limits(r: &mut BodyReader<'_>) -> LagLimits {
    let max_bytes = r.optional::<ByteSize>("max_lag_bytes").map(|size| size.0);
    if max_bytes.is_some_and(|bytes| bytes < LAG_BYTES_LEAST) {
        let problem = format!("must be at least {}MiB", LAG_BYTES_LEAST >> 20);
        r.refuse("max_lag_bytes", problem);
    }
    let max_age = r.optional::<Duration>("max_lag_age");
    if max_age.is_some_and(|age| age < LAG_AGE_LEAST) {
        let problem = format!("must be at least {}s", LAG_AGE_LEAST.as_secs());
        r.refuse("max_lag_age", problem);
    }
    LagLimits { max_bytes, max_age }
}

/// How its log is kept. The reference's keep-alive times are accepted and mean nothing here: data is kept until
/// it is delivered, and removed when it is.
fn read_wal(r: &mut BodyReader<'_>) -> WalOptions {
    for name in [
        "truncate_frequency",
        "min_keepalive_time",
        "max_keepalive_time",
    ] {
        r.optional::<Duration>(name);
    }
    let bytes = r.optional::<ByteSize>("max_disk_bytes").map(|size| size.0);
    let least = wal::StoreOptions::default().disk_bytes_least();
    if bytes.is_some_and(|bytes| bytes < least) {
        r.refuse(
            "max_disk_bytes",
            format!("must be at least {}MiB", least >> 20),
        );
    }
    let defaults = WalOptions::default();
    let on_full = match &*r.or("on_full", "reject".to_owned()) {
        "reject" => OnFull::Reject,
        "drop_oldest" => OnFull::DropOldest,
        _ => {
            r.refuse("on_full", "must be \"reject\" or \"drop_oldest\"");
            defaults.on_full
        }
    };
    let recovery = match &*r.or("recovery", "salvage".to_owned()) {
        "salvage" => Recovery::Salvage,
        "strict" => Recovery::Strict,
        _ => {
            r.refuse("recovery", "must be \"salvage\" or \"strict\"");
            defaults.recovery
        }
    };
    WalOptions {
        max_disk_bytes: bytes,
        on_full,
        retain: r.or("retain", defaults.retain),
        series_idle_timeout: r.or("series_idle_timeout", defaults.series_idle_timeout),
        recovery,
    }
}

fn read_endpoint(
    r: &mut BodyReader<'_>,
    external_labels: &BTreeMap<String, String>,
) -> EndpointOptions {
    let url: String = r.required("url");
    let name = r.or("name", String::new());
    let name = if name.is_empty() {
        derived_name(&url)
    } else {
        name
    };
    let mut endpoint = EndpointOptions::new(&name, &url);
    endpoint.external_labels.clone_from(external_labels);
    endpoint.remote_timeout = r.or("remote_timeout", endpoint.remote_timeout);
    let headers: BTreeMap<String, Secret> = r.or("headers", BTreeMap::new());
    endpoint.headers = headers
        .into_iter()
        .map(|(name, value)| (name, value.expose().into()))
        .collect();
    endpoint.http = http_client::read(r, &endpoint.http, true);
    endpoint.http.round_robin_dns = r.or("round_robin_dns", false);
    endpoint.send_exemplars = r.or("send_exemplars", true);
    endpoint.send_native_histograms = r.or("send_native_histograms", false);
    read_protocol(r, &mut endpoint);
    read_priority(r, &mut endpoint);
    if let Some(queue) = r.block("queue_config", read_queue) {
        endpoint.queue = queue;
    }
    if let Some(drain) = r.block("drain", read_drain) {
        endpoint.drain = drain;
    }
    endpoint.write_relabel = r.blocks("write_relabel_config", relabel_rule::read);
    if let Some(metadata) = r.block("metadata_config", read_metadata) {
        endpoint.metadata = metadata;
    }
    if !url.is_empty() {
        report_invalid(r, &endpoint);
    }
    endpoint
}

/// Which remote write it is sent.
fn read_protocol(r: &mut BodyReader<'_>, endpoint: &mut EndpointOptions) {
    let given = r.or(
        "protobuf_message",
        endpoint.protobuf_message.as_str().to_owned(),
    );
    match ProtobufMessage::from_name(&given) {
        Some(message) => endpoint.protobuf_message = message,
        None => {
            let [v1, v2] = [ProtobufMessage::V1, ProtobufMessage::V2].map(ProtobufMessage::as_str);
            r.refuse("protobuf_message", format!("must be {v1:?} or {v2:?}"));
        }
    }
    endpoint.fallback_to_v1 = r.or("fallback_to_v1", endpoint.fallback_to_v1);
}

/// What it gets first after it was away.
fn read_priority(r: &mut BodyReader<'_>, endpoint: &mut EndpointOptions) {
    let given = r.or("priority", endpoint.priority.as_str().to_owned());
    match Priority::from_name(&given) {
        Some(priority) => endpoint.priority = priority,
        None => {
            let [order, fresh] = [Priority::InOrder, Priority::Fresh].map(Priority::as_str);
            r.refuse("priority", format!("must be {order:?} or {fresh:?}"));
        }
    }
}

fn read_metadata(r: &mut BodyReader<'_>) -> MetadataOptions {
    let defaults = MetadataOptions::default();
    let metadata = MetadataOptions {
        send: r.or("send", defaults.send),
        send_interval: r.or("send_interval", defaults.send_interval),
        max_samples_per_send: r.or("max_samples_per_send", defaults.max_samples_per_send),
    };
    let probe = EndpointOptions {
        metadata: metadata.clone(),
        ..EndpointOptions::new("x", "http://x")
    };
    report_invalid(r, &probe);
    metadata
}

/// What the shipper would refuse is refused here, where the place is known.
fn report_invalid(r: &mut BodyReader<'_>, endpoint: &EndpointOptions) {
    if let Err(shipper::Error::Option {
        option, problem, ..
    }) = endpoint.validate()
    {
        // A refusal repeats the value as written, which must not be a secret.
        let secret = option == "headers" || endpoint.url.contains('@');
        if r.has_attribute(option) && !secret {
            r.refuse(option, problem);
        } else {
            r.refuse_block(format!("{option} {problem}"));
        }
    }
}

fn read_queue(r: &mut BodyReader<'_>) -> QueueOptions {
    let defaults = QueueOptions::default();
    let queue = QueueOptions {
        capacity: r.or("capacity", defaults.capacity),
        min_shards: r.or("min_shards", defaults.min_shards),
        max_shards: r.or("max_shards", defaults.max_shards),
        max_samples_per_send: r.or("max_samples_per_send", defaults.max_samples_per_send),
        batch_send_deadline: r.or("batch_send_deadline", defaults.batch_send_deadline),
        min_backoff: r.or("min_backoff", defaults.min_backoff),
        max_backoff: r.or("max_backoff", defaults.max_backoff),
        retry_on_http_429: r.or("retry_on_http_429", defaults.retry_on_http_429),
        sample_age_limit: r.or("sample_age_limit", defaults.sample_age_limit),
        ..defaults
    };
    let probe = EndpointOptions {
        queue: queue.clone(),
        ..EndpointOptions::new("x", "http://x")
    };
    report_invalid(r, &probe);
    queue
}

/// How fast a backlog may be sent.
fn read_drain(r: &mut BodyReader<'_>) -> DrainOptions {
    let bytes = r.optional::<ByteSize>("max_bytes_per_second");
    let drain = DrainOptions {
        max_bytes_per_second: bytes.map(|size| size.0),
        max_share: r.optional("max_share"),
        read_ahead: r.or("read_ahead", DrainOptions::default().read_ahead),
    };
    let probe = EndpointOptions {
        drain,
        ..EndpointOptions::new("x", "http://x")
    };
    report_invalid(r, &probe);
    drain
}

/// Six hexadecimal digits that stay the same as long as the url does.
fn derived_name(url: &str) -> String {
    format!("{:08x}", fnv1a(without_userinfo(url).as_bytes()))
        .chars()
        .take(6)
        .collect()
}

/// FNV-1a: stable over versions and machines, as the name finds the saved position.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The url without `user:password@`.
fn without_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use shipper::{Auth, SecretSource};

    use super::*;
    use crate::component::testing::decoded;

    fn load(text: &str) -> Result<RemoteWrite, String> {
        decoded(text, read)
    }

    fn endpoint(body: &str) -> Result<EndpointOptions, String> {
        let text = format!("prometheus.remote_write \"x\" {{\n  endpoint {{\n{body}\n  }}\n}}\n");
        load(&text).map(|component| component.endpoints[0].clone())
    }

    #[test]
    fn every_argument_reaches_the_shipper() {
        let text = "external_labels = {cluster = \"eu\"}\n\
            endpoint {\n url = \"http://h/w\"\n name = \"n\"\n priority = \"fresh\"\n max_lag_bytes = \"1GiB\"\n remote_timeout = \"3s\"\n \
            headers = {\"X-Scope-OrgID\" = \"7\"}\n \
            basic_auth {\n username = \"u\"\n password = \"p\"\n }\n \
            drain {\n max_bytes_per_second = \"1MiB\"\n max_share = 0.5\n }\n \
            queue_config {\n capacity = 5\n max_samples_per_send = 4\n min_backoff = \"1s\"\n max_shards = 3\n \
            sample_age_limit = \"2h\"\n }\n \
            write_relabel_config {\n action = \"labeldrop\"\n regex = \"a\"\n }\n \
            write_relabel_config {\n target_label = \"b\"\n }\n }\n\
            wal {\n max_disk_bytes = \"2GiB\"\n truncate_frequency = \"2h\"\n on_full = \"drop_oldest\"\n \
            retain = \"24h\"\n recovery = \"strict\"\n }\n";
        let component = load(&format!("prometheus.remote_write \"x\" {{\n{text}}}\n")).unwrap();
        assert_eq!(component.wal.max_disk_bytes, Some(2 << 30));
        assert_eq!(component.wal.on_full, OnFull::DropOldest);
        assert_eq!(component.wal.retain, Duration::from_secs(24 * 3600));
        assert_eq!(component.wal.recovery, Recovery::Strict);
        assert_eq!(component.limits[0].max_bytes, Some(1 << 30));
        let endpoint = &component.endpoints[0];
        assert_eq!(endpoint.name, "n");
        assert_eq!(endpoint.priority, Priority::Fresh);
        assert_eq!(endpoint.remote_timeout, Duration::from_secs(3));
        assert_eq!(endpoint.headers["X-Scope-OrgID"].expose(), "7");
        assert_eq!(endpoint.external_labels["cluster"], "eu");
        assert_eq!((endpoint.queue.capacity, endpoint.queue.max_shards), (5, 3));
        assert_eq!(endpoint.queue.min_backoff, Duration::from_secs(1));
        assert_eq!(endpoint.drain.max_bytes_per_second, Some(1 << 20));
        assert_eq!(endpoint.drain.max_share, Some(0.5));
        assert_eq!(endpoint.queue.sample_age_limit, Duration::from_secs(7200));
        let targets = endpoint
            .write_relabel
            .iter()
            .map(|rule| &*rule.target_label);
        assert_eq!(targets.collect::<Vec<_>>(), ["", "b"]);
        let password = SecretSource::Text("p".into());
        assert_eq!(
            endpoint.http.auth,
            Auth::Basic {
                username: "u".to_owned(),
                password
            }
        );
    }

    #[test]
    fn protocol_and_metadata_are_read() {
        let default = endpoint("url = \"http://h\"").unwrap();
        assert_eq!(default.protobuf_message, ProtobufMessage::V1);
        assert!(default.fallback_to_v1);
        let given = endpoint(
            "url = \"http://h\"\nprotobuf_message = \"io.prometheus.write.v2.Request\"\n\
             fallback_to_v1 = false\nmetadata_config {\n  send_interval = \"2m\"\n  \
             max_samples_per_send = 7\n}",
        )
        .unwrap();
        assert_eq!(given.protobuf_message, ProtobufMessage::V2);
        assert!(!given.fallback_to_v1);
        let metadata = MetadataOptions {
            send: true,
            send_interval: Duration::from_secs(120),
            max_samples_per_send: 7,
        };
        assert_eq!(given.metadata, metadata);
        let other = endpoint("url = \"http://h\"\nprotobuf_message = \"v2\"").unwrap_err();
        assert!(
            other.contains("must be \"prometheus.WriteRequest\" or"),
            "{other}"
        );
        let often = endpoint("url = \"http://h\"\nmetadata_config {\n  send_interval = \"1ms\"\n}");
        assert!(often.unwrap_err().contains("must be at least 1s"));
    }

    #[test]
    fn a_name_is_derived_from_the_url_without_its_credentials() {
        let plain = endpoint("url = \"http://h:1/w\"").unwrap().name;
        let secret = endpoint("url = \"http://u:p@h:1/w\"\nbearer_token = \"t\"")
            .unwrap()
            .name;
        let other = endpoint("url = \"http://h:2/w\"").unwrap().name;
        assert_eq!(plain, secret);
        assert_ne!(plain, other);
        assert_eq!(plain.len(), 6);
    }

    #[test]
    fn mistakes_are_reported_where_they_stand() {
        assert_eq!(
            endpoint("").unwrap_err(),
            "a:2:3: missing required attribute \"url\""
        );
        assert_eq!(
            endpoint("url = \"http://h\"\nremote_timeout = \"5\"").unwrap_err(),
            "a:4:18: \"5\" time: missing unit in duration \"5\""
        );
        assert!(
            endpoint("url = \"nonsense\"")
                .unwrap_err()
                .starts_with("a:3:7: \"nonsense\" ")
        );
        let two = "url = \"http://h\"\nbearer_token = \"a\"\nbearer_token_file = \"b\"";
        assert!(endpoint(two).unwrap_err().contains("at most one of"));
        let zero = "url = \"http://h\"\nqueue_config {\n  max_samples_per_send = 0\n}";
        assert!(
            endpoint(zero).unwrap_err().starts_with("a:"),
            "{}",
            endpoint(zero).unwrap_err()
        );
    }

    #[test]
    fn a_quota_below_what_a_log_needs_is_refused() {
        let text =
            "prometheus.remote_write \"x\" {\n  wal {\n    max_disk_bytes = \"100MiB\"\n  }\n}\n";
        assert_eq!(
            load(text).unwrap_err(),
            "a:3:22: \"100MiB\" must be at least 192MiB"
        );
    }

    #[test]
    fn limits_and_policies_that_make_no_sense_are_refused() {
        assert_eq!(
            endpoint("url = \"http://h\"\nmax_lag_age = \"1s\"").unwrap_err(),
            "a:4:15: \"1s\" must be at least 60s"
        );
        let text = "prometheus.remote_write \"x\" {\n  wal {\n    on_full = \"panic\"\n  }\n}\n";
        assert_eq!(
            load(text).unwrap_err(),
            "a:3:15: \"panic\" must be \"reject\" or \"drop_oldest\""
        );
    }

    #[test]
    fn a_priority_that_there_is_not_is_refused() {
        assert_eq!(
            endpoint("url = \"http://h\"\npriority = \"newest\"").unwrap_err(),
            "a:4:12: \"newest\" must be \"in_order\" or \"fresh\""
        );
    }

    #[test]
    fn a_share_above_all_of_it_is_refused() {
        let text = "url = \"http://h\"\ndrain {\n  max_share = 1.5\n}";
        let message = endpoint(text).unwrap_err();
        assert!(
            message.contains("max_share must be more than 0"),
            "{message}"
        );
    }

    #[test]
    fn a_secret_never_shows_in_a_message() {
        let text = "url = \"http://h\"\nheaders = {\"a b\" = \"hush\"}";
        assert!(!endpoint(text).unwrap_err().contains("hush"));
    }

    #[test]
    fn two_endpoints_of_one_url_need_names() {
        let twice = "  endpoint {\n    url = \"http://h\"\n  }\n".repeat(2);
        let message = load(&format!("prometheus.remote_write \"x\" {{\n{twice}}}\n")).unwrap_err();
        assert!(
            message.contains("found duplicate for URL: http://h"),
            "{message}"
        );
    }
}
