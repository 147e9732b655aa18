//! Turns settings that change while a store runs, and endpoints that come and go, into what its parts do.
//!
//! # Invariants
//! - A changed setting is used from the keeper's next step on; nothing that was appended is touched here.
//! - An endpoint that was forgotten holds nothing back, as one that a start did not name. Its position file
//!   stays: named again it goes on there, or at the oldest data left, and its tail counts what is gone.
//! - Endpoints come and go between two steps of the keeper: what a step is about to remove is not promised
//!   to anybody meanwhile.
//!
//! # Failure
//! - A crash at any time finds the last position that was saved; forgetting saves it once more. Where that
//!   fails, what was acknowledged since is sent again if the endpoint is ever named again.
//!
//! # Limits
//! - A lower `max_disk_bytes` frees nothing by itself: no new segment is made until the store is below it,
//!   or, with `on_full = "drop_oldest"`, the oldest make room then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::endpoint::EndpointState;
use crate::limits::frame_from;
use crate::store::{Shared, Store, StoreOptions};
use crate::{Endpoint, Error, Mark, OnFull, Position};

/// What may change while a store runs; see [`StoreOptions`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveOptions {
    /// Most bytes of disk the store may take; none: a share of its volume.
    pub max_disk_bytes: Option<u64>,
    /// What happens at the quota and on a full disk.
    pub on_full: OnFull,
    /// Delivered data is kept so long, for replay, as far as the quota allows.
    pub retain: Duration,
    /// Series nobody has sent for this long, and that no segment on disk names, are given up.
    pub series_idle_timeout: Duration,
}

impl From<&StoreOptions> for LiveOptions {
    fn from(options: &StoreOptions) -> Self {
        Self {
            max_disk_bytes: options.max_disk_bytes,
            on_full: options.on_full,
            retain: options.retain,
            series_idle_timeout: options.series_idle_timeout,
        }
    }
}

impl Store {
    /// Goes on with these settings.
    ///
    /// # Errors
    /// [`Error::Options`] if the store cannot work with so few bytes of disk; nothing has changed then.
    pub fn change(&self, options: LiveOptions) -> Result<(), Error> {
        let shared = &self.shared;
        let least = shared.quota.least();
        if options.max_disk_bytes.is_some_and(|max| max < least) {
            let why = format!("max_disk_bytes must be at least {least}");
            return Err(Error::Options(why));
        }
        let before = std::mem::replace(&mut *shared.live.lock(), options);
        if before.max_disk_bytes != options.max_disk_bytes {
            shared.quota.limit(options.max_disk_bytes);
        }
        shared.wake_keeper();
        Ok(())
    }

    /// The settings in use.
    #[must_use]
    pub fn live_options(&self) -> LiveOptions {
        *self.shared.live.lock()
    }

    /// The endpoint of this name; its position is found or made, durably.
    ///
    /// # Errors
    /// What the system said.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint, Error> {
        let shared = &self.shared;
        // A step of the keeper removes what nobody needed when it looked.
        let _keeper = shared.keeper.lock();
        let mut endpoints = shared.endpoints.lock();
        if let Some(state) = endpoints.get(name) {
            return Ok(Endpoint::new(shared.clone(), state.clone()));
        }
        let oldest = || oldest_mark(shared);
        let state = EndpointState::open(&shared.disk, &shared.positions, name, oldest)?;
        let state = Arc::new(state);
        endpoints.insert(name.to_owned(), state.clone());
        Ok(Endpoint::new(shared.clone(), state))
    }

    /// Forgets the endpoint of this name; whether there was one. Whoever shipped for it has stopped:
    /// its tails end here, and what is acknowledged from now on is not saved.
    pub fn forget_endpoint(&self, name: &str) -> bool {
        let shared = &self.shared;
        let keeper = shared.keeper.lock();
        let Some(state) = shared.endpoints.lock().remove(name) else {
            return false;
        };
        state.forget();
        if let Err(error) = state.save(&shared.disk) {
            tracing::warn!(endpoint = name, %error, "cannot save the position once more");
        }
        drop(keeper);
        shared.wake_keeper();
        true
    }

    /// Whether both are handles of one open store.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// Where an endpoint begins that was never heard of.
fn oldest_mark(shared: &Arc<Shared>) -> Result<Mark, Error> {
    let oldest = frame_from(shared, Position::ZERO)?;
    Ok(oldest.map_or_else(
        || Mark {
            position: Position::new(shared.tracker.head()),
            records: shared.records.load(Ordering::Acquire),
        },
        |header| Mark {
            position: header.position,
            records: header.records_before,
        },
    ))
}
