//! Turns metadata that comes with every series into few records of metric families.
//!
//! Senders of remote write 2.0 repeat type, help and unit with each series of each request. In the
//! log one record per family and minute is enough: whoever ships keeps the newest of each, and what
//! was reclaimed comes again.
//!
//! # Limits
//! - [`FAMILIES_MAX`] families are remembered; beyond it all are forgotten and written once more.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::Batch;
use super::labels::{METRIC_NAME, Reason, append_field, labels_of};
use super::symbols::Symbols;
use super::wire::{Cursor, DEPTH_MAX, Malformed, Wire, append_varint};

/// How often the same metadata is written again.
pub const REPEAT_EVERY: Duration = Duration::from_secs(60);

/// Most families remembered per shard thread, 16 bytes each.
pub const FAMILIES_MAX: usize = 1 << 16;

/// Numbers of the metric types whose series have names of their own.
const HISTOGRAM: u64 = 3;
const GAUGE_HISTOGRAM: u64 = 4;
const SUMMARY: u64 = 5;

/// A `Metadata` message of a series.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Described {
    kind: u64,
    help: u32,
    unit: u32,
}

impl Described {
    /// Reads a message; where it comes again, what it says counts.
    pub(crate) fn read(&mut self, mut message: Cursor<'_>) -> Result<(), Malformed> {
        while !message.is_done() {
            let key = message.key()?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "protobuf's uint32 of a longer varint"
            )]
            match key.number {
                1 | 3 | 4 => {
                    key.expect(Wire::Varint)?;
                    let value = message.varint()?;
                    match key.number {
                        // an enum is an int32, whose negatives are long
                        1 => self.kind = i64::from(value as i32).cast_unsigned(),
                        3 => self.help = value as u32,
                        _ => self.unit = value as u32,
                    }
                }
                _ => message.skip(key, DEPTH_MAX - 2)?,
            }
        }
        Ok(())
    }

    /// Writes out the `MetricMetadata` of the family that the series with these labels is of;
    /// nothing where the message says nothing.
    pub(crate) fn write(
        self,
        body: &[u8],
        symbols: &Symbols,
        labels: &[u8],
        batch: &mut Batch,
    ) -> Result<(), Reason> {
        if self.kind == 0 && self.help == 0 && self.unit == 0 {
            return Ok(());
        }
        let text = |number| match symbols.get(body, number) {
            Some(text) if std::str::from_utf8(text).is_err() => Err(Reason::InvalidUtf8),
            Some(text) => Ok(text),
            None if number == 0 => Ok(&[][..]),
            None => Err(Reason::InvalidLabelRefs),
        };
        let (help, unit) = (text(self.help)?, text(self.unit)?);
        let name = labels_of(labels).find(|(name, _)| *name == METRIC_NAME);
        let Some((_, name)) = name else {
            return Ok(());
        };
        let out = &mut batch.made;
        if self.kind != 0 {
            out.push(0x08);
            append_varint(out, self.kind);
        }
        append_field(out, 0x12, self.family(name));
        append_field(out, 0x22, help);
        append_field(out, 0x2a, unit);
        Ok(())
    }

    /// The name of the family: of a histogram or summary without what its series append to it.
    fn family(self, name: &[u8]) -> &[u8] {
        if !matches!(self.kind, HISTOGRAM | GAUGE_HISTOGRAM | SUMMARY) {
            return name;
        }
        let suffixes: [&[u8]; 3] = [b"_bucket", b"_count", b"_sum"];
        suffixes
            .iter()
            .find_map(|suffix| name.strip_suffix(*suffix))
            .filter(|family| !family.is_empty())
            .unwrap_or(name)
    }
}

/// What was written lately, and to which store.
#[derive(Default, Debug)]
pub(crate) struct Repeats {
    written: HashMap<u64, Duration>,
    /// The ways of the receiver that writes.
    paths: u64,
    /// Monotonic time.
    now: Duration,
    /// Metadata of the request that was not written again.
    pub(crate) held_back: usize,
}

impl Repeats {
    /// The key of this metadata if it is to be written now.
    pub(crate) fn is_due(&mut self, message: Option<&[u8]>) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        (self.paths, message?).hash(&mut hasher);
        let key = hasher.finish();
        let last = self.written.get(&key);
        if last.is_some_and(|last| self.now.saturating_sub(*last) < REPEAT_EVERY) {
            self.held_back += 1;
            return None;
        }
        Some(key)
    }

    /// It was.
    pub(crate) fn wrote(&mut self, key: Option<u64>) {
        if let Some(key) = key {
            if self.written.len() >= FAMILIES_MAX {
                self.forget();
            }
            self.written.insert(key, self.now);
        }
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, paths: u64, now: Duration) {
        (self.paths, self.now, self.held_back) = (paths, now, 0);
    }

    /// What was written may not be in the log.
    pub(crate) fn forget(&mut self) {
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_metadata_is_written_once_a_minute_to_each_store() {
        let mut repeats = Repeats::default();
        let mut is_written = |store, seconds, message: &[u8]| {
            repeats.begin(store, Duration::from_secs(seconds));
            let key = repeats.is_due(Some(message));
            repeats.wrote(key);
            key.is_some()
        };
        assert!(is_written(0, 100, b"a"));
        assert!(!is_written(0, 159, b"a"));
        assert!(is_written(0, 159, b"b"));
        assert!(is_written(1, 159, b"a"));
        assert!(is_written(0, 160, b"a"));
        repeats.forget();
        assert!(repeats.is_due(Some(b"a")).is_some());
    }

    #[test]
    fn a_histogram_is_named_without_what_its_series_append() {
        let family = |kind, name| {
            let described = Described {
                kind,
                ..Described::default()
            };
            described.family(name)
        };
        assert_eq!(family(HISTOGRAM, b"d_seconds_bucket"), b"d_seconds");
        assert_eq!(family(SUMMARY, b"d_seconds_sum"), b"d_seconds");
        assert_eq!(family(HISTOGRAM, b"_sum"), b"_sum");
        assert_eq!(family(1, b"word_count"), b"word_count");
    }
}
