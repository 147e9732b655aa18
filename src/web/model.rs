//! Turns the running agent into what the web endpoints need to know of it: the seam between the two.
//!
//! # Invariants
//! - What is asked for is the agent as it is now: a reload changes what the next question is answered.

use std::pin::Pin;
use std::sync::Arc;

use config::Value;
use tokio::sync::mpsc;

use crate::cluster::Clustering;
use crate::exporter::unix::Exporter;
use crate::graph::Health;
use crate::telemetry::families::Families;
use crate::telemetry::metrics::Sources;

/// The running agent as others see it. Called on the control thread: answers come from memory.
pub(crate) trait Model: Send + Sync {
    /// The components of a module, the root's for `""`; `None` if there is no such module.
    fn components(&self, module: &str) -> Option<Vec<Summary>>;
    /// A component by its id, `MODULE/LOCAL` inside a module.
    fn component(&self, id: &str) -> Option<Detail>;
    /// The metrics of a component that has its own.
    fn exporter(&self, id: &str) -> Option<Arc<Exporter>>;
    /// Everything that has numbers.
    fn sources(&self) -> Arc<Sources>;
    /// The process and its configuration.
    fn agent(&self) -> AgentInfo;
    /// The nodes of the cluster; none while clustering is off.
    fn peers(&self) -> Vec<Peer>;
    /// The cluster, if there is one.
    fn clustering(&self) -> Option<&Clustering>;
    /// What passes a component, as lines, each with this probability and only those that hold
    /// `filter`; `None` if there is no such component or it has no live debugging.
    fn debug(&self, id: &str, probability: f64, filter: &str) -> Option<mpsc::Receiver<String>>;
    /// The ways data takes between the components of a module.
    fn edges(&self, module: &str) -> Vec<Edge>;
    /// The configuration as it was read, file by file; secrets stand there as the user wrote them.
    fn config_sources(&self) -> Vec<(String, String)>;
    /// Adds the numbers of the configuration.
    fn collect(&self, families: &mut Families);
    /// Whether everything of the first load runs.
    fn is_ready(&self) -> bool;
    /// Reads the configuration again.
    fn reload(&self) -> Reloaded;
}

/// What is wrong with a configuration that is read again, once that is known.
pub(crate) type Reloaded = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A component in a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// `prometheus.remote_write`.
    pub(crate) name: String,
    pub(crate) local_id: String,
    /// Empty at the root.
    pub(crate) module_id: String,
    pub(crate) label: String,
    /// Local ids.
    pub(crate) references_to: Vec<String>,
    pub(crate) referenced_by: Vec<String>,
    pub(crate) data_flow_edges_to: Vec<String>,
    pub(crate) health: Health,
    pub(crate) live_debugging: bool,
}

/// Everything about a component.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detail {
    pub(crate) summary: Summary,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) exports: Vec<(String, Value)>,
    pub(crate) debug_info: Vec<Argument>,
    pub(crate) created_module_ids: Vec<String>,
}

/// One statement of a component's block, evaluated.
#[derive(Clone, Debug)]
pub(crate) enum Argument {
    Attribute {
        name: String,
        value: Value,
    },
    Block {
        name: String,
        /// Empty for none.
        label: String,
        body: Vec<Argument>,
    },
}

/// The process and its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentInfo {
    pub(crate) hostname: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) started_ms: i64,
    pub(crate) threads: usize,
    pub(crate) storage_path: String,
    pub(crate) live_debugging: bool,
    pub(crate) clustering: bool,
    pub(crate) config: ConfigInfo,
    /// Flags and their values as they are in force.
    pub(crate) flags: Vec<(&'static str, String)>,
}

/// The configuration that was last read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigInfo {
    pub(crate) path: String,
    /// Of the contents, one after the other in the order of the names, in hexadecimal.
    pub(crate) sha256: String,
    pub(crate) loaded_ms: Option<i64>,
    pub(crate) is_last_load_good: bool,
    pub(crate) error: Option<String>,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) is_self: bool,
    pub(crate) state: String,
}

/// A way data takes from a component to the next, by their ids.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Records that took it so far.
    pub(crate) records: Arc<dyn Fn() -> u64 + Send + Sync>,
}
