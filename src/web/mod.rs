//! Turns requests below the UI's prefix into JSON, streams and the files of the page.
//!
//! | file | does |
//! |---|---|
//! | `model` | the running agent -> what this needs of it, as a trait |
//! | `assets` | the files of `ui/` -> answers |
//! | `request` | paths and queries -> what is asked for |
//! | `json` | components and values -> JSON, without secrets |
//! | `reservoir` | stores and endpoints -> how full, how far behind, since when and until when |
//! | `cardinality` | the series of a store -> metrics, labels and pairs with most of them |
//! | `rejected`, `tenants` | dead letters, tenants -> JSON |
//! | `stream` | edges, passing samples -> endless answers |
//! | `support` | the agent, watched for a while -> a zip file |
//! | `assets` | the files of `ui/` -> answers |
//! | `history` | counters and gauges, each ten seconds -> the values of an hour |
//! | `meter` | counters, each second -> rates, and when a backlog is gone |
//!
//! # Invariants
//! - No secret is in an answer, but in the support bundle what stands in the configuration itself.
//!
//! # Threads
//! Handlers run on the control thread and answer from memory; what reads files or walks series is moved
//! to a thread for blocking work.

mod assets;
mod cardinality;
#[cfg(test)]
pub(crate) mod fake;
mod history;
mod json;
mod meter;
mod model;
mod rejected;
mod request;
mod reservoir;
mod stream;
mod support;
mod tenants;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use crate::agent::{Exposing, InProcess};
use crate::cluster::Clustering;
use crate::component::EXPORTER_SELF;
use crate::exporter;
use crate::graph::HealthState;
use crate::server::{Answer, json, text};
use crate::telemetry::capture::Capture;
use crate::telemetry::families::{self, Families};
use crate::telemetry::metrics::Sources;

use cardinality::{TOP_MAX, Walks};
use history::History;
use meter::Meter;
pub(crate) use model::{
    AgentInfo, Argument, ConfigInfo, Detail, Edge, Model, Peer, Reloaded, Summary,
};
pub(crate) use request::{Asked, Prefix, decoded};
use stream::Streams;

/// How often numbers are read.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
const LETTERS: usize = 50;
const LETTERS_MAX: usize = 1000;
const TOP: usize = 20;

/// Content type and body of metrics.
type Page = (&'static str, Vec<u8>);

/// Everything the own server tells.
pub(crate) struct Web {
    model: Arc<dyn Model>,
    prefix: Prefix,
    /// None: there are no support bundles.
    capture: Option<Capture>,
    meter: Meter,
    history: History,
    walks: Walks,
    streams: Streams,
    bundles: Semaphore,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

impl Web {
    pub(crate) fn new(model: Arc<dyn Model>, prefix: Prefix, capture: Option<Capture>) -> Self {
        Self {
            model,
            prefix,
            capture,
            meter: Meter::default(),
            history: History::default(),
            walks: Walks::default(),
            streams: Streams::default(),
            bundles: Semaphore::new(1),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.model.is_ready()
    }

    /// Every metric family as it is now.
    pub(crate) fn metrics(&self) -> Families {
        let mut families = self.sources().collect();
        self.model.collect(&mut families);
        families
    }

    /// Reads the configuration again.
    pub(crate) fn reload(&self) -> Reloaded {
        self.model.reload()
    }

    /// The types of components that are not well, those of the root.
    pub(crate) fn unhealthy(&self) -> Vec<String> {
        let all = self.model.components("").unwrap_or_default();
        let sick = all
            .into_iter()
            .filter(|one| one.health.state == HealthState::Unhealthy);
        sick.map(|one| one.name).collect()
    }

    /// The cluster, if there is one.
    pub(crate) fn clustering(&self) -> Option<&Clustering> {
        self.model.clustering()
    }

    pub(crate) fn sources(&self) -> Arc<Sources> {
        self.model.sources()
    }

    /// Reads the numbers again and again, for rates and history.
    #[expect(clippy::infinite_loop, reason = "ends when its task is aborted")]
    pub(crate) async fn measure(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(MEASURE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let sources = self.sources();
            self.meter.read(&sources);
            self.history.observe(&sources);
        }
    }

    /// The answer to what no other part of the server knows.
    pub(crate) async fn answer(&self, asked: &Asked<'_>) -> Answer {
        if asked.path == "/-/support" {
            return self.support(asked).await;
        }
        if let Some(of) = asked.path.strip_prefix("/api/v0/component/") {
            return self.metrics_of(&decoded(of)).await;
        }
        let Some(below) = self.prefix.below(asked.path) else {
            return not_found();
        };
        match below.strip_prefix("api/v0/web/") {
            Some(path) => self.api(path, asked).await,
            None => assets::answer(below, asked),
        }
    }

    /// The handler of a component that has metrics.
    async fn metrics_of(&self, path: &str) -> Answer {
        match self.page_of(path).await {
            Some(Ok((kind, page))) => {
                let mut answer = text(StatusCode::OK, page);
                let kind = HeaderValue::from_static(kind);
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            Some(Err(problem)) => text(StatusCode::SERVICE_UNAVAILABLE, problem + "\n"),
            None => not_found(),
        }
    }

    /// What a component tells at `ID/metrics`, or why not; nothing if there is none.
    async fn page_of(&self, path: &str) -> Option<Result<Page, String>> {
        let id = path.strip_suffix("/metrics")?;
        if let Some(exporter) = self.model.exporter(id) {
            let page = exporter.page().await;
            return Some(page.map(|page| (exporter::CONTENT_TYPE, page.as_bytes().to_vec())));
        }
        let found = self.model.component(id)?;
        (found.summary.name == EXPORTER_SELF).then(|| self.own_page())
    }

    fn own_page(&self) -> Result<Page, String> {
        let page = self.metrics().encode();
        let page = page.map_err(|error| error.to_string())?;
        Ok((families::CONTENT_TYPE, page.into_bytes()))
    }

    async fn api(&self, path: &str, asked: &Asked<'_>) -> Answer {
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let id = decoded(rest);
        match (name, &*id) {
            ("components", "") => self.components(""),
            ("components", id) => match self.model.component(id) {
                Some(found) => json(&json::detail(&found)),
                None => not_found(),
            },
            ("modules", id) => match id.strip_suffix("/components") {
                Some(module) => self.components(module),
                None => not_found(),
            },
            ("peers", "") => json(&json::peers(&self.model.peers())),
            ("cluster", "") => json(&json::cluster(self.clustering())),
            ("graph", module) => self.streams.graph(&self.model, module, asked),
            ("debug", id) => self.streams.debug(&self.model, id, asked),
            ("agent", "") => self.agent(),
            ("reservoir", "") => self.reservoir().await,
            ("history", "") => match asked.number("seconds", (1, 3600), 3600) {
                Ok(seconds) => json(&self.history.told(seconds)),
                Err(problem) => text(StatusCode::BAD_REQUEST, problem),
            },
            ("tenants", "") => json(&tenants::told(&self.sources())),
            ("cardinality", id) => self.cardinality(id, asked).await,
            ("rejected", id) => self.rejected(id, asked).await,
            _ => not_found(),
        }
    }

    fn agent(&self) -> Answer {
        let sources = self.sources();
        let (engine, now_ms) = (sources.engine.as_str(), sources.clock.unix_ms());
        let agent = self.model.agent();
        json(&json::agent(&agent, engine, self.is_ready(), now_ms))
    }

    fn components(&self, module: &str) -> Answer {
        match self.model.components(module) {
            Some(all) => json(&all.iter().map(json::summary).collect::<Vec<Value>>().into()),
            None => not_found(),
        }
    }

    async fn reservoir(&self) -> Answer {
        let (sources, rates) = (self.sources(), self.meter.rates());
        blocking(move || json(&reservoir::told(&sources, &rates))).await
    }
}

impl InProcess for Web {
    fn exposition<'p>(&'p self, path: &'p str) -> Exposing<'p> {
        Box::pin(async move {
            let page = match path.strip_prefix("/api/v0/component/") {
                Some(of) => self.page_of(&decoded(of)).await,
                None => (path == "/metrics").then(|| self.own_page()),
            };
            Some(page?.map(|(kind, page)| (kind.to_owned(), page)))
        })
    }
}

impl Web {
    async fn cardinality(&self, id: &str, asked: &Asked<'_>) -> Answer {
        let top = match asked.number("top", (1, TOP_MAX), TOP) {
            Ok(top) => top,
            Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
        };
        let sources = self.sources();
        let Some(source) = sources.stores.iter().find(|source| source.id == id) else {
            return not_found();
        };
        match self.walks.of(id, &source.store, &sources.clock).await {
            Some(found) => json(&found.told(top)),
            None => text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"),
        }
    }

    async fn rejected(&self, id: &str, asked: &Asked<'_>) -> Answer {
        let limit = match asked.number("limit", (1, LETTERS_MAX), LETTERS) {
            Ok(limit) => limit,
            Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
        };
        let sources = self.sources();
        match sources.stores.iter().find(|source| source.id == id) {
            Some(source) => {
                let dir = source.store.dir().to_owned();
                blocking(move || rejected::told(&dir, limit)).await
            }
            None => not_found(),
        }
    }

    async fn support(&self, asked: &Asked<'_>) -> Answer {
        let Some(capture) = &self.capture else {
            return not_found();
        };
        match self.bundles.try_acquire() {
            Ok(_only) => support::told(&self.model, capture, asked).await,
            Err(_) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "a support bundle is being made already\n",
            ),
        }
    }
}

fn not_found() -> Answer {
    let known = "/metrics, /-/ready, /-/healthy and the API of docs/operations.md";
    text(
        StatusCode::NOT_FOUND,
        format!("there is nothing of that name; there are {known}\n"),
    )
}

/// Runs what may wait for a disk on a thread for that.
async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be worked out");
        text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
    })
}
