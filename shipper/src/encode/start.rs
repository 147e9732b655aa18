//! Turns a histogram of remote write 2.0 into one of 1.0, which has no start timestamp.

use std::borrow::Cow;

use labels::wire::Fields;

/// The field of a histogram that holds the start timestamp, in remote write 2.0 alone.
const START_FIELD: u64 = 17;

/// A message without the start timestamp that remote write 2.0 gives a histogram; an exemplar has no
/// such field.
pub(super) fn without_start(message: &[u8]) -> Cow<'_, [u8]> {
    let mut fields = Fields::new(message);
    let mut before = message;
    let mut kept: Option<Vec<u8>> = None;
    while let Ok(Some((number, _))) = fields.next() {
        let field = &before[..before.len() - fields.rest().len()];
        if number == START_FIELD {
            kept.get_or_insert_with(|| message[..message.len() - before.len()].to_vec());
        } else if let Some(kept) = &mut kept {
            kept.extend_from_slice(field);
        }
        before = fields.rest();
    }
    kept.map_or(Cow::Borrowed(message), |mut kept| {
        kept.extend_from_slice(before);
        Cow::Owned(kept)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_start_timestamp_is_left_out() {
        let plain = [0x08, 1, 0x78, 5, 0x82, 0x01, 1, b'x'];
        assert!(matches!(without_start(&plain), Cow::Borrowed(same) if same == plain));
        let start = [0x88, 0x01, 9];
        for at in [0, 2, 4, plain.len()] {
            let (before, behind) = plain.split_at(at);
            let twice = [&start, before, &start, behind].concat();
            assert_eq!(*without_start(&twice), plain, "{at}");
        }
    }
}
