//! Turns canonical label bytes into labels, one after the other, and into a shard key.
//!
//! # Failure
//! - Bytes in any other form are malformed; the series is then treated as unknown.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::wire::{FIELD_1_BYTES, FIELD_2_BYTES, Fields, Malformed, Value, put_bytes};

/// One label of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The value as the field it is, looked into only when asked for.
    pub value_field: &'a [u8],
}

impl<'a> Label<'a> {
    /// Its value.
    ///
    /// # Errors
    /// The field is no value.
    pub fn value(self) -> Result<&'a [u8], Malformed> {
        match Fields::new(self.value_field).next()? {
            Some((2, Value::Bytes(value))) => Ok(value),
            _ => Err(Malformed),
        }
    }
}

/// Walks the labels of a series.
#[derive(Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Labels<'a> {
    /// Walks these.
    #[must_use]
    pub const fn new(labels: &'a [u8]) -> Self {
        Self { rest: labels }
    }

    /// What comes after the labels walked so far.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next label, or `None` at the end.
    ///
    /// # Errors
    /// The bytes are no canonical labels.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results does not stop at the first error"
    )]
    pub fn next(&mut self) -> Result<Option<Label<'a>>, Malformed> {
        // almost all labels are short; this is what external labels cost per sample
        if let &[
            FIELD_1_BYTES,
            len @ ..0x80,
            FIELD_1_BYTES,
            name_len @ ..0x80,
            ..,
        ] = self.rest
            && let Some((field, rest)) = self.rest.split_at_checked(2 + usize::from(len))
            && let Some(parts) = field.get(4..)
            && let Some((name, value_field)) = parts.split_at_checked(usize::from(name_len))
        {
            self.rest = rest;
            return Ok(Some(Label { name, value_field }));
        }
        self.next_long()
    }

    /// [`Self::next`] for any length, and for what is malformed.
    #[cold]
    fn next_long(&mut self) -> Result<Option<Label<'a>>, Malformed> {
        let mut fields = Fields::new(self.rest);
        let Some(field) = fields.next()? else {
            return Ok(None);
        };
        let (1, Value::Bytes(label)) = field else {
            return Err(Malformed);
        };
        self.rest = fields.rest();
        let mut parts = Fields::new(label);
        let Some((1, Value::Bytes(name))) = parts.next()? else {
            return Err(Malformed);
        };
        Ok(Some(Label {
            name,
            value_field: parts.rest(),
        }))
    }
}

/// The first label: name, value, and how many bytes it takes.
#[must_use]
pub fn first_label(labels: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let mut walk = Labels { rest: labels };
    let label = walk.next().ok()??;
    let value = label.value().ok()?;
    Some((label.name, value, labels.len() - walk.rest.len()))
}

/// Compares the names of the first labels. Bytes that are no label are equal to all.
#[must_use]
pub fn compare_first(a: &[u8], b: &[u8]) -> Ordering {
    match (Labels::new(a).next(), Labels::new(b).next()) {
        (Ok(Some(a)), Ok(Some(b))) => a.name.cmp(b.name),
        _ => Ordering::Equal,
    }
}

/// Calls `found` with the name and the value of every label. False if the bytes end otherwise.
pub fn for_each(labels: &[u8], mut found: impl FnMut(&[u8], &[u8])) -> bool {
    let mut walk = Labels::new(labels);
    loop {
        match walk.next() {
            Ok(Some(label)) => match label.value() {
                Ok(value) => found(label.name, value),
                Err(Malformed) => return false,
            },
            Ok(None) => return true,
            Err(Malformed) => return false,
        }
    }
}

/// Hashes what says which target a series comes from: `job` and `instance`, or all labels when it
/// has neither. Series of one target stay on one shard and so compress well together.
#[must_use]
pub fn target_hash(labels: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut walk = Labels::new(labels);
    let mut found = false;
    while let Ok(Some(label)) = walk.next() {
        // sorted by name, so instance comes first
        if let (b"instance" | b"job", Ok(value)) = (label.name, label.value()) {
            label.name.hash(&mut hasher);
            value.hash(&mut hasher);
            found = true;
        }
    }
    if !found {
        labels.hash(&mut hasher);
    }
    hasher.finish()
}

/// One label as a field of its series.
pub(crate) fn encode_label(name: &str, value: &str) -> Box<[u8]> {
    let mut label = Vec::with_capacity(name.len() + value.len() + 8);
    put_bytes(&mut label, FIELD_1_BYTES, name.as_bytes());
    put_bytes(&mut label, FIELD_2_BYTES, value.as_bytes());
    let mut field = Vec::with_capacity(label.len() + 4);
    put_bytes(&mut field, FIELD_1_BYTES, &label);
    field.into_boxed_slice()
}

/// Canonical bytes of labels that are given sorted by name; for tests and benches.
#[doc(hidden)]
#[must_use]
pub fn canonical(labels: &[(&str, &str)]) -> Vec<u8> {
    debug_assert!(labels.is_sorted_by(|a, b| a.0 < b.0));
    labels
        .iter()
        .flat_map(|(name, value)| encode_label(name, value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_hash_looks_at_job_and_instance_only() {
        let a = canonical(&[("__name__", "up"), ("instance", "i"), ("job", "j")]);
        let b = canonical(&[
            ("__name__", "down"),
            ("instance", "i"),
            ("job", "j"),
            ("x", "y"),
        ]);
        let c = canonical(&[("__name__", "up"), ("instance", "k"), ("job", "j")]);
        assert_eq!(target_hash(&a), target_hash(&b));
        assert_ne!(target_hash(&a), target_hash(&c));
    }

    #[test]
    fn target_hash_of_a_series_without_target_looks_at_everything() {
        let a = canonical(&[("__name__", "up")]);
        let b = canonical(&[("__name__", "down")]);
        assert_ne!(target_hash(&a), target_hash(&b));
    }
}
