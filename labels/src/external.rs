//! Turns label bytes and external labels into both, merged in the order of their names.
//!
//! # Failure
//! - Bytes in another form than the canonical one are malformed.

use std::collections::BTreeMap;

use crate::walk::{Labels, encode_label};
use crate::wire::Malformed;

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

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Puts `labels` with the missing external labels into `out`, replacing what it holds.
    ///
    /// # Errors
    /// The bytes are no canonical labels.
    pub fn merge(&self, labels: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.clear();
        let mut walk = Labels::new(labels);
        let mut copied = 0;
        let mut start = 0;
        let mut label = walk.next()?;
        for ExternalLabel { name, field } in &self.labels {
            while let Some(own) = label
                && own.name < &**name
            {
                start = labels.len() - walk.rest().len();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{canonical, target_hash};

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
            prop_assert_eq!(target_hash(&bytes), target_hash(&bytes));
            let mut out = Vec::new();
            if external(&[("a", "b")]).merge(&bytes, &mut out).is_err() {
                prop_assert!(!bytes.is_empty());
            }
        }
    }
}
