//! Turns the plan of a start into a model of the running agent: nothing in it changes but health.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;

use super::model::{
    AgentInfo, ConfigInfo, Detail, Edge, Health, HealthState, Model, Peer, Summary,
};
use crate::component::{Described, Plan};
use crate::telemetry::metrics::Sources;

/// What a plan tells before it is carried out.
pub(crate) struct Outline {
    described: Vec<Described>,
    /// From and to, by ids.
    flows: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

impl Outline {
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut flows = Vec::new();
        let next = |path: &ingest::Path, behind: usize| match path.stages.get(behind) {
            Some(stage) => Some(stage.name().to_owned()),
            None => plan.writers.get(path.store).map(|writer| writer.id.clone()),
        };
        for receiver in &plan.receivers {
            let to = receiver.paths.iter().filter_map(|path| next(path, 0));
            flows.extend(to.map(|to| (receiver.id.clone(), to)));
        }
        for relabel in &plan.relabels {
            // The first stage is the component itself.
            let to = relabel.paths.iter().filter_map(|path| next(path, 1));
            flows.extend(to.map(|to| (relabel.stage.name().to_owned(), to)));
        }
        flows.sort();
        flows.dedup();
        // What has no label is a setting of the agent, not a component.
        let components = plan.described.iter().filter(|one| !one.label.is_empty());
        Self {
            described: components.cloned().collect(),
            flows,
            files: plan.sources.clone(),
        }
    }

    /// The configuration as it was loaded at `now_ms`.
    pub(crate) fn config(&self, path: &Path, now_ms: i64) -> ConfigInfo {
        let all: String = self.files.iter().map(|(_, text)| text.as_str()).collect();
        let hash = digest(&SHA256, all.as_bytes());
        let hex = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        ConfigInfo {
            path: path.display().to_string(),
            sha256: hex.collect(),
            loaded_ms: Some(now_ms),
            is_last_load_good: true,
            error: None,
        }
    }
}

/// The agent as it was started.
pub(crate) struct PlanModel {
    outline: Outline,
    sources: Arc<Sources>,
    agent: AgentInfo,
    /// As it was found last, by id.
    health: Mutex<BTreeMap<String, Health>>,
}

impl PlanModel {
    pub(crate) fn new(outline: Outline, sources: Sources, agent: AgentInfo) -> Self {
        Self {
            outline,
            sources: Arc::new(sources),
            agent,
            health: Mutex::default(),
        }
    }

    fn summary(&self, of: &Described) -> Summary {
        let names = |other: &&Described| other.references.contains(&of.id);
        let referenced = self.outline.described.iter().filter(names);
        let flows = self.outline.flows.iter().filter(|(from, _)| *from == of.id);
        Summary {
            name: of.name.clone(),
            local_id: of.id.clone(),
            module_id: String::new(),
            label: of.label.clone(),
            references_to: of.references.clone(),
            referenced_by: referenced.map(|other| other.id.clone()).collect(),
            data_flow_edges_to: flows.map(|(_, to)| to.clone()).collect(),
            health: self.health(&of.id),
            live_debugging: false,
        }
    }

    /// How it is, and since when that is known.
    fn health(&self, id: &str) -> Health {
        let (state, message) = match self.problem(id) {
            Some(problem) => (HealthState::Unhealthy, problem),
            None => (HealthState::Healthy, "running".to_owned()),
        };
        let mut all = self.health.lock();
        let known = all.entry(id.to_owned()).or_insert_with(|| Health {
            state: HealthState::Healthy,
            message: "running".to_owned(),
            updated_ms: self.agent.started_ms,
        });
        if (known.state, &known.message) != (state, &message) {
            *known = Health {
                state,
                message,
                updated_ms: self.sources.clock.unix_ms(),
            };
        }
        known.clone()
    }

    /// Why a writer takes no data.
    fn problem(&self, id: &str) -> Option<String> {
        let source = self.sources.stores.iter().find(|source| source.id == id)?;
        let store = &source.store;
        let full = store.stats().out_of_space.load(Ordering::Relaxed) == 1;
        let full = full.then(|| "out of space: senders are told to wait".to_owned());
        store.failure().or_else(|| store.stall()).or(full)
    }

    /// Records that came out of a component.
    fn counter(&self, id: &str) -> Option<Arc<dyn Fn() -> u64 + Send + Sync>> {
        let receiver = self.sources.receivers.iter().find(|source| source.id == id);
        if let Some(receiver) = receiver {
            let stats = Arc::clone(&receiver.stats);
            return Some(Arc::new(move || {
                let now = stats.snapshot();
                now.samples + now.exemplars + now.histograms + now.metadata
            }));
        }
        let mut relabels = self.sources.relabels.iter();
        let stage = Arc::clone(relabels.find(|stage| stage.name() == id)?);
        Some(Arc::new(move || {
            stage.stats().written.load(Ordering::Relaxed)
        }))
    }
}

impl Model for PlanModel {
    fn components(&self, module: &str) -> Option<Vec<Summary>> {
        let all = self.outline.described.iter().map(|one| self.summary(one));
        module.is_empty().then(|| all.collect())
    }

    fn component(&self, id: &str) -> Option<Detail> {
        let mut all = self.outline.described.iter();
        let found = all.find(|described| described.id == id)?;
        Some(Detail {
            summary: self.summary(found),
            arguments: found.arguments.clone(),
            exports: found.exports.clone(),
            ..Detail::default()
        })
    }

    fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources)
    }

    fn agent(&self) -> AgentInfo {
        self.agent.clone()
    }

    fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }

    fn debug(&self, _id: &str, _probability: f64, _filter: &str) -> Option<mpsc::Receiver<String>> {
        None
    }

    fn edges(&self) -> Vec<Edge> {
        let flows = self.outline.flows.iter();
        let edges = flows.filter_map(|(from, to)| {
            Some(Edge {
                from: from.clone(),
                to: to.clone(),
                records: self.counter(from)?,
            })
        });
        edges.collect()
    }

    fn config_sources(&self) -> Vec<(String, String)> {
        self.outline.files.clone()
    }
}
