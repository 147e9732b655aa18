//! Turns the list and the watch of one kind, in one namespace or all, into what became of its objects.
//!
//! Listing in pages, resuming where a watch ended, and how long to wait after a failure are kube's. Here is what
//! goes beyond: a watch that a server no longer has the history for begins again with a list, however the server
//! says so.
//!
//! # Failure
//! - Whatever fails is told and tried again, at first after 0.8 s, later after 30 s.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kube::api::Api;
use kube::client::ClientBuilder;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use shipper::fetch::Client;
use tokio::sync::Notify;

use super::access::Resolved;
use super::objects::{
    EndpointSlice, Endpoints, Ingress, Kind, Known, Namespace, Node, Object, Pod, Service,
    Versioned,
};
use super::transport::{Link, REQUEST_TIMEOUT, Transport};

/// Idle connections that are kept: lists come one after the other.
const IDLE_MAX: usize = 2;
/// What is repeated of a server's words.
const PROBLEM_CHARS_MAX: usize = 300;

/// What became of an object.
#[derive(Debug)]
pub(super) enum Saw {
    /// A list begins.
    Listing,
    /// It is in the list.
    Listed(Object),
    /// The list is complete.
    Complete,
    Applied(Object),
    Deleted(Object),
    Failed {
        problem: String,
        /// Whether the history is gone, so that it begins again.
        is_expired: bool,
        /// Whether the server does not know who asks.
        is_unknown: bool,
    },
}

/// What is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    /// None: all of them.
    pub(super) namespace: Option<String>,
    pub(super) label: Option<String>,
    pub(super) field: Option<String>,
}

impl Wanted {
    /// What a problem is about.
    pub(super) fn shown(&self) -> String {
        let kind = self.kind.plural();
        match &self.namespace {
            Some(namespace) => format!("{kind} in {namespace}"),
            None => kind.to_owned(),
        }
    }
}

/// Where all watches of a component ask.
pub(super) struct Server {
    client: Arc<Client>,
    url: Arc<str>,
    resolved: Resolved,
    /// Told of every good answer.
    pub(super) answered: Arc<Notify>,
}

impl Server {
    pub(super) fn new(resolved: Resolved) -> Result<Self, String> {
        let client = Client::new(&resolved.http, REQUEST_TIMEOUT, IDLE_MAX)?;
        Ok(Self {
            client: Arc::new(client),
            url: resolved.url.as_str().into(),
            resolved,
            answered: Arc::default(),
        })
    }

    /// What becomes of the objects that are wanted, from now on.
    pub(super) fn watch(&self, wanted: &Wanted, link: &Arc<Link>) -> BoxStream<'static, Saw> {
        match wanted.kind {
            Kind::Node => self.watch_all::<Node>(wanted, link),
            Kind::Pod => self.watch_all::<Pod>(wanted, link),
            Kind::Service => self.watch_all::<Service>(wanted, link),
            Kind::Endpoints => self.watch_all::<Endpoints>(wanted, link),
            Kind::EndpointSlice => self.watch_all::<EndpointSlice>(wanted, link),
            Kind::Ingress => self.watch_all::<Ingress>(wanted, link),
            Kind::Namespace => self.watch_all::<Namespace>(wanted, link),
        }
    }

    fn watch_all<T: Known>(&self, wanted: &Wanted, link: &Arc<Link>) -> BoxStream<'static, Saw> {
        let transport = Transport::new(&self.client, &self.url, link, &self.answered);
        let client = ClientBuilder::new(transport, "default");
        let client = match &self.resolved.layer {
            Some(layer) => client.with_layer(layer).build(),
            None => client.build(),
        };
        let api: Api<Versioned<T>> = match &wanted.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &()),
            None => Api::all_with(client, &()),
        };
        let config = Config {
            label_selector: wanted.label.clone(),
            field_selector: wanted.field.clone(),
            ..Config::default()
        };
        let begin = move || {
            let events = watcher(api.clone(), config.clone());
            events.default_backoff().map(saw).boxed()
        };
        let next = |(begin, mut events): (_, Option<BoxStream<'static, Saw>>)| async move {
            let running = events.get_or_insert_with(&begin);
            let saw = running.next().await?;
            let is_expired = matches!(saw, Saw::Failed { is_expired, .. } if is_expired);
            // It would ask for the same history again.
            let events = events.filter(|_| !is_expired);
            Some((saw, (begin, events)))
        };
        Box::pin(stream::unfold((begin, None), next))
    }
}

fn saw<T: Known>(event: watcher::Result<Event<Versioned<T>>>) -> Saw {
    match event {
        Ok(Event::Init) => Saw::Listing,
        Ok(Event::InitApply(seen)) => Saw::Listed(seen.object.object()),
        Ok(Event::InitDone) => Saw::Complete,
        Ok(Event::Apply(seen)) => Saw::Applied(seen.object.object()),
        Ok(Event::Delete(seen)) => Saw::Deleted(seen.object.object()),
        Err(error) => Saw::Failed {
            is_expired: is_expired(&error),
            is_unknown: is_unknown(&error),
            problem: problem(&error),
        },
    }
}

/// Whether the server does not know what it is asked to go on from.
fn is_expired(error: &watcher::Error) -> bool {
    /// Gone; a version that is none, or is of another server's future.
    const CODES: [u16; 3] = [410, 400, 504];
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => CODES.contains(&status.code),
        _ => false,
    }
}

/// Whether the server does not know who asks.
fn is_unknown(error: &watcher::Error) -> bool {
    use watcher::Error as Failed;
    let (Failed::InitialListFailed(cause) | Failed::WatchStartFailed(cause)) = error else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.code == 401)
}

fn problem(error: &watcher::Error) -> String {
    use watcher::Error as Failed;
    let (doing, cause) = match error {
        Failed::InitialListFailed(cause) => ("listing", cause),
        Failed::WatchStartFailed(cause) | Failed::WatchFailed(cause) => ("watching", cause),
        Failed::WatchError(status) => return shortened(&format!("watching: {}", said(status))),
        Failed::NoResourceVersion => {
            return "listing: an object has no resource version".to_owned();
        }
    };
    let cause = match cause {
        kube::Error::Api(status) => said(status),
        kube::Error::Service(cause) => cause.to_string(),
        kube::Error::SerdeError(cause) => format!("not what was asked for: {cause}"),
        cause => cause.to_string(),
    };
    shortened(&format!("{doing}: {cause}"))
}

/// What a server said.
fn said(status: &kube::core::Status) -> String {
    let text = if status.message.is_empty() {
        &status.reason
    } else {
        &status.message
    };
    format!("the answer is {}: {text}", status.code)
}

fn shortened(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(PROBLEM_CHARS_MAX).collect()
}
