//! Turns the strings of one remote-write 2.0 request into numbers.
//!
//! # Invariants
//! - Number 0 is the empty string and number 1 is `__name__`; no string has two numbers.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use labels::wire::{FIELD_4_BYTES, len_u64, put_varint};

/// The number of `__name__`.
pub(super) const METRIC_NAME: u32 = 1;

/// The symbol table of a request, encoded as it is filled.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// The `symbols` fields.
    encoded: Vec<u8>,
    /// Where in them the strings are.
    strings: Vec<(usize, usize)>,
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl Symbols {
    /// Begins a request.
    pub(super) fn clear(&mut self) {
        self.encoded.clear();
        self.strings.clear();
        self.numbers.clear();
        self.append(b"");
        let number = self.number(b"__name__");
        debug_assert_eq!(number, METRIC_NAME);
    }

    /// The fields to put into the request.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The string with this number.
    pub(super) fn string(&self, number: u32) -> &[u8] {
        string(&self.encoded, &self.strings, number)
    }

    /// The number of a string.
    pub(super) fn number(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text);
        let is_it = |number: &u32| string(&self.encoded, &self.strings, *number) == text;
        if let Some(number) = self.numbers.find(hash, is_it) {
            return *number;
        }
        let number = self.append(text);
        let hash_of = |number: &u32| {
            let text = string(&self.encoded, &self.strings, *number);
            self.hasher.hash_one(text)
        };
        self.numbers.insert_unique(hash, number, hash_of);
        number
    }

    fn append(&mut self, text: &[u8]) -> u32 {
        self.encoded.push(FIELD_4_BYTES);
        put_varint(&mut self.encoded, len_u64(text.len()));
        let number = u32::try_from(self.strings.len()).expect("a request is limited far below");
        self.strings.push((self.encoded.len(), text.len()));
        self.encoded.extend_from_slice(text);
        number
    }
}

fn string<'e>(encoded: &'e [u8], strings: &[(usize, usize)], number: u32) -> &'e [u8] {
    let (start, len) = strings[number as usize];
    &encoded[start..start + len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_has_one_number_per_request() {
        let mut symbols = Symbols::default();
        for _ in 0..2 {
            symbols.clear();
            assert_eq!(symbols.number(b""), 0);
            assert_eq!(symbols.number(b"__name__"), METRIC_NAME);
            let many: Vec<_> = (0..1000).map(|at| format!("s{at}")).collect();
            for (number, text) in (2..).zip(&many) {
                assert_eq!(symbols.number(text.as_bytes()), number);
            }
            assert_eq!(symbols.number(b"s7"), 9);
            assert_eq!(symbols.string(9), b"s7");
        }
    }
}
