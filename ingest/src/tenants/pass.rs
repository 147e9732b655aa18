//! Turns one request of a tenant into what of it may be stored.
//!
//! # Invariants
//! - What a pass has reserved is given back when it is dropped, unless it was settled: a request that
//!   failed costs its tenant nothing.

use std::time::Duration;

use wal::SeriesRef;

use super::active::{Activity, Epoch};
use super::{Tenant, Tenants, add, count};
use crate::decode::Batch;
use crate::decode::labels::labels_of;

/// A request that came too soon, and when it may come again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooFast {
    pub(crate) wait: Duration,
}

impl Tenants {
    /// Takes a request's samples from what its tenant may send now.
    pub(crate) fn take(
        &self,
        tenant: &Tenant,
        batch: &Batch,
        now: Duration,
    ) -> Result<(), TooFast> {
        let Some(rate) = tenant.rate() else {
            return Ok(());
        };
        let samples = samples_of(batch);
        let taken = tenant.bucket.take(rate, samples, now);
        taken.map_err(|wait| {
            add(&tenant.too_fast_requests, 1);
            add(&tenant.too_fast_samples, samples);
            TooFast { wait }
        })
    }

    /// The request was not stored after all.
    pub(crate) fn give_back(&self, tenant: &Tenant, samples: u64) {
        if let Some(rate) = tenant.rate() {
            tenant.bucket.give_back(rate, samples);
        }
    }

    /// Looks at the series of a request on a way with this activity.
    pub(crate) fn pass<'t>(&'t self, tenant: &'t Tenant, activity: &'t Activity) -> Pass<'t> {
        Pass {
            tenants: self,
            tenant,
            activity,
            now: self.epoch(),
            reserved: 0,
        }
    }

    /// Counts a refused series by its label.
    pub(crate) fn refused(&self, tenant: &Tenant, labels: &[u8], items: usize) {
        let wanted = self.options.top_label.as_bytes();
        let found = labels_of(labels).find(|(name, _)| *name == wanted);
        let value = found.map_or(&b""[..], |(_, value)| value);
        tenant.offenders.lock().add(value, count(items));
    }
}

/// What a request counts as.
pub(crate) fn samples_of(batch: &Batch) -> u64 {
    let written = batch.written();
    count(written.samples + written.histograms)
}

/// The series of one request against what its tenant may have.
#[derive(Debug)]
pub(crate) struct Pass<'t> {
    tenants: &'t Tenants,
    tenant: &'t Tenant,
    activity: &'t Activity,
    now: Epoch,
    reserved: u32,
}

impl Pass<'_> {
    /// Whether a series that the log knows may be sent.
    #[inline]
    pub(crate) fn may_send(&self, series: SeriesRef) -> bool {
        let tenant = (self.tenant.number, self.tenant.limits.series_max);
        self.activity.sent(series, tenant, self.now)
    }

    /// Whether one more series may be defined.
    pub(crate) fn may_define(&mut self) -> bool {
        let tenant = (self.tenant.number, self.tenant.limits.series_max);
        let may = self.activity.reserve(tenant);
        self.reserved += u32::from(may);
        may
    }

    /// Counts a refused series by its label.
    pub(crate) fn refused(&self, labels: &[u8], items: usize) {
        self.tenants.refused(self.tenant, labels, items);
    }

    /// The series that were to be defined have these refs.
    pub(crate) fn settle(mut self, defined: impl Iterator<Item = SeriesRef>) {
        for series in defined.take(self.reserved as usize) {
            self.activity.defined(series, self.tenant.number, self.now);
            self.reserved -= 1;
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.activity
                .release(Some(self.tenant.number), self.reserved);
        }
    }
}
