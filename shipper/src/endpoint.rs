//! Turns the options of an endpoint into its running tasks, and a stop into their end.
//!
//! The table of contents of this crate: [`Endpoint::start`] names every part in the order data
//! takes.
//!
//! # Invariants
//! - An endpoint shares nothing with another: own tail, queues, workers, connections, numbers.
//! - After [`EndpointHandle::stop`] returned, its position does not move any more.
//!
//! # Failure
//! - Stopped or dropped at any moment, it leaves on disk what is not acked; the next start sends
//!   that again, with what was in flight as duplicates.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wal::{Position, SharedClock};

use crate::ack::Acks;
use crate::age::AgeLimit;
use crate::crew::join_all;
use crate::drain::Drain;
use crate::error::Error;
use crate::health::Health;
use crate::lanes::Lanes;
use crate::metadata::{self, MetadataCache};
use crate::options::{EndpointOptions, ProtobufMessage, Resolved};
use crate::rejected::Rejected;
use crate::report::Reporter;
use crate::send::Sender;
use crate::shard::Shared;
use crate::shard_map::shard_count;
use crate::stats::{Phase, Stats};
use crate::tailer::Stop;
use crate::transport::Transport;

/// One destination of a log.
#[derive(Debug)]
pub struct Endpoint;

impl Endpoint {
    /// Starts shipping `store` to an endpoint on `runtime`, from where it was last acknowledged.
    ///
    /// # Errors
    /// [`Error::Option`] for arguments that are not valid, [`Error::Client`] if TLS cannot be set
    /// up, [`Error::Store`] if the store has no position for it.
    pub fn start(
        store: wal::Store,
        options: EndpointOptions,
        clock: SharedClock,
        runtime: &Handle,
    ) -> Result<EndpointHandle, Error> {
        let resolved = options.resolve()?;
        // the metadata's worker is one more in each lane, with its own connection
        let lanes = resolved.options.priority.lanes();
        let workers = usize::from(resolved.options.queue.max_shards).max(lanes) + lanes;
        let sender = Sender::new(&resolved, workers, SharedClock::clone(&clock))?;
        Self::run(store, resolved, sender, clock, runtime)
    }

    /// The same over another transport than HTTP.
    ///
    /// # Errors
    /// As [`Self::start`], without [`Error::Client`].
    pub fn start_over(
        transport: Arc<dyn Transport>,
        store: wal::Store,
        options: EndpointOptions,
        clock: SharedClock,
        runtime: &Handle,
    ) -> Result<EndpointHandle, Error> {
        let resolved = options.resolve()?;
        let sender = Sender::over(&resolved, transport, SharedClock::clone(&clock));
        Self::run(store, resolved, sender, clock, runtime)
    }

    fn run(
        store: wal::Store,
        resolved: Resolved,
        sender: Sender,
        clock: SharedClock,
        runtime: &Handle,
    ) -> Result<EndpointHandle, Error> {
        let options = &resolved.options;
        let shards = shard_count(&options.queue);
        let saved = store
            .endpoint(&options.name)
            .map_err(|source| Error::Store {
                endpoint: options.name.clone(),
                source,
            })?;
        let dir = store.dir().to_owned();
        let fresh_from = store.watermarks().durable;
        let stats = Arc::new(Stats::new(shards));
        let shared = Arc::new(Shared {
            store,
            sender,
            acks: Acks::new(saved.clone(), fresh_from),
            reporter: Reporter::new(&options.name, &resolved.url_redacted, Arc::clone(&stats)),
            stats: Arc::clone(&stats),
            rejected: Rejected::new(&dir, &saved),
            health: Health::default(),
            drain: Drain::new(options.drain),
            age: AgeLimit::new(options.queue.sample_age_limit, &clock),
            clock,
            metadata: Arc::new(MetadataCache::default()),
            is_v2: AtomicBool::new(options.protobuf_message == ProtobufMessage::V2),
            falls_back: options.fallback_to_v1,
        });
        tracing::info!(
            endpoint = options.name,
            url = resolved.url_redacted,
            shards,
            "shipping"
        );
        let url = resolved.url_redacted.clone();
        let (stop, stopped) = watch::channel(Stop::No);
        let mut tasks = JoinSet::new();
        let within_runtime = runtime.enter();
        let repeat = metadata::repeat(Arc::clone(&shared), options.metadata.clone());
        let lanes = Lanes::new(shared, resolved, saved.clone());
        drop(within_runtime);
        let shipping = async {
            tokio::select! {
                biased;
                () = lanes.run(stopped) => {}
                never = repeat => never,
            }
        };
        tasks.spawn_on(shipping, runtime);
        Ok(EndpointHandle {
            url,
            saved,
            stats,
            stop,
            tasks,
        })
    }
}

/// A running endpoint. Dropping it stops it at once; what is not acked stays on disk.
pub struct EndpointHandle {
    url: String,
    saved: wal::Endpoint,
    stats: Arc<Stats>,
    stop: watch::Sender<Stop>,
    tasks: JoinSet<()>,
}

/// How a stop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Everything the log held has been delivered or refused.
    Drained,
    /// The deadline came first: so many records were not decided and go after the next start.
    GaveUp {
        /// Records of all kinds.
        records: u64,
    },
}

impl EndpointHandle {
    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.saved.name()
    }

    /// Its url, without secrets.
    #[must_use]
    pub fn url_redacted(&self) -> &str {
        &self.url
    }

    /// Its numbers; they outlive the handle.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Up to where the endpoint has everything.
    #[must_use]
    pub fn acked(&self) -> Position {
        self.saved.acked()
    }

    /// Ships what the log holds now, and gives up at the deadline.
    ///
    /// # Panics
    /// If one of its tasks has panicked.
    pub async fn stop(mut self, deadline: Duration) -> Stopped {
        self.stats.set_phase(Phase::Draining);
        self.stop.send_replace(Stop::Drain);
        let drained = tokio::time::timeout(deadline, join_all(&mut self.tasks))
            .await
            .is_ok();
        if !drained {
            // until all have really ended, an answer that just came could still be acked
            self.stop.send_replace(Stop::AtOnce);
            join_all(&mut self.tasks).await;
        }
        self.stats.set_phase(Phase::Stopped);
        let records = self.saved.account().pending;
        tracing::debug!(endpoint = self.saved.name(), drained, records, "stopped");
        if drained {
            Stopped::Drained
        } else {
            Stopped::GaveUp { records }
        }
    }
}

impl fmt::Debug for EndpointHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointHandle")
            .field("name", &self.name())
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
