//! Turns what the configuration says about tenants into resolved settings.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::header::HeaderName;

/// Shortest idle timeout: series are sent once a minute and less.
const IDLE_TIMEOUT_LEAST: Duration = Duration::from_secs(60);
/// Most tenants: each has a few hundred bytes, and its lines in `/metrics`.
const TENANTS_MOST: usize = 100_000;

/// What one tenant may send; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TenantLimits {
    /// Most active series, in each store.
    pub series_max: u32,
    /// Most samples and histograms per second.
    pub samples_per_second: u64,
    /// How many of them at once, after a time of less; at least one second's.
    pub burst_samples: u64,
}

/// The tenants of a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantsOptions {
    /// The header that names the tenant.
    pub header: String,
    /// What each may send.
    pub limits: TenantLimits,
    /// What tenants of these names may send instead.
    pub overrides: BTreeMap<String, TenantLimits>,
    /// A series that was not sent for so long, or half of it, is not active.
    pub idle_timeout: Duration,
    /// Most tenants at a time beside those of `overrides`.
    pub tenants_max: usize,
    /// The label whose values are counted where something is refused.
    pub top_label: String,
}

impl Default for TenantsOptions {
    fn default() -> Self {
        Self {
            header: "X-Scope-OrgID".to_owned(),
            limits: TenantLimits::default(),
            overrides: BTreeMap::new(),
            idle_timeout: Duration::from_secs(20 * 60),
            tenants_max: 1000,
            top_label: "__name__".to_owned(),
        }
    }
}

impl TenantsOptions {
    /// Checks each option; the problem stands behind the option's name.
    ///
    /// # Errors
    ///
    /// The first that cannot be used.
    pub fn validate(&self) -> Result<(), String> {
        self.problem()
            .map_or(Ok(()), |(name, problem)| Err(format!("{name} {problem}")))
    }

    /// The first option that cannot be used, by its name in the configuration, and why.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if HeaderName::try_from(&self.header).is_err() {
            return Some(("header", "must be the name of a header".to_owned()));
        }
        if self.idle_timeout < IDLE_TIMEOUT_LEAST {
            let least = IDLE_TIMEOUT_LEAST.as_secs();
            return Some(("idle_timeout", format!("must be at least {least}s")));
        }
        if !(1..=TENANTS_MOST).contains(&self.tenants_max) {
            return Some(("max_tenants", format!("must be from 1 to {TENANTS_MOST}")));
        }
        if self.top_label.is_empty() {
            return Some(("label", "must be the name of a label".to_owned()));
        }
        None
    }
}
