//! Turns the tenants of receivers into JSON.

use serde_json::{Value, json};

use crate::telemetry::metrics::Sources;

/// The tenants of every receiver that has any.
pub(super) fn told(sources: &Sources) -> Value {
    let now = sources.clock.monotonic();
    let receivers = sources.receivers.iter().filter_map(|source| {
        let tenants = source.stats.tenants()?;
        let label = tenants.top_label();
        let all = tenants.snapshot(now);
        let all = all.iter().map(|tenant| one(tenant, label));
        Some(json!({"receiver": source.id, "tenants": all.collect::<Vec<_>>()}))
    });
    receivers.collect::<Vec<_>>().into()
}

fn one(tenant: &ingest::TenantSnapshot, label: &str) -> Value {
    let limit = Some(tenant.limits.series_max).filter(|limit| *limit > 0);
    let refused = tenant.refused_items.iter().sum::<u64>() + tenant.too_fast_samples;
    let top = tenant.top_refused.iter();
    let top =
        top.map(|(value, refused)| json!({"label": label, "value": value, "refused": refused}));
    json!({
        "tenant": tenant.name,
        "activeSeries": tenant.active_series,
        "limit": limit,
        "refused": refused,
        "top": top.collect::<Vec<_>>(),
    })
}
