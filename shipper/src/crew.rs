//! Turns a number of shards into running workers with their queues, and those into nothing.
//!
//! # Invariants
//! - A crew is dissolved only when its queues are empty and its workers have ended: what comes after
//!   goes to another crew, so that order per series survives another number of shards.
//! - Dropped, it ends at once; what was not decided is on disk and not acked.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::encode::{Encoder, RemoteWriteV1, TEMPLATE_BYTES_MAX};
use crate::lanes::Lane;
use crate::options::Resolved;
use crate::outgoing::{OUTGOING_BYTES_MAX, OutgoingLabels};
use crate::queue::Queue;
use crate::shard::{Shared, Worker};

/// The workers of an endpoint: one per shard and one for the metadata, each behind its queue.
pub(crate) struct Crew {
    /// One per shard and, last, the one for metadata.
    queues: Vec<Arc<Queue>>,
    /// Told by the queues: there is room in one.
    room: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Crew {
    /// Starts so many shards of a lane.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        resolved: &Resolved,
        (lane, shards): (Lane, u16),
    ) -> Self {
        let room = Arc::new(Notify::new());
        let options = &resolved.options.queue;
        let full = options.max_samples_per_send;
        let queue = |_| Arc::new(Queue::new(options.capacity, full, Arc::clone(&room)));
        // The metadata's worker is one more, with its own connection.
        let queues: Vec<_> = (0..=shards).map(queue).collect();
        let lanes = resolved.options.priority.lanes();
        let label_bytes = OUTGOING_BYTES_MAX / (queues.len() * lanes);
        let template_bytes = TEMPLATE_BYTES_MAX / (usize::from(shards.max(1)) * lanes);
        let mut tasks = JoinSet::new();
        for (number, queue) in queues.iter().enumerate() {
            let outgoing = OutgoingLabels::new(Arc::clone(&resolved.outgoing), label_bytes);
            let mut v1 = RemoteWriteV1::new();
            // Metadata has no series that come again.
            if number < usize::from(shards) {
                let templates = shared.stats.templates();
                v1 = v1.with_templates(shared.store.dir(), template_bytes, templates);
            }
            let encoder = Encoder::new(shared.message(), v1, Arc::clone(&shared.metadata));
            tasks.spawn(worker(shared, queue, resolved, (encoder, outgoing)).run());
        }
        shared.stats.set_shards(lane, shards);
        Self {
            queues,
            room,
            tasks,
        }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.queues.len() - 1).unwrap_or(u16::MAX)
    }

    /// The queues: one per shard and, last, the one for metadata.
    pub(crate) fn queues(&self) -> &[Arc<Queue>] {
        &self.queues
    }

    /// Waits until there may be room in a queue.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    /// Waits until everything queued is decided and the workers have ended. To be gone on with when
    /// it was dropped before that.
    ///
    /// # Panics
    /// If a worker has.
    pub(crate) async fn dissolve(&mut self) {
        for queue in &self.queues {
            queue.close();
        }
        join_all(&mut self.tasks).await;
    }

    /// Ends the workers where they are. Afterwards nothing is acked any more.
    ///
    /// # Panics
    /// If a worker has.
    pub(crate) async fn abort(&mut self) {
        self.tasks.abort_all();
        join_all(&mut self.tasks).await;
    }
}

fn worker(
    shared: &Arc<Shared>,
    queue: &Arc<Queue>,
    resolved: &Resolved,
    encoder: (Encoder, OutgoingLabels),
) -> Worker {
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

/// Waits for all tasks; one that panicked passes it on.
pub(crate) async fn join_all(tasks: &mut JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
