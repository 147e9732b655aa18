//! Turns the body of a request into what each owner gets of it.
//!
//! The key of a series is XXH3 of its canonical label bytes, whichever protocol and order its labels came in. Nearly
//! all come canonical in 1.0, and are hashed as they are.
//!
//! # Invariants
//! - Every series of the body is in exactly one part, byte for byte, in the order of the body.
//! - Fields that are no series stay with who got them. The symbols of 2.0 go with every part.
//!
//! # Failure
//! - Malformed as far as it is looked at: labels and lengths. The rest is looked at where it is stored.
//!
//! # Limits
//! - A part of a 2.0 request may have all its symbols: together the parts are at most the body as many times as
//!   there are owners.

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::decode::Malformed;
use crate::decode::labels::{LABEL_BYTES_MAX, LABEL_TAG, LabelSet, VALUE_TAG, append_any_label};
use crate::decode::remote_write_v1::FIELDS_MAX;
use crate::decode::symbols::Symbols;
use crate::decode::wire::{Cursor, DEPTH_MAX, Wire};
use crate::negotiate::Message;

/// Cuts bodies; its memory is reused from body to body.
#[derive(Default, Debug)]
pub struct Splitter {
    symbols: Symbols,
    /// The labels of a series of 2.0, the places of those of any, and them in canonical form.
    labels: Vec<u8>,
    fields: Vec<Range<usize>>,
    set: LabelSet,
    canonical: Vec<u8>,
    /// What stays.
    kept: Vec<u8>,
    /// What goes, by owner, and how many series of that.
    parts: Vec<(usize, Vec<u8>)>,
    series: usize,
    series_kept: usize,
}

impl Splitter {
    /// Cuts `body`; `owner` says who of so many owns a key, none: it stays.
    ///
    /// # Errors
    /// The bytes are no such message.
    pub fn split(
        &mut self,
        (message, body): (Message, &[u8]),
        owners: usize,
        mut owner: impl FnMut(u64) -> Option<usize>,
    ) -> Result<(), Malformed> {
        self.begin(owners);
        if message == Message::V2 {
            self.symbols.read(body)?;
        }
        let (series_field, symbol_field) = match message {
            Message::V1 => (1, None),
            Message::V2 => (5, Some(4)),
        };
        let mut request = Cursor::over(body, 0..body.len());
        while !request.is_done() {
            let key = request.key()?;
            if key.number != series_field {
                request.skip(key, DEPTH_MAX)?;
                let field = body.get(key.offset..request.at()).unwrap_or_default();
                self.kept.extend_from_slice(field);
                if symbol_field == Some(key.number) {
                    for (_, part) in &mut self.parts {
                        part.extend_from_slice(field);
                    }
                }
                continue;
            }
            key.expect(Wire::Bytes)?;
            let series = request.message()?;
            let hash = match message {
                Message::V1 => self.labels_key(body, series)?,
                Message::V2 => self.refs_key(body, series)?,
            };
            let field = body.get(key.offset..request.at()).unwrap_or_default();
            self.series += 1;
            match owner(hash).and_then(|owner| self.parts.get_mut(owner)) {
                Some((series, part)) => {
                    *series += 1;
                    part.extend_from_slice(field);
                }
                None => {
                    self.series_kept += 1;
                    self.kept.extend_from_slice(field);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, owners: usize) {
        self.kept.clear();
        self.parts.truncate(owners);
        for (series, part) in &mut self.parts {
            *series = 0;
            part.clear();
        }
        self.parts.resize_with(owners, Default::default);
        (self.series, self.series_kept) = (0, 0);
    }

    /// What stays: everything, or what is not in a part.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// What stays, for an empty buffer to be filled next time.
    pub(crate) fn take_kept(&mut self, empty: &mut Vec<u8>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.kept, empty);
    }

    /// Series of the body, and those of them that stay.
    #[must_use]
    pub const fn series(&self) -> (usize, usize) {
        (self.series, self.series_kept)
    }

    /// What each of the owners gets who has a series in it.
    pub fn parts(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let all = self.parts.iter().enumerate();
        let some = all.filter(|(_, (series, _))| *series > 0);
        some.map(|(owner, (_, part))| (owner, &**part))
    }

    /// Gives memory back after an unusual request.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.symbols.shrink(bytes_max);
        self.fields.clear();
        self.fields.shrink_to(FIELDS_MAX / 8);
        let parts = self.parts.iter_mut().map(|(_, part)| part);
        for bytes in parts.chain([&mut self.kept]) {
            bytes.clear();
            bytes.shrink_to(bytes_max);
        }
    }

    /// The key of a series of remote write 1.0.
    fn labels_key(&mut self, body: &[u8], mut series: Cursor<'_>) -> Result<u64, Malformed> {
        let start = series.at();
        while series.rest().first() == Some(&LABEL_TAG) {
            series.advance(1);
            series.span()?;
        }
        self.fields.clear();
        self.fields.push(start..series.at());
        while !series.is_done() {
            let key = series.key()?;
            if key.number != 1 {
                series.skip(key, DEPTH_MAX - 1)?;
                continue;
            }
            key.expect(Wire::Bytes)?;
            series.span()?;
            if self.fields.len() >= FIELDS_MAX {
                return Err(series.malformed("labels of a series in too many pieces"));
            }
            self.fields.push(key.offset..series.at());
        }
        self.key(body)
    }

    /// The key of a series of remote write 2.0. References to symbols that are not there count as nothing: the
    /// series is refused where it is stored.
    fn refs_key(&mut self, body: &[u8], mut series: Cursor<'_>) -> Result<u64, Malformed> {
        let mut labels = std::mem::take(&mut self.labels);
        labels.clear();
        let (symbols, mut name) = (&self.symbols, None);
        let mut add = |reference: u64| {
            let number = u32::try_from(reference).unwrap_or(u32::MAX);
            let symbol = symbols.get(body, number).unwrap_or_default();
            match name.take() {
                // More than a label set may have is refused, whoever gets it.
                Some(name) if labels.len() <= LABEL_BYTES_MAX => {
                    append_any_label(&mut labels, name, symbol);
                }
                Some(_) => {}
                None => name = Some(symbol),
            }
        };
        while !series.is_done() {
            let key = series.key()?;
            match (key.number, key.wire) {
                (1, Wire::Bytes) => {
                    let mut packed = series.message()?;
                    while !packed.is_done() {
                        add(packed.varint()?);
                    }
                }
                (1, Wire::Varint) => add(series.varint()?),
                _ => series.skip(key, DEPTH_MAX - 1)?,
            }
        }
        self.fields.clear();
        self.fields.push(0..labels.len());
        let key = self.key(&labels);
        self.labels = labels;
        key
    }

    /// The key of the labels in these fields.
    fn key(&mut self, body: &[u8]) -> Result<u64, Malformed> {
        if let [all] = &*self.fields
            && let Some(labels) = body.get(all.clone())
            && are_canonical(labels)
        {
            return Ok(XxHash3_64::oneshot(labels));
        }
        self.set.read(body, &self.fields)?;
        self.canonical.clear();
        // What is not allowed is refused by whoever gets it.
        let allowed = self.set.append_canonical(body, &mut self.canonical);
        Ok(allowed.map_or(0, |()| XxHash3_64::oneshot(&self.canonical)))
    }
}

/// Whether label fields are as canonical ones are; false also for some that are, but unusual.
fn are_canonical(mut fields: &[u8]) -> bool {
    let mut before: &[u8] = &[];
    while let Some((name, value, rest)) = usual_label(fields) {
        // Names are short and differ early: a call costs more than that.
        let is_after = name.iter().gt(before);
        if value.is_empty() || !is_after {
            return false;
        }
        (before, fields) = (name, rest);
    }
    fields.is_empty()
}

/// The name and value of a label of less than 128 bytes, and what comes after.
fn usual_label(fields: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let short = |length: u8| (length < 0x80).then_some(usize::from(length));
    let [LABEL_TAG, length, rest @ ..] = fields else {
        return None;
    };
    let (label, rest) = rest.split_at_checked(short(*length)?)?;
    let [LABEL_TAG, length, label @ ..] = label else {
        return None;
    };
    let (name, value) = label.split_at_checked(short(*length)?)?;
    let [VALUE_TAG, length, value @ ..] = value else {
        return None;
    };
    (short(*length)? == value.len()).then_some((name, value, rest))
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
