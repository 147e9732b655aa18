//! Turns a `prometheus.echo` block into a writer whose endpoint is the agent's own log output.

use config::BodyReader;

use super::document::Document;

pub(crate) const NAME: &str = "prometheus.echo";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.receive_http "in" {
  forward_to = [prometheus.echo.look.receiver]
}

prometheus.echo "look" {
  format = "openmetrics"
}
"#,
    texts: &[(
        "",
        &[(
            "format",
            "`text`, the Prometheus text format, or `openmetrics`.",
        )],
    )],
    metrics: &["penstock_endpoint_", "penstock_wal_"],
    failure: "- It is a writer with a log of its own: what it took is written out once the log has it, and \
              again only where the agent ended before that was noted.\n",
};

/// How samples are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Echo {
    /// Prometheus text exposition.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> Echo {
    match r.or("format", "text".to_owned()).as_str() {
        "text" => Echo::Text,
        "openmetrics" => Echo::OpenMetrics,
        _ => {
            r.refuse("format", "must be \"text\" or \"openmetrics\"");
            Echo::Text
        }
    }
}
