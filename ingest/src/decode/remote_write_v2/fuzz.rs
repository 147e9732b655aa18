//! Turns any bytes into a comparison of the scanner with prost.

use std::collections::HashSet;

use prost::Message;
use wal::{RecordKind, SeriesRef, StartedSample};

use super::{Buffers, scan};
use crate::decode::labels::{LABEL_BYTES_MAX, append_any_label, canonical};
use crate::decode::remote_write_v1::fuzz::List;
use crate::decode::{Batch, RecordAt};
use crate::proto::v2::{Histogram, Metadata, Request, TimeSeries};
use crate::proto::{Exemplar, Label, MetricMetadata};

/// Scans `bytes` and compares with prost.
///
/// # Panics
///
/// If they disagree.
pub fn scan_agrees_with_prost(bytes: &[u8]) {
    let oracle = Request::decode(bytes).ok();
    let oracle = oracle.filter(|request| request.symbols.first().is_none_or(Vec::is_empty));
    let mut list = List::default();
    // Twice with the same resolver: unknown series first, then predicted ones.
    for round in 0..2 {
        let mut batch = Batch::default();
        let scanned = scan(bytes, &mut list, &mut batch, &mut Buffers::default());
        match (&oracle, scanned) {
            (Some(oracle), Ok(())) => Comparison::new(oracle, bytes, &batch, &list).run(),
            (None, Err(_)) => return,
            (oracle, scanned) => panic!("round {round}: prost {oracle:?}, scanner {scanned:?}"),
        }
    }
}

type Labels = Vec<(Vec<u8>, Vec<u8>)>;

/// The request as prost reads it beside what the scanner made of it.
struct Comparison<'a> {
    oracle: &'a Request,
    bytes: &'a [u8],
    batch: &'a Batch,
    list: &'a List,
    samples: std::slice::Iter<'a, wal::Sample>,
    /// Per kind, as their order among each other is not kept by prost.
    records: [Vec<&'a RecordAt>; 4],
    started: HashSet<Labels>,
    described: HashSet<Vec<u8>>,
    refused: u64,
}

impl<'a> Comparison<'a> {
    fn new(oracle: &'a Request, bytes: &'a [u8], batch: &'a Batch, list: &'a List) -> Self {
        let mut records: [Vec<_>; 4] = Default::default();
        for record in batch.records.iter().rev() {
            records[record.kind as usize - 1].push(record);
        }
        Self {
            oracle,
            bytes,
            batch,
            list,
            samples: batch.samples.iter(),
            records,
            started: HashSet::new(),
            described: HashSet::new(),
            refused: 0,
        }
    }

    fn run(mut self) {
        for series in &self.oracle.timeseries {
            self.series(series);
        }
        assert_eq!(self.samples.next(), None);
        assert!(self.records.iter().all(Vec::is_empty));
        assert_eq!(self.batch.refused.items.iter().sum::<u64>(), self.refused);
    }

    fn series(&mut self, series: &TimeSeries) {
        let exemplars: Vec<_> = series
            .exemplars
            .iter()
            .filter_map(|exemplar| {
                let labels = self.labels(&exemplar.labels_refs)?;
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
                let label = |(name, value)| {
                    Some(Label {
                        name: text(name)?,
                        value: text(value)?,
                    })
                };
                Some(Exemplar {
                    labels: labels.into_iter().map(label).collect::<Option<_>>()?,
                    value: exemplar.value,
                    timestamp: exemplar.timestamp,
                })
            })
            .collect();
        let (samples, histograms) = (series.samples.len(), series.histograms.len());
        self.refused += count(series.exemplars.len() - exemplars.len());
        let items = samples + histograms + exemplars.len();
        let labels = self.labels(&series.labels_refs);
        let Some(labels) = labels.filter(|_| samples == 0 || histograms == 0) else {
            self.refused += count(items);
            return;
        };
        if items == 0 {
            return;
        }
        let is_started = series.created_timestamp != 0
            || series
                .samples
                .iter()
                .any(|sample| sample.start_timestamp != 0)
            || self.started.contains(&labels);
        if is_started && samples > 0 {
            self.started.insert(labels.clone());
        }
        let (metadata, is_bad) = self.metadata(series.metadata, &labels);
        self.refused += u64::from(is_bad);
        let pairs: Vec<_> = labels
            .iter()
            .map(|(n, v)| (n.as_slice(), v.as_slice()))
            .collect();
        let mut label_bytes = Vec::new();
        if canonical(&pairs, &mut label_bytes).is_err() {
            self.refused += count(items);
            return;
        }
        self.samples(series, is_started, &label_bytes);
        for exemplar in exemplars {
            same(self.next(RecordKind::Exemplar, &label_bytes), &exemplar);
        }
        for histogram in &series.histograms {
            let mut expected = histogram.clone();
            if expected.start_timestamp == 0 {
                expected.start_timestamp = series.created_timestamp;
            }
            let found: &[u8] = self.next(RecordKind::Histogram, &label_bytes);
            same::<Histogram>(found, &expected);
        }
        if let Some(metadata) = metadata
            && self.described.insert(metadata.encode_to_vec())
        {
            same(self.next(RecordKind::Metadata, &label_bytes), &metadata);
        }
    }

    fn samples(&mut self, series: &TimeSeries, is_started: bool, labels: &[u8]) {
        for sample in &series.samples {
            if is_started {
                let expected = StartedSample {
                    timestamp_ms: sample.timestamp,
                    value_bits: sample.value_bits,
                    start_ms: match sample.start_timestamp {
                        0 => series.created_timestamp,
                        own => own,
                    },
                };
                let found = self.next(RecordKind::StartedSample, labels);
                assert_eq!(StartedSample::from_bytes(found), Some(expected));
            } else {
                let found = self.samples.next().expect("a sample less than prost found");
                assert_eq!(self.list.labels(found.series), labels);
                assert_eq!(found.timestamp_ms, sample.timestamp);
                assert_eq!(found.value_bits, sample.value_bits);
            }
        }
    }

    /// The bytes of the next record of a kind, which must be of the series with these labels.
    fn next(&mut self, kind: RecordKind, labels: &[u8]) -> &'a [u8] {
        let found = self.records[kind as usize - 1].pop();
        let found = found.expect("a record less than prost found");
        assert_ne!(found.series, SeriesRef::NONE);
        assert_eq!(self.list.labels(found.series), labels);
        self.batch.bytes(self.bytes, &found.bytes)
    }

    fn symbol(&self, number: u32) -> Option<Vec<u8>> {
        let at = usize::try_from(number).ok()?;
        self.oracle.symbols.get(at).cloned()
    }

    /// The labels that references stand for, unless they are not allowed.
    fn labels(&self, refs: &[u32]) -> Option<Labels> {
        let mut labels = Labels::new();
        let mut encoded = Vec::new();
        for pair in refs.chunks(2) {
            let [name, value] = pair else { return None };
            let label = (self.symbol(*name)?, self.symbol(*value)?);
            append_any_label(&mut encoded, &label.0, &label.1);
            labels.push(label);
        }
        (encoded.len() <= LABEL_BYTES_MAX).then_some(labels)
    }

    /// What there is to keep of metadata, and whether it is not allowed.
    fn metadata(&self, of: Option<Metadata>, labels: &Labels) -> (Option<MetricMetadata>, bool) {
        let of = of.unwrap_or_default();
        if of == Metadata::default() {
            return (None, false);
        }
        let text = |number| match self.symbol(number) {
            Some(text) => String::from_utf8(text).ok(),
            None => (number == 0).then(String::new),
        };
        let (Some(help), Some(unit)) = (text(of.help_ref), text(of.unit_ref)) else {
            return (None, true);
        };
        let name = labels.iter().find(|(name, _)| name == b"__name__");
        let Some(name) = name.and_then(|(_, name)| String::from_utf8(name.clone()).ok()) else {
            return (None, false);
        };
        let mut family = name.as_str();
        if matches!(of.r#type, 3..=5) {
            let suffix = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|s| name.strip_suffix(s));
            family = suffix.filter(|family| !family.is_empty()).unwrap_or(family);
        }
        let metadata = MetricMetadata {
            r#type: of.r#type,
            metric_family_name: family.to_owned(),
            help,
            unit,
        };
        (Some(metadata), false)
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// Whether the kept bytes decode to the expected message; compared encoded, as NaN is unequal.
fn same<M: Message + Default>(raw: &[u8], expected: &M) {
    let found = M::decode(raw).expect("kept bytes that do not decode");
    assert_eq!(found.encode_to_vec(), expected.encode_to_vec());
}
