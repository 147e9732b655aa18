//! Turns a `prometheus.exporter.self` block into the target that the agent's own metrics are.

use std::collections::BTreeMap;

use config::{BodyReader, Value};

use super::Facts;
use super::document::Document;

pub(crate) const NAME: &str = "prometheus.exporter.self";

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

/// The one target: the path of this component at the address that means the agent itself.
pub(crate) fn targets(id: &str, facts: &Facts) -> Value {
    let target = [
        ("__address__", facts.memory_address.clone()),
        (
            "__metrics_path__",
            format!("/api/v0/component/{id}/metrics"),
        ),
        ("__scheme__", "http".to_owned()),
        ("__meta_component_name", NAME.to_owned()),
        ("__meta_component_id", id.to_owned()),
        ("instance", facts.hostname.clone()),
        ("job", "integrations/self".to_owned()),
    ];
    let target = target.map(|(name, value)| (name.to_owned(), Value::from(value)));
    vec![Value::from(BTreeMap::from(target))].into()
}
