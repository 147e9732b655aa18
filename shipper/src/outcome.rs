//! Turns what an endpoint answered into the one decision that follows from it.
//!
//! # Invariants
//! - Every attempt ends in exactly one of the three; nothing else decides what happens to a batch.
//! - `Retry` never ends by itself: data that may still be accepted is never given up.

use std::time::Duration;

use crate::stats::Counts;

/// The three ends of a send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The endpoint has the batch.
    Ack,
    /// Not now: the same batch goes again.
    Retry {
        /// How long the endpoint asked us to wait; `None` when it did not.
        after: Option<Duration>,
    },
    /// Never: what was sent is counted as failed and left behind.
    Reject {
        /// Short and stable, fit for a metric label: `http_<status>`.
        reason: String,
        /// Whether it may be the fault of a part: then the innocent rest is found and sent.
        divisible: bool,
    },
}

/// One attempt: the decision, and what to tell the operator about it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) outcome: Outcome,
    /// The answer's beginning or the error; safe to log. Empty after an ack.
    pub(crate) detail: String,
    /// Remote write 2.0: the records that the endpoint has all the same, where it refuses.
    pub(crate) written: Option<Counts>,
    /// The endpoint does not know the message: 415, or a 2xx without the headers of 2.0.
    pub(crate) is_unsupported: bool,
    /// The answer says nothing of the data: who we are, what we asked for or how is wrong, and somebody
    /// has to put it right.
    pub(crate) is_about_us: bool,
}
