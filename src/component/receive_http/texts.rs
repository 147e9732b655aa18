//! Turns the arguments of `prometheus.receive_http` into what they mean.

use crate::component::document::{Document, Texts};
use crate::component::tls_server;

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.receive_http "in" {
  http {
    listen_address = "0.0.0.0"
    listen_port    = 9009
  }
  limits {
    body_size_limit = "16MiB"
  }
  forward_to = [prometheus.remote_write.out.receiver]
}

prometheus.remote_write "out" {
  endpoint {
    url = "http://backend:9090/api/v1/write"
  }
}
"#,
    texts: &[
        ("", ARGUMENTS),
        ("http", HTTP),
        ("http", tls_server::TLS_TEXTS),
        ("http", tls_server::AUTH_TEXTS),
        ("clustering", CLUSTERING),
        ("limits", LIMITS),
        ("tenants", TENANTS),
    ],
    metrics: &["penstock_receive_http_", "prometheus_receive_http_"],
    failure: "- A request is answered once everything in it is on the device; until then the sender has it.\n\
              - Bad series in a request are refused by name with 400, the others of it are stored.\n\
              - 503 while the log is full or its device takes nothing, 429 beyond `in_flight_bytes`: senders \
              come again.\n\
              - With several writers, a request is answered when it is on the device in every one of them.\n",
};

const ARGUMENTS: Texts = &[
    (
        "accepted_remote_write_protobuf_messages",
        "Messages that are taken: `prometheus.WriteRequest` (remote write 1.0), `io.prometheus.write.v2.Request` (2.0); not given: both. Others are answered 415.",
    ),
    (
        "clustering",
        "Shares the series with the other agents of the cluster, behind a load balancer.",
    ),
    (
        "forward_to",
        "Where it goes: a request is answered when every one of them has it. Entries that are `null` are left out.",
    ),
    (
        "http",
        "Where it listens, for `POST /api/v1/metrics/write` and `POST /api/v1/write`, and whom it lets in.",
    ),
    ("limits", "How much is taken."),
    (
        "tenants",
        "Limits for each tenant. Without the block nobody asks who sends.",
    ),
];

const CLUSTERING: Texts = &[
    (
        "enabled",
        "Whether each series is kept by one agent of the cluster, whichever of them it comes to (`--cluster.enabled`). Without a cluster it means nothing.",
    ),
    (
        "handover_timeout",
        "How long a new owner of series waits for the one before to ship what it has, or to come back, while nothing moves there. Meanwhile it ships nothing that came since.",
    ),
];

const HTTP: Texts = &[
    ("conn_limit", "Most connections at a time; 0: 16384."),
    (
        "http2",
        "HTTP/2, by ALPN over TLS, by prior knowledge without.",
    ),
    ("http2.enabled", "Whether HTTP/2 is spoken."),
    (
        "http2.idle_timeout",
        "A connection without requests is closed after so long; 0s: as over HTTP/1.1.",
    ),
    (
        "http2.max_concurrent_streams",
        "Most requests of a connection at a time, 1 to 10000.",
    ),
    (
        "http2.ping_timeout",
        "How long the answer to a ping may take.",
    ),
    (
        "http2.read_idle_timeout",
        "A peer that says nothing for so long is pinged; 0s: never.",
    ),
    (
        "listen_address",
        "Host or address; empty: every address of the machine.",
    ),
    ("listen_port", "Port."),
    (
        "server_idle_timeout",
        "A connection without requests is closed after so long.",
    ),
    (
        "server_read_timeout",
        "How long a handshake, and a request, may take to come in.",
    ),
    (
        "server_write_timeout",
        "How long an answer may take to go out.",
    ),
];

const LIMITS: Texts = &[
    (
        "body_size_limit",
        "A body, compressed or decompressed, 1KiB to 1GiB; beyond it 413. Not given: 32MiB.",
    ),
    (
        "connection_in_flight_bytes",
        "As `in_flight_bytes`, of one connection. Not given: twice `body_size_limit`.",
    ),
    (
        "in_flight_bytes",
        "Bodies not yet answered, compressed and decompressed together; beyond it 429. Not given: 256MiB.",
    ),
    (
        "label_limit",
        "Labels of a series, `__name__` among them; 0: any number. A series beyond it is refused alone, with 400.",
    ),
    (
        "label_name_length_limit",
        "Bytes of a label's name; 0: any number. As `label_limit`.",
    ),
    (
        "label_value_length_limit",
        "Bytes of a label's value; 0: any number. As `label_limit`.",
    ),
    (
        "series_limit",
        "Series of a request; 0: any number. Beyond it 400, and nothing of it is stored.",
    ),
];

const TENANTS: Texts = &[
    (
        "header",
        "The header that names the tenant; a request without it is of tenant `anonymous`.",
    ),
    (
        "idle_timeout",
        "A series that was not sent for so long is not active any more; at least 60s.",
    ),
    (
        "label",
        "The label whose values are counted where a limit refuses something.",
    ),
    (
        "max_active_series",
        "Series of a tenant that are active at a time; 0: any number. Further ones are refused alone, with 400.",
    ),
    (
        "max_burst_samples",
        "Samples and histograms that may come at once. Not given: 10 s of the rate.",
    ),
    (
        "max_samples_per_second",
        "Samples and histograms of a tenant per second; not given or 0: any number. Beyond it 429.",
    ),
    (
        "max_tenants",
        "Tenants at a time; further ones share tenant `other`.",
    ),
    (
        "tenant",
        "Limits of the tenant that the label names; what is not given is as for the others.",
    ),
    ("tenant.max_active_series", "As around it, for this tenant."),
    ("tenant.max_burst_samples", "As around it, for this tenant."),
    (
        "tenant.max_samples_per_second",
        "As around it, for this tenant.",
    ),
];
