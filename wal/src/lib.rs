//! The write-ahead log of Penstock: series refs and samples in, durable bytes on disk, records out.
//!
//! | file | what it is |
//! |---|---|
//! | `store.rs`, `open.rs`, `live.rs` | the common state, opening and closing, what changes in between |
//! | `series.rs`, `series/`, `chunk.rs` | label bytes to series refs, in mapped append-only chunk files, and the cleaner of those |
//! | `writer.rs`, `tracker.rs` | samples to frames in the ring, without touching the disk |
//! | `sync.rs`, `durable.rs` | group commit, and waiting for it |
//! | `reader.rs`, `tail.rs` | frames of a segment, checked; reading on behalf of an endpoint |
//! | `endpoint.rs`, `tally.rs` | an endpoint's durable position, and what became of every record |
//! | `overview.rs` | the segments of a running store, to look at |
//! | `quota.rs` | the account of disk taken |
//! | `keeper.rs`, `limits.rs` | segments ahead, positions saved, acked segments removed; how far endpoints may be behind |
//! | `recover.rs`, `ledger.rs`, `quarantine.rs` | opening after any stop, and what was lost: where, and its bytes |
//! | `inspect.rs`, `inspect/` | a store directory, live or stopped, into what is in it; repair into a new one |
//! | `frame.rs`, `header.rs`, `segment.rs`, `dir.rs` | the format, file by file |
//! | `nameless.rs` | a file for what is read often and need not survive |
//! | `fs.rs`, `clock.rs`, `random.rs`, `engine.rs`, `sys.rs` | the seams to disk, time, chance, io_uring and raw memory |
//!
//! # Invariants
//! - What [`Durable::reached`] confirmed survives any stop of the process or the machine.
//! - A durable frame never names a series whose record is not durable.
//! - `reclaimed <= acked(endpoint) <= tailed(endpoint) <= durable <= appended`.
//!
//! The bytes are described in `docs/format.md`, failures in `docs/durability.md`.

mod bytes;
mod chunk;
mod clock;
mod dir;
mod durable;
mod endpoint;
mod engine;
mod error;
mod frame;
pub mod fs;
mod gather;
mod header;
pub mod inspect;
mod keeper;
mod ledger;
mod limits;
mod live;
mod nameless;
mod open;
mod overview;
mod position;
mod progress;
mod quarantine;
mod quota;
mod random;
mod reader;
mod record;
mod recover;
mod recycle;
mod segment;
mod series;
mod stats;
mod store;
mod sync;
mod sys;
mod tail;
mod tally;
mod tracker;
mod writer;

pub use clock::{Clock, SharedClock, SystemClock};
pub use durable::Durable;
pub use endpoint::{Account, Endpoint, GiveUp, SAVE_INTERVAL};
pub use engine::IoEngine;
pub use error::{Error, FullReason};
pub use frame::RawRecords;
#[cfg(any(test, fuzzing))]
pub use frame::fuzz;
pub use header::FORMAT_VERSION;
pub use ledger::{ALL_ENDPOINTS, Loss, LostBytes};
pub use limits::{LagLimits, OnFull};
pub use live::LiveOptions;
pub use nameless::NamelessFile;
pub use overview::{SegmentInfo, SegmentState};
pub use position::{Mark, Position, SeriesRef};
pub use progress::Ahead;
pub use random::{Random, SharedRandom, SystemRandom};
pub use record::{RawRecord, RecordKind, Sample, StartedSample};
pub use series::{LABELS_BYTES_MAX, NewSeries, SeriesGuard, SeriesTable};
pub use stats::{SYNC_SECONDS_BOUNDS, StoreStats, SyncHistogram};
pub use store::{Recovery, SERIES_IDLE_TIMEOUT, Store, StoreOptions, WRITERS_MAX, Watermarks};
pub use sync::Committer;
pub use tail::{Frame, Tail};
pub use tally::{DropReason, Tally};
pub use writer::Writer;
