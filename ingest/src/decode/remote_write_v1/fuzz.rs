//! Turns any bytes into a comparison of the scanner with prost.
//!
//! The oracle has `bytes` where the protocol has `string`, because the scanner refuses text that
//! is not UTF-8 per series and prost per request. Exemplars and metadata are refused exactly when
//! prost would refuse that message alone, also for text that a later field overrides: they are
//! sent on as they came, and the next receiver may look. Everything else has to agree: what is
//! accepted, and what comes out.

use std::collections::HashMap;
use std::ops::Range;

use prost::Message;
use wal::{RecordKind, SeriesRef};

use super::scan;
use crate::decode::labels::LabelSet;
use crate::decode::{Batch, Brought, Malformed, NotAllowed, Resolve, Slot};
use crate::proto;

/// Scans `bytes` and compares with prost.
///
/// # Panics
///
/// If they disagree.
pub fn scan_agrees_with_prost(bytes: &[u8]) {
    let oracle = WriteRequest::decode(bytes);
    let mut list = List::default();
    // Twice with the same resolver: unknown series first, then predicted ones.
    for round in 0..2 {
        let mut batch = Batch::default();
        let scanned = scan(bytes, &mut list, &mut batch, &mut Vec::new());
        match (&oracle, scanned) {
            (Ok(oracle), Ok(())) => {
                let kept = Kept::decode(bytes).expect("prost agrees with itself");
                compare((oracle, &kept), bytes, &batch, &list);
            }
            (Err(_), Err(_)) => return,
            (oracle, scanned) => panic!("round {round}: prost {oracle:?}, scanner {scanned:?}"),
        }
    }
    if let Ok(strict) = proto::WriteRequest::decode(bytes) {
        assert_eq!(
            strict.timeseries.len(),
            oracle.unwrap_or_default().timeseries.len()
        );
    }
}

/// Series by their canonical label bytes; expects them in the order they first came.
#[derive(Default, Debug)]
pub(crate) struct List {
    labels: Vec<Vec<u8>>,
    refs: HashMap<Vec<u8>, SeriesRef>,
    last: usize,
    set: LabelSet,
}

impl List {
    /// How many label sets were seen.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The canonical label bytes of a series.
    pub(crate) fn labels(&self, series: SeriesRef) -> &[u8] {
        &self.labels[series.index() - 1]
    }
}

impl Resolve for List {
    fn predicted(&mut self, series: &[u8]) -> Option<(SeriesRef, usize)> {
        let next = if self.last >= self.labels.len() {
            0
        } else {
            self.last
        };
        let labels = self.labels.get(next)?;
        if !series.starts_with(labels) || series.get(labels.len()) == Some(&0x0a) {
            return None;
        }
        self.last = next + 1;
        Some((SeriesRef::new(u32::try_from(next + 1).ok()?), labels.len()))
    }

    fn resolve(
        &mut self,
        body: &[u8],
        fields: &[Range<usize>],
        _: &Brought,
    ) -> Result<Result<Slot, NotAllowed>, Malformed> {
        self.set.read(body, fields)?;
        let mut labels = Vec::new();
        if let Err(reason) = self.set.append_canonical(body, &mut labels) {
            return Ok(Err(NotAllowed {
                reason,
                shown: self.set.show(body, 100),
            }));
        }
        let known = self.refs.len() + 1;
        let series = *self.refs.entry(labels.clone()).or_insert_with(|| {
            self.labels.push(labels);
            SeriesRef::new(u32::try_from(known).unwrap_or(u32::MAX))
        });
        self.last = series.index();
        Ok(Ok(Slot::Known(series)))
    }
}

/// The canonical label bytes of a series the obvious way; `None` if they are not allowed.
fn canonical(labels: &[Label]) -> Option<Vec<u8>> {
    let mut sorted = labels.to_vec();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let unique = sorted.windows(2).all(|pair| pair[0].name != pair[1].name);
    let named = sorted.iter().all(|label| !label.name.is_empty());
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let text = sorted
        .iter()
        .all(|label| utf8(&label.name) && utf8(&label.value));
    let metric = sorted
        .iter()
        .any(|l| l.name == b"__name__" && !l.value.is_empty());
    sorted.retain(|label| !label.value.is_empty());
    let bytes = TimeSeries {
        labels: sorted,
        ..Default::default()
    }
    .encode_to_vec();
    (unique && named && text && metric).then_some(bytes)
}

fn compare((oracle, kept): (&WriteRequest, &Kept), bytes: &[u8], batch: &Batch, list: &List) {
    let mut samples = batch.samples.iter();
    let mut records = batch.records.iter();
    let mut refused = 0u64;
    let mut text_refused = 0u64;
    // Series are compared in order; metadata may stand anywhere between them.
    for (series, kept) in oracle.timeseries.iter().zip(&kept.timeseries) {
        let (good, bad): (Vec<_>, Vec<_>) = series
            .exemplars
            .iter()
            .zip(&kept.exemplars)
            .partition(|(_, raw)| proto::Exemplar::decode(raw.as_slice()).is_ok());
        let good: Vec<_> = good.into_iter().map(|(exemplar, _)| exemplar).collect();
        text_refused += u64::try_from(bad.len()).unwrap_or(u64::MAX);
        let items = series.samples.len() + good.len() + series.histograms.len();
        let Some(labels) = canonical(&series.labels) else {
            refused += u64::try_from(items).unwrap_or(u64::MAX);
            continue;
        };
        for sample in &series.samples {
            let found = samples.next().expect("a sample less than prost found");
            assert_eq!(list.labels(found.series), labels);
            assert_eq!(found.timestamp_ms, sample.timestamp);
            assert_eq!(found.value_bits, sample.value.to_bits());
        }
        let mut good = good.into_iter();
        let mut histograms = series.histograms.iter();
        for _ in 0..items - series.samples.len() {
            let found = loop {
                let found = records.next().expect("a record less than prost found");
                if found.kind != RecordKind::Metadata {
                    break found;
                }
            };
            assert_eq!(list.labels(found.series), labels);
            let raw = &bytes[found.bytes.clone()];
            if found.kind == RecordKind::Exemplar {
                same(raw, good.next().expect("an exemplar less than prost found"));
            } else {
                same(
                    raw,
                    histograms
                        .next()
                        .expect("a histogram less than prost found"),
                );
            }
        }
    }
    assert_eq!(samples.next(), None);
    assert!(records.all(|record| record.kind == RecordKind::Metadata));
    let mut metadata = batch
        .records
        .iter()
        .filter(|r| r.kind == RecordKind::Metadata);
    for (expected, raw) in oracle.metadata.iter().zip(&kept.metadata) {
        if proto::MetricMetadata::decode(raw.as_slice()).is_ok() {
            let found = metadata.next().expect("a metadata less than prost found");
            assert_eq!(found.series, SeriesRef::NONE);
            same(&bytes[found.bytes.clone()], expected);
        } else {
            text_refused += 1;
        }
    }
    assert_eq!(metadata.next(), None);
    assert_eq!(
        batch.refused.items.iter().sum::<u64>(),
        refused + text_refused
    );
}

/// Whether the kept bytes decode to the expected message; compared encoded, as NaN is unequal.
fn same<M: Message + Default>(raw: &[u8], expected: &M) {
    let found = M::decode(raw).expect("kept bytes that do not decode");
    assert_eq!(found.encode_to_vec(), expected.encode_to_vec());
}

/// `proto::WriteRequest` with text as bytes.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<proto::Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<proto::Histogram>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    r#type: i32,
    #[prost(bytes = "vec", tag = "2")]
    metric_family_name: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    help: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    unit: Vec<u8>,
}

/// The bytes of what is kept as it came.
#[derive(Clone, PartialEq, Eq, Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<KeptSeries>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    metadata: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct KeptSeries {
    #[prost(bytes = "vec", repeated, tag = "3")]
    exemplars: Vec<Vec<u8>>,
}
