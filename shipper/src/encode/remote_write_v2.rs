//! Turns a batch into a remote-write 2.0 body: `io.prometheus.write.v2.Request`, snappy block format.
//!
//! Neighbouring series share most labels, place by place: a label whose bytes are those of the
//! series before has its numbers too, and only the others are looked up in the symbol table.
//!
//! # Invariants
//! - A `TimeSeries` per run of a series' samples or histograms, never of both. Exemplars go with the
//!   samples of their series where those are in the same part of the batch, else on their own.
//! - Value bits are copied, never computed with: a stale marker is a signalling NaN.
//! - The symbol table is of one request: the bytes of a body depend on its batch and on the metadata
//!   known when it was encoded.
//!
//! # Failure
//! - Records of a series without (readable) labels are left out and counted, and so are records
//!   whose bytes are no message.

use std::mem;
use std::sync::Arc;

use wal::{DropReason, RecordKind, Sample, SeriesRef, StartedSample};

use super::symbols::{METRIC_NAME, Symbols};
use super::{Encoded, LeftOut};
use crate::batch::{Batch, OwnedRecord, Part};
use crate::metadata::MetadataCache;
use crate::stats::Counts;
use labels::first_label;
use labels::wire::{
    FIELD_1_BYTES, FIELD_1_FIXED64, FIELD_1_VARINT, FIELD_2_BYTES, FIELD_2_FIXED64, FIELD_2_VARINT,
    FIELD_3_BYTES, FIELD_3_VARINT, FIELD_4_BYTES, FIELD_4_VARINT, FIELD_5_BYTES, Fields,
    VARINT_BYTES_MAX, Value, len_u64, put_bytes, put_varint, varint_len, write_varint,
};

/// Most bytes the numbers of a label take.
const REFS_BYTES_MAX: usize = 16;

/// The encoder of one shard; keeps its buffers from batch to batch.
pub struct RemoteWriteV2 {
    refs: LabelRefs,
    described: Described,
    /// Everything of a `TimeSeries` behind its labels.
    entry: Vec<u8>,
    exemplars: Exemplars,
    /// The `timeseries` fields.
    series: Vec<u8>,
    message: Vec<u8>,
    compressed: Vec<u8>,
    left_out: Vec<LeftOut>,
    sent: Counts,
    snappy: snap::raw::Encoder,
}

impl std::fmt::Debug for RemoteWriteV2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteWriteV2").finish_non_exhaustive()
    }
}

impl RemoteWriteV2 {
    /// An encoder that adds to every series what is known of its metric.
    #[must_use]
    pub fn new(metadata: Arc<MetadataCache>) -> Self {
        Self {
            refs: LabelRefs::default(),
            described: Described {
                metadata,
                fields: Vec::new(),
                of_name: Vec::new(),
            },
            entry: Vec::new(),
            exemplars: Exemplars::default(),
            series: Vec::new(),
            message: Vec::new(),
            compressed: Vec::new(),
            left_out: Vec::new(),
            sent: Counts::default(),
            snappy: snap::raw::Encoder::new(),
        }
    }

    /// Encodes the records of `batch`; `labels` gives the canonical label bytes to send a series
    /// with, empty if it has none.
    ///
    /// # Errors
    /// If the body is larger than snappy can say (4 GiB).
    pub fn encode<'a>(
        &mut self,
        batch: &Batch,
        labels: impl Fn(SeriesRef) -> &'a [u8],
    ) -> Result<Encoded<'_>, snap::Error> {
        self.series.clear();
        self.left_out.clear();
        self.sent = Counts::default();
        self.refs.clear();
        self.described.clear();
        let mut before: &[u8] = &[];
        for part in batch.parts() {
            self.exemplars.of(part.raw);
            self.put_samples(&part, &labels, &mut before);
            self.put_raw(&part, &labels, &mut before);
        }
        self.message.clear();
        self.message.extend_from_slice(self.refs.symbols.encoded());
        self.message.extend_from_slice(&self.series);
        let compressed_bytes_max = snap::raw::max_compress_len(self.message.len());
        if self.compressed.len() < compressed_bytes_max {
            self.compressed.resize(compressed_bytes_max, 0);
        }
        let bytes = self.snappy.compress(&self.message, &mut self.compressed)?;
        Ok(Encoded {
            body: &self.compressed[..bytes],
            sent: self.sent,
            left_out: &self.left_out,
        })
    }

    /// Puts the plain samples of a part, with the exemplars of their series.
    fn put_samples<'a>(
        &mut self,
        part: &Part<'_>,
        labels: &impl Fn(SeriesRef) -> &'a [u8],
        before: &mut &'a [u8],
    ) {
        let mut at = 0;
        for of_series in part.samples.chunk_by(|a, b| a.series == b.series) {
            let start = at;
            at += of_series.len();
            let series = of_series[0].series;
            if !self.begin(labels(series), before) {
                for (run, samples) in part.runs_of(start..at) {
                    let counts = Counts::of_samples(samples);
                    self.leave_out(run, DropReason::UnknownSeries, counts);
                }
                continue;
            }
            for sample in of_series {
                put_sample(&mut self.entry, *sample);
            }
            self.sent += Counts::of_samples(of_series.len());
            self.put_exemplars_of(series, part.raw);
            self.end();
        }
    }

    /// Puts everything else of a part: neighbours of one series together.
    fn put_raw<'a>(
        &mut self,
        part: &Part<'_>,
        labels: &impl Fn(SeriesRef) -> &'a [u8],
        before: &mut &'a [u8],
    ) {
        let mut at = 0;
        for group in part.raw.chunk_by(|a, b| a.series == b.series) {
            let start = at;
            at += group.len();
            if group
                .iter()
                .all(|record| record.kind == RecordKind::Metadata)
            {
                for record in group {
                    self.described.metadata.learn(&record.bytes);
                }
                continue;
            }
            let bytes = labels(group[0].series);
            for kinds in [Kinds::Samples, Kinds::Histograms, Kinds::Rest] {
                self.put_group(part, start..at, kinds, |this| this.begin(bytes, before));
            }
        }
    }

    /// Puts the records of these kinds, if there are any, with the exemplars among the group.
    fn put_group(
        &mut self,
        part: &Part<'_>,
        group: std::ops::Range<usize>,
        kinds: Kinds,
        begin: impl FnOnce(&mut Self) -> bool,
    ) {
        let raw = part.raw;
        let open = |this: &Self, at: usize| !this.exemplars.is_done(at);
        let is_wanted = |this: &Self, at: usize| kinds.are(raw[at].kind) && open(this, at);
        if !group.clone().any(|at| is_wanted(self, at)) {
            return;
        }
        let is_known = begin(self);
        for at in group {
            let record = &raw[at];
            let is_exemplar = record.kind == RecordKind::Exemplar;
            if !open(self, at) || !(kinds.are(record.kind) || is_exemplar) {
                continue;
            }
            let mut counts = Counts::default();
            counts.add_record(record.kind);
            if !is_known {
                self.leave_out(part.last_run(), DropReason::UnknownSeries, counts);
            } else if self.put_record(record) {
                self.sent += counts;
            } else {
                self.leave_out(part.last_run(), DropReason::CorruptFrame, counts);
            }
            if is_exemplar {
                self.exemplars.done(at, raw.len());
            }
        }
        if is_known && !self.entry.is_empty() {
            self.end();
        }
    }

    /// Puts a record into the entry. False if its bytes are no message.
    fn put_record(&mut self, record: &OwnedRecord) -> bool {
        match record.kind {
            RecordKind::StartedSample => {
                let Some(started) = StartedSample::from_bytes(&record.bytes) else {
                    return false;
                };
                put_started(&mut self.entry, started);
                true
            }
            RecordKind::Histogram => {
                put_bytes(&mut self.entry, FIELD_3_BYTES, &record.bytes);
                true
            }
            RecordKind::Exemplar => {
                put_exemplar(&mut self.entry, &mut self.refs.symbols, &record.bytes)
            }
            RecordKind::Metadata => true,
        }
    }

    /// Puts the exemplars of a series whose samples were just put.
    fn put_exemplars_of(&mut self, series: SeriesRef, raw: &[OwnedRecord]) {
        if self.exemplars.by_series.is_empty() {
            return;
        }
        let first = self
            .exemplars
            .by_series
            .partition_point(|(s, _)| *s < series);
        for number in first..self.exemplars.by_series.len() {
            let (of, at) = self.exemplars.by_series[number];
            if of != series {
                break;
            }
            if !self.exemplars.is_done(at) && self.put_record(&raw[at]) {
                self.exemplars.done(at, raw.len());
                self.sent.exemplars += 1;
            }
        }
    }

    /// Begins a `TimeSeries` of these labels. False if there are none.
    fn begin<'a>(&mut self, labels: &'a [u8], before: &mut &'a [u8]) -> bool {
        self.entry.clear();
        if labels.is_empty() {
            return false;
        }
        let walked = self.refs.walk(labels, before);
        *before = labels;
        walked
    }

    /// Ends a `TimeSeries`: labels, what was put, and what the metric is.
    fn end(&mut self) {
        let described = self.described.field(&mut self.refs);
        let refs = &self.refs.encoded;
        let head = 1 + varint_len(len_u64(refs.len())) + refs.len();
        let bytes = head + self.entry.len() + described.len();
        let out = &mut self.series;
        out.reserve(1 + VARINT_BYTES_MAX + bytes);
        out.push(FIELD_5_BYTES);
        put_varint(out, len_u64(bytes));
        put_bytes(out, FIELD_1_BYTES, refs);
        out.extend_from_slice(&self.entry);
        out.extend_from_slice(described);
    }

    /// Notes records that do not go into the request.
    fn leave_out(&mut self, run: usize, reason: DropReason, counts: Counts) {
        match self.left_out.last_mut() {
            Some(last) if last.run == run && last.reason == reason => last.counts += counts,
            _ => self.left_out.push(LeftOut {
                run,
                reason,
                counts,
            }),
        }
    }
}

/// Which records of a group go into one `TimeSeries`, beside exemplars.
#[derive(Clone, Copy)]
enum Kinds {
    Samples,
    Histograms,
    /// What neither of the two took along.
    Rest,
}

impl Kinds {
    fn are(self, kind: RecordKind) -> bool {
        match self {
            Self::Samples => kind == RecordKind::StartedSample,
            Self::Histograms => kind == RecordKind::Histogram,
            Self::Rest => kind == RecordKind::Exemplar,
        }
    }
}

/// The exemplars of a part and which of them are in the request.
#[derive(Debug, Default)]
struct Exemplars {
    /// Series and place, sorted.
    by_series: Vec<(SeriesRef, usize)>,
    done: Vec<bool>,
}

impl Exemplars {
    fn of(&mut self, raw: &[OwnedRecord]) {
        self.done.clear();
        self.by_series.clear();
        for (at, record) in raw.iter().enumerate() {
            if record.kind == RecordKind::Exemplar {
                self.by_series.push((record.series, at));
            }
        }
        self.by_series.sort_unstable();
    }

    fn is_done(&self, at: usize) -> bool {
        self.done.get(at).is_some_and(|done| *done)
    }

    fn done(&mut self, at: usize, count: usize) {
        self.done.resize(count, false);
        self.done[at] = true;
    }
}

/// A label of the series before: its length there, and its numbers.
#[derive(Debug)]
struct Known {
    len: usize,
    refs: [u8; REFS_BYTES_MAX],
    refs_len: usize,
    name: u32,
    value: u32,
}

impl Known {
    /// Looks a label up; `old` was in its place and most likely has the same name.
    fn new(symbols: &mut Symbols, name: &[u8], value: &[u8], old: Option<&Self>) -> Self {
        let name = match old {
            Some(old) if symbols.string(old.name) == name => old.name,
            _ => symbols.number(name),
        };
        let value = symbols.number(value);
        let mut refs = [0; REFS_BYTES_MAX];
        let len = write_varint(&mut refs, u64::from(name));
        let refs_len = len + write_varint(&mut refs[len..], u64::from(value));
        Self {
            len: 0,
            refs,
            refs_len,
            name,
            value,
        }
    }
}

/// The numbers of a series' labels.
#[derive(Debug, Default)]
struct LabelRefs {
    symbols: Symbols,
    known: Vec<Known>,
    /// As varints: of this series, and of the one before.
    encoded: Vec<u8>,
    encoded_before: Vec<u8>,
    /// The number of the metric name, 0 without one, and its place.
    metric: (u32, usize),
}

impl LabelRefs {
    fn clear(&mut self) {
        self.symbols.clear();
        self.forget();
    }

    fn forget(&mut self) {
        self.known.clear();
        self.encoded.clear();
    }

    /// Finds the numbers of `labels`; `before` are the labels of the last call. False if they are
    /// malformed.
    ///
    /// Behind every label that is another one now, all that follows is compared at once.
    fn walk(&mut self, labels: &[u8], before: &[u8]) -> bool {
        mem::swap(&mut self.encoded, &mut self.encoded_before);
        self.encoded.clear();
        let metric_before = mem::take(&mut self.metric);
        // Where the label in this place is, and was, and were its numbers.
        let (mut place, mut at, mut at_before, mut refs_before) = (0, 0, 0, 0);
        let mut may_be_same = true;
        while at < labels.len() {
            let rest = &labels[at..];
            let old = self.known.get(place);
            if may_be_same && old.is_some() && *rest == before[at_before..] {
                self.encoded
                    .extend_from_slice(&self.encoded_before[refs_before..]);
                if metric_before.1 >= place {
                    self.metric = metric_before;
                }
                return true;
            }
            let old_len = old.map(|old| (old.len, old.refs_len));
            let (len_before, refs_len_before) = old_len.unwrap_or_default();
            may_be_same =
                len_before == 0 || !rest.starts_with(&before[at_before..at_before + len_before]);
            if may_be_same {
                let Some((name, value, len)) = first_label(rest) else {
                    self.forget();
                    return false;
                };
                let mut known = Known::new(&mut self.symbols, name, value, old);
                known.len = len;
                match self.known.get_mut(place) {
                    Some(old) => *old = known,
                    None => self.known.push(known),
                }
            }
            let known = &self.known[place];
            self.encoded
                .extend_from_slice(&known.refs[..known.refs_len]);
            if known.name == METRIC_NAME {
                self.metric = (known.value, place);
            }
            at += known.len;
            at_before += len_before;
            refs_before += refs_len_before;
            place += 1;
        }
        self.known.truncate(place);
        true
    }
}

/// The `metadata` fields of the metrics of a request.
#[derive(Debug)]
struct Described {
    metadata: Arc<MetadataCache>,
    fields: Vec<u8>,
    /// Start and end in `fields` by the number of the metric name; the same where nothing is known.
    of_name: Vec<Option<(usize, usize)>>,
}

impl Described {
    fn clear(&mut self) {
        self.fields.clear();
        self.of_name.clear();
    }

    /// The field for the metric of the series whose labels were walked last.
    fn field(&mut self, refs: &mut LabelRefs) -> &[u8] {
        if refs.metric.0 == 0 || self.metadata.is_empty() {
            return &[];
        }
        let number = refs.metric.0 as usize;
        if self.of_name.len() <= number {
            self.of_name.resize(number + 1, None);
        }
        let (start, end) = match self.of_name[number] {
            Some(known) => known,
            None => {
                let found = self.find(refs);
                self.of_name[number] = Some(found);
                found
            }
        };
        &self.fields[start..end]
    }

    #[cold]
    fn find(&mut self, refs: &mut LabelRefs) -> (usize, usize) {
        let start = self.fields.len();
        let (fields, symbols) = (&mut self.fields, &mut refs.symbols);
        let name = symbols.string(refs.metric.0).to_vec();
        self.metadata.find(&name, |kind, help, unit| {
            let mut message = vec![FIELD_1_VARINT];
            put_varint(&mut message, kind);
            for (tag, text) in [(FIELD_3_VARINT, help), (FIELD_4_VARINT, unit)] {
                message.push(tag);
                put_varint(&mut message, u64::from(symbols.number(text)));
            }
            put_bytes(fields, FIELD_5_BYTES, &message);
        });
        (start, self.fields.len())
    }
}

/// Puts a sample without start timestamp.
fn put_sample(out: &mut Vec<u8>, sample: Sample) {
    // one append of the longest form, then cut: cheaper than four small appends
    let mut field = [0; 12 + VARINT_BYTES_MAX];
    field[0] = FIELD_2_BYTES;
    field[2] = FIELD_1_FIXED64;
    field[3..11].copy_from_slice(&sample.value_bits.to_le_bytes());
    field[11] = FIELD_2_VARINT;
    let len = write_varint(&mut field[12..], sample.timestamp_ms.cast_unsigned());
    // at most 20 bytes, so the length is one byte
    write_varint(&mut field[1..2], len_u64(10 + len));
    out.extend_from_slice(&field[..12 + len]);
}

/// Puts a sample with its start timestamp, if that is set.
fn put_started(out: &mut Vec<u8>, started: StartedSample) {
    let mut message = [0; 11 + 2 * VARINT_BYTES_MAX];
    message[0] = FIELD_1_FIXED64;
    message[1..9].copy_from_slice(&started.value_bits.to_le_bytes());
    message[9] = FIELD_2_VARINT;
    let mut len = 10 + write_varint(&mut message[10..], started.timestamp_ms.cast_unsigned());
    if started.start_ms != 0 {
        message[len] = FIELD_3_VARINT;
        len += 1 + write_varint(&mut message[len + 1..], started.start_ms.cast_unsigned());
    }
    put_bytes(out, FIELD_2_BYTES, &message[..len]);
}

/// Puts an exemplar that is a `prometheus.Exemplar`. False, with nothing put, if it is none.
fn put_exemplar(out: &mut Vec<u8>, symbols: &mut Symbols, bytes: &[u8]) -> bool {
    let mut refs = Vec::new();
    let (mut value, mut timestamp) = (0, 0);
    let mut fields = Fields::new(bytes);
    loop {
        match fields.next() {
            Ok(Some((1, Value::Bytes(label)))) => {
                let Some((name, text)) = label_parts(label) else {
                    return false;
                };
                put_varint(&mut refs, u64::from(symbols.number(name)));
                put_varint(&mut refs, u64::from(symbols.number(text)));
            }
            Ok(Some((2, Value::Fixed64(bits)))) => value = bits,
            Ok(Some((3, Value::Varint(ms)))) => timestamp = ms,
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    let mut message = Vec::with_capacity(refs.len() + 32);
    if !refs.is_empty() {
        put_bytes(&mut message, FIELD_1_BYTES, &refs);
    }
    message.push(FIELD_2_FIXED64);
    message.extend_from_slice(&u64::to_le_bytes(value));
    message.push(FIELD_3_VARINT);
    put_varint(&mut message, timestamp);
    put_bytes(out, FIELD_4_BYTES, &message);
    true
}

/// Name and value of a `Label` message of any layout.
fn label_parts(label: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut name, mut text): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(label);
    while let Some((number, value)) = fields.next().ok()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => text = bytes,
            _ => {}
        }
    }
    Some((name, text))
}

#[cfg(test)]
mod tests;
