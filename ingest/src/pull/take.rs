//! Turns what the parser found into samples and records of a batch, with the labels of the target.

use std::ops::Range;

use wal::{RecordKind, Sample, SeriesRef};

use super::known::{Entry, Reading};
use super::scrape::{Scrape, Scratch};
use crate::append::Door;
use crate::decode::exposition::{Exemplar, FamilyText, HistogramAt, Kind, SampleAt};
use crate::decode::labels::{METRIC_NAME, append_any_label, labels_of, shown};
use crate::decode::wire::append_varint;
use crate::decode::{Batch, Brought, RecordAt, Slot};

impl Scrape<'_> {
    /// A sample that was parsed.
    pub(super) fn take(
        &mut self,
        reading: Reading<'_>,
        sample: &SampleAt,
        new: &mut Entry,
        (door, batch): (&mut impl Door, &mut Batch),
    ) -> Result<(), String> {
        self.counts.parsed += 1;
        if sample.timestamp_ms.is_some() {
            new.set_time();
        }
        let own = sample.timestamp_ms.filter(|_| reading.honors_time);
        let timestamp_ms = own.unwrap_or(reading.time_ms);
        let brought = Brought {
            samples: batch.samples.len()..batch.samples.len() + 1,
            records: batch.records.len()..batch.records.len(),
        };
        batch.samples.push(Sample {
            series: SeriesRef::NONE,
            timestamp_ms,
            value_bits: sample.value.to_bits(),
        });
        if let Some(start_ms) = self.window.start(sample.start_ms, timestamp_ms)
            && self.is_count(reading.body)
        {
            self.scratch.starts.sample(start_ms, batch);
        }
        let exemplars = sample.has_exemplar.then_some(timestamp_ms);
        self.resolve(reading.body, brought, exemplars, (&mut *door, &mut *batch))?;
        let series = batch.samples.last().map_or(0, |sample| sample.series.get());
        if series != 0 {
            (new.series, new.identity) = (series, door.identity(series));
        }
        Ok(())
    }

    /// A native histogram that was parsed.
    pub(super) fn take_histogram(
        &mut self,
        reading: Reading<'_>,
        histogram: &HistogramAt,
        (door, batch): (&mut impl Door, &mut Batch),
    ) -> Result<(), String> {
        self.counts.parsed += 1;
        let own = histogram.timestamp_ms.filter(|_| reading.honors_time);
        let timestamp_ms = own.unwrap_or(reading.time_ms);
        let told = self.window.start(histogram.start_ms, timestamp_ms);
        let Scratch {
            parser,
            converter,
            starts,
            ..
        } = &mut *self.scratch;
        let exposed = converter.histogram(parser);
        let told = told.filter(|_| !exposed.is_gauge);
        let (schema_max, buckets_max) =
            (self.rules.native_schema_max, self.rules.native_bucket_limit);
        let start;
        if schema_max.is_some() || buckets_max > 0 {
            let mut reduced = exposed.clone();
            if !reduced.reduce(schema_max, buckets_max) {
                self.counts.is_over_bucket_limit = true;
                return Err(format!(
                    "more than {buckets_max} buckets in a native histogram"
                ));
            }
            if let Some(start_ms) = told {
                starts.histogram(start_ms, &reduced, batch);
            }
            start = batch.made.len();
            reduced.append_message(timestamp_ms, &mut batch.made);
        } else {
            if let Some(start_ms) = told {
                starts.histogram(start_ms, exposed, batch);
            }
            start = batch.made.len();
            exposed.append_message(timestamp_ms, &mut batch.made);
        }
        let brought = Brought {
            samples: batch.samples.len()..batch.samples.len(),
            records: batch.records.len()..batch.records.len() + 1,
        };
        batch.records.push(RecordAt {
            series: SeriesRef::NONE,
            kind: RecordKind::Histogram,
            bytes: start..batch.made.len(),
        });
        let exemplars = histogram.has_exemplar.then_some(timestamp_ms);
        self.resolve(reading.body, brought, exemplars, (door, batch))
    }

    /// Whether the sample that was parsed last counts: quantiles do not, though their summary does.
    fn is_count(&self, body: &[u8]) -> bool {
        let parser = &self.scratch.parser;
        let mut labels = parser.labels(body);
        match parser.state(body).last_type {
            Kind::Summary => !labels.any(|(name, _)| name == b"quantile"),
            kind => kind.has_start(),
        }
    }

    /// Finds the series of what was parsed last, or notes it as new. With its exemplars, whose time is the one
    /// given unless they have their own; those that stood there at the last scrape are not taken again.
    fn resolve(
        &mut self,
        body: &[u8],
        mut brought: Brought,
        exemplars: Option<i64>,
        (door, batch): (&mut impl Door, &mut Batch),
    ) -> Result<(), String> {
        let Scratch {
            parser,
            converter,
            merge,
            texts,
            ..
        } = &mut *self.scratch;
        let family = match self.rules.type_and_unit_labels {
            true => parser.family(body),
            false => None,
        };
        let exposed = converter.labels(parser, body).chain(family_labels(family));
        let labels = merge.merge(exposed, self.labels, self.rules.honor_labels);
        if !self.rules.utf8_names {
            check_names(labels)?;
        }
        // Here, not where series are defined: a limit holds for series that are known, too.
        if let Err(reason) = self.rules.labels.check_all(labels) {
            self.counts.is_over_label_limit = true;
            return Err(format!("{reason}: {}", shown(labels)));
        }
        if let Some(timestamp_ms) = exemplars {
            let start = batch.made.len();
            let mut records = batch.records.len();
            for exemplar in converter.exemplars(parser, body) {
                let at = batch.made.len();
                append_exemplar(&exemplar, &mut batch.made);
                let end = batch.made.len();
                batch.records.push(exemplar_at(at..end));
            }
            let (series, all) = (texts.hash(labels), batch.made.get(start..));
            let all = texts.hash(all.unwrap_or_default());
            if self.memory.is_exemplar_new(series, all) {
                for exemplar in converter.exemplars(parser, body) {
                    if exemplar.timestamp_ms.is_none()
                        && let Some(record) = batch.records.get_mut(records)
                    {
                        let at = batch.made.len();
                        batch.made.extend_from_within(record.bytes.clone());
                        append_time(timestamp_ms, &mut batch.made);
                        record.bytes = at..batch.made.len();
                    }
                    records += 1;
                }
            } else {
                batch.made.truncate(start);
                batch.records.truncate(records);
            }
            brought.records.end = batch.records.len();
        }
        resolve(labels, &brought, (door, batch))
    }

    /// What the target says about a family.
    pub(super) fn describe(&mut self, body: &[u8]) {
        let family = self.scratch.parser.state(body).family;
        self.families.note(family);
    }
}

/// Finds the series with these canonical labels, or notes it as new.
pub(super) fn resolve(
    labels: &[u8],
    brought: &Brought,
    (door, batch): (&mut impl Door, &mut Batch),
) -> Result<(), String> {
    let whole = 0..labels.len();
    match door.resolve(labels, std::slice::from_ref(&whole), brought) {
        Ok(Ok(Slot::Known(series))) => {
            brought.assign(series, batch);
            Ok(())
        }
        Ok(Ok(Slot::New)) => Ok(()),
        Ok(Err(refused)) => Err(format!("{}: {}", refused.reason, refused.shown)),
        Err(malformed) => Err(malformed.to_string()),
    }
}

/// Whether the names of these labels have the old characters only.
fn check_names(labels: &[u8]) -> Result<(), String> {
    for (name, value) in labels_of(labels) {
        let is_metric = name == METRIC_NAME;
        let checked = if is_metric { value } else { name };
        let is_fine = |(at, byte): (usize, &u8)| {
            byte.is_ascii_alphabetic()
                || *byte == b'_'
                || (is_metric && *byte == b':')
                || (at > 0 && byte.is_ascii_digit())
        };
        if checked.is_empty() || !checked.iter().enumerate().all(is_fine) {
            let what = if is_metric { "metric" } else { "label" };
            let shown = String::from_utf8_lossy(checked);
            return Err(format!("invalid {what} name {:?}", shown));
        }
    }
    Ok(())
}

/// Type and unit of a family as labels.
fn family_labels<'f>(family: Option<FamilyText<'f>>) -> impl Iterator<Item = (&'f [u8], &'f [u8])> {
    let kind = family.filter(|family| family.kind != Kind::Unknown);
    let kind = kind.map_or("", |family| family.kind.as_str());
    let unit = family.map_or(&b""[..], |family| family.unit);
    [(&b"__type__"[..], kind.as_bytes()), (b"__unit__", unit)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
}

fn exemplar_at(bytes: Range<usize>) -> RecordAt {
    RecordAt {
        series: SeriesRef::NONE,
        kind: RecordKind::Exemplar,
        bytes,
    }
}

/// Writes a `prometheus.Exemplar`, with the time it has.
fn append_exemplar(exemplar: &Exemplar<'_>, out: &mut Vec<u8>) {
    for (name, value) in exemplar.labels() {
        append_any_label(out, name, value);
    }
    out.push(0x11);
    out.extend_from_slice(&exemplar.value.to_le_bytes());
    if let Some(time) = exemplar.timestamp_ms {
        append_time(time, out);
    }
}

fn append_time(timestamp_ms: i64, out: &mut Vec<u8>) {
    out.push(0x18);
    append_varint(out, timestamp_ms.cast_unsigned());
}
