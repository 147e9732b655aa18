//! The write-ahead log of Penstock: series refs and samples in, durable bytes on disk, records out.
//!
//! | file | what it is |
//! |---|---|
//! | `store.rs` | the common state, opening and closing |
//! | `series.rs`, `chunk.rs` | label bytes to series refs, in mapped append-only chunk files |
//! | `writer.rs`, `tracker.rs` | samples to frames in the ring, without touching the disk |
//! | `sync.rs`, `durable.rs` | group commit, and waiting for it |
//! | `tail.rs`, `endpoint.rs` | reading on behalf of an endpoint, and its durable position |
//! | `quota.rs` | the account of disk taken |
//! | `keeper.rs` | segments ahead, positions saved, acked segments removed |
//! | `recover.rs`, `ledger.rs` | opening after any stop, and the account of what was lost |
//! | `checkpoint.rs` | dead series dropped while opening |
//! | `frame.rs`, `header.rs`, `segment.rs`, `dir.rs` | the format, file by file |
//! | `fs.rs`, `clock.rs`, `engine.rs`, `sys.rs` | the seams to disk, time, io_uring and raw memory |
//!
//! # Invariants
//! - What [`Durable::reached`] confirmed survives any stop of the process or the machine.
//! - A durable frame never names a series whose record is not durable.
//! - `reclaimed <= acked(endpoint) <= tailed(endpoint) <= durable <= appended`.
//!
//! The bytes are described in `docs/format.md`, failures in `docs/durability.md`.

mod bytes;
mod checkpoint;
mod chunk;
mod clock;
mod dir;
mod durable;
mod endpoint;
mod engine;
mod error;
mod frame;
pub mod fs;
mod header;
mod keeper;
mod ledger;
mod position;
mod quota;
mod record;
mod recover;
mod segment;
mod series;
mod stats;
mod store;
mod sync;
mod sys;
mod tail;
mod tracker;
mod writer;

pub use clock::{Clock, SharedClock, SystemClock};
pub use durable::Durable;
pub use endpoint::{Endpoint, SAVE_INTERVAL};
pub use engine::IoEngine;
pub use error::{Error, FullReason};
pub use frame::RawRecords;
#[cfg(any(test, fuzzing))]
pub use frame::fuzz;
pub use header::FORMAT_VERSION;
pub use ledger::{ALL_ENDPOINTS, Loss, LostBytes};
pub use position::{Position, SeriesRef};
pub use record::{RawRecord, RecordKind, Sample};
pub use series::{LABELS_BYTES_MAX, NewSeries, SeriesTable};
pub use stats::{SYNC_SECONDS_BOUNDS, StoreStats, SyncHistogram};
pub use store::{Store, StoreOptions, WRITERS_MAX, Watermarks};
pub use sync::Committer;
pub use tail::{Frame, Tail};
pub use writer::Writer;
