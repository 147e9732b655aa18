//! Turns a writer's arguments into its log and the endpoints that ship it, and other arguments into
//! changes of the same.
//!
//! # Invariants
//! - The log stays open as long as its writer is configured, whatever else changes.
//! - An endpoint whose arguments did not change is not touched. One whose did is stopped, and goes on at
//!   its position.
//!
//! # Failure
//! - An endpoint that cannot be started with other arguments is told, and goes on with those it had; a new one
//!   is not there. The others of the log go on, and its position holds what it did not get.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::{Body, Value};
use shipper::{EndpointHandle, EndpointOptions};
use tokio::task::JoinSet;
use wal::{LagLimits, LiveOptions, Store, StoreOptions};

use super::Ground;
use super::echo;
use crate::component::{Echo, RemoteWrite, WalOptions};
use crate::telemetry::metrics::EndpointSource;

/// How long an endpoint that gets other arguments may go on with what it was sending: long enough for one
/// that answers, so that nothing is sent twice.
const HANDOVER: Duration = Duration::from_secs(2);

/// A log with its endpoints.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: Store,
    wal: WalOptions,
    endpoints: BTreeMap<String, Shipping>,
    /// Of endpoints, running or not.
    names: Vec<String>,
}

/// A running endpoint.
#[derive(Debug)]
struct Shipping {
    handle: EndpointHandle,
    /// What it was started with.
    made_of: MadeOf,
    options: EndpointOptions,
}

/// The arguments of an endpoint: its block, and what its writer gives all of them.
type MadeOf = (Option<Body>, Option<Value>);

/// What a writer is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    wal: WalOptions,
    endpoints: Vec<(EndpointOptions, LagLimits, MadeOf)>,
    echo: Option<Echo>,
}

impl Asked {
    /// How the log is kept.
    pub(super) const fn wal(&self) -> WalOptions {
        self.wal
    }

    /// Of a `prometheus.remote_write`.
    pub(super) fn writer(component: &RemoteWrite, body: &Body) -> Self {
        let labels = body.attribute("external_labels");
        let labels = labels.and_then(|one| one.given.clone());
        let mut blocks = body.blocks_named("endpoint");
        let endpoints = component.endpoints.iter().zip(&component.limits);
        let endpoints = endpoints.map(|(endpoint, limits)| {
            let made_of = (blocks.next().map(|one| one.body.clone()), labels.clone());
            (endpoint.clone(), *limits, made_of)
        });
        Self {
            wal: component.wal,
            endpoints: endpoints.collect(),
            echo: None,
        }
    }

    /// Of a `prometheus.echo`.
    pub(super) fn echo(format: Echo, body: &Body) -> Self {
        let made_of = (Some(body.clone()), None);
        Self {
            wal: WalOptions::default(),
            endpoints: vec![(echo::endpoint(), LagLimits::default(), made_of)],
            echo: Some(format),
        }
    }
}

impl Writer {
    /// Opens the log of `id`; nothing is shipped yet.
    pub(super) fn open(id: &str, asked: &Asked, ground: &Ground) -> anyhow::Result<Self> {
        let wal = asked.wal;
        let options = StoreOptions {
            max_disk_bytes: wal.max_disk_bytes,
            on_full: wal.on_full,
            retain: wal.retain,
            series_idle_timeout: wal.series_idle_timeout,
            recovery: wal.recovery,
            clock: ground.clock.clone(),
            ..StoreOptions::default()
        };
        let storage = &ground.storage;
        let store = Store::open(&storage.join(id), options)
            .with_context(|| format!("cannot use --storage.path {}", storage.display()))?;
        Ok(Self {
            store,
            wal,
            endpoints: BTreeMap::new(),
            names: Vec::new(),
        })
    }

    /// Gives every endpoint a place to start from, before any data is taken; those that are gone hold
    /// nothing back.
    pub(super) fn name(&mut self, asked: &Asked) -> anyhow::Result<()> {
        for (endpoint, limits, _) in &asked.endpoints {
            self.store.endpoint(&endpoint.name)?.set_limits(*limits);
        }
        let names = asked
            .endpoints
            .iter()
            .map(|(endpoint, ..)| endpoint.name.clone());
        self.names = names.collect();
        self.store.endpoints_complete();
        Ok(())
    }

    /// Changes how the log is kept.
    pub(super) fn change(&mut self, id: &str, wal: WalOptions) -> anyhow::Result<()> {
        self.store.change(LiveOptions {
            max_disk_bytes: wal.max_disk_bytes,
            on_full: wal.on_full,
            retain: wal.retain,
            series_idle_timeout: wal.series_idle_timeout,
        })?;
        if self.wal.recovery != wal.recovery {
            tracing::info!(component = id, "recovery has its meaning at the next start");
        }
        self.wal = wal;
        Ok(())
    }

    /// Makes what ships be what is asked for.
    pub(super) fn ship(&mut self, asked: Asked, ground: &Ground) -> Vec<anyhow::Error> {
        let wanted = |name: &str, made_of: &MadeOf| {
            let mut all = asked.endpoints.iter();
            all.any(|(endpoint, _, other)| endpoint.name == name && other == made_of)
        };
        let before = std::mem::take(&mut self.endpoints);
        let (kept, changed): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (before.into_iter()).partition(|(name, shipping)| wanted(name, &shipping.made_of));
        self.endpoints = kept;
        let (mut handles, mut before) = (Vec::new(), BTreeMap::new());
        for (name, shipping) in changed {
            handles.push(shipping.handle);
            before.insert(name, (shipping.options, shipping.made_of));
        }
        ground.shipping.block_on(stop(handles, HANDOVER));
        for name in before.keys().cloned().collect::<Vec<String>>() {
            if !asked
                .endpoints
                .iter()
                .any(|(endpoint, ..)| endpoint.name == name)
            {
                let left = self
                    .store
                    .endpoint(&name)
                    .map(|one| one.lag_bytes())
                    .unwrap_or(0);
                tracing::info!(
                    endpoint = name,
                    bytes_left = left,
                    "does not get anything any more"
                );
                self.store.forget_endpoint(&name);
            }
        }
        let mut problems = Vec::new();
        for (options, _, made_of) in asked.endpoints {
            if self.endpoints.contains_key(&options.name) {
                continue;
            }
            let name = options.name.clone();
            if let Err(error) = self.start(options, made_of, asked.echo, ground) {
                problems.push(error.into());
                let before = before.remove(&name);
                let again = before
                    .map(|(options, made_of)| self.start(options, made_of, asked.echo, ground));
                if let Some(Err(error)) = again {
                    problems.push(error.into());
                }
            }
        }
        problems
    }

    /// Starts an endpoint from its position.
    fn start(
        &mut self,
        options: EndpointOptions,
        made_of: MadeOf,
        echo: Option<Echo>,
        ground: &Ground,
    ) -> Result<(), shipper::Error> {
        let handle = start(&self.store, &options, echo, ground)?;
        let shipping = Shipping {
            handle,
            made_of,
            options,
        };
        self.endpoints
            .insert(shipping.options.name.clone(), shipping);
        Ok(())
    }

    /// Its endpoints, for their numbers.
    pub(super) fn sources(&self, id: &str) -> Vec<EndpointSource> {
        let endpoints = self.names.iter().filter_map(|name| {
            let shipping = self.endpoints.get(name)?;
            Some(EndpointSource {
                id: id.to_owned(),
                url: shipping.handle.url_redacted().to_owned(),
                queue: shipping.options.queue.clone(),
                position: self.store.endpoint(name).ok()?,
                stats: shipping.handle.stats(),
            })
        });
        endpoints.collect()
    }

    /// Its endpoints, to be stopped.
    pub(super) fn take_endpoints(&mut self) -> Vec<EndpointHandle> {
        let endpoints = std::mem::take(&mut self.endpoints);
        endpoints.into_values().map(|one| one.handle).collect()
    }

    /// Where its endpoints stand.
    pub(super) fn positions(&self) -> Vec<wal::Endpoint> {
        let names = self.names.iter();
        names
            .filter_map(|name| self.store.endpoint(name).ok())
            .collect()
    }
}

fn start(
    store: &Store,
    options: &EndpointOptions,
    echo: Option<Echo>,
    ground: &Ground,
) -> Result<EndpointHandle, shipper::Error> {
    let (store, options) = (store.clone(), options.clone());
    let (clock, runtime) = (ground.clock.clone(), ground.shipping.clone());
    match echo {
        Some(format) => {
            let transport = Arc::new(echo::Lines::new(format));
            shipper::Endpoint::start_over(transport, store, options, clock, &runtime)
        }
        None => shipper::Endpoint::start(store, options, clock, &runtime),
    }
}

/// Stops endpoints side by side.
pub(super) async fn stop(handles: Vec<EndpointHandle>, deadline: Duration) {
    let mut stopping = JoinSet::new();
    for handle in handles {
        stopping.spawn(handle.stop(deadline));
    }
    while let Some(stopped) = stopping.join_next().await {
        if let Err(error) = stopped {
            tracing::error!(%error, "an endpoint did not stop in order");
        }
    }
}
