//! Turns a batch into the bytes of one request; one file per protocol.

mod remote_write_v1;

pub use remote_write_v1::RemoteWriteV1;

use crate::stats::{Counts, DropReason};

/// A request body, and what became of the records of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    /// The compressed body. Only worth sending if `sent` counts anything.
    pub body: &'a [u8],
    /// Records in the body.
    pub sent: Counts,
    /// Records left out because their series is unknown.
    pub unknown_series: Counts,
    /// Records left out because the protocol has no form for them.
    pub unsupported: Counts,
}

impl Encoded<'_> {
    /// The records left out, by reason.
    pub(crate) fn dropped(&self) -> [(DropReason, Counts); 2] {
        [
            (DropReason::UnknownSeries, self.unknown_series),
            (DropReason::CustomBuckets, self.unsupported),
        ]
    }
}
