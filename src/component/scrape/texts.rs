//! Turns the arguments of `prometheus.scrape` into what they mean.

use crate::component::document::Document;
use crate::component::http_client;

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.scrape "hosts" {
  targets         = [{"__address__" = "host-1:9100"}, {"__address__" = "host-2:9100", "zone" = "b"}]
  forward_to      = [prometheus.remote_write.out.receiver]
  scrape_interval = "15s"
}

prometheus.remote_write "out" {
  endpoint {
    url = "http://backend:9090/api/v1/write"
  }
}
"#,
    texts: &[
        (
            "",
            &[
                (
                    "body_size_limit",
                    "A body of this many bytes, decompressed, fails the scrape. 0: 512 MiB.",
                ),
                (
                    "clustering",
                    "Whether the nodes of a cluster share the targets.",
                ),
                (
                    "clustering.enabled",
                    "Whether they do. Of no effect while clustering is off.",
                ),
                (
                    "convert_classic_histograms_to_nhcb",
                    "Whether classic histograms become native ones with custom buckets.",
                ),
                (
                    "enable_compression",
                    "Whether bodies are asked for compressed by gzip.",
                ),
                (
                    "enable_protobuf_negotiation",
                    "Deprecated: as `scrape_native_histograms`.",
                ),
                (
                    "enable_type_and_unit_labels",
                    "Whether series get their type and unit as labels.",
                ),
                (
                    "extra_metrics",
                    "Whether timeout, sample limit and body size of each scrape are series too.",
                ),
                (
                    "forward_to",
                    "Where samples go on to. Entries that are `null` are left out.",
                ),
                (
                    "honor_labels",
                    "Whether exposed labels win over those of the target. If not, they are kept as `exported_NAME`.",
                ),
                ("honor_metadata", "Of no effect: metadata is always kept."),
                (
                    "honor_timestamps",
                    "Whether samples keep the time they are exposed with.",
                ),
                (
                    "job_name",
                    "The `job` label of targets without one; by default the component's id.",
                ),
                (
                    "label_limit",
                    "Most labels of a series. A series with more fails the scrape. 0: any number.",
                ),
                (
                    "label_name_length_limit",
                    "Most bytes of a label's name, likewise.",
                ),
                (
                    "label_value_length_limit",
                    "Most bytes of a label's value, likewise.",
                ),
                (
                    "metric_name_escaping_scheme",
                    "How targets are asked to escape names: `underscores`, `dots`, `values`, `allow-utf-8`.",
                ),
                (
                    "metric_name_validation_scheme",
                    "What names may be: `legacy` or `utf8`. Another name fails the scrape.",
                ),
                ("metrics_path", "The path of the URL."),
                (
                    "native_histogram_bucket_limit",
                    "Most buckets of a native histogram: one with more loses resolution, or fails the scrape.",
                ),
                (
                    "native_histogram_min_bucket_factor",
                    "The least growth from bucket to bucket of a native histogram; finer ones lose resolution.",
                ),
                ("params", "The query of the URL."),
                (
                    "sample_limit",
                    "Most samples of a target. More fail the scrape. 0: any number.",
                ),
                (
                    "scrape_classic_histograms",
                    "Whether a histogram that is native and classic is taken as both.",
                ),
                (
                    "scrape_failure_log_file",
                    "A file that gets a line of JSON for each scrape that fails. Nothing rotates it.",
                ),
                (
                    "scrape_fallback_protocol",
                    "What a body is that does not say what it is.",
                ),
                ("scrape_interval", "Time between scrapes of a target."),
                (
                    "scrape_native_histograms",
                    "Whether native histograms are taken; protobuf is asked for first then.",
                ),
                (
                    "scrape_protocols",
                    "The formats that are asked for, the best first.",
                ),
                (
                    "scrape_timeout",
                    "Most time of a scrape; not more than the interval.",
                ),
                ("scheme", "`http` or `https`."),
                (
                    "start_timestamp_zero_ingestion",
                    "Whether counters, histograms and summaries that say since when they count (OpenMetrics in \
                     `_created` lines, which are then no series; protobuf) get a sample of 0 there.",
                ),
                (
                    "strict",
                    "Whether OpenMetrics has to be what its specification says, also where Prometheus takes more: a \
                     body that is not fails the scrape. The other formats are read as ever.",
                ),
                (
                    "target_limit",
                    "Most targets. With more every scrape fails. 0: any number.",
                ),
                (
                    "targets",
                    "What is scraped: the labels of each target. `__address__` is needed; `__scheme__`, \
                     `__metrics_path__`, `__param_NAME`, `__scrape_interval__` and `__scrape_timeout__` win over \
                     the arguments.",
                ),
                (
                    "track_timestamps_staleness",
                    "Whether series whose samples have times of their own get stale markers too.",
                ),
            ],
        ),
        ("", http_client::CLIENT_TEXTS),
        ("", http_client::BASIC_TEXTS),
        ("", http_client::PROXY_TEXTS),
        ("tls_config", http_client::TLS_TEXTS),
        ("oauth2", http_client::PROXY_TEXTS),
        ("oauth2.tls_config", http_client::TLS_TEXTS),
    ],
    metrics: &[
        "prometheus_scrape_",
        "prometheus_target_",
        "penstock_scrape_",
    ],
    failure: "- A scrape that fails writes `up` 0 and stale markers for what the target had. The next comes when it is \
              time.\n\
              - Nothing of a body that is wrong anywhere is kept.\n\
              - What the log does not take (disk full) is counted as dropped: a target cannot be asked for the past.\n\
              - A target that goes gets its stale markers after about two more intervals; one that another node of \
              the cluster goes on with gets none, nor does any when the agent stops.\n",
};
