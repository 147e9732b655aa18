//! Which agents there are, and which of them owns a key.
//!
//! ```text
//! messages, time -> membership (SWIM) -> peers -> ring -> ownership
//! ```
//!
//! | file | turns |
//! |---|---|
//! | `options` | settings into values known to be good |
//! | `node` | what an agent says of itself into an identity with an order |
//! | `wire` | messages into bytes, and bytes into messages that are known to be good |
//! | `membership` | messages and time into the agents that are there |
//! | `events` | what the protocol asks for into timers and messages |
//! | `running` | membership, join addresses and time into ownership; the table of contents |
//! | `readiness` | the number of agents into whether work may be shared yet |
//! | `ring` | names of agents into the owner of a key |
//! | `ownership` | what is known now into a handle that is cheap to ask |
//! | `random` | a seed into what the protocol draws from |
//! | `stats` | what happens into numbers |
//!
//! # Invariants
//! - Agents that know of the same participants agree about the owner of every key.
//! - The same settings, messages and times give the same outcome: nothing here looks at a clock, draws a
//!   random number of its own, or opens a socket. `tests/` lives thousands of clusters by that.
//! - An agent has one name and one address among the others; of two with one name the elder stays.
//!
//! # Failure
//! - What cannot be understood is refused and counted; nothing of it is used.
//! - Whoever is wrong about an agent is corrected by it: an agent that is held for gone renews itself.
//!
//! # Limits
//! - [`MEMBERS_MAX`] agents, those that are gone for less than an hour included; messages of
//!   [`MESSAGE_BYTES_MAX`].

#![forbid(unsafe_code)]

mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod membership;
mod node;
mod options;
mod ownership;
mod random;
mod readiness;
mod ring;
mod running;
mod stats;
mod wire;

pub use membership::{InvalidTransition, MEMBERS_MAX};
pub use node::State;
pub use options::{InvalidOption, Options, Timing};
pub use ownership::{Moment, Ownership, Peer};
pub use ring::{Ring, TOKENS};
pub use running::{Cluster, Transport};
pub use stats::{Counts, Stats};
pub use wire::{Answer, MESSAGE_BYTES_MAX, Refusal, VERSION};
