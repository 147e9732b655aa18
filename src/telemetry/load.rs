//! Turns the state of the configuration into metric families.

use super::families::{Families, float};
use crate::agent::LoadState;
use crate::graph::HealthState;

/// Adds how the last load went, and how many components are how well; in a cluster, with its name.
pub(crate) fn collect(
    families: &mut Families,
    load: &LoadState,
    states: &[HealthState],
    cluster: Option<&str>,
) {
    let mut plain = families.plain();
    let mut hash = plain.with("sha256", load.sha256.clone());
    let mut hash = match cluster {
        Some(name) => hash.with("cluster_name", name),
        None => hash,
    };
    hash.gauge(
        "penstock_config_hash",
        "The configuration that was read last",
        1.0,
    );
    plain.gauge(
        "penstock_config_last_load_successful",
        "1 if the last load was good as a whole",
        if load.error.is_none() { 1.0 } else { 0.0 },
    );
    if let Some(ms) = load.loaded_ms {
        plain.gauge(
            "penstock_config_last_load_success_timestamp_seconds",
            "When the last good load was",
            float(u64::try_from(ms).unwrap_or(0)) / 1000.0,
        );
    }
    plain.counter(
        "penstock_config_load_failures",
        "Loads that were not good as a whole",
        load.failures,
    );
    for state in HealthState::ALL {
        let count = states.iter().filter(|one| **one == state).count();
        plain.with("health_type", state.as_str()).gauge(
            "penstock_component_controller_running_components",
            "Components by health",
            float(count as u64),
        );
    }
}
