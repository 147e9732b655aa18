//! A model that says what a test wants.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use wal::{IoEngine, SystemClock};

use super::model::{AgentInfo, Detail, Edge, Model, Peer, Reloaded, Summary};
use super::{Prefix, Web};
use crate::cluster::Clustering;
use crate::exporter::unix::Exporter;
use crate::server::ServerStats;
use crate::telemetry::families::Families;
use crate::telemetry::metrics::Sources;

/// What it says.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) server: Arc<ServerStats>,
    pub(crate) details: Vec<Detail>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) edges: Vec<Edge>,
    /// What is to be debugged next.
    pub(crate) debug: Mutex<Option<mpsc::Receiver<String>>>,
}

impl Model for Fake {
    fn components(&self, module: &str) -> Option<Vec<Summary>> {
        let all = self.details.iter().map(|detail| detail.summary.clone());
        let here: Vec<Summary> = all.filter(|one| one.module_id == module).collect();
        (module.is_empty() || !here.is_empty()).then_some(here)
    }

    fn component(&self, id: &str) -> Option<Detail> {
        let is_it = |detail: &&Detail| {
            let Summary {
                module_id,
                local_id,
                ..
            } = &detail.summary;
            match &**module_id {
                "" => local_id == id,
                module => format!("{module}/{local_id}") == id,
            }
        };
        self.details.iter().find(is_it).cloned()
    }

    fn exporter(&self, _: &str) -> Option<Arc<Exporter>> {
        None
    }

    fn sources(&self) -> Arc<Sources> {
        Arc::new(Sources {
            engine: IoEngine::Portable,
            clock: SystemClock::shared(),
            stores: Vec::new(),
            scrapers: Vec::new(),
            relabels: Vec::new(),
            receivers: Vec::new(),
            endpoints: Vec::new(),
            discoveries: Vec::new(),
            server: Arc::clone(&self.server),
        })
    }

    fn agent(&self) -> AgentInfo {
        AgentInfo::default()
    }

    fn peers(&self) -> Vec<Peer> {
        self.peers.clone()
    }

    fn clustering(&self) -> Option<&Clustering> {
        None
    }

    fn debug(&self, _id: &str, _probability: f64, _filter: &str) -> Option<mpsc::Receiver<String>> {
        self.debug.lock().take()
    }

    fn edges(&self, module: &str) -> Vec<Edge> {
        let of =
            |edge: &Edge| edge.from.rsplit_once('/').map_or("", |(module, _)| module) == module;
        self.edges.iter().filter(|edge| of(edge)).cloned().collect()
    }

    fn collect(&self, _: &mut Families) {}

    fn is_ready(&self) -> bool {
        true
    }

    fn reload(&self) -> Reloaded {
        Box::pin(async { Ok(()) })
    }

    fn config_sources(&self) -> Vec<(String, String)> {
        vec![("a.penstock".to_owned(), "logging {}\n".to_owned())]
    }
}

/// What tells of it.
pub(crate) fn web(fake: Fake) -> Arc<Web> {
    Arc::new(Web::new(Arc::new(fake), Prefix::new("/").unwrap(), None))
}
