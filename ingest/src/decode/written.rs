//! Turns the label references of remote write 2.0 into label fields.
//!
//! Series of one target share all labels but a few. What a series has in common with the one before
//! it, at the start and at the end, is copied in two pieces; only what differs is put together from
//! symbols.
//!
//! # Invariants
//! - The bytes are those that writing out every label would give: equal references of one request stand
//!   for equal labels.
//!
//! # Limits
//! - [`LABEL_BYTES_MAX`] of bytes and of references.

use std::mem;

use super::labels::{LABEL_BYTES_MAX, Reason, append_any_label};
use super::symbols::Symbols;

/// Name and value of a label.
type Pair = [u32; 2];

/// The labels of one series, written out.
#[derive(Default, Debug)]
struct Series {
    pairs: Vec<Pair>,
    bytes: Vec<u8>,
    /// Where the field of each pair ends.
    ends: Vec<usize>,
}

impl Series {
    fn clear(&mut self) {
        self.pairs.clear();
        self.bytes.clear();
        self.ends.clear();
    }

    /// Where the field of the label at this place begins.
    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        before.copied().unwrap_or(0)
    }
}

/// The labels of the current series and of the one before; reused from series to series.
#[derive(Default, Debug)]
pub(crate) struct Written {
    current: Series,
    before: Series,
}

impl Written {
    /// Another request begins: its references stand for other symbols.
    pub(crate) fn begin(&mut self) {
        self.current.clear();
        self.before.clear();
    }

    /// The label fields of the current series, in the order its references came; what was written
    /// until it was refused, if it was.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.current.bytes
    }

    /// Writes out the labels of the next series.
    pub(crate) fn write(
        &mut self,
        body: &[u8],
        symbols: &Symbols,
        refs: &[u32],
    ) -> Result<(), Reason> {
        mem::swap(&mut self.current, &mut self.before);
        self.current.clear();
        let (pairs, odd) = refs.as_chunks::<2>();
        let written = self.write_pairs(body, symbols, pairs);
        if written.is_err() {
            // Nothing to be taken over from: it has fewer fields than references.
            self.current.pairs.clear();
            self.current.ends.clear();
            return written;
        }
        if odd.is_empty() {
            Ok(())
        } else {
            Err(Reason::InvalidLabelRefs)
        }
    }

    fn write_pairs(
        &mut self,
        body: &[u8],
        symbols: &Symbols,
        pairs: &[Pair],
    ) -> Result<(), Reason> {
        if pairs.len() * 2 > LABEL_BYTES_MAX {
            return Err(Reason::LabelsTooLong);
        }
        let Self { current, before } = self;
        current.pairs.extend_from_slice(pairs);
        let is_same = |(a, b): &(&Pair, &Pair)| a == b;
        let same_start = pairs.iter().zip(&before.pairs).take_while(is_same).count();
        let left = pairs.len().min(before.pairs.len()) - same_start;
        let from_end = pairs.iter().rev().zip(before.pairs.iter().rev());
        let same_end = from_end.take(left).take_while(is_same).count();

        let copied = before.start(same_start);
        current
            .bytes
            .extend_from_slice(before.bytes.get(..copied).unwrap_or_default());
        current
            .ends
            .extend_from_slice(before.ends.get(..same_start).unwrap_or_default());
        let own = same_start..pairs.len() - same_end;
        for [name, value] in pairs.get(own).unwrap_or_default() {
            let (Some(name), Some(value)) = (symbols.get(body, *name), symbols.get(body, *value))
            else {
                return Err(Reason::InvalidLabelRefs);
            };
            append_any_label(&mut current.bytes, name, value);
            if current.bytes.len() > LABEL_BYTES_MAX {
                return Err(Reason::LabelsTooLong);
            }
            current.ends.push(current.bytes.len());
        }
        if same_end == 0 {
            return Ok(());
        }
        let first = before.pairs.len() - same_end;
        let (from, to) = (before.start(first), current.bytes.len());
        current
            .bytes
            .extend_from_slice(before.bytes.get(from..).unwrap_or_default());
        let ends = before.ends.get(first..).unwrap_or_default();
        current.ends.extend(ends.iter().map(|end| end - from + to));
        if current.bytes.len() > LABEL_BYTES_MAX {
            return Err(Reason::LabelsTooLong);
        }
        Ok(())
    }

    /// Gives memory back after an unusual request.
    pub(crate) fn shrink(&mut self) {
        self.begin();
        for series in [&mut self.current, &mut self.before] {
            series.bytes.shrink_to(LABEL_BYTES_MAX);
            series.pairs.shrink_to(LABEL_BYTES_MAX / size_of::<Pair>());
            series.ends.shrink_to(LABEL_BYTES_MAX / size_of::<usize>());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::v2;

    fn symbols(texts: &[&str]) -> (Vec<u8>, Symbols) {
        let request = v2::Request {
            symbols: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
            timeseries: vec![],
        };
        let (body, mut symbols) = (request.encode_to_vec(), Symbols::default());
        symbols.read(&body).unwrap();
        (body, symbols)
    }

    /// Written out one label after the other.
    fn plain(texts: &[&str], refs: &[u32]) -> Option<Vec<u8>> {
        let text = |number: u32| texts.get(number as usize).map(|text| text.as_bytes());
        let mut out = Vec::new();
        for pair in refs.chunks(2) {
            let (name, value) = (text(pair[0])?, text(*pair.get(1)?)?);
            append_any_label(&mut out, name, value);
        }
        Some(out)
    }

    const TEXTS: [&str; 7] = ["", "__name__", "up", "job", "a", "instance", "i-1"];

    proptest! {
        #[test]
        fn sharing_with_the_series_before_changes_nothing(
            all in proptest::collection::vec(proptest::collection::vec(0..8_u32, 0..9), 1..12),
        ) {
            let (body, symbols) = symbols(&TEXTS);
            let mut written = Written::default();
            for refs in &all {
                match (written.write(&body, &symbols, refs), plain(&TEXTS, refs)) {
                    (Ok(()), Some(want)) => prop_assert_eq!(written.bytes(), &*want),
                    (Err(Reason::InvalidLabelRefs), None) => {}
                    (result, want) => prop_assert!(false, "{result:?} for {want:?}"),
                }
            }
        }
    }

    #[test]
    fn the_references_of_another_request_stand_for_other_symbols() {
        let mut written = Written::default();
        let (body, first) = symbols(&["", "__name__", "up"]);
        written.write(&body, &first, &[1, 2]).unwrap();
        let (body, second) = symbols(&["", "__name__", "down"]);
        written.begin();
        written.write(&body, &second, &[1, 2]).unwrap();
        assert_eq!(
            Some(written.bytes()),
            plain(&["", "__name__", "down"], &[1, 2]).as_deref()
        );
    }

    #[test]
    fn a_series_is_not_longer_than_allowed_however_it_is_put_together() {
        let long = "x".repeat(LABEL_BYTES_MAX / 3);
        let (body, symbols) = symbols(&["", &long]);
        let mut written = Written::default();
        assert_eq!(written.write(&body, &symbols, &[1, 1]), Ok(()));
        for _ in 0..2 {
            let refused = written.write(&body, &symbols, &[1, 1, 1, 1]);
            assert_eq!(refused, Err(Reason::LabelsTooLong));
        }
        assert_eq!(written.write(&body, &symbols, &[1, 1]), Ok(()));
        assert_eq!(
            written.write(&body, &symbols, &[1, 1, 0, 0, 1, 1]),
            Err(Reason::LabelsTooLong)
        );
    }
}
