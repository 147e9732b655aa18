//! Turns the arguments of `prometheus.remote_write` into what they mean.

use crate::component::document::{Document, Texts};
use crate::component::{http_client, relabel_rule};

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.remote_write "out" {
  external_labels = { site = "north" }
  endpoint {
    name = "backend"
    url  = "https://backend/api/v1/write"
    basic_auth {
      username      = "agent"
      password_file = "/etc/penstock/password"
    }
    write_relabel_config {
      source_labels = ["__name__"]
      regex         = "debug_.*"
      action        = "drop"
    }
  }
  wal {
    max_disk_bytes = "50GiB"
  }
}
"#,
    texts: &[
        ("", ARGUMENTS),
        ("endpoint", ENDPOINT),
        ("endpoint", http_client::CLIENT_TEXTS),
        ("endpoint", http_client::BASIC_TEXTS),
        ("endpoint", http_client::PROXY_TEXTS),
        ("endpoint", http_client::CLOUD_TEXTS),
        ("endpoint.tls_config", http_client::TLS_TEXTS),
        ("endpoint.oauth2", http_client::PROXY_TEXTS),
        ("endpoint.oauth2.tls_config", http_client::TLS_TEXTS),
        ("endpoint.queue_config", QUEUE),
        ("endpoint.write_relabel_config", relabel_rule::TEXTS),
        ("wal", WAL),
    ],
    metrics: &[
        "penstock_endpoint_",
        "penstock_shipper_",
        "penstock_wal_",
        "prometheus_remote_storage_",
        "prometheus_remote_write_wal_",
    ],
    failure: "- An endpoint that is away is tried again for ever, with a growing wait; what it missed is in the \
              log. The other endpoints notice nothing.\n\
              - What an endpoint refuses for good (400 and other 4xx that are about the data) is halved until \
              the bad series is found; that one is dropped, counted and kept beside the log.\n\
              - A full disk, or a log at `max_disk_bytes`, is answered by `on_full`.\n\
              - A restart goes on where each endpoint was.\n\
              - [The whole table](../durability.md).\n",
};

const ARGUMENTS: Texts = &[
    ("endpoint", "Somewhere everything goes."),
    (
        "external_labels",
        "Labels for series that do not have them.",
    ),
    ("wal", "How the log is kept."),
];

const ENDPOINT: Texts = &[
    ("drain", "How fast a backlog is sent."),
    (
        "drain.max_bytes_per_second",
        "Compressed bytes of requests per second, over all shards, while it is more than 10 s behind. Not given: as fast as they are taken.",
    ),
    (
        "drain.max_share",
        "Share of its time, above 0 and up to 1, that a shard has a request under way while it is behind. Not given: all of it.",
    ),
    (
        "drain.read_ahead",
        "Records read ahead of what is sent, 28 bytes each, so that samples of a series share its labels; 0: none.",
    ),
    (
        "fallback_to_v1",
        "Whether an endpoint that answers 415 to remote write 2.0 gets 1.0 until the next start.",
    ),
    ("headers", "Further headers."),
    (
        "max_lag_age",
        "Data older than this is left behind, counted; at least 1m. Not given: nothing is.",
    ),
    (
        "max_lag_bytes",
        "The endpoint may be so far behind, at least 16MiB; what is older is left behind, counted. Not given: as far as the disk allows.",
    ),
    ("metadata_config", "How metadata is sent."),
    (
        "metadata_config.max_samples_per_send",
        "Most metric families in a request of remote write 1.0 with metadata.",
    ),
    ("metadata_config.send", "Whether metadata is sent."),
    (
        "metadata_config.send_interval",
        "How often what is known is sent again by remote write 1.0.",
    ),
    (
        "name",
        "The name that its position in the log is found by; empty: made of the URL. With a name of its own the URL may change.",
    ),
    (
        "priority",
        "What an endpoint that was away gets first: `in_order`, each series in order, or `fresh`, what is new, and what it missed beside that.",
    ),
    (
        "protobuf_message",
        "`prometheus.WriteRequest` (remote write 1.0) or `io.prometheus.write.v2.Request` (2.0).",
    ),
    ("queue_config", "Shards, batches and waits."),
    ("remote_timeout", "How long a request may take."),
    (
        "round_robin_dns",
        "Whether connections are spread over the addresses of the host.",
    ),
    ("send_exemplars", "Whether exemplars are sent."),
    (
        "send_native_histograms",
        "Whether native histograms are sent.",
    ),
    (
        "url",
        "Where requests go, http or https. User and password in it are used for basic auth.",
    ),
    (
        "write_relabel_config",
        "A rule for the labels of every series, after `external_labels`; rules are applied in order.",
    ),
];

const QUEUE: Texts = &[
    (
        "batch_send_deadline",
        "How long a record may wait for its batch to fill.",
    ),
    ("capacity", "Records a shard may have queued."),
    (
        "max_backoff",
        "The longest wait after failures that the endpoint did not ask for.",
    ),
    ("max_samples_per_send", "Records that make a full batch."),
    ("max_shards", "Most shards."),
    ("min_backoff", "The wait after a first failure."),
    ("min_shards", "Fewest shards."),
    (
        "retry_on_http_429",
        "Whether 429 means later; if not, it means never.",
    ),
    (
        "sample_age_limit",
        "Older samples are not sent, counted; 0s: there is no such age.",
    ),
];

const WAL: Texts = &[
    (
        "max_disk_bytes",
        "Most disk the log may take, at least 192MiB. Not given: 80 % of what is free or its own at the start.",
    ),
    (
        "max_keepalive_time",
        "Accepted and without effect: data is kept until it is delivered.",
    ),
    ("min_keepalive_time", "Accepted and without effect."),
    (
        "on_full",
        "What happens to new data when `max_disk_bytes` are taken: `reject`, senders get 503; `drop_oldest`, the oldest goes, counted.",
    ),
    (
        "recovery",
        "What a start does where data cannot be read: `salvage`, it is kept aside and counted; `strict`, the agent does not start.",
    ),
    (
        "retain",
        "Delivered data is kept for so long, to be sent again if need be.",
    ),
    (
        "series_idle_timeout",
        "Series that nobody sends for so long are given up: they cost nothing until they come back.",
    ),
    ("truncate_frequency", "Accepted and without effect."),
];
