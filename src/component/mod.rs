//! Turns blocks into what they ask for: one reader per component, and the table of all of them.
//!
//! A component here is a value: what it does not need is not started, what it names is not looked up.
//! The graph (`graph`) decides when a block is read, with which names; the agent (`agent`) makes what
//! runs be what was read.
//!
//! # Failure
//! Every wrong type, missing argument and value out of range is a diagnostic with its place.

mod content;
mod definition;
pub(crate) mod discovery;
mod document;
mod echo;
mod exporter;
mod exporter_self;
mod exporter_unix;
mod http_client;
mod http_service;
mod live_debugging;
mod logging;
mod receive_http;
mod receive_limits;
mod receive_tenants;
mod relabel;
mod relabel_rule;
mod relabel_targets;
mod remote_write;
mod scrape;
#[cfg(test)]
mod testing;
mod tls_server;
mod tracing_block;

use std::sync::Arc;

use config::{BodyReader, Capsule, CapsuleKind, Handle, Object, Value};

use crate::discovery::Discovery;
use crate::exporter::unix;

pub(crate) use content::{
    Content, Fetch, GitFetch, GitLogin, HttpFetch, SshKey, read_import_file, read_import_git,
    read_import_http,
};
pub(crate) use definition::{DEFINITIONS, Definition, Kind, definition, instead};
pub(crate) use echo::Echo;
pub(crate) use exporter_self::NAME as EXPORTER_SELF;
pub(crate) use http_service::{HttpService, PathAuth};
pub(crate) use logging::{Logging, Logs};
pub(crate) use receive_http::ReceiveHttp;
pub(crate) use relabel::Relabel;
pub(crate) use relabel_targets::RelabelTargets;
pub(crate) use remote_write::{RemoteWrite, WalOptions};
pub(crate) use scrape::Scrape;

/// What a `receiver` export stands for: the component that takes metrics.
#[derive(Debug)]
pub(crate) struct MetricsReceiver {
    /// Its id in the whole configuration.
    pub(crate) id: String,
}

impl CapsuleKind for MetricsReceiver {
    const KIND: &'static str = "MetricsReceiver";
}

/// What takes logs. There is no such component yet.
#[derive(Debug)]
pub(crate) struct LogsReceiver;

impl CapsuleKind for LogsReceiver {
    const KIND: &'static str = "LogsReceiver";
}

/// What takes traces. There is no such component yet.
#[derive(Debug)]
pub(crate) struct TracesReceiver;

impl CapsuleKind for TracesReceiver {
    const KIND: &'static str = "otelcol.Consumer";
}

/// The components of a `forward_to`, in its order, by their ids.
pub(crate) type Receivers = Vec<String>;

/// Reads `forward_to`; `null` entries are left out.
fn forward_to(r: &mut BodyReader<'_>) -> Receivers {
    let list = r.required::<Vec<Handle<MetricsReceiver>>>("forward_to");
    let there = list.into_iter().filter_map(Handle::into_inner);
    there.map(|receiver| receiver.id.clone()).collect()
}

/// What a block asks for.
#[derive(Debug)]
pub(crate) enum Role {
    /// How to log.
    Logging(Logging),
    /// Who may speak to the agent's own address.
    Http(Box<HttpService>),
    /// Whether data may be looked at while it passes.
    LiveDebugging(bool),
    /// Nothing that has an effect.
    Tracing,
    /// A log with its endpoints.
    Writer(Box<RemoteWrite>),
    /// A writer to the agent's own log output.
    Echo(Echo),
    /// What stands between receivers and writers.
    Relabel(Box<Relabel>),
    /// Where data comes in.
    Receiver(Box<ReceiveHttp>),
    /// Where data is fetched.
    Scrape(Box<Scrape>),
    /// Text from elsewhere, looked at again and again.
    Content(Content),
    /// The agent's own metrics as a target.
    ExporterSelf,
    /// The machine's metrics as a target.
    ExporterUnix(Box<unix::Options>),
    /// Targets from elsewhere, looked for again and again.
    Discovery(Discovery),
    /// Targets made of others.
    RelabelTargets(RelabelTargets),
}

impl Role {
    /// Where what it takes goes next.
    pub(crate) fn forward_to(&self) -> &[String] {
        match self {
            Self::Relabel(relabel) => &relabel.forward_to,
            Self::Receiver(receiver) => &receiver.forward_to,
            Self::Scrape(scrape) => &scrape.forward_to,
            _ => &[],
        }
    }

    /// What others may refer to, apart from contents and targets that are looked for. `receiver` is the component's.
    pub(crate) fn exports(&self, receiver: &Arc<MetricsReceiver>, facts: &Facts) -> Object {
        let capsule = || Value::from(Capsule::new(MetricsReceiver::KIND, receiver.clone()));
        let mut exports = Object::new();
        match self {
            Self::Writer(_) | Self::Echo(_) => {
                exports.insert("receiver".to_owned(), capsule());
            }
            Self::Relabel(relabel) => {
                exports.insert("receiver".to_owned(), capsule());
                exports.insert("rules".to_owned(), relabel.exported.clone());
            }
            Self::ExporterSelf => {
                let (name, job) = (exporter_self::NAME, exporter_self::JOB);
                let targets = exporter::targets(name, job, &receiver.id, facts);
                exports.insert("targets".to_owned(), targets);
            }
            Self::ExporterUnix(_) => {
                let (name, job) = (exporter_unix::NAME, exporter_unix::JOB);
                let targets = exporter::targets(name, job, &receiver.id, facts);
                exports.insert("targets".to_owned(), targets);
            }
            Self::RelabelTargets(relabel) => {
                exports.insert("output".to_owned(), relabel.output.clone());
                exports.insert("rules".to_owned(), relabel.rules.clone());
            }
            Self::Logging(_)
            | Self::Http(_)
            | Self::LiveDebugging(_)
            | Self::Tracing
            | Self::Receiver(_)
            | Self::Scrape(_)
            | Self::Content(_)
            | Self::Discovery(_) => {}
        }
        exports
    }
}

/// What components may know about the agent they run in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The address that means the agent itself, without a socket.
    pub(crate) memory_address: String,
    /// The machine's name.
    pub(crate) hostname: String,
}
