//! Turns canonical label bytes into what shipping needs from them: a shard key and merged labels.
//!
//! Labels are never taken apart into strings. Canonical bytes are concatenated
//! `0x0a <len> <Label>` fields, `Label` = `0x0a <len> name 0x12 <len> value`, sorted by name; what
//! comes out of a merge has the same form.
//!
//! # Failure
//! - Bytes in any other form are malformed; the series is then treated as unknown.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::wire::{FIELD_1_BYTES, FIELD_2_BYTES, Fields, Malformed, Value, put_bytes};

/// One label of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Label<'a> {
    pub(crate) name: &'a [u8],
    /// The value as the field it is, looked into only when asked for.
    pub(crate) value_field: &'a [u8],
}

impl<'a> Label<'a> {
    pub(crate) fn value(self) -> Result<&'a [u8], Malformed> {
        match Fields::new(self.value_field).next()? {
            Some((2, Value::Bytes(value))) => Ok(value),
            _ => Err(Malformed),
        }
    }
}

/// Walks the labels of a series.
pub(crate) struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Labels<'a> {
    pub(crate) const fn new(labels: &'a [u8]) -> Self {
        Self { rest: labels }
    }

    /// What comes after the labels walked so far.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next label, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Label<'a>>, Malformed> {
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
pub(crate) fn first_label(labels: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let mut walk = Labels { rest: labels };
    let label = walk.next().ok()??;
    let value = label.value().ok()?;
    Some((label.name, value, labels.len() - walk.rest.len()))
}

/// Compares the names of the first labels. Bytes that are no label are equal to all.
pub(crate) fn compare_first(a: &[u8], b: &[u8]) -> Ordering {
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
pub(crate) fn target_hash(labels: &[u8]) -> u64 {
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

/// A label to add: its name, to find its place, and all of it as a field.
#[derive(Clone, Debug)]
struct ExternalLabel {
    name: Box<[u8]>,
    field: Box<[u8]>,
}

/// Labels that every series of an endpoint gets unless it has a label of that name.
#[derive(Clone, Debug, Default)]
pub struct ExternalLabels {
    /// Sorted by name.
    labels: Vec<ExternalLabel>,
}

impl ExternalLabels {
    /// Encodes them. A label with an empty value is no label and is left out.
    #[must_use]
    pub fn new(labels: &BTreeMap<String, String>) -> Self {
        let present = labels.iter().filter(|(_, value)| !value.is_empty());
        let labels = present.map(|(name, value)| ExternalLabel {
            name: name.as_bytes().into(),
            field: encode_label(name, value),
        });
        Self {
            labels: labels.collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Puts `labels` with the missing external labels into `out`, replacing what it holds.
    pub(crate) fn merge(&self, labels: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.clear();
        let mut walk = Labels::new(labels);
        let mut copied = 0;
        let mut start = 0;
        let mut label = walk.next()?;
        for ExternalLabel { name, field } in &self.labels {
            while let Some(own) = label
                && own.name < &**name
            {
                start = labels.len() - walk.rest.len();
                label = walk.next()?;
            }
            if label.is_some_and(|own| own.name == &**name) {
                continue;
            }
            out.extend_from_slice(&labels[copied..start]);
            out.extend_from_slice(field);
            copied = start;
        }
        out.extend_from_slice(&labels[copied..]);
        Ok(())
    }
}

/// One label as a field of its series.
fn encode_label(name: &str, value: &str) -> Box<[u8]> {
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
    use proptest::prelude::*;

    use super::*;

    fn external(labels: &[(&str, &str)]) -> ExternalLabels {
        ExternalLabels::new(
            &labels
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    fn merged(own: &[(&str, &str)], added: &[(&str, &str)]) -> Vec<u8> {
        let mut out = vec![1, 2, 3];
        external(added).merge(&canonical(own), &mut out).unwrap();
        out
    }

    #[test]
    fn external_labels_are_added_in_sorted_order() {
        assert_eq!(
            merged(
                &[("__name__", "up"), ("job", "a")],
                &[("cluster", "c"), ("zone", "z")]
            ),
            canonical(&[
                ("__name__", "up"),
                ("cluster", "c"),
                ("job", "a"),
                ("zone", "z")
            ])
        );
    }

    #[test]
    fn external_label_does_not_replace_the_series_own() {
        assert_eq!(
            merged(&[("__name__", "up"), ("zone", "own")], &[("zone", "z")]),
            canonical(&[("__name__", "up"), ("zone", "own")])
        );
    }

    #[test]
    fn external_label_with_an_empty_value_is_no_label() {
        assert_eq!(
            merged(&[("a", "b")], &[("zone", "")]),
            canonical(&[("a", "b")])
        );
    }

    #[test]
    fn external_labels_go_before_and_after_everything() {
        assert_eq!(
            merged(&[("m", "1")], &[("a", "1"), ("b", "2"), ("z", "3")]),
            canonical(&[("a", "1"), ("b", "2"), ("m", "1"), ("z", "3")])
        );
    }

    #[test]
    fn malformed_labels_are_reported() {
        let mut out = Vec::new();
        assert_eq!(
            external(&[("z", "1")]).merge(&[0x0a, 9, 1], &mut out),
            Err(Malformed)
        );
    }

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

    proptest! {
        #[test]
        fn merge_behaves_like_a_map(
            own in proptest::collection::btree_map("[a-e]{1,2}", "[a-z]{1,200}", 0..8),
            added in proptest::collection::btree_map("[a-e]{1,2}", "[a-z]{0,3}", 0..8),
        ) {
            let pairs: Vec<_> = own.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let mut expected = own.clone();
            for (name, value) in added.iter().filter(|(_, value)| !value.is_empty()) {
                expected.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let expected: Vec<_> =
                expected.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let mut out = Vec::new();
            prop_assert_eq!(ExternalLabels::new(&added).merge(&canonical(&pairs), &mut out), Ok(()));
            prop_assert_eq!(out, canonical(&expected));
        }

        #[test]
        fn label_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            target_hash(&bytes);
            let mut out = Vec::new();
            if external(&[("a", "b")]).merge(&bytes, &mut out).is_err() {
                prop_assert!(!bytes.is_empty());
            }
        }
    }
}
