//! Turns the view of the agent into what the web endpoints ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::{Body, Shown, Value};
use ingest::pull::TargetState;
use tokio::sync::{mpsc, oneshot};

use super::controller::Event;
use super::view::{Component, View};
use crate::cluster::Clustering;
use crate::exporter::unix::Exporter;
use crate::graph::{Health, HealthState, within};
use crate::telemetry::families::Families;
use crate::telemetry::metrics::Sources;
use crate::telemetry::{cluster, load};
use crate::web::{AgentInfo, Argument, ConfigInfo, Detail, Edge, Model, Peer, Reloaded, Summary};

/// Most targets of a scraper that are shown.
const TARGETS_SHOWN_MAX: usize = 1_000;
/// Lines that wait for one who looks at what passes.
const LINES_WAITING: usize = 1_000;

/// What a component was given; defaults are left to its document.
fn arguments(body: &Body) -> Vec<Argument> {
    let shown = body.shown().filter_map(|shown| match shown {
        Shown::Attribute {
            is_default: true, ..
        } => None,
        Shown::Attribute { name, value, .. } => Some(Argument::Attribute {
            name: name.to_owned(),
            value: value.clone(),
        }),
        Shown::Block(nested) => Some(Argument::Block {
            name: nested.name.clone(),
            label: nested.label.clone().unwrap_or_default(),
            body: arguments(&nested.body),
        }),
    });
    shown.collect()
}

impl View {
    /// The components of a module that are components, not settings.
    fn of_module(&self, module: &str) -> (Vec<Summary>, bool) {
        let all = self.components();
        let sources = self.sources();
        let flows = flows(&all, module);
        let here = all.iter().filter(|one| one.module == module);
        let summaries = here
            .map(|one| self.summary(one, (&all, &flows), &sources))
            .collect();
        let exists = all
            .iter()
            .any(|one| one.modules.iter().any(|id| id == module));
        (summaries, module.is_empty() || exists)
    }

    /// What is known of a component beside its arguments and exports.
    fn debug_info(&self, id: &str) -> Vec<Argument> {
        let sources = self.sources();
        let found = sources.discoveries.iter().find(|stats| stats.id == id);
        let shown = found.map(|stats| stats.debug_info()).unwrap_or_default();
        let shown = shown.into_iter().map(|(name, value)| Argument::Attribute {
            name: name.to_owned(),
            value,
        });
        shown.collect()
    }

    fn summary(
        &self,
        of: &Component,
        (all, flows): (&[Component], &Flows<'_>),
        sources: &Sources,
    ) -> Summary {
        let names = |other: &&Component| {
            other.module == of.module && other.references.contains(&of.local_id)
        };
        let health = match problem(sources, &of.id) {
            Some(problem) => {
                let problem = Health::now(HealthState::Unhealthy, problem);
                of.health.clone().worse(problem)
            }
            None => of.health.clone(),
        };
        Summary {
            name: of.name.clone(),
            local_id: of.local_id.clone(),
            module_id: of.module.clone(),
            label: of.label.clone(),
            references_to: of.references.clone(),
            referenced_by: all
                .iter()
                .filter(names)
                .map(|one| one.local_id.clone())
                .collect(),
            data_flow_edges_to: (flows.keys())
                .filter(|(from, _)| *from == of.id)
                .filter_map(|(_, to)| all.iter().find(|one| one.id == *to))
                .map(|one| one.local_id.clone())
                .collect(),
            health,
            live_debugging: self.is_debugged() && tap(sources, &of.id).is_some(),
        }
    }
}

/// Ways data takes between the components of a module, with the components that send it: those in other
/// modules count for what they are in.
type Flows<'a> = BTreeMap<(String, String), BTreeSet<&'a str>>;

fn flows<'a>(all: &'a [Component], module: &str) -> Flows<'a> {
    let here: BTreeSet<&str> = (all.iter())
        .filter(|one| one.module == module)
        .map(|one| one.id.as_str())
        .collect();
    let at_home = |id: &str| {
        let local = match module {
            "" => id,
            module => id.strip_prefix(module)?.strip_prefix('/')?,
        };
        let first = local.split('/').next()?;
        let id = within(module, first);
        here.contains(id.as_str()).then_some(id)
    };
    let mut flows = Flows::new();
    for from in all {
        for to in &from.forward_to {
            if let (Some(a), Some(b)) = (at_home(&from.id), at_home(to))
                && a != b
            {
                flows.entry((a, b)).or_default().insert(&from.id);
            }
        }
    }
    flows
}

/// Why a writer takes no data.
fn problem(sources: &Sources, id: &str) -> Option<String> {
    let source = sources.stores.iter().find(|source| source.id == id)?;
    let store = &source.store;
    let full = store.stats().out_of_space.load(Ordering::Relaxed) == 1;
    let full = full.then(|| "out of space: senders are told to wait".to_owned());
    store.failure().or_else(|| store.stall()).or(full)
}

/// Where what passes a component can be looked at.
fn tap(sources: &Sources, id: &str) -> Option<ingest::Tap> {
    let mut receivers = sources.receivers.iter();
    if let Some(receiver) = receivers.find(|one| one.id == id) {
        return Some(receiver.stats.tap().clone());
    }
    if let Some(stage) = sources.relabels.iter().find(|one| one.name() == id) {
        return Some(stage.tap().clone());
    }
    if let Some(scraper) = sources.scrapers.iter().find(|one| one.name() == id) {
        return Some(scraper.tap().clone());
    }
    let store = sources.stores.iter().find(|one| one.id == id)?;
    Some(store.tap.clone())
}

/// Records that came out of a component.
fn counter(sources: &Sources, id: &str) -> Option<Arc<dyn Fn() -> u64 + Send + Sync>> {
    let mut receivers = sources.receivers.iter();
    if let Some(receiver) = receivers.find(|source| source.id == id) {
        let stats = Arc::clone(&receiver.stats);
        return Some(Arc::new(move || {
            let now = stats.snapshot();
            now.samples + now.exemplars + now.histograms + now.metadata
        }));
    }
    let mut scrapers = sources.scrapers.iter();
    if let Some(stats) = scrapers.find(|stats| stats.name() == id) {
        let stats = Arc::clone(stats);
        return Some(Arc::new(move || {
            let now = stats.snapshot();
            now.samples_followed + now.samples_parsed
        }));
    }
    let mut relabels = sources.relabels.iter();
    let stage = Arc::clone(relabels.find(|stage| stage.name() == id)?);
    Some(Arc::new(move || {
        stage.stats().written.load(Ordering::Relaxed)
    }))
}

/// How the targets of a scraper are, one block each.
fn targets(sources: &Sources, id: &str) -> Vec<Argument> {
    let scraper = sources.scrapers.iter().find(|one| one.name() == id);
    let targets = scraper.map(|scraper| scraper.targets()).unwrap_or_default();
    let targets = targets.iter().take(TARGETS_SHOWN_MAX);
    let block = targets.map(|state| Argument::Block {
        name: "target".to_owned(),
        label: String::new(),
        body: target(state),
    });
    block.collect()
}

fn target(state: &TargetState) -> Vec<Argument> {
    let (target, last) = (&state.target, state.last());
    let label = |name: &str| {
        let found = target.labels.iter().find(|(one, _)| one == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let labels: BTreeMap<String, Value> = (target.labels.iter())
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let scraped = state.last_scrape_ms().map_or(Value::Null, Value::from);
    let seconds = last.took.as_secs_f64();
    let fields: [(&str, Value); 8] = [
        ("job", label("job").into()),
        ("url", target.url.as_str().into()),
        ("health", state.health().into()),
        ("labels", labels.into()),
        ("last_error", last.error.unwrap_or_default().into()),
        ("last_scrape_ms", scraped),
        ("last_scrape_duration_seconds", seconds.into()),
        (
            "last_scrape_samples",
            i64::try_from(last.samples).unwrap_or(i64::MAX).into(),
        ),
    ];
    let fields = fields.into_iter().map(|(name, value)| Argument::Attribute {
        name: name.to_owned(),
        value,
    });
    fields.collect()
}

/// The lines that hold `filter`.
fn filtered(mut lines: mpsc::Receiver<String>, filter: String) -> mpsc::Receiver<String> {
    let (passed, all) = mpsc::channel(LINES_WAITING);
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if line.contains(&filter) && passed.send(line).await.is_err() {
                return;
            }
        }
    });
    all
}

impl Model for View {
    fn components(&self, module: &str) -> Option<Vec<Summary>> {
        let (mut summaries, exists) = self.of_module(module);
        // What has no label is a setting of the agent, not a component.
        summaries.retain(|one| !one.label.is_empty());
        exists.then_some(summaries)
    }

    fn component(&self, id: &str) -> Option<Detail> {
        let all = View::components(self);
        let found = all.iter().find(|one| one.id == id)?;
        let flows = flows(&all, &found.module);
        let exports = found.exports.iter();
        Some(Detail {
            summary: self.summary(found, (&all, &flows), &self.sources()),
            arguments: found.arguments.as_ref().map(arguments).unwrap_or_default(),
            exports: exports
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            debug_info: match targets(&self.sources(), id) {
                none if none.is_empty() => self.debug_info(id),
                targets => targets,
            },
            created_module_ids: found.modules.clone(),
        })
    }

    fn exporter(&self, id: &str) -> Option<Arc<Exporter>> {
        let all = View::components(self);
        all.iter().find(|one| one.id == id)?.exporter.clone()
    }

    fn sources(&self) -> Arc<Sources> {
        View::sources(self)
    }

    fn agent(&self) -> AgentInfo {
        let load = self.load();
        let mut about = self.about();
        about.live_debugging = self.is_debugged();
        about.clustering = View::clustering(self).is_some();
        about.config = ConfigInfo {
            path: load.path,
            sha256: load.sha256,
            loaded_ms: load.loaded_ms,
            is_last_load_good: load.error.is_none(),
            error: load.error,
        };
        about
    }

    fn peers(&self) -> Vec<Peer> {
        let clustering = View::clustering(self);
        let peers = clustering.map(|clustering| clustering.ownership().peers());
        let peers = peers.unwrap_or_default().into_iter().map(|peer| Peer {
            name: peer.name.to_string(),
            addr: peer.address.to_string(),
            is_self: peer.is_self,
            state: peer.state.as_str().to_owned(),
        });
        peers.collect()
    }

    fn clustering(&self) -> Option<&Clustering> {
        View::clustering(self)
    }

    fn debug(&self, id: &str, probability: f64, filter: &str) -> Option<mpsc::Receiver<String>> {
        if !self.is_debugged() {
            return None;
        }
        let lines = tap(&View::sources(self), id)?.subscribe(probability, LINES_WAITING);
        Some(if filter.is_empty() {
            lines
        } else {
            filtered(lines, filter.to_owned())
        })
    }

    fn edges(&self, module: &str) -> Vec<Edge> {
        let all = View::components(self);
        let sources = View::sources(self);
        let edges = flows(&all, module)
            .into_iter()
            .map(|((from, to), senders)| {
                let senders = senders.into_iter();
                let counters: Vec<_> = senders.filter_map(|id| counter(&sources, id)).collect();
                let records = Arc::new(move || counters.iter().map(|count| count()).sum());
                Edge { from, to, records }
            });
        edges.collect()
    }

    fn config_sources(&self) -> Vec<(String, String)> {
        self.load().files
    }

    fn collect(&self, families: &mut Families) {
        let all = View::components(self);
        let sources = View::sources(self);
        let states: Vec<HealthState> = (all.iter())
            .map(|one| {
                self.summary(one, (&all, &Flows::new()), &sources)
                    .health
                    .state
            })
            .collect();
        let clustering = View::clustering(self);
        let name = clustering.map(Clustering::name);
        load::collect(families, &self.load(), &states, name);
        if let Some(clustering) = clustering {
            cluster::collect(families, clustering);
        }
    }

    fn is_ready(&self) -> bool {
        View::is_ready(self)
    }

    fn reload(&self) -> Reloaded {
        let (answer, answered) = oneshot::channel();
        let events = self.events();
        Box::pin(async move {
            let event = Event::Reload(Some(answer));
            // Fails when the agent is ending.
            let ended = |_| "the agent is stopping".to_owned();
            events
                .send(event)
                .await
                .map_err(|_| "the agent is stopping".to_owned())?;
            answered.await.map_err(ended)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(module: &str, local_id: &str, forward_to: &[&str]) -> Component {
        Component {
            name: String::new(),
            label: String::new(),
            module: module.to_owned(),
            local_id: local_id.to_owned(),
            id: within(module, local_id),
            references: Vec::new(),
            forward_to: forward_to.iter().map(|id| (*id).to_owned()).collect(),
            health: Health::created(),
            arguments: None,
            exports: config::Object::new(),
            modules: Vec::new(),
            exporter: None,
        }
    }

    #[test]
    fn what_is_in_a_module_counts_for_the_component_it_is_in() {
        let all = [
            component("", "in", &["m.x/r", "m.x/s"]),
            component("", "m.x", &[]),
            component("m.x", "r", &["out", "m.x/s"]),
            component("m.x", "s", &["out"]),
            component("", "out", &[]),
        ];
        let of = |module: &str| {
            let flows = flows(&all, module).into_iter();
            let flows = flows.map(|((from, to), by)| {
                let by: Vec<&str> = by.into_iter().collect();
                format!("{from} > {to} by {}", by.join(", "))
            });
            flows.collect::<Vec<_>>()
        };
        assert_eq!(of(""), ["in > m.x by in", "m.x > out by m.x/r, m.x/s"]);
        assert_eq!(of("m.x"), ["m.x/r > m.x/s by m.x/r"]);
    }
}
