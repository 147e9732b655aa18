//! Turns the protobuf bytes of a remote-write 2.0 `Request` into a batch.
//!
//! The labels of a series are written out in canonical form, in a buffer that is reused, and then
//! compared with the expected ones as those of remote write 1.0 are: nothing is hashed for a series
//! that was expected, and the same labels are the same series whichever protocol they came by.
//! What has another form in 1.0 (exemplars, metadata, samples with a start timestamp) is written
//! out too, into [`Batch::made`]; histograms stay the bytes they were.
//!
//! # Invariants
//! - Well-formed is what prost says is, but for the limits below and that the first symbol is empty.
//! - A sample without start timestamp never overtakes one with it, of the same series and request.
//! - A series that breaks a rule is refused alone, with everything it brought.
//!
//! # Limits
//! - [`ITEMS_MAX`] samples and records that are not laid out as usual, [`SYMBOLS_MAX`] symbols.
//! - [`MADE_BYTES_MAX`] bytes written out for one request, not counting the labels of expected
//!   series: a few bytes of references may stand for very long labels.
//!
//! # Failure
//! - Malformed bytes end the scan; the batch then holds what came before and must not be used.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use wal::{RecordKind, Sample, SeriesRef, StartedSample};

use super::labels::{LABEL_BYTES_MAX, Reason, append_any_label};
use super::metadata::{Described, Repeats};
use super::records::{self, Record};
use super::remote_write_v1::{has_room, usual_sample};
use super::symbols::Symbols;
use super::wire::{Cursor, DEPTH_MAX, Malformed, Wire};
use super::written::Written;
use super::{Batch, Brought, NotAllowed, RecordAt, Resolve, Slot};

pub use super::remote_write_v1::ITEMS_MAX;
pub use super::symbols::SYMBOLS_MAX;

/// Most bytes written out for one request.
pub const MADE_BYTES_MAX: usize = 64 << 20;

/// The field of `Histogram` that holds the start timestamp, as its tag.
const START_TAG: [u8; 2] = [0x88, 0x01];

/// Buffers of the scanner and what it remembers of metadata; reused from request to request.
#[derive(Default, Debug)]
pub struct Buffers {
    symbols: Symbols,
    refs: Vec<u32>,
    labels: Written,
    starts: Vec<i64>,
    /// Hashes of the label sets of this request that have samples with a start timestamp. Two of one
    /// hash do no harm: samples become records that need not.
    started: HashSet<u64>,
    /// Label bytes looked up in this request.
    looked_up: usize,
    pub(crate) repeats: Repeats,
}

impl Buffers {
    /// Gives memory back after an unusual request.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.symbols.shrink(bytes_max);
        self.labels.shrink();
        self.refs.clear();
        self.refs.shrink_to(LABEL_BYTES_MAX);
        self.starts.clear();
        self.starts.shrink_to(bytes_max / size_of::<i64>());
        self.started = HashSet::new();
    }
}

/// Scans a request and appends what it holds to `batch`.
///
/// # Errors
///
/// The bytes are no `io.prometheus.write.v2.Request`.
pub fn scan(
    body: &[u8],
    resolve: &mut impl Resolve,
    batch: &mut Batch,
    buffers: &mut Buffers,
) -> Result<(), Malformed> {
    buffers.symbols.read(body)?;
    batch.body_bytes = body.len();
    buffers.started.clear();
    buffers.looked_up = 0;
    buffers.labels.begin();
    let mut request = Cursor::over(body, 0..body.len());
    while !request.is_done() {
        let key = request.key()?;
        if key.number == 5 {
            key.expect(Wire::Bytes)?;
            let message = request.message()?;
            Series::read((body, message), batch, buffers)?.store(resolve, batch, buffers)?;
        } else {
            request.skip(key, DEPTH_MAX)?;
        }
    }
    Ok(())
}

/// What a `TimeSeries` message holds beside the labels.
struct Series<'b> {
    body: &'b [u8],
    samples: Range<usize>,
    records: Range<usize>,
    histograms: usize,
    /// `created_timestamp` of older senders: the start of everything in the message.
    created_ms: i64,
    described: Option<Described>,
    /// Exemplars refused on their own.
    refused: usize,
}

impl<'b> Series<'b> {
    /// Reads a message: label references into the buffers, the rest into the batch.
    fn read(
        (body, mut message): (&'b [u8], Cursor<'b>),
        batch: &mut Batch,
        buffers: &mut Buffers,
    ) -> Result<Self, Malformed> {
        buffers.refs.clear();
        buffers.starts.clear();
        let mut series = Self {
            body,
            samples: batch.samples.len()..0,
            records: batch.records.len()..0,
            histograms: 0,
            created_ms: 0,
            described: None,
            refused: 0,
        };
        while !message.is_done() {
            if let Some((sample, length)) = usual_sample(message.rest(), SeriesRef::NONE) {
                batch.samples.push(sample);
                message.advance(length);
            } else {
                series.field(&mut message, batch, buffers)?;
            }
        }
        series.samples.end = batch.samples.len();
        series.records.end = batch.records.len();
        Ok(series)
    }

    /// Reads one field in the general way.
    fn field(
        &mut self,
        message: &mut Cursor<'b>,
        batch: &mut Batch,
        buffers: &mut Buffers,
    ) -> Result<(), Malformed> {
        let start = message.at();
        let key = message.key()?;
        match key.number {
            1 => return read_refs(message, key.wire, &mut buffers.refs),
            2..=5 => key.expect(Wire::Bytes)?,
            6 => {
                key.expect(Wire::Varint)?;
                self.created_ms = message.varint()?.cast_signed();
                return Ok(());
            }
            _ => return message.skip(key, DEPTH_MAX - 1),
        }
        has_room(batch, start)?;
        let span = message.span()?;
        let inner = Cursor::over(self.body, span.clone());
        match key.number {
            2 => {
                let (sample, start_ms) = any_sample(inner)?;
                if start_ms != 0 {
                    buffers
                        .starts
                        .resize(batch.samples.len() - self.samples.start, 0);
                    buffers.starts.push(start_ms);
                }
                batch.samples.push(sample);
            }
            3 => {
                records::check(Record::HistogramV2, inner, DEPTH_MAX - 2)?;
                self.histograms += 1;
                batch.records.push(RecordAt {
                    series: SeriesRef::NONE,
                    kind: RecordKind::Histogram,
                    bytes: span,
                });
            }
            4 => self.exemplar(inner, batch, buffers)?,
            _ => self.described.get_or_insert_default().read(inner)?,
        }
        Ok(())
    }

    /// Keeps an exemplar as the message of remote write 1.0; one that is not allowed is refused
    /// alone.
    fn exemplar(
        &mut self,
        mut message: Cursor<'b>,
        batch: &mut Batch,
        buffers: &mut Buffers,
    ) -> Result<(), Malformed> {
        let at = message.at();
        let (mut value, mut timestamp) = (0u64, 0u64);
        // The references of the series may come before and after.
        let own = buffers.refs.len();
        while !message.is_done() {
            let key = message.key()?;
            match key.number {
                1 => read_refs(&mut message, key.wire, &mut buffers.refs)?,
                2 => {
                    key.expect(Wire::Fixed64)?;
                    value = message.fixed64()?;
                }
                3 => {
                    key.expect(Wire::Varint)?;
                    timestamp = message.varint()?;
                }
                _ => message.skip(key, DEPTH_MAX - 2)?,
            }
        }
        let start = batch.made.len();
        let refs = buffers.refs.get(own..).unwrap_or_default();
        let made = append_labels(self.body, &buffers.symbols, refs, &mut batch.made);
        let labels = batch.made.get(start..).unwrap_or_default();
        let made = made.and_then(|()| utf8(labels));
        buffers.refs.truncate(own);
        if let Err(reason) = made {
            batch.made.truncate(start);
            self.refused += 1;
            let shown = format!("exemplar at byte {at}");
            batch.refused.add(NotAllowed { reason, shown }, 1);
            return Ok(());
        }
        batch.made.push(0x11);
        batch.made.extend_from_slice(&value.to_le_bytes());
        batch.made.push(0x18);
        super::wire::append_varint(&mut batch.made, timestamp);
        self.made(RecordKind::Exemplar, start, batch);
        buffers.has_room(batch, at)
    }

    /// Notes what was just written out as a record.
    fn made(&self, kind: RecordKind, start: usize, batch: &mut Batch) {
        let offset = batch.body_bytes;
        batch.records.push(RecordAt {
            series: SeriesRef::NONE,
            kind,
            bytes: offset + start..offset + batch.made.len(),
        });
    }

    /// Finds the series and gives it what it brought, or refuses both.
    fn store(
        mut self,
        resolve: &mut impl Resolve,
        batch: &mut Batch,
        buffers: &mut Buffers,
    ) -> Result<(), Malformed> {
        let Buffers {
            symbols,
            refs,
            labels,
            ..
        } = &mut *buffers;
        let written = labels.write(self.body, symbols, refs);
        if let Err(reason) = written.and_then(|()| self.check()) {
            let shown = super::labels::shown(buffers.labels.bytes());
            let items = self.brought().count();
            self.refuse(NotAllowed { reason, shown }, items, batch);
            return Ok(());
        }
        if self.brought().is_empty() {
            return Ok(());
        }
        if let Some((series, length)) = resolve.predicted(buffers.labels.bytes())
            && length == buffers.labels.bytes().len()
        {
            let metadata = self.rewrite(batch, buffers)?;
            self.brought().assign(series, batch);
            buffers.repeats.wrote(metadata);
            return Ok(());
        }
        buffers.looked_up += buffers.labels.bytes().len();
        buffers.has_room(batch, self.samples.start)?;
        let items = self.brought().count();
        let metadata = self.rewrite(batch, buffers)?;
        let (labels, brought) = (buffers.labels.bytes(), self.brought());
        let whole = 0..labels.len();
        match resolve.resolve(labels, &[whole], &brought)? {
            Ok(Slot::Known(series)) => brought.assign(series, batch),
            Ok(Slot::New) => {}
            Err(not_allowed) => {
                self.refuse(not_allowed, items, batch);
                return Ok(());
            }
        }
        buffers.repeats.wrote(metadata);
        Ok(())
    }

    /// The rules for what a series may hold.
    fn check(&self) -> Result<(), Reason> {
        if !self.samples.is_empty() && self.histograms > 0 {
            return Err(Reason::SamplesAndHistograms);
        }
        if self.samples.is_empty() && self.records.is_empty() && self.refused == 0 {
            return Err(Reason::NothingInSeries);
        }
        Ok(())
    }

    fn brought(&self) -> Brought {
        Brought {
            samples: self.samples.clone(),
            records: self.records.clone(),
        }
    }

    fn refuse(&self, not_allowed: NotAllowed, items: usize, batch: &mut Batch) {
        batch.refused.add(not_allowed, items);
        batch.samples.truncate(self.samples.start);
        batch.records.truncate(self.records.start);
    }

    /// Gives start timestamps and metadata the form they have in the log. Answers with the key of
    /// the metadata if there is something new.
    fn rewrite(
        &mut self,
        batch: &mut Batch,
        buffers: &mut Buffers,
    ) -> Result<Option<u64>, Malformed> {
        if self.created_ms != 0 {
            self.start_histograms(batch);
        }
        let has_start = self.created_ms != 0 || !buffers.starts.is_empty();
        if !self.samples.is_empty() && (has_start || buffers.has_started()) {
            let hash = hash(buffers.labels.bytes());
            buffers.started.insert(hash);
            self.start_samples(batch, &buffers.starts);
        }
        let mut metadata = None;
        if let Some(described) = &self.described {
            let start = batch.made.len();
            match described.write(self.body, &buffers.symbols, buffers.labels.bytes(), batch) {
                Ok(()) if batch.made.len() == start => {}
                Ok(()) => metadata = buffers.repeats.is_due(batch.made.get(start..)),
                Err(reason) => {
                    let shown = super::labels::shown(buffers.labels.bytes());
                    batch.refused.add(NotAllowed { reason, shown }, 1);
                }
            }
            if metadata.is_some() {
                self.made(RecordKind::Metadata, start, batch);
            } else {
                batch.made.truncate(start);
            }
        }
        self.records.end = batch.records.len();
        buffers.has_room(batch, self.samples.start)?;
        Ok(metadata)
    }

    /// Turns the samples into records that keep the start timestamp.
    fn start_samples(&mut self, batch: &mut Batch, starts: &[i64]) {
        for at in self.samples.clone() {
            let sample = batch.samples[at];
            let own = starts.get(at - self.samples.start).copied();
            let started = StartedSample {
                timestamp_ms: sample.timestamp_ms,
                value_bits: sample.value_bits,
                start_ms: own.filter(|ms| *ms != 0).unwrap_or(self.created_ms),
            };
            let start = batch.made.len();
            batch.made.extend_from_slice(&started.to_bytes());
            self.made(RecordKind::StartedSample, start, batch);
        }
        batch.samples.truncate(self.samples.start);
        self.samples.end = self.samples.start;
    }

    /// Gives histograms without a start timestamp that of their series.
    fn start_histograms(&self, batch: &mut Batch) {
        for at in self.records.clone() {
            let record = &batch.records[at];
            let bytes = self.body.get(record.bytes.clone()).unwrap_or_default();
            if record.kind != RecordKind::Histogram || has_start(bytes) {
                continue;
            }
            let start = batch.made.len();
            batch.made.extend_from_slice(bytes);
            batch.made.extend_from_slice(&START_TAG);
            super::wire::append_varint(&mut batch.made, self.created_ms.cast_unsigned());
            let offset = batch.body_bytes;
            batch.records[at].bytes = offset + start..offset + batch.made.len();
        }
    }
}

impl Buffers {
    /// Whether this label set has samples with a start timestamp in this request.
    fn has_started(&self) -> bool {
        !self.started.is_empty() && self.started.contains(&hash(self.labels.bytes()))
    }

    /// Refuses a request that stands for far more than it is.
    fn has_room(&self, batch: &Batch, offset: usize) -> Result<(), Malformed> {
        if batch.made.len() + self.looked_up <= MADE_BYTES_MAX {
            return Ok(());
        }
        Err(Malformed {
            offset,
            what: "references stand for more than 64 MiB in one request",
        })
    }
}

fn hash(labels: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

/// Whether a histogram message has a start timestamp other than 0.
fn has_start(bytes: &[u8]) -> bool {
    let mut message = Cursor::over(bytes, 0..bytes.len());
    let mut start_ms = 0;
    while !message.is_done() {
        let Ok(key) = message.key() else { break };
        let read = match key.number {
            17 if key.wire == Wire::Varint => message.varint().map(|ms| start_ms = ms),
            _ => message.skip(key, DEPTH_MAX - 2),
        };
        if read.is_err() {
            break;
        }
    }
    start_ms != 0
}

/// Reads label references, packed or one by one. More than a label set may have are not kept, but
/// for one too many.
fn read_refs(message: &mut Cursor<'_>, wire: Wire, refs: &mut Vec<u32>) -> Result<(), Malformed> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf's uint32 of a longer varint"
    )]
    let mut keep = |value: u64| {
        if refs.len() <= LABEL_BYTES_MAX {
            refs.push(value as u32);
        }
    };
    match wire {
        Wire::Bytes => {
            let mut packed = message.message()?;
            while !packed.is_done() {
                keep(packed.varint()?);
            }
        }
        Wire::Varint => keep(message.varint()?),
        _ => return Err(message.malformed("wrong wire type for label references")),
    }
    Ok(())
}

/// Writes out the labels of an exemplar, as `Label` fields in the order they came.
fn append_labels(
    body: &[u8],
    symbols: &Symbols,
    refs: &[u32],
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let start = out.len();
    let (pairs, odd) = refs.as_chunks::<2>();
    if refs.len() > LABEL_BYTES_MAX {
        return Err(Reason::LabelsTooLong);
    }
    for [name, value] in pairs {
        let (Some(name), Some(value)) = (symbols.get(body, *name), symbols.get(body, *value))
        else {
            return Err(Reason::InvalidLabelRefs);
        };
        append_any_label(out, name, value);
        if out.len() - start > LABEL_BYTES_MAX {
            return Err(Reason::LabelsTooLong);
        }
    }
    if odd.is_empty() {
        Ok(())
    } else {
        Err(Reason::InvalidLabelRefs)
    }
}

/// Whether label fields hold nothing but text.
fn utf8(labels: &[u8]) -> Result<(), Reason> {
    match records::check(
        Record::Exemplar,
        Cursor::over(labels, 0..labels.len()),
        DEPTH_MAX - 2,
    ) {
        Ok(true) => Ok(()),
        _ => Err(Reason::InvalidUtf8),
    }
}

/// A `Sample` message of any layout, and its start timestamp.
fn any_sample(mut message: Cursor<'_>) -> Result<(Sample, i64), Malformed> {
    let (mut sample, mut start_ms) = (Sample::default(), 0);
    while !message.is_done() {
        let key = message.key()?;
        match key.number {
            1 => {
                key.expect(Wire::Fixed64)?;
                sample.value_bits = message.fixed64()?;
            }
            2 => {
                key.expect(Wire::Varint)?;
                sample.timestamp_ms = message.varint()?.cast_signed();
            }
            3 => {
                key.expect(Wire::Varint)?;
                start_ms = message.varint()?.cast_signed();
            }
            _ => message.skip(key, DEPTH_MAX - 2)?,
        }
    }
    Ok((sample, start_ms))
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
