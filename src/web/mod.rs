//! Turns requests below the UI's prefix into JSON, streams and the files of the page.
//!
//! | file | does |
//! |---|---|
//! | `model` | the running agent -> what this needs of it, as a trait |
//! | `plan` | the plan of a start -> such a model |
//! | `assets` | the files of `ui/` -> answers |
//! | `request` | paths and queries -> what is asked for |
//! | `json` | components and values -> JSON, without secrets |
//! | `reservoir` | stores and endpoints -> how full, how far behind, since when and until when |
//! | `meter` | counters, each second -> rates, and when a backlog is gone |
//!
//! # Invariants
//! - No secret is in an answer, but in the support bundle what stands in the configuration itself.
//!
//! # Threads
//! Handlers run on the control thread and answer from memory; what reads files or walks series is moved
//! to a thread for blocking work.

mod assets;
#[cfg(test)]
pub(crate) mod fake;
mod json;
mod meter;
mod model;
mod plan;
mod request;
mod reservoir;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::StatusCode;
use serde_json::Value;

use crate::server::{Answer, json, text};
use crate::telemetry::metrics::Sources;

use meter::Meter;
pub(crate) use model::{AgentInfo, Model};
pub(crate) use plan::{Outline, PlanModel};
pub(crate) use request::{Asked, Prefix, decoded};

/// Everything the own server tells.
pub(crate) struct Web {
    model: Arc<dyn Model>,
    prefix: Prefix,
    meter: Meter,
    is_ready: AtomicBool,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

impl Web {
    pub(crate) fn new(model: Arc<dyn Model>, prefix: Prefix) -> Self {
        Self {
            model,
            prefix,
            meter: Meter::default(),
            is_ready: AtomicBool::new(false),
        }
    }

    /// Everything has started.
    pub(crate) fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    pub(crate) fn sources(&self) -> Arc<Sources> {
        self.model.sources()
    }

    /// Reads the numbers again and again, for rates and history.
    pub(crate) async fn measure(self: Arc<Self>) {
        self.meter.run(&*self.model).await;
    }

    /// The answer to what no other part of the server knows.
    pub(crate) async fn answer(self: &Arc<Self>, asked: &Asked<'_>) -> Answer {
        let Some(below) = self.prefix.below(asked.path) else {
            return not_found();
        };
        match below.strip_prefix("api/v0/web/") {
            Some(path) => self.api(path, asked).await,
            None => assets::answer(below, asked),
        }
    }

    async fn api(self: &Arc<Self>, path: &str, _asked: &Asked<'_>) -> Answer {
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
            ("agent", "") => {
                let sources = self.sources();
                let (engine, now_ms) = (sources.engine.as_str(), sources.clock.unix_ms());
                let agent = self.model.agent();
                json(&json::agent(&agent, engine, self.is_ready(), now_ms))
            }
            ("reservoir", "") => self.reservoir().await,
            _ => not_found(),
        }
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

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "there is nothing of that name\n")
}

/// Runs what may wait for a disk on a thread for that.
async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be worked out");
        text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
    })
}
