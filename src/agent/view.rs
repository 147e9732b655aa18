//! Turns the graph and what runs into what others may look at while both go on.
//!
//! # Threads
//! - Written by the thread that has the graph, read by the server's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use config::{Body, Object};
use parking_lot::RwLock;

use tokio::sync::mpsc;

use super::Problems;
use super::controller::Event;
use crate::cluster::Clustering;
use crate::component::Role;
use crate::exporter::unix::Exporter;
use crate::graph::{Files, Graph, Health, HealthState, State, What, unix_ms};
use crate::telemetry::metrics::Sources;
use crate::web::AgentInfo;

/// The agent as others see it.
#[derive(Debug)]
pub(crate) struct View {
    about: AgentInfo,
    clustering: Option<Clustering>,
    events: mpsc::Sender<Event>,
    is_ready: AtomicBool,
    is_debugged: AtomicBool,
    load: RwLock<LoadState>,
    components: RwLock<Arc<Vec<Component>>>,
    sources: RwLock<Arc<Sources>>,
}

/// A component as it was after the last change.
#[derive(Debug)]
pub(crate) struct Component {
    /// The type, such as `prometheus.remote_write`.
    pub(crate) name: String,
    pub(crate) label: String,
    /// `""` at the root.
    pub(crate) module: String,
    /// In its module.
    pub(crate) local_id: String,
    /// In the whole configuration.
    pub(crate) id: String,
    /// Local ids.
    pub(crate) references: Vec<String>,
    /// Ids in the whole configuration.
    pub(crate) forward_to: Vec<String>,
    pub(crate) health: Health,
    /// None as long as it could not be read.
    pub(crate) arguments: Option<Body>,
    pub(crate) exports: Object,
    pub(crate) modules: Vec<String>,
    /// Has metrics of its own.
    pub(crate) exporter: Option<Arc<Exporter>>,
}

/// How the last load of the configuration went.
#[derive(Clone, Debug)]
pub(crate) struct LoadState {
    pub(crate) path: String,
    /// Of the contents one after the other, in hexadecimal.
    pub(crate) sha256: String,
    /// When the configuration in use was loaded, in milliseconds since the Unix epoch.
    pub(crate) loaded_ms: Option<i64>,
    /// What is wrong with the last load.
    pub(crate) error: Option<String>,
    /// Loads that failed, whole or in part.
    pub(crate) failures: u64,
    pub(crate) files: Files,
}

impl Default for LoadState {
    fn default() -> Self {
        Self::of(Path::new(""))
    }
}

impl LoadState {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.display().to_string(),
            sha256: String::new(),
            loaded_ms: None,
            error: None,
            failures: 0,
            files: Files::new(),
        }
    }

    /// Notes what was read.
    pub(super) fn read(&mut self, files: &Files) {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for (_, text) in files {
            digest.update(text.as_bytes());
        }
        let digest = digest.finish();
        self.sha256 = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.files.clone_from(files);
    }

    pub(super) fn loaded(&mut self) {
        self.loaded_ms = Some(unix_ms());
    }

    /// Notes what was wrong; what is in use is from before.
    pub(super) fn failed(&mut self, problem: &str, view: &View) {
        let before = view.load();
        self.error = Some(problem.to_owned());
        self.loaded_ms = before.loaded_ms;
        self.failures = before.failures + 1;
    }
}

impl View {
    /// Of an agent in which nothing runs yet, and which does what is sent to `events`.
    pub(crate) fn new(
        about: AgentInfo,
        clustering: Option<Clustering>,
        events: mpsc::Sender<Event>,
        sources: Sources,
    ) -> Self {
        Self {
            about,
            clustering,
            events,
            is_ready: AtomicBool::new(false),
            is_debugged: AtomicBool::new(false),
            load: RwLock::default(),
            components: RwLock::default(),
            sources: RwLock::new(Arc::new(sources)),
        }
    }

    pub(super) fn about(&self) -> AgentInfo {
        self.about.clone()
    }

    /// The cluster, if there is one.
    pub(crate) const fn clustering(&self) -> Option<&Clustering> {
        self.clustering.as_ref()
    }

    pub(super) fn events(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    /// Whether data may be looked at while it passes.
    pub(super) fn is_debugged(&self) -> bool {
        self.is_debugged.load(Ordering::Acquire)
    }

    /// Whether everything of the first load runs.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// How the last load went.
    pub(crate) fn load(&self) -> LoadState {
        self.load.read().clone()
    }

    /// Every component, by module and id.
    pub(crate) fn components(&self) -> Arc<Vec<Component>> {
        self.components.read().clone()
    }

    /// What has numbers.
    pub(crate) fn sources(&self) -> Arc<Sources> {
        self.sources.read().clone()
    }

    /// Shows what runs now.
    pub(super) fn runs(&self, sources: Sources) {
        *self.sources.write() = Arc::new(sources);
    }

    pub(super) fn loaded(&self, mut state: LoadState) {
        let mut load = self.load.write();
        if state.error.is_none() {
            state.failures = load.failures;
        }
        *load = state;
        self.is_ready.store(true, Ordering::Release);
    }

    /// Shows the graph as it is, with what could not be done for it.
    pub(super) fn show(&self, graph: &Graph, problems: &Problems) {
        let mut components = Vec::new();
        let mut is_debugged = false;
        graph.visit(&mut |module, local_id, node| {
            if matches!(node.what, What::Declare | What::Argument | What::Export) {
                return;
            }
            let problem = problems.iter().find(|(id, _)| id == node.id());
            let problem = problem.map(|(_, error)| {
                Health::now(
                    HealthState::Unhealthy,
                    format!("component evaluation failed: {error:#}"),
                )
            });
            let health = node.health();
            let (arguments, forward_to, exporter) = match &node.state {
                State::Component(live) => {
                    is_debugged |= matches!(live.role, Role::LiveDebugging(true));
                    let forward_to = live.role.forward_to().to_vec();
                    (Some(live.body.clone()), forward_to, live.exporter.clone())
                }
                _ => (None, Vec::new(), None),
            };
            components.push(Component {
                name: node.block.name.name.clone(),
                label: node.block.label().unwrap_or_default().to_owned(),
                module: module.id.clone(),
                local_id: local_id.to_owned(),
                id: node.id().to_owned(),
                references: node.needs.iter().cloned().collect(),
                forward_to,
                health: match problem {
                    Some(problem) => health.worse(problem),
                    None => health,
                },
                arguments,
                exports: node.exports.clone(),
                modules: node.modules(),
                exporter,
            });
        });
        self.is_debugged.store(is_debugged, Ordering::Release);
        *self.components.write() = Arc::new(components);
    }
}
