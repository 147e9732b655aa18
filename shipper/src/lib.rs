//! Records tailed from the log, shipped to remote-write endpoints until each has acknowledged them.
//!
//! ```text
//! wal::Tail -> tailer -> queue per shard -> batch -> encode -> send -> outcome -> ack window -> position
//! ```
//!
//! | file | turns |
//! |---|---|
//! | [`options`] | arguments into values known to be good |
//! | [`endpoint`] | options into running tasks; the table of contents |
//! | `tailer` | frames into records in the queues |
//! | `shard_map` | a series into its shard |
//! | `queue` | routed records into a bounded line |
//! | `shard` | a queue into delivered batches; owns and runs the four below |
//! | [`batch`] | queued records into the content of a request |
//! | [`encode`] | a batch into a request body |
//! | [`metadata`] | metadata records into what is known of metric families |
//! | `send` | a body into an outcome, over HTTP (`auth`: who we are) |
//! | [`replay`] | records read again into delivered requests, without a position |
//! | `backoff` | failures into waiting times |
//! | [`outcome`] | the three ends of a send |
//! | [`ack`] | records done into a position that only grows |
//! | [`labels`] | label bytes into a shard key and merged labels (`wire`: varints) |
//! | [`stats`] | what happens into numbers; `report` into log lines |
//!
//! # Invariants
//! - acked <= tailed <= durable, per endpoint.
//! - A record is delivered at least once and in order per series, or counted with a reason.
//! - Nothing is given up because an endpoint is away; a stop or a crash loses no record, as the
//!   position only moves when records are done.
//! - Endpoints share nothing but the log.
//!
//! # Threads
//! - One tailer task and a worker task per shard and endpoint, on the runtime given. They meet in
//!   the queues and the ack window, each behind a short lock taken per frame or batch.
//!
//! # Limits
//! - Per endpoint: (shards + 1) queues of `capacity` records (24 bytes per sample), one batch and
//!   three encode buffers per shard, two bytes per series, [`metadata::CACHE_BYTES_MAX`] of metadata.

#![forbid(unsafe_code)]

pub mod ack;
mod auth;
mod backoff;
pub mod batch;
pub mod encode;
pub mod endpoint;
mod error;
pub mod labels;
pub mod metadata;
pub mod options;
pub mod outcome;
mod queue;
pub mod replay;
mod report;
mod send;
mod shard;
mod shard_map;
pub mod stats;
mod tailer;
mod wire;

pub use endpoint::{Endpoint, EndpointHandle, Stopped};
pub use error::Error;
pub use options::{
    Auth, EndpointOptions, MetadataOptions, Password, ProtobufMessage, QueueOptions, Secret,
};
pub use stats::{Counts, Snapshot, Stats};
pub use wal::DropReason;
