//! Turns a batch into the bytes of one request; one file per protocol.

mod remote_write_v1;
mod remote_write_v2;
mod start;
mod symbols;
mod template;

use std::sync::Arc;

pub use remote_write_v1::RemoteWriteV1;
pub use remote_write_v2::RemoteWriteV2;
pub(crate) use template::TEMPLATE_BYTES_MAX;
pub use template::{Miss, TemplateCounts, TemplateStats};

use wal::{DropReason, SeriesRef};

use crate::batch::Batch;
use crate::metadata::MetadataCache;
use crate::options::ProtobufMessage;
use crate::stats::Counts;

/// The encoder of one shard: of the message its endpoint is sent.
#[derive(Debug)]
pub(crate) enum Encoder {
    V1(Box<RemoteWriteV1>),
    /// And the one to fall back to.
    V2(Box<RemoteWriteV2>, Option<Box<RemoteWriteV1>>),
}

impl Encoder {
    /// An encoder of `message`; `v1` is the one for remote write 1.0.
    pub(crate) fn new(
        message: ProtobufMessage,
        v1: RemoteWriteV1,
        metadata: Arc<MetadataCache>,
    ) -> Self {
        let v1 = Box::new(v1);
        match message {
            ProtobufMessage::V1 => Self::V1(v1),
            ProtobufMessage::V2 => Self::V2(Box::new(RemoteWriteV2::new(metadata)), Some(v1)),
        }
    }

    /// The message it encodes.
    pub(crate) const fn message(&self) -> ProtobufMessage {
        match self {
            Self::V1(_) => ProtobufMessage::V1,
            Self::V2(..) => ProtobufMessage::V2,
        }
    }

    /// Encodes remote write 1.0 from now on.
    pub(crate) fn fall_back(&mut self) {
        if let Self::V2(_, v1) = self
            && let Some(v1) = v1.take()
        {
            *self = Self::V1(v1);
        }
    }

    /// See [`RemoteWriteV1::set_generation`].
    pub(crate) fn set_generation(&mut self, generation: u64) {
        if let Self::V1(encoder) = self {
            encoder.set_generation(generation);
        }
    }

    /// Encodes the records of `batch`; `labels` gives the canonical label bytes of a series, empty
    /// if it has none.
    ///
    /// # Errors
    /// If the body is larger than snappy can say (4 GiB).
    pub(crate) fn encode<'a>(
        &mut self,
        batch: &Batch,
        labels: impl Fn(SeriesRef) -> &'a [u8],
    ) -> Result<Encoded<'_>, snap::Error> {
        match self {
            Self::V1(encoder) => encoder.encode(batch, labels),
            Self::V2(encoder, _) => encoder.encode(batch, labels),
        }
    }
}

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
