//! Turns a batch into the bytes of one request; one file per protocol.

mod remote_write_v1;
mod template;

pub use remote_write_v1::RemoteWriteV1;
pub(crate) use template::TEMPLATE_BYTES_MAX;
pub use template::{Miss, TemplateCounts, TemplateStats};

use wal::DropReason;

use crate::stats::Counts;

/// A request body, and what became of the records of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    /// The compressed body. Only worth sending if `sent` counts anything.
    pub body: &'a [u8],
    /// Records in the body.
    pub sent: Counts,
    /// Records left out.
    pub left_out: &'a [LeftOut],
}

/// Records of one run of a batch that were left out of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The number of the run.
    pub run: usize,
    /// Why.
    pub reason: DropReason,
    /// How many, by kind.
    pub counts: Counts,
}
