//! Turns label bytes into labels that can be changed, and back.
//!
//! # Invariants
//! - Names are sorted and each is there once; no name and no value is empty.
//! - Labels that were not changed are written as the bytes they were read from.

use std::cmp::Ordering;

use crate::walk::Labels;
use crate::wire::{
    FIELD_1_BYTES, FIELD_2_BYTES, Malformed, len_u64, put_bytes, put_varint, varint_len,
};

/// A place in the bytes of a set.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Span,
    value: Span,
    /// All of the label as it was read; empty if it is new.
    field: Span,
}

/// The labels of one series; keeps its memory from series to series.
#[derive(Debug, Default)]
pub(super) struct LabelSet {
    /// The bytes that were read, and behind them every name and value that was set.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    is_changed: bool,
}

impl LabelSet {
    /// Reads the labels of a series, and forgets those it had.
    pub(super) fn read(&mut self, labels: &[u8]) -> Result<(), Malformed> {
        self.is_changed = false;
        self.entries.clear();
        self.bytes.clear();
        self.bytes.extend_from_slice(labels);
        let mut walk = Labels::new(labels);
        let mut start = 0;
        while let Some(label) = walk.next()? {
            let end = labels.len() - walk.rest().len();
            let value = label.value()?;
            let value_at = end - value.len();
            let name_end = end - label.value_field.len();
            if 1 + varint_len(len_u64(value.len())) + value.len() != label.value_field.len() {
                return Err(Malformed);
            }
            let name = Span {
                start: name_end - label.name.len(),
                end: name_end,
            };
            if value.is_empty() || label.name.is_empty() {
                self.is_changed = true;
            } else {
                self.entries.push(Entry {
                    name,
                    value: Span {
                        start: value_at,
                        end,
                    },
                    field: Span { start, end },
                });
            }
            start = end;
        }
        Ok(())
    }

    pub(super) const fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The name of the label at this place.
    pub(super) fn name(&self, at: usize) -> &[u8] {
        self.slice(self.entries[at].name)
    }

    /// The value of the label at this place.
    pub(super) fn value(&self, at: usize) -> &[u8] {
        self.slice(self.entries[at].value)
    }

    /// The value of a label; empty if there is none.
    pub(super) fn get(&self, name: &[u8]) -> &[u8] {
        let is_it = |entry: &&Entry| self.slice(entry.name) == name;
        let found = self.entries.iter().find(is_it);
        found.map_or(&[], |entry| self.slice(entry.value))
    }

    /// Sets a label; an empty value removes it. An empty name changes nothing.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) {
        if name.is_empty() {
            return;
        }
        match self.place(name) {
            Ok(at) if value.is_empty() => {
                self.entries.remove(at);
                self.is_changed = true;
            }
            Ok(at) if self.value(at) == value => {}
            Ok(at) => {
                self.entries[at].value = self.add(value);
                self.entries[at].field = Span { start: 0, end: 0 };
                self.is_changed = true;
            }
            Err(_) if value.is_empty() => {}
            Err(at) => {
                let entry = Entry {
                    name: self.add(name),
                    value: self.add(value),
                    field: Span { start: 0, end: 0 },
                };
                self.entries.insert(at, entry);
                self.is_changed = true;
            }
        }
    }

    /// Keeps the labels with such a name.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&[u8]) -> bool) {
        let before = self.entries.len();
        let bytes = &self.bytes;
        self.entries
            .retain(|entry| is_kept(&bytes[entry.name.start..entry.name.end]));
        self.is_changed |= self.entries.len() != before;
    }

    /// Puts the canonical bytes of the labels into `out`, replacing what it holds.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        for entry in &self.entries {
            let field = self.slice(entry.field);
            if !field.is_empty() {
                out.extend_from_slice(field);
                continue;
            }
            let (name, value) = (self.slice(entry.name), self.slice(entry.value));
            let part = |len: usize| 1 + varint_len(len_u64(len)) + len;
            out.push(FIELD_1_BYTES);
            put_varint(out, len_u64(part(name.len()) + part(value.len())));
            put_bytes(out, FIELD_1_BYTES, name);
            put_bytes(out, FIELD_2_BYTES, value);
        }
    }

    /// Where a label is, or where it would be.
    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        for (at, entry) in self.entries.iter().enumerate() {
            match self.slice(entry.name).cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(at),
                Ordering::Greater => return Err(at),
            }
        }
        Err(self.entries.len())
    }

    fn add(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span {
            start,
            end: self.bytes.len(),
        }
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.end]
    }
}
