//! Turns a component that has metrics of its own into the target that they are.

use std::collections::BTreeMap;

use config::Value;

use super::Facts;
use super::definition::Export;

/// What they export.
pub(super) const fn export(text: &'static str) -> Export {
    Export {
        name: "targets",
        type_name: "list(map(string))",
        text,
    }
}

/// The one target: the path of this component at the address that means the agent itself.
pub(super) fn targets(name: &str, job: &str, id: &str, facts: &Facts) -> Value {
    let target = [
        ("__address__", facts.memory_address.clone()),
        (
            "__metrics_path__",
            format!("/api/v0/component/{id}/metrics"),
        ),
        ("__scheme__", "http".to_owned()),
        ("__meta_component_name", name.to_owned()),
        ("__meta_component_id", id.to_owned()),
        ("instance", facts.hostname.clone()),
        ("job", job.to_owned()),
    ];
    let target = target.map(|(name, value)| (name.to_owned(), Value::from(value)));
    vec![Value::from(BTreeMap::from(target))].into()
}
