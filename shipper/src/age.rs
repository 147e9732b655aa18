//! Turns records into those that are young enough to be sent.
//!
//! Asked when records are routed, when a batch is taken from its queue and before it goes again: an
//! endpoint that was away for long gets what still matters to it.
//!
//! # Failure
//! - A record whose timestamp cannot be read is not too old; the endpoint judges it.

use std::time::Duration;

use wal::{RecordKind, SharedClock, StartedSample};

use crate::batch::Batch;
use labels::wire::{Fields, Value};

/// Fields that hold the timestamp, in `prometheus.Exemplar` and `prometheus.Histogram`.
const EXEMPLAR_TIMESTAMP: u64 = 3;
const HISTOGRAM_TIMESTAMP: u64 = 15;

/// The `sample_age_limit` of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct AgeLimit {
    /// Milliseconds; zero: no limit.
    limit_ms: i64,
    clock: SharedClock,
}

impl AgeLimit {
    pub(crate) fn new(limit: Duration, clock: &SharedClock) -> Self {
        Self {
            limit_ms: i64::try_from(limit.as_millis()).unwrap_or(i64::MAX),
            clock: SharedClock::clone(clock),
        }
    }

    /// What has an earlier timestamp than this is too old now. Without a limit nothing has.
    pub(crate) fn oldest_ms(&self) -> i64 {
        match self.limit_ms {
            0 => i64::MIN,
            limit_ms => self.clock.unix_ms().saturating_sub(limit_ms),
        }
    }
}

/// Whether a record that is its message has a timestamp before `oldest_ms`. Metadata has none.
pub(crate) fn is_older(kind: RecordKind, message: &[u8], oldest_ms: i64) -> bool {
    let field = match kind {
        RecordKind::Exemplar => EXEMPLAR_TIMESTAMP,
        RecordKind::Histogram => HISTOGRAM_TIMESTAMP,
        RecordKind::StartedSample => {
            let started = StartedSample::from_bytes(message);
            return started.is_some_and(|one| one.timestamp_ms < oldest_ms);
        }
        RecordKind::Metadata => return false,
    };
    if oldest_ms == i64::MIN {
        return false;
    }
    // a field that is not there is zero
    let mut timestamp_ms = 0;
    let mut fields = Fields::new(message);
    loop {
        match fields.next() {
            Ok(Some((number, Value::Varint(value)))) if number == field => {
                timestamp_ms = value.cast_signed();
            }
            Ok(Some(_)) => {}
            Ok(None) => return timestamp_ms < oldest_ms,
            Err(_) => return false,
        }
    }
}

/// Takes the records with a timestamp before `oldest_ms` out of a batch, if there are any.
pub(crate) fn take_older(batch: &mut Batch, oldest_ms: i64) -> Option<Batch> {
    let has_older = oldest_ms > i64::MIN
        && (batch.samples.iter().any(|one| one.timestamp_ms < oldest_ms)
            || (batch.raw.iter()).any(|one| is_older(one.kind, &one.bytes, oldest_ms)));
    if !has_older {
        return None;
    }
    let mut older = Batch::default();
    let whole = std::mem::take(batch);
    let (mut samples, mut raw) = (whole.samples.into_iter(), whole.raw.into_iter());
    for run in whole.runs {
        let samples = samples.by_ref().take(run.samples);
        let samples: (Vec<_>, Vec<_>) = samples.partition(|one| one.timestamp_ms < oldest_ms);
        let raw = raw.by_ref().take(run.raw);
        let raw: (Vec<_>, Vec<_>) = raw.partition(|one| is_older(one.kind, &one.bytes, oldest_ms));
        for (into, samples, raw) in [
            (&mut older, samples.0, raw.0),
            (&mut *batch, samples.1, raw.1),
        ] {
            if samples.len() + raw.len() > 0 {
                into.push(run.frame, &[&samples], raw.into_iter());
            }
        }
    }
    Some(older)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wal::{Sample, SeriesRef};

    use super::*;
    use crate::ack::FrameNumber;
    use crate::batch::OwnedRecord;
    use labels::wire::put_varint;

    fn message(field: u64, timestamp_ms: i64) -> Vec<u8> {
        let mut bytes = vec![0x11, 0, 0, 0, 0, 0, 0, 0, 0];
        put_varint(&mut bytes, field << 3);
        put_varint(&mut bytes, timestamp_ms.cast_unsigned());
        bytes
    }

    #[test]
    fn records_tell_their_own_time() {
        use RecordKind::{Exemplar, Histogram, Metadata};
        for (kind, field) in [(Exemplar, 3), (Histogram, 15)] {
            assert!(is_older(kind, &message(field, 99), 100));
            assert!(is_older(kind, &message(field, -1), 0));
            assert!(!is_older(kind, &message(field, 100), 100));
            assert!(!is_older(kind, &message(field, i64::MIN), i64::MIN));
            assert!(is_older(kind, &[], 1), "absent is zero");
            assert!(!is_older(kind, &[0xff], 1), "unreadable");
        }
        assert!(!is_older(Metadata, &[], 100));
    }

    proptest! {
        #[test]
        fn what_is_too_old_leaves_and_the_rest_stays_in_order(
            runs in prop::collection::vec(
                (prop::collection::vec(0..20_i64, 0..4), prop::collection::vec(0..20_i64, 0..3)),
                1..6,
            ),
            oldest_ms in 0..20_i64,
        ) {
            let sample = |timestamp_ms: &i64| Sample {
                series: SeriesRef::new(1),
                timestamp_ms: *timestamp_ms,
                value_bits: 0,
            };
            let record = |timestamp_ms: &i64| OwnedRecord {
                series: SeriesRef::new(1),
                kind: RecordKind::Exemplar,
                bytes: message(3, *timestamp_ms).into(),
            };
            let batch_of = |is_in: &dyn Fn(&&i64) -> bool| {
                let mut batch = Batch::default();
                for (number, (samples, raw)) in (0..).zip(&runs) {
                    let (samples, raw) = (samples.iter().filter(is_in), raw.iter().filter(is_in));
                    if samples.clone().count() + raw.clone().count() > 0 {
                        let frame = FrameNumber::new(number);
                        let samples: Vec<_> = samples.map(sample).collect();
                        batch.push(frame, &[&samples], raw.map(record));
                    }
                }
                batch
            };
            let mut batch = batch_of(&|_| true);
            let older = take_older(&mut batch, oldest_ms);
            let want = [batch_of(&|t| **t < oldest_ms), batch_of(&|t| **t >= oldest_ms)];
            let parts = |batch: &Batch| (batch.samples.clone(), batch.raw.clone(), batch.runs.clone());
            prop_assert_eq!(older.is_some(), want[0].records() > 0);
            prop_assert_eq!(parts(&older.unwrap_or_default()), parts(&want[0]));
            prop_assert_eq!(parts(&batch), parts(&want[1]));
            prop_assert_eq!(batch.raw_bytes(), want[1].raw_bytes());
        }
    }
}
