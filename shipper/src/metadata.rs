//! Turns metadata records into what an endpoint knows of metric families.
//!
//! Remote write 2.0 says with every series what its metric is, so the newest of each family is kept
//! at hand. Remote write 1.0 has requests of its own for it: what is new goes out at once, as a
//! record; what is known is repeated every `send_interval`, as receivers forget.
//!
//! # Failure
//! - After a restart nothing is known until the senders have said it again, which they do every
//!   minute. Metadata that has not been sent yet is still in the log.
//!
//! # Limits
//! - [`CACHE_BYTES_MAX`] of metadata per endpoint. What does not fit is sent once and not repeated,
//!   and its series go without.
//!
//! # Threads
//! - Written by the tailer, read by the shards: once per request and metric.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use parking_lot::RwLock;
use wal::{RecordKind, SeriesRef};

use crate::ack::FrameNumber;
use crate::batch::{Batch, OwnedRecord};
use crate::encode::RemoteWriteV1;
use crate::options::{MetadataOptions, ProtobufMessage};
use crate::outcome::Outcome;
use crate::send::Body;
use crate::shard::Shared;
use labels::wire::{Fields, Value};

/// Most bytes of names and messages kept per endpoint: some hundred thousand families.
pub const CACHE_BYTES_MAX: usize = 16 << 20;

/// What the name of a series may append to that of its family.
const SUFFIXES: [&[u8]; 4] = [b"_bucket", b"_count", b"_sum", b"_total"];

/// Messages by name.
type Families = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The name of the metric family that a `prometheus.MetricMetadata` is about.
pub(crate) fn family(message: &[u8]) -> Option<&[u8]> {
    text(message, 2)
}

/// What is known of metric families: their `prometheus.MetricMetadata`, by name.
#[derive(Debug, Default)]
pub struct MetadataCache {
    families: RwLock<Families>,
    bytes: AtomicUsize,
}

impl MetadataCache {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.load(Relaxed) == 0
    }

    /// Keeps a message; false if it says what is known already.
    pub fn learn(&self, message: &[u8]) -> bool {
        let Some(name) = family(message) else {
            return true;
        };
        let known = self
            .families
            .read()
            .get(name)
            .map(|known| **known == *message);
        if known == Some(true) {
            return false;
        }
        let mut families = self.families.write();
        let before = families.get(name).map_or(0, |old| name.len() + old.len());
        let bytes = self.bytes.load(Relaxed) - before + name.len() + message.len();
        if bytes <= CACHE_BYTES_MAX {
            families.insert(name.into(), message.into());
            self.bytes.store(bytes, Relaxed);
        }
        true
    }

    /// Calls `found` with the type, the help text and the unit of a series of this name, if they
    /// are known.
    pub(crate) fn find(&self, name: &[u8], found: impl FnOnce(u64, &[u8], &[u8])) {
        let families = self.families.read();
        let family = || {
            let mut stems = SUFFIXES
                .iter()
                .filter_map(|suffix| name.strip_suffix(*suffix));
            stems.find_map(|stem| families.get(stem))
        };
        if let Some(message) = families.get(name).or_else(family) {
            let part = |field| text(message, field).unwrap_or_default();
            found(kind(message), part(4), part(5));
        }
    }

    /// All messages as records, in parts of at most `count`.
    fn batches(&self, count: usize) -> Vec<Batch> {
        let families = self.families.read();
        let messages: Vec<&[u8]> = families.values().map(|message| &**message).collect();
        let batch = |messages: &[&[u8]]| {
            let records = messages.iter().map(|message| OwnedRecord {
                series: SeriesRef::NONE,
                kind: RecordKind::Metadata,
                bytes: (*message).into(),
            });
            let mut batch = Batch::default();
            batch.push(FrameNumber::new(0), &[], records);
            batch
        };
        messages.chunks(count).map(batch).collect()
    }
}

/// The last text of a field.
fn text(message: &[u8], field: u64) -> Option<&[u8]> {
    let mut found = None;
    let mut fields = Fields::new(message);
    while let Ok(Some((number, value))) = fields.next() {
        if let (true, Value::Bytes(text)) = (number == field, value) {
            found = Some(text);
        }
    }
    found
}

/// The type of a message.
fn kind(message: &[u8]) -> u64 {
    let mut kind = 0;
    let mut fields = Fields::new(message);
    while let Ok(Some((number, value))) = fields.next() {
        if let (1, Value::Varint(value)) = (number, value) {
            kind = value;
        }
    }
    kind
}

/// Repeats what is known to an endpoint of remote write 1.0, for as long as the endpoint runs.
///
/// A repetition that fails is left to the next one: nothing depends on it.
pub(crate) async fn repeat(shared: Arc<Shared>, options: MetadataOptions) -> ! {
    let mut encoder = RemoteWriteV1::new();
    loop {
        tokio::time::sleep(options.send_interval).await;
        if shared.message() != ProtobufMessage::V1 {
            continue;
        }
        for batch in shared.metadata.batches(options.max_samples_per_send) {
            let Ok(encoded) = encoder.encode(&batch, |_| &[]) else {
                break;
            };
            let (sent, bytes) = (encoded.sent, encoded.body.len());
            let body = Body {
                bytes: Bytes::copy_from_slice(encoded.body),
                message: ProtobufMessage::V1,
                sent,
            };
            let attempt = shared.sender.send(&body, 0).await;
            if attempt.outcome != Outcome::Ack {
                let detail = attempt.detail;
                tracing::debug!(detail, "metadata was not repeated");
                break;
            }
            let now_ms = shared.clock.unix_ms();
            shared.stats.acked(sent, bytes, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use labels::wire::{FIELD_2_BYTES, FIELD_4_BYTES, put_bytes};

    fn message(name: &str, help: &str) -> Vec<u8> {
        let mut message = vec![0x08, 1];
        put_bytes(&mut message, FIELD_2_BYTES, name.as_bytes());
        put_bytes(&mut message, FIELD_4_BYTES, help.as_bytes());
        message
    }

    fn help_of(cache: &MetadataCache, name: &str) -> Option<String> {
        let mut help = None;
        cache.find(name.as_bytes(), |_, text, _| {
            help = Some(String::from_utf8(text.to_vec()).unwrap());
        });
        help
    }

    #[test]
    fn the_newest_of_a_family_is_found_for_all_its_series() {
        let cache = MetadataCache::default();
        assert!(cache.is_empty());
        assert!(cache.learn(&message("d_seconds", "old")));
        assert!(cache.learn(&message("d_seconds", "new")));
        assert!(!cache.learn(&message("d_seconds", "new")), "it is known");
        for name in ["d_seconds", "d_seconds_bucket", "d_seconds_total"] {
            assert_eq!(help_of(&cache, name).as_deref(), Some("new"), "{name}");
        }
        assert_eq!(help_of(&cache, "d"), None);
        assert!(cache.learn(&message("d_seconds_sum", "own")));
        assert_eq!(help_of(&cache, "d_seconds_sum").as_deref(), Some("own"));
    }

    #[test]
    fn what_does_not_fit_is_sent_and_not_kept() {
        let cache = MetadataCache::default();
        let huge = "x".repeat(CACHE_BYTES_MAX / 2);
        assert!(cache.learn(&message("a", &huge)));
        assert!(cache.learn(&message("b", &huge)), "to be sent");
        assert!(cache.learn(&message("b", &huge)), "every time");
        assert_eq!(help_of(&cache, "b"), None);
        assert!(cache.learn(&message("a", "small")));
        assert!(cache.learn(&message("b", &huge)));
        assert!(!cache.learn(&message("b", &huge)));
    }

    #[test]
    fn all_of_it_goes_out_in_parts() {
        let cache = MetadataCache::default();
        for name in ["a", "b", "c"] {
            cache.learn(&message(name, "h"));
        }
        let parts = cache.batches(2);
        let counts: Vec<_> = parts.iter().map(|batch| batch.counts().metadata).collect();
        assert_eq!(counts, [2, 1]);
    }
}
