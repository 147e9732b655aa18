//! Turns the `http` block into what encrypts connections and who may ask.

use std::sync::Arc;

use ingest::secure::{Guard, SecureStats, Tls};
use wal::SharedClock;

use crate::component::{HttpService, PathAuth};

/// The `http` block, carried out.
#[derive(Debug)]
pub(super) struct Secured {
    /// What it was made from.
    pub(super) http: HttpService,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) guard: Option<(Guard, PathAuth)>,
}

impl Secured {
    /// # Errors
    /// Certificates or credentials cannot be used.
    pub(super) fn new(
        http: &HttpService,
        clock: &SharedClock,
        stats: &Arc<SecureStats>,
    ) -> anyhow::Result<Self> {
        let tls = http.tls.clone().map(|options| {
            let (clock, stats) = (Arc::clone(clock), Arc::clone(stats));
            Tls::new("http", options, clock, true, stats).map(Arc::new)
        });
        let auth = http.auth.clone();
        let guard = auth.map(|auth| Guard::new(&auth.options).map(|guard| (guard, auth)));
        let cannot = |problem: String| anyhow::anyhow!("cannot secure the own address: {problem}");
        Ok(Self {
            http: http.clone(),
            tls: tls.transpose().map_err(|error| cannot(error.to_string()))?,
            guard: guard.transpose().map_err(cannot)?,
        })
    }
}
