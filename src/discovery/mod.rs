//! Turns places that know what there is to look after into lists of targets, again and again.
//!
//! | file | turns |
//! |---|---|
//! | `refresh` | one look after the other into lists that are told of when they differ |
//! | `target` | names and texts into targets; targets into a value of the language |
//! | `document` | JSON or YAML of groups into targets |
//! | `glob` | a pattern into the files it matches |
//! | `stats` | what happened to looks into numbers, one line per change of state, and debug info |
//! | `dns`, `docker`, `file`, `file_match`, `http`, `process` | one place into what is there now |
//! | `kubernetes` | objects that are watched into what is there now |
//!
//! A place is a value that a component reads from its block; the graph starts [`Discovery::run`] for it and
//! exports what it tells.
//!
//! # Failure
//! - What cannot be had keeps the targets that were found last: of all sources where none could be looked at,
//!   else of the one. It is counted at every look and logged when it begins and when it ends.
//!
//! # Limits
//! - [`TARGETS_MAX`] targets of a component: more are an error like any other.
//! - Documents and answers of [`TEXT_BYTES_MAX`].
//!
//! # Threads
//! - Waiting happens on the runtime, reading files and parsing on its threads for blocking work.

mod dns;
mod docker;
mod document;
mod file;
mod file_match;
mod glob;
mod http;
mod kubernetes;
mod process;
mod refresh;
#[cfg(test)]
mod server;
mod stats;
mod target;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use config::Value;

pub(crate) use dns::{DnsPlace, RecordKind};
pub(crate) use docker::{DockerPlace, Filter, Host};
pub(crate) use file::FilePlace;
pub(crate) use file_match::{FileMatchPlace, PathTarget};
pub(crate) use glob::Pattern;
pub(crate) use http::HttpPlace;
#[cfg(test)]
pub(crate) use kubernetes::Kind as KubernetesKind;
pub(crate) use kubernetes::{
    Access, AttachMetadata, KubernetesPlace, NAMESPACES_MAX, Role as KubernetesRole, Selector,
};
pub(crate) use process::{ProcessLabels, ProcessPlace};
pub(crate) use stats::{KUBERNETES, Stats};
pub(crate) use target::{Targets, value as target};

use refresh::{Pace, refresh};

/// Most targets of a component.
pub(crate) const TARGETS_MAX: usize = 100_000;
/// Most bytes of a document or an answer.
pub(crate) const TEXT_BYTES_MAX: u64 = 32 << 20;
/// How long after a change the next one is told of.
const APART: Duration = Duration::from_secs(5);
/// Most time an answer may take, however seldom it is asked for.
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What a component that finds targets asks for.
#[derive(Clone, Debug)]
pub(crate) struct Discovery {
    pub(crate) place: Place,
    /// Time between looks.
    pub(crate) every: Duration,
}

/// Where targets are found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Dns(DnsPlace),
    Docker(Box<DockerPlace>),
    File(FilePlace),
    FileMatch(FileMatchPlace),
    Http(Box<HttpPlace>),
    Kubernetes(Box<KubernetesPlace>),
    Process(ProcessPlace),
}

impl Place {
    /// What metrics call it.
    pub(crate) const fn mechanism(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Docker(_) => "docker",
            Self::File(_) => "file",
            Self::FileMatch(_) => "file_match",
            Self::Http(_) => "http",
            Self::Kubernetes(_) => KUBERNETES,
            Self::Process(_) => "process",
        }
    }
}

impl Discovery {
    /// Looks until nobody wants to be told any more, or until it is dropped.
    pub(crate) async fn run<Told>(self, stats: Arc<Stats>, tell: impl FnMut(Value) -> Told + Send)
    where
        Told: Future<Output = bool> + Send,
    {
        let (shared, every) = (stats.clone(), self.every);
        let stats = &*stats;
        let pace = |every| Pace {
            every,
            apart: APART,
        };
        let timeout = every.min(ANSWER_TIMEOUT_MAX);
        match self.place {
            Place::Dns(place) => refresh(dns::Look::new(place), pace(every), stats, tell).await,
            Place::Docker(place) => {
                let look = docker::Look::new(*place, timeout);
                Box::pin(refresh(look, pace(every), stats, tell)).await;
            }
            Place::File(place) => {
                let look = file::Look::new(place, every);
                // Looking at when a file was changed costs next to nothing: it need not wait.
                refresh(look, pace(every.min(APART)), stats, tell).await;
            }
            Place::FileMatch(place) => {
                let apart = Duration::ZERO;
                let look = file_match::Look::new(place);
                refresh(look, Pace { every, apart }, stats, tell).await;
            }
            Place::Http(place) => {
                let look = http::Look::new(*place, every, timeout);
                Box::pin(refresh(look, pace(every), stats, tell)).await;
            }
            Place::Kubernetes(place) => {
                // It waits for changes itself.
                let look = kubernetes::Look::new(*place, shared);
                Box::pin(refresh(look, pace(Duration::ZERO), stats, tell)).await;
            }
            Place::Process(place) => {
                refresh(process::Look::new(place), pace(every), stats, tell).await;
            }
        }
    }
}

/// Does what waits for a disk or keeps a core busy where that holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|ended| Err(format!("ended early: {ended}")))
}
