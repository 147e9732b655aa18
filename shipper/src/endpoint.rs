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
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use wal::{Position, SharedClock};

use crate::ack::Acks;
use crate::backoff::Backoff;
use crate::encode::Encoder;
use crate::error::Error;
use crate::metadata::{self, MetadataCache};
use crate::options::{EndpointOptions, ProtobufMessage, Resolved};
use crate::queue::Queue;
use crate::report::Reporter;
use crate::send::Sender;
use crate::shard::{Shared, Worker};
use crate::shard_map::{ShardMap, shard_count};
use crate::stats::Stats;
use crate::tailer::{Lanes, Tailer};

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
        let options = &resolved.options;
        let shards = shard_count(&options.queue);
        // the metadata's worker is one more, with its own connection
        let workers = usize::from(shards) + 1;
        let sender = Sender::new(&resolved, workers, SharedClock::clone(&clock))?;
        let saved = store
            .endpoint(&options.name)
            .map_err(|source| Error::Store {
                endpoint: options.name.clone(),
                source,
            })?;
        let fresh_from = store.watermarks().durable;
        let shared = Arc::new(Shared {
            store,
            sender,
            acks: Acks::new(saved.clone(), fresh_from),
            stats: Arc::new(Stats::new(shards)),
            reporter: Reporter::new(&options.name, &resolved.url_redacted),
            clock,
            metadata: Arc::new(MetadataCache::default()),
            is_v2: AtomicBool::new(options.protobuf_message == ProtobufMessage::V2),
            falls_back: options.fallback_to_v1,
        });
        let room = Arc::new(Notify::new());
        let queue = || {
            let queue = &options.queue;
            Queue::new(
                queue.capacity,
                queue.max_samples_per_send,
                Arc::clone(&room),
            )
        };
        let queues: Vec<_> = (0..workers).map(|_| Arc::new(queue())).collect();

        let mut tasks = JoinSet::new();
        for queue in &queues {
            let worker = worker(&shared, queue, &resolved);
            tasks.spawn_on(worker.run(), runtime);
        }
        let lanes = Lanes::new(queues, Arc::clone(&room));
        let map = ShardMap::new(shards);
        let tailer = Tailer::new(Arc::clone(&shared), saved.tail(), lanes, map, options);
        let (stop, stopped) = oneshot::channel();
        let repeat = metadata::repeat(Arc::clone(&shared), options.metadata.clone());
        let reading = async {
            tokio::select! {
                () = tailer.run() => {}
                never = repeat => never,
            }
        };
        tasks.spawn_on(until(stopped, reading), runtime);

        tracing::info!(
            endpoint = options.name,
            url = resolved.url_redacted,
            shards,
            "shipping"
        );
        let stats = Arc::clone(&shared.stats);
        Ok(EndpointHandle {
            url: resolved.url_redacted,
            saved,
            stats,
            stop,
            tasks,
        })
    }
}

fn worker(shared: &Arc<Shared>, queue: &Arc<Queue>, resolved: &Resolved) -> Worker {
    let encoder = Encoder::new(
        resolved.options.protobuf_message,
        resolved.external_labels.clone(),
        Arc::clone(&shared.metadata),
    );
    let options = &resolved.options.queue;
    let backoff = Backoff::new(options.min_backoff, options.max_backoff);
    let deadline = options.batch_send_deadline;
    Worker::new(
        Arc::clone(shared),
        Arc::clone(queue),
        encoder,
        backoff,
        deadline,
    )
}

/// Runs `task` until it ends or is told to; dropping the other end tells it too.
async fn until(stopped: oneshot::Receiver<()>, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stopped => {}
        () = task => {}
    }
}

/// A running endpoint. Dropping it stops it at once; what is not acked stays on disk.
pub struct EndpointHandle {
    url: String,
    saved: wal::Endpoint,
    stats: Arc<Stats>,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

/// How a stop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Everything that was queued has been delivered or refused.
    Drained,
    /// The deadline came first: so many records were queued or in flight and go again after the
    /// next start.
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

    /// Reads no further, ships what is queued, and gives up at the deadline.
    ///
    /// # Panics
    /// If one of its tasks has panicked.
    pub async fn stop(mut self, deadline: Duration) -> Stopped {
        if self.stop.send(()).is_err() {
            tracing::debug!(endpoint = self.saved.name(), "the tailer had ended before");
        }
        let drained = tokio::time::timeout(deadline, join_all(&mut self.tasks))
            .await
            .is_ok();
        if !drained {
            self.tasks.abort_all();
            // until they have really ended, an answer that just came could still be acked
            join_all(&mut self.tasks).await;
        }
        let records = self.stats.snapshot().pending.total();
        tracing::debug!(endpoint = self.saved.name(), drained, records, "stopped");
        if drained {
            Stopped::Drained
        } else {
            Stopped::GaveUp { records }
        }
    }
}

async fn join_all(tasks: &mut JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
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
