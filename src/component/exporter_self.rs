//! Turns a `prometheus.exporter.self` block into the target that the agent's own metrics are.

use config::BodyReader;

use super::document::Document;

pub(crate) const NAME: &str = "prometheus.exporter.self";

/// The `job` of its target.
pub(crate) const JOB: &str = "integrations/self";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.exporter.self "agent" { }
"#,
    texts: &[],
    metrics: &[
        "penstock_build_info",
        "penstock_cluster_",
        "penstock_component_controller_",
        "penstock_config_",
        "penstock_io_engine_info",
        "penstock_thread_cpu_seconds",
    ],
    failure: "",
};

/// It has no arguments.
pub(crate) fn read(_: &mut BodyReader<'_>) {}
