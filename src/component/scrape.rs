//! Turns a `prometheus.scrape` block into targets, how they are scraped, and whom that feeds.
//!
//! # Failure
//! - A target whose labels cannot be scraped (no address, a timeout longer than the interval) is left out and
//!   told; the others are scraped.

mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::{BodyReader, ByteSize};
use ingest::LabelLimits;
use ingest::pull::{Defaults, Labels, Protocol, Rules};
use shipper::HttpOptions;

use super::{Receivers, forward_to, http_client};

pub(crate) use texts::DOCUMENT;

pub(crate) const NAME: &str = "prometheus.scrape";

/// A `prometheus.scrape` component.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) targets: Vec<Labels>,
    pub(crate) forward_to: Receivers,
    /// The name of the job; none: that of the component.
    pub(crate) job_name: Option<String>,
    interval: Duration,
    timeout: Duration,
    metrics_path: String,
    scheme: String,
    params: BTreeMap<String, Vec<String>>,
    pub(crate) rules: Rules,
    pub(crate) http: HttpOptions,
    /// A file that tells of scrapes that failed.
    pub(crate) failure_log: Option<String>,
    /// Whether the nodes of a cluster share the targets.
    pub(crate) is_clustered: bool,
}

impl Scrape {
    /// What holds for targets that do not say otherwise.
    pub(crate) fn defaults(&self, id: &str) -> Defaults {
        Defaults {
            job: self.job_name.clone().unwrap_or_else(|| id.to_owned()),
            interval: self.interval,
            timeout: self.timeout,
            metrics_path: self.metrics_path.clone(),
            scheme: self.scheme.clone(),
            params: self.params.clone(),
        }
    }
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> Scrape {
    let targets = r.required("targets");
    let forward_to = forward_to(r);
    let (interval, timeout) = read_times(r);
    let rules = read_rules(r);
    let clustering = r.block("clustering", |r| r.required::<bool>("enabled"));
    // Metadata is always kept.
    r.or("honor_metadata", false);
    Scrape {
        targets,
        forward_to,
        job_name: r
            .optional("job_name")
            .filter(|name: &String| !name.is_empty()),
        interval,
        timeout,
        metrics_path: r.or("metrics_path", "/metrics".to_owned()),
        scheme: r.or("scheme", "http".to_owned()),
        params: r.or("params", BTreeMap::new()),
        rules,
        http: http_client::read(r, &HttpOptions::default(), false),
        failure_log: r
            .optional("scrape_failure_log_file")
            .filter(|file: &String| !file.is_empty()),
        is_clustered: clustering.unwrap_or(false),
    }
}

fn read_times(r: &mut BodyReader<'_>) -> (Duration, Duration) {
    let interval = r.or("scrape_interval", Duration::from_secs(60));
    let timeout = r.or("scrape_timeout", Duration::from_secs(10));
    if interval.is_zero() {
        r.refuse("scrape_interval", "must be more than 0");
    }
    if timeout.is_zero() {
        r.refuse("scrape_timeout", "must be more than 0");
    }
    if timeout > interval {
        let message = format!(
            "scrape_timeout ({timeout:?}) greater than scrape_interval ({interval:?}) for scrape config"
        );
        r.refuse("scrape_timeout", message);
    }
    (interval, timeout)
}

fn read_rules(r: &mut BodyReader<'_>) -> Rules {
    let is_deprecated = r.or("enable_protobuf_negotiation", false);
    let native_histograms = r.or("scrape_native_histograms", false) || is_deprecated;
    let (utf8_names, escaping) = read_names(r);
    let factor = r.or("native_histogram_min_bucket_factor", 0.0);
    Rules {
        honor_labels: r.or("honor_labels", false),
        honor_timestamps: r.or("honor_timestamps", true),
        track_timestamps_staleness: r.or("track_timestamps_staleness", false),
        protocols: read_protocols(r, native_histograms, is_deprecated),
        fallback: read_fallback(r),
        escaping,
        utf8_names,
        native_histograms,
        classic_histograms: r.or("scrape_classic_histograms", false),
        convert_to_nhcb: r.or("convert_classic_histograms_to_nhcb", false),
        native_bucket_limit: r.or("native_histogram_bucket_limit", 0),
        native_schema_max: schema_of(factor),
        type_and_unit_labels: r.or("enable_type_and_unit_labels", false),
        enable_compression: r.or("enable_compression", true),
        body_size_limit: usize::try_from(r.or("body_size_limit", ByteSize(0)).0)
            .unwrap_or(usize::MAX),
        sample_limit: r.or("sample_limit", 0),
        target_limit: r.or("target_limit", 0),
        labels: LabelLimits {
            labels_max: r.or("label_limit", 0),
            name_bytes_max: r.or("label_name_length_limit", 0),
            value_bytes_max: r.or("label_value_length_limit", 0),
        },
        extra_metrics: r.or("extra_metrics", false),
        zero_at_start: r.or("start_timestamp_zero_ingestion", false),
        strict: r.or("strict", false),
    }
}

/// The highest schema whose buckets grow at least by this factor; none: any.
#[expect(clippy::cast_possible_truncation, reason = "clamped before")]
fn schema_of(factor: f64) -> Option<i32> {
    (factor > 1.0).then(|| (-factor.log2().log2()).floor().clamp(-4.0, 8.0) as i32)
}

/// Whether names may have any characters, and how those are escaped that may not.
fn read_names(r: &mut BodyReader<'_>) -> (bool, &'static str) {
    const SCHEMES: [&str; 4] = ["underscores", "dots", "values", "allow-utf-8"];
    let validation = r.or("metric_name_validation_scheme", "legacy".to_owned());
    let is_utf8 = validation == "utf8";
    if !is_utf8 && validation != "legacy" {
        let message = "must be \"legacy\" or \"utf8\"";
        r.refuse("metric_name_validation_scheme", message);
    }
    let default = if is_utf8 {
        "allow-utf-8"
    } else {
        "underscores"
    };
    let name: String = r.or("metric_name_escaping_scheme", String::new());
    let name = if name.is_empty() { default } else { &*name };
    let found = SCHEMES.into_iter().find(|one| *one == name);
    let escaping = found.unwrap_or_else(|| {
        let message = "must be \"underscores\", \"dots\", \"values\" or \"allow-utf-8\"";
        r.refuse("metric_name_escaping_scheme", message);
        default
    });
    if escaping == "allow-utf-8" && !is_utf8 {
        let message = "can be \"allow-utf-8\" only where metric_name_validation_scheme is \"utf8\"";
        r.refuse("metric_name_escaping_scheme", message);
    }
    (is_utf8, escaping)
}

fn read_protocols(
    r: &mut BodyReader<'_>,
    native_histograms: bool,
    is_deprecated: bool,
) -> Vec<Protocol> {
    const NAME: &str = "scrape_protocols";
    let Some(names) = r.optional::<Vec<String>>(NAME) else {
        let mut protocols = Rules::default().protocols;
        if native_histograms {
            protocols.insert(0, Protocol::PrometheusProto);
        }
        return protocols;
    };
    let all: BTreeSet<&String> = names.iter().collect();
    let mut protocols = Vec::new();
    for name in &names {
        match Protocol::from_name(name) {
            Some(protocol) => protocols.push(protocol),
            None => {
                let known = Protocol::ALL.map(Protocol::as_str).join(", ");
                r.refuse(NAME, format!("{name:?} is none; there are {known}"));
            }
        }
    }
    if all.len() != names.len() {
        r.refuse(NAME, "has duplicates");
    } else if is_deprecated {
        r.refuse(NAME, "cannot be set beside enable_protobuf_negotiation");
    } else if native_histograms && !protocols.contains(&Protocol::PrometheusProto) {
        r.refuse(
            NAME,
            "must hold PrometheusProto where scrape_native_histograms is true",
        );
    }
    protocols
}

fn read_fallback(r: &mut BodyReader<'_>) -> Option<Protocol> {
    const NAME: &str = "scrape_fallback_protocol";
    let default = Protocol::PrometheusText0;
    let name = r.or(NAME, default.as_str().to_owned());
    if name.is_empty() {
        return None;
    }
    let found = Protocol::from_name(&name);
    if found.is_none() {
        r.refuse(NAME, format!("{name:?} is no protocol"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<Scrape, String> {
        let text = format!(
            "prometheus.scrape \"x\" {{\n  targets = [{{\"__address__\" = \"h:1\"}}]\n  forward_to = []\n{body}}}\n"
        );
        decoded(&text, read)
    }

    #[test]
    fn the_defaults_are_those_of_the_reference() {
        let scrape = load("").unwrap();
        assert_eq!(scrape.rules, Rules::default());
        let defaults = scrape.defaults("prometheus.scrape.x");
        assert_eq!(defaults.job, "prometheus.scrape.x");
        assert_eq!(defaults.interval, Duration::from_secs(60));
        assert_eq!(defaults.timeout, Duration::from_secs(10));
        assert_eq!(
            (&*defaults.metrics_path, &*defaults.scheme),
            ("/metrics", "http")
        );
        assert!(scrape.http.follow_redirects && scrape.http.enable_http2);
    }

    #[test]
    fn native_histograms_are_asked_for_in_protobuf_first() {
        let scrape = load("  scrape_native_histograms = true\n").unwrap();
        assert_eq!(scrape.rules.protocols[0], Protocol::PrometheusProto);
        assert_eq!(scrape.rules.protocols.len(), 5);
    }

    #[test]
    fn a_factor_is_a_schema() {
        for (factor, schema) in [
            (0.0, None),
            (1.1, Some(2)),
            (2.0, Some(0)),
            (65536.0, Some(-4)),
        ] {
            assert_eq!(schema_of(factor), schema, "{factor}");
        }
        assert_eq!(schema_of(1.000_001), Some(8));
    }

    #[test]
    fn what_cannot_be_is_refused_where_it_stands() {
        for (body, want) in [
            (
                "  scrape_interval = \"5s\"\n",
                "scrape_timeout (10s) greater than",
            ),
            (
                "  scrape_protocols = [\"Protobuf\"]\n",
                "\"Protobuf\" is none; there are",
            ),
            (
                "  scrape_protocols = [\"PrometheusText0.0.4\", \"PrometheusText0.0.4\"]\n",
                "has duplicates",
            ),
            (
                "  scrape_native_histograms = true\n  scrape_protocols = [\"PrometheusText0.0.4\"]\n",
                "must hold PrometheusProto",
            ),
            (
                "  metric_name_validation_scheme = \"any\"\n",
                "must be \"legacy\"",
            ),
            (
                "  metric_name_escaping_scheme = \"allow-utf-8\"\n",
                "only where",
            ),
            ("  scrape_fallback_protocol = \"x\"\n", "is no protocol"),
            ("  clustering { }\n", "enabled"),
        ] {
            let message = load(body).unwrap_err();
            assert!(message.contains(want), "{message}");
        }
    }
}
