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
//! | `tailer` | frames into records in the queues (`pack`: many, by series, while behind) |
//! | `crew` | a number of shards into running workers |
//! | `governor` | numbers into how many shards there should be (`reshard`: the rule), and an ETA |
//! | `shard_map` | a series into its shard |
//! | `queue` | routed records into a bounded line |
//! | `shard` | a queue into delivered batches; owns and runs the four below |
//! | [`batch`] | queued records into the content of a request |
//! | [`encode`] | a batch into a request body |
//! | [`metadata`] | metadata records into what is known of metric families |
//! | `send` | a body into an outcome |
//! | [`transport`] | a request into its answer: the seam to the network |
//! | `http` | a body into an answer: credentials, TLS, proxies, redirects |
//! | [`replay`] | records read again into delivered requests, without a position |
//! | `age` | records into those that are not too old |
//! | `backoff` | failures into waiting times (`health`: into whose turn it is) |
//! | [`drain`] | the settings for a backlog into pauses |
//! | [`rejected`] | what is refused for good into dead letters |
//! | [`outcome`] | the three ends of a send |
//! | [`ack`] | records done into a position that only grows |
//! | [`outgoing`] | a series' labels into those the endpoint gets |
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
//!   two encode buffers per shard, two bytes per series, at most 64 MiB of templates (`encode`), and
//!   [`metadata::CACHE_BYTES_MAX`] of metadata; while far behind one pack (30 MB). With relabel rules or
//!   external labels: a byte more per series, and the label bytes that `outgoing` keeps.

#![forbid(unsafe_code)]

pub mod ack;
mod age;
mod backoff;
pub mod batch;
mod crew;
pub mod drain;
pub mod encode;
pub mod endpoint;
mod error;
pub mod fetch;
mod governor;
mod health;
mod http;
mod lanes;
pub mod metadata;
pub mod options;
pub mod outcome;
pub mod outgoing;
mod pack;
mod queue;
pub mod rejected;
pub mod replay;
mod report;
mod reshard;
mod router;
mod send;
mod shard;
mod shard_map;
pub mod stats;
mod tailer;
pub mod transport;

pub use drain::DrainOptions;
pub use endpoint::{Endpoint, EndpointHandle, Stopped};
pub use error::Error;
pub use http::{
    Auth, HttpOptions, InvalidOption, OAuth2Options, ProxyOptions, Secret, SecretSource,
    SigV4Options, TlsOptions, TlsVersion, client_tls,
};
pub use options::{EndpointOptions, MetadataOptions, Priority, ProtobufMessage, QueueOptions};
pub use stats::{Counts, Phase, Snapshot, Stats};
pub use transport::Transport;
pub use wal::DropReason;
