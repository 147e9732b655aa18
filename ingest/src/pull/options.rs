//! Turns what the configuration says about scraping into resolved settings, and into what targets are asked.

use std::fmt::Write;
use std::sync::Arc;

use super::fetch::{Clients, FailureLog};
use super::target::Target;
use crate::decode::exposition::{Format, ParseOptions};
use crate::decode::labels::LabelLimits;
use crate::options::Path;

/// Most bytes of a body where no limit is set: more than any target sends, and bounded.
pub const SCRAPE_BODY_BYTES_MAX: usize = 512 << 20;

/// A format that targets are asked for, by its name in `scrape_protocols`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Delimited protobuf.
    PrometheusProto,
    /// Text 0.0.4.
    PrometheusText0,
    /// Text 1.0.0: names may be quoted.
    PrometheusText1,
    /// OpenMetrics 0.0.1.
    OpenMetricsText0,
    /// OpenMetrics 1.0.0.
    OpenMetricsText1,
}

impl Protocol {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::PrometheusProto,
        Self::PrometheusText0,
        Self::PrometheusText1,
        Self::OpenMetricsText0,
        Self::OpenMetricsText1,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::PrometheusText0 => "PrometheusText0.0.4",
            Self::PrometheusText1 => "PrometheusText1.0.0",
            Self::OpenMetricsText0 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1 => "OpenMetricsText1.0.0",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText0 => "text/plain;version=0.0.4",
            Self::PrometheusText1 => "text/plain;version=1.0.0",
            Self::OpenMetricsText0 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText1 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// Whether it has names of other than the old characters, so that it is said how they are escaped.
    const fn has_escaping(self) -> bool {
        matches!(self, Self::PrometheusText1 | Self::OpenMetricsText1)
    }

    const fn format(self) -> Format {
        match self {
            Self::PrometheusProto => Format::Protobuf,
            Self::PrometheusText0 | Self::PrometheusText1 => Format::Text,
            Self::OpenMetricsText0 | Self::OpenMetricsText1 => Format::OpenMetrics,
        }
    }
}

/// How bodies are asked for and read.
#[derive(Clone, PartialEq, Debug)]
pub struct Rules {
    /// Exposed labels win over those of the target.
    pub honor_labels: bool,
    /// Samples keep the time they were exposed with.
    pub honor_timestamps: bool,
    /// Series whose samples have times of their own get stale markers too.
    pub track_timestamps_staleness: bool,
    /// What is asked for, the best first.
    pub protocols: Vec<Protocol>,
    /// What a body is that does not say.
    pub fallback: Option<Protocol>,
    /// How names are escaped that have other than the old characters.
    pub escaping: &'static str,
    /// Whether names may have any characters.
    pub utf8_names: bool,
    /// Native histograms are taken.
    pub native_histograms: bool,
    /// Classic histograms are taken also where a native one is.
    pub classic_histograms: bool,
    /// Classic histograms become native ones with custom buckets.
    pub convert_to_nhcb: bool,
    /// Most buckets of a native histogram; 0: any number.
    pub native_bucket_limit: usize,
    /// The highest resolution of a native histogram that is kept: its schema.
    pub native_schema_max: Option<i32>,
    /// Type and unit of the family become labels.
    pub type_and_unit_labels: bool,
    /// Whether bodies are asked for compressed.
    pub enable_compression: bool,
    /// Most bytes of a body, decompressed; 0: [`SCRAPE_BODY_BYTES_MAX`].
    pub body_size_limit: usize,
    /// Most samples; 0: any number.
    pub sample_limit: usize,
    /// Most targets; 0: any number.
    pub target_limit: usize,
    /// What label sets may be.
    pub labels: LabelLimits,
    /// Three more series that tell how scrapes went.
    pub extra_metrics: bool,
    /// Series that say since when they count get a sample of 0 there.
    pub zero_at_start: bool,
    /// OpenMetrics must be as its specification says, also where Prometheus takes more.
    pub strict: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            protocols: vec![
                Protocol::OpenMetricsText1,
                Protocol::OpenMetricsText0,
                Protocol::PrometheusText1,
                Protocol::PrometheusText0,
            ],
            fallback: Some(Protocol::PrometheusText0),
            escaping: "underscores",
            utf8_names: false,
            native_histograms: false,
            classic_histograms: false,
            convert_to_nhcb: false,
            native_bucket_limit: 0,
            native_schema_max: None,
            type_and_unit_labels: false,
            enable_compression: true,
            body_size_limit: 0,
            sample_limit: 0,
            target_limit: 0,
            labels: LabelLimits::default(),
            extra_metrics: false,
            zero_at_start: false,
            strict: false,
        }
    }
}

impl Rules {
    /// The `Accept` header: what is wanted, each less than the one before.
    #[must_use]
    pub fn accept(&self) -> String {
        let mut quality = Protocol::ALL.len() + 1;
        let mut accept = String::new();
        for protocol in &self.protocols {
            accept.push_str(protocol.media_type());
            if protocol.has_escaping() {
                accept.push_str(";escaping=");
                accept.push_str(self.escaping);
            }
            // Writing to a string cannot fail.
            _ = write!(accept, ";q=0.{quality},");
            quality -= 1;
        }
        _ = write!(accept, "*/*;q=0.{quality}");
        accept
    }

    /// The `Accept-Encoding` header.
    #[must_use]
    pub const fn accept_encoding(&self) -> &'static str {
        if self.enable_compression {
            "gzip"
        } else {
            "identity"
        }
    }

    /// The format of a body with this content type.
    ///
    /// # Errors
    /// It is none, and there is no fallback.
    pub(crate) fn format(&self, content_type: Option<&str>) -> Result<Format, String> {
        let media = content_type.unwrap_or_default();
        let media_type = media.split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => Ok(Format::OpenMetrics),
            "application/vnd.google.protobuf" => Ok(Format::Protobuf),
            "text/plain" => Ok(Format::Text),
            _ => match (self.fallback, content_type) {
                (Some(fallback), _) => Ok(fallback.format()),
                (None, None | Some("")) => Err(
                    "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified"
                        .to_owned(),
                ),
                (None, Some(other)) => Err(format!(
                    "received unsupported Content-Type {other:?} and no fallback_scrape_protocol specified"
                )),
            },
        }
    }

    /// Most bytes of a body.
    pub(crate) const fn body_bytes_max(&self) -> usize {
        match self.body_size_limit {
            0 => SCRAPE_BODY_BYTES_MAX,
            // One that has as many as the limit is too large, too.
            limit => limit - 1,
        }
    }

    /// Whether a sample of this format cannot be understood without the lines around it.
    pub(crate) fn needs_families(&self, format: Format) -> bool {
        let is_openmetrics = format == Format::OpenMetrics;
        self.type_and_unit_labels
            || self.convert_to_nhcb
            || (is_openmetrics && (self.strict || self.zero_at_start))
    }

    pub(crate) const fn parse_options(&self) -> ParseOptions {
        ParseOptions {
            strict: self.strict,
            skip_created: self.zero_at_start,
            classic_histograms: self.classic_histograms || !self.native_histograms,
            native_histograms: self.native_histograms,
        }
    }
}

/// One place where targets are scraped.
#[derive(Clone, Debug)]
pub struct ScraperOptions {
    /// The component's name, for logs and metrics.
    pub name: String,
    /// Where samples go, in the order of `forward_to`.
    pub paths: Vec<Path>,
    /// What is scraped.
    pub targets: Arc<[Assigned]>,
    /// How.
    pub rules: Arc<Rules>,
    /// With what. Others are others, whatever they do.
    pub clients: Arc<dyn Clients>,
    /// Who is told of scrapes that failed, beside the numbers.
    pub failures: Option<Arc<dyn FailureLog>>,
}

/// A target, and who scrapes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// The target.
    pub target: Arc<Target>,
    /// Whether this process does; if not, another one goes on with its series.
    pub is_ours: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_asked_as_prometheus_asks_them() {
        let rules = Rules::default();
        assert_eq!(
            rules.accept(),
            "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=underscores;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
    }

    #[test]
    fn what_a_body_is_is_said_or_the_fallback() {
        let mut rules = Rules::default();
        let om = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(rules.format(Some(om)), Ok(Format::OpenMetrics));
        assert_eq!(rules.format(Some("text/plain")), Ok(Format::Text));
        assert_eq!(rules.format(Some("text/html")), Ok(Format::Text));
        assert_eq!(rules.format(None), Ok(Format::Text));
        rules.fallback = None;
        let missing = rules.format(None).unwrap_err();
        assert!(missing.contains("blank Content-Type"), "{missing}");
        let html = rules.format(Some("text/html")).unwrap_err();
        assert!(html.contains("\"text/html\""), "{html}");
    }
}
