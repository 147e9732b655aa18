//! Turns the body of a request into what each owner gets of it.
//!
//! The key of a series is made of the hashes of its labels, added up: labels in another order are the same series,
//! and remote write 1.0 and 2.0 have the same keys. Each label counts as
//! `XXH3(value, seed = XXH3(name))`; labels without a value do not count, as they are none.
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
use crate::decode::symbols::Symbols;
use crate::decode::wire::{Cursor, DEPTH_MAX, Wire};
use crate::negotiate::Message;

/// Cuts bodies; its memory is reused from body to body.
#[derive(Default, Debug)]
pub struct Splitter {
    symbols: Symbols,
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
                Message::V1 => labels_key(series)?,
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
        let parts = self.parts.iter_mut().map(|(_, part)| part);
        for bytes in parts.chain([&mut self.kept]) {
            bytes.clear();
            bytes.shrink_to(bytes_max);
        }
    }

    /// The key of a series of remote write 2.0. References to symbols that are not there count as nothing: the
    /// series is refused where it is stored.
    fn refs_key(&self, body: &[u8], mut series: Cursor<'_>) -> Result<u64, Malformed> {
        let (mut sum, mut name) = (0_u64, None);
        let mut add = |reference: u64| {
            let number = u32::try_from(reference).unwrap_or(u32::MAX);
            let symbol = self.symbols.get(body, number).unwrap_or_default();
            sum = match name.take() {
                Some(name) => sum.wrapping_add(label_hash(name, symbol)),
                None => {
                    name = Some(symbol);
                    sum
                }
            };
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
        Ok(finished(sum))
    }
}

/// The key of a series of remote write 1.0.
fn labels_key(mut series: Cursor<'_>) -> Result<u64, Malformed> {
    let mut sum = 0_u64;
    while !series.is_done() {
        let key = series.key()?;
        if key.number != 1 {
            series.skip(key, DEPTH_MAX - 1)?;
            continue;
        }
        key.expect(Wire::Bytes)?;
        let mut label = series.message()?;
        let (mut name, mut value): (Range<usize>, Range<usize>) = (0..0, 0..0);
        while !label.is_done() {
            let key = label.key()?;
            match key.number {
                1 | 2 => {
                    key.expect(Wire::Bytes)?;
                    // The last one counts, as in every protobuf message.
                    *(if key.number == 1 {
                        &mut name
                    } else {
                        &mut value
                    }) = label.span()?;
                }
                _ => label.skip(key, DEPTH_MAX - 2)?,
            }
        }
        sum = sum.wrapping_add(label_hash(label.slice(name), label.slice(value)));
    }
    Ok(finished(sum))
}

fn label_hash(name: &[u8], value: &[u8]) -> u64 {
    if value.is_empty() {
        return 0;
    }
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(name), value)
}

/// Sums are even enough, but those of few labels of few values are not far from each other by chance only.
fn finished(sum: u64) -> u64 {
    XxHash3_64::oneshot(&sum.to_le_bytes())
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
