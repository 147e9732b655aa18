//! Turns what the agent does into log lines and metrics.

pub(crate) mod capture;
pub(crate) mod cluster;
pub(crate) mod families;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod process;
mod secure;
mod tenants;
