//! Turns the tenant that a request names into what it may send, and counts what it did.
//!
//! | file | does |
//! |---|---|
//! | `options` | settings, resolved |
//! | `rate` | samples per second -> now, or in so long |
//! | `active` | series sent -> how many each tenant has active |
//! | `pass` | one request's samples and series -> those its tenant may send |
//! | `offenders` | refused label values -> those refused most |
//!
//! Only for receivers with a `tenants` block; the others pay one check per request.
//!
//! # Invariants
//! - A request of a known tenant takes a read lock for a moment and no other; a sample takes none.
//! - A tenant is let go of only when it has no active series and nobody holds it, so that the next
//!   one with its number starts from nothing.
//!
//! # Limits
//! - `tenants_max` tenants of names up to [`NAME_BYTES_MAX`] bytes beside those that are configured; one more
//!   shares [`OTHER`] until one of them was idle for the timeout. So does a name that is too long or
//!   not printable ASCII.
//!
//! # Threads
//! - One per receiver, shared by its shards and by who reads the numbers.

mod active;
mod offenders;
mod options;
mod pass;
mod rate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use parking_lot::{Mutex, RwLock};

use crate::decode::Batch;
use crate::decode::labels::Reason;
pub(crate) use active::Activity;
use active::{Epoch, TenantNumber};
use offenders::Sketch;
use rate::{Bucket, Rate};

pub use options::{TenantLimits, TenantsOptions};
pub(crate) use pass::{Pass, TooFast, samples_of};

/// Longest name of a tenant that is one of its own; that of Mimir.
const NAME_BYTES_MAX: usize = 150;

/// The tenant of requests that name none.
pub const ANONYMOUS: &str = "anonymous";

/// Tenants beyond those there may be, all together.
pub const OTHER: &str = "other";

/// Values that [`TenantSnapshot::top_refused`] has at most.
pub const TOP_REFUSED_MAX: usize = 10;

/// One tenant of a receiver.
#[derive(Debug)]
pub(crate) struct Tenant {
    name: String,
    number: TenantNumber,
    limits: TenantLimits,
    is_configured: bool,
    bucket: Bucket,
    /// The half of the idle timeout in which it last sent something.
    seen: AtomicU64,
    samples: AtomicU64,
    refused_series: [AtomicU64; Reason::ALL.len()],
    refused_items: [AtomicU64; Reason::ALL.len()],
    too_fast_requests: AtomicU64,
    too_fast_samples: AtomicU64,
    /// Locked once for each refused series, never for one that is taken.
    offenders: Mutex<Sketch>,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

impl Tenant {
    fn new(name: &str, number: u32, limits: TenantLimits, is_configured: bool) -> Self {
        Self {
            name: name.to_owned(),
            number: TenantNumber(number),
            limits,
            is_configured,
            bucket: Bucket::default(),
            seen: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            refused_series: Default::default(),
            refused_items: Default::default(),
            too_fast_requests: AtomicU64::new(0),
            too_fast_samples: AtomicU64::new(0),
            offenders: Mutex::default(),
        }
    }

    /// The name it is counted under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn limits(&self) -> TenantLimits {
        self.limits
    }

    fn rate(&self) -> Option<Rate> {
        let TenantLimits {
            samples_per_second,
            burst_samples,
            ..
        } = self.limits;
        (samples_per_second > 0).then_some(Rate {
            per_second: samples_per_second,
            burst: burst_samples,
        })
    }

    /// Counts a request that was taken, and what of it was refused.
    pub(crate) fn stored(&self, batch: &Batch) {
        let written = batch.written();
        add(&self.samples, count(written.samples + written.histograms));
        if !batch.refused.is_empty() {
            for at in 0..Reason::ALL.len() {
                add(&self.refused_series[at], batch.refused.series[at]);
                add(&self.refused_items[at], batch.refused.items[at]);
            }
        }
    }
}

/// The tenants of a receiver.
#[derive(Debug)]
pub struct Tenants {
    header: HeaderName,
    options: TenantsOptions,
    anonymous: Arc<Tenant>,
    other: Arc<Tenant>,
    names: RwLock<Names>,
    /// One per way of the receiver, by its store and how many ways before it lead there. Locked for
    /// writing where ways come and go.
    activities: RwLock<BTreeMap<WayTo, Arc<Activity>>>,
    /// Numbers of tenants are below.
    tenants_end: u32,
    /// The half of the idle timeout that was last begun.
    half: AtomicU64,
    /// The same as words of activities have it.
    epoch: AtomicU64,
}

/// A way to a store: its number, and how many ways before it lead there.
pub(crate) type WayTo = (u64, usize);

/// Tenants by their names, and numbers for more.
#[derive(Debug)]
struct Names {
    all: BTreeMap<String, Arc<Tenant>>,
    /// Numbers that nobody has.
    free: Vec<u32>,
    /// The half in which it was last looked for idle ones.
    searched: u64,
}

impl Tenants {
    /// Those of a receiver.
    ///
    /// # Errors
    ///
    /// What is wrong with the options.
    pub(crate) fn new(options: TenantsOptions) -> Result<Self, String> {
        options.validate()?;
        let header = HeaderName::try_from(&options.header).map_err(|error| error.to_string())?;
        let given = |name: &str, number| {
            let limits = options.overrides.get(name).copied();
            Arc::new(Tenant::new(
                name,
                number,
                limits.unwrap_or(options.limits),
                true,
            ))
        };
        let (anonymous, other) = (given(ANONYMOUS, 0), given(OTHER, 1));
        let mut all = BTreeMap::new();
        let mut number = 2;
        for name in options.overrides.keys() {
            if name != ANONYMOUS && name != OTHER {
                all.insert(name.clone(), given(name, number));
                number += 1;
            }
        }
        let end = number + u32::try_from(options.tenants_max).unwrap_or(u32::MAX >> 9);
        Ok(Self {
            header,
            anonymous,
            other,
            names: RwLock::new(Names {
                all,
                free: (number..end).rev().collect(),
                searched: 0,
            }),
            activities: RwLock::default(),
            tenants_end: end,
            half: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            options,
        })
    }

    /// Who has which series of a way, kept while the way is.
    pub(crate) fn activity(&self, way: WayTo) -> Arc<Activity> {
        let mut activities = self.activities.write();
        let new = || Arc::new(Activity::new(self.tenants_end as usize));
        activities.entry(way).or_insert_with(new).clone()
    }

    /// There are no other ways any more.
    pub(crate) fn keep_only(&self, ways: &[WayTo]) {
        let mut activities = self.activities.write();
        activities.retain(|way, _| ways.contains(way));
    }

    /// The tenant that sends a request with these headers.
    pub(crate) fn of(&self, headers: &HeaderMap, now: Duration) -> Arc<Tenant> {
        self.advance(now);
        let tenant = self.named(headers);
        let half = self.half.load(Ordering::Relaxed);
        // Written once in a half: the word is shared.
        if tenant.seen.load(Ordering::Relaxed) != half {
            tenant.seen.store(half, Ordering::Relaxed);
        }
        tenant
    }

    fn named(&self, headers: &HeaderMap) -> Arc<Tenant> {
        let Some(value) = headers.get(&self.header) else {
            return self.anonymous.clone();
        };
        let name = match value.to_str().map(str::trim) {
            Ok("" | ANONYMOUS) => return self.anonymous.clone(),
            Ok(name) if name.len() <= NAME_BYTES_MAX && name != OTHER => name,
            _ => return self.other.clone(),
        };
        if let Some(tenant) = self.names.read().all.get(name) {
            return tenant.clone();
        }
        let half = self.half.load(Ordering::Relaxed);
        let mut names = self.names.write();
        if let Some(tenant) = names.all.get(name) {
            return tenant.clone();
        }
        if names.free.is_empty() && names.searched != half {
            names.searched = half;
            self.let_go_of_idle(&mut names, half);
        }
        let Some(number) = names.free.pop() else {
            return self.other.clone();
        };
        let tenant = Arc::new(Tenant::new(name, number, self.options.limits, false));
        names.all.insert(name.to_owned(), tenant.clone());
        tenant
    }

    /// Forgets tenants that sent nothing for the timeout: at most once in each half of it.
    fn let_go_of_idle(&self, names: &mut Names, half: u64) {
        let Names { all, free, .. } = names;
        all.retain(|_, tenant| {
            let is_idle = !tenant.is_configured
                && tenant.seen.load(Ordering::Relaxed) + 2 <= half
                && self.active_series(tenant) == 0
                // Nobody can take hold of it meanwhile, as the names are locked.
                && Arc::strong_count(tenant) == 1;
            if is_idle {
                free.push(tenant.number.0);
            }
            !is_idle
        });
    }

    /// Begins the half of the idle timeout that `now` is in, if nobody has; series that were not sent
    /// in the two before are no longer active.
    fn advance(&self, now: Duration) {
        let half_ns = (self.options.idle_timeout / 2).as_nanos().max(1);
        let half = u64::try_from(now.as_nanos() / half_ns).unwrap_or(u64::MAX);
        let before = self.half.load(Ordering::Relaxed);
        if half <= before {
            return;
        }
        let is_first = (self.half)
            .compare_exchange(before, half, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if is_first {
            // After two halves nothing is active, however many there were.
            let steps = (half - before).min(2);
            self.epoch.fetch_add(steps, Ordering::Relaxed);
            for activity in self.activities.read().values() {
                activity.sweep(self.epoch());
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "compared within 128")]
    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed) as u8)
    }

    /// Active series of a tenant: in the store where it has most, as each has all of them.
    fn active_series(&self, tenant: &Tenant) -> u32 {
        let activities = self.activities.read();
        let counts = activities.values().map(|a| a.count(tenant.number));
        counts.max().unwrap_or_default()
    }

    /// The label whose values are counted where something is refused.
    #[must_use]
    pub fn top_label(&self) -> &str {
        &self.options.top_label
    }

    /// What every tenant has done so far, by name; those that never sent anything are left out.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Vec<TenantSnapshot> {
        self.advance(now);
        let mut all: Vec<Arc<Tenant>> = self.names.read().all.values().cloned().collect();
        all.extend([self.anonymous.clone(), self.other.clone()]);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let snapshots = all.iter().map(|tenant| self.snapshot_of(tenant));
        snapshots.filter(|one| !one.is_empty()).collect()
    }

    fn snapshot_of(&self, tenant: &Tenant) -> TenantSnapshot {
        let read = |counters: &[AtomicU64; Reason::ALL.len()]| {
            let get = |at: usize| counters[at].load(Ordering::Relaxed);
            std::array::from_fn(get)
        };
        TenantSnapshot {
            name: tenant.name.clone(),
            limits: tenant.limits,
            active_series: self.active_series(tenant),
            samples: tenant.samples.load(Ordering::Relaxed),
            refused_series: read(&tenant.refused_series),
            refused_items: read(&tenant.refused_items),
            too_fast_requests: tenant.too_fast_requests.load(Ordering::Relaxed),
            too_fast_samples: tenant.too_fast_samples.load(Ordering::Relaxed),
            top_refused: tenant.offenders.lock().top(TOP_REFUSED_MAX),
        }
    }
}

/// What a tenant has done, since it was first seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantSnapshot {
    /// Its name, [`ANONYMOUS`] or [`OTHER`].
    pub name: String,
    /// What it may do.
    pub limits: TenantLimits,
    /// Series it has sent within the idle timeout, or half of it.
    pub active_series: u32,
    /// Samples and histograms taken.
    pub samples: u64,
    /// Series refused, by [`Reason::index`].
    pub refused_series: [u64; Reason::ALL.len()],
    /// Samples, histograms, exemplars and metadata refused with them.
    pub refused_items: [u64; Reason::ALL.len()],
    /// Requests refused whole because they came too fast.
    pub too_fast_requests: u64,
    /// Samples in those requests, each time they were sent.
    pub too_fast_samples: u64,
    /// The most refused values of the label and how many samples they had, the most first. Too high by
    /// at most a 64th of all.
    pub top_refused: Vec<(String, u64)>,
}

impl TenantSnapshot {
    fn is_empty(&self) -> bool {
        let refused: u64 = self.refused_series.iter().sum();
        let items: u64 = self.refused_items.iter().sum();
        self.active_series == 0
            && self.samples + refused + items + self.too_fast_requests == 0
            && self.top_refused.is_empty()
    }
}

#[cfg(test)]
mod tests;
