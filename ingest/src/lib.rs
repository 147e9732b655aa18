//! Turns remote-write requests into durable positions of the log.
//!
//! ```text
//! socket -> listen -> connection -> http -> decode -> intern -> append -> wait until durable -> 204
//! ```
//!
//! | file | does |
//! |---|---|
//! | `options` | settings, resolved |
//! | `shard` | the threads: starts, changes and stops everything below |
//! | `layout` | what is to run |
//! | `control` | layout -> what each shard has to change |
//! | `places` | addresses -> sockets, new or of one that goes |
//! | `switch` | the difference of two layouts -> what a shard has |
//! | `own_store` | store -> what a shard has of it |
//! | `listen` | address -> one socket per shard |
//! | `accept` | listening socket -> connections that are served |
//! | `protocol` | socket -> encrypted or not, HTTP/1.1 or HTTP/2 |
//! | `spread` | accepted connection -> the shard with the fewest |
//! | `connection` | socket -> requests in order, with deadlines |
//! | `http2` | socket -> requests side by side, with deadlines |
//! | `http` | request -> answer: the main path of a request |
//! | `secure` | certificates and credentials -> who may speak |
//! | `negotiate` | head of a request -> may it go on, and as which message |
//! | `admit` | bytes and connections at work -> may one more come in |
//! | `append` | compressed body -> positions in the log |
//! | `decode` | body -> batch of samples and records |
//! | `intern` | label bytes -> series refs of a store |
//! | `aliases` | label bytes as they were sent -> numbers |
//! | `paths` | the series of a receiver -> those of its writers, by relabel rules or without |
//! | `answer` | outcome -> status and text |
//! | `tenants` | who sends a request -> what of it may be stored |
//! | `tap` | samples on their way -> lines of text for whoever listens |
//! | `stats` | what happened -> numbers to read |
//! | `line` | bodies -> positions without a socket, for benches |
//! | `pull` | targets -> samples: the door where data is fetched |
//! | `prometheus_wal` | the log of a Prometheus -> its records, for import |
//! | `proto` | the slow and obvious codec: oracle, test data |
//!
//! # Invariants
//! - A 2xx means that every sample of the request is durable in every store it goes to.
//! - A sample in the log belongs to the series whose canonical label bytes equal the labels it was
//!   sent with, byte for byte after canonicalisation.
//! - From the last byte of a body to its position in the log nothing waits, and in steady state
//!   nothing is allocated.

#![forbid(unsafe_code)]

mod accept;
mod admit;
mod aliases;
mod answer;
mod append;
mod connection;
mod control;
pub mod decode;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
mod http2;
pub mod intern;
mod layout;
mod line;
mod listen;
mod negotiate;
mod options;
mod own_store;
mod paths;
mod places;
pub mod prometheus_wal;
pub mod proto;
mod protocol;
pub mod pull;
pub mod secure;
mod shard;
pub mod share;
mod spread;
mod stats;
mod switch;
mod tap;
mod tenants;

pub use decode::labels::Reason;
pub use error::Error;
pub use layout::{Applied, Layout};
#[doc(hidden)]
pub use line::Line;
pub use options::{
    BODY_BYTES_MAX_DEFAULT, CONNECTIONS_MAX_DEFAULT, Http2Options, IN_FLIGHT_BYTES_MAX_DEFAULT,
    LabelLimits, Message, Path, ReceiverOptions, ShardsOptions, TenantLimits, TenantsOptions,
    connection_in_flight_bytes,
};
pub use paths::{STAGES_MAX, Stage, StageStats};
pub use shard::Shards;
pub use stats::{CUT_OFF, DURATION_BUCKETS_US, ReceiverStats, STAGES, STATUS_CODES, Snapshot};
pub use tap::Tap;
pub use tenants::{ANONYMOUS, OTHER, TOP_REFUSED_MAX, TenantSnapshot, Tenants};

/// Counts allocations, for the tests that say there are none.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;
