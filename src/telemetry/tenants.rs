//! Turns what the tenants of a receiver did into metric families.
//!
//! # Limits
//! - A tenant has a line for each reason it was refused for, and at most `ingest::TOP_REFUSED_MAX` for what of
//!   it was refused most.

use std::time::Duration;

use ingest::{Reason, TenantSnapshot, Tenants};

use super::families::{Group, float};

/// Adds the families of a receiver's tenants.
pub(super) fn collect(group: &mut Group<'_>, tenants: &Tenants, now: Duration) {
    for tenant in tenants.snapshot(now) {
        collect_tenant(
            &mut group.with("tenant", tenant.name.clone()),
            &tenant,
            tenants.top_label(),
        );
    }
}

fn collect_tenant(group: &mut Group<'_>, tenant: &TenantSnapshot, top_label: &str) {
    group.gauge(
        "penstock_receive_http_tenant_active_series",
        "Series a tenant has active",
        f64::from(tenant.active_series),
    );
    let limit = tenant.limits.series_max;
    if limit > 0 {
        let help = "Most series a tenant may have active";
        let name = "penstock_receive_http_tenant_active_series_limit";
        group.gauge(name, help, f64::from(limit));
    }
    let name = "penstock_receive_http_tenant_samples";
    group.counter(name, "Samples and histograms taken", tenant.samples);
    let name = "penstock_receive_http_tenant_too_fast_requests";
    let help = "Requests refused whole because of max_samples_per_second";
    group.counter(name, help, tenant.too_fast_requests);
    for reason in Reason::ALL {
        let series = tenant.refused_series[reason.index()];
        if series > 0 {
            let name = "penstock_receive_http_tenant_refused_series";
            let mut group = group.with("reason", reason.as_str());
            group.counter(name, "Series refused", series);
        }
    }
    let items = Reason::ALL.map(|reason| (reason.as_str(), tenant.refused_items[reason.index()]));
    for (reason, count) in items
        .into_iter()
        .chain([("rate_limit", tenant.too_fast_samples)])
    {
        if count > 0 {
            let name = "penstock_receive_http_tenant_refused_records";
            let mut group = group.with("reason", reason);
            group.counter(name, "Records refused, each time they were sent", count);
        }
    }
    for (value, count) in &tenant.top_refused {
        let name = "penstock_receive_http_tenant_top_refused";
        let help = "Records refused because of the tenant's limits, for the values of the label that had most";
        let mut group = group.with("label", top_label);
        group
            .with("value", value.clone())
            .gauge(name, help, float(*count));
    }
}
