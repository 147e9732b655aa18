//! Turns any bytes into a request that is cut: every series of it is in one part, as it was.

use prost::Message as _;

use super::Splitter;
use crate::negotiate::Message;
use crate::proto::{self, v2};

/// Cuts the bytes after the first, which says into how many parts and as what.
///
/// # Panics
/// What is found in the parts is not what is in the whole.
pub fn nothing_is_lost(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else {
        return;
    };
    let message = if first & 1 == 0 {
        Message::V1
    } else {
        Message::V2
    };
    let owners = usize::from(first >> 1) % 5;
    let mut splitter = Splitter::default();
    let owner = |key: u64| {
        usize::try_from(key % 6)
            .ok()
            .filter(|owner| *owner < owners)
    };
    if splitter.split((message, body), owners, owner).is_err() {
        return;
    }
    // The whole may be malformed where it was not looked at: then so is a part.
    let Some(mut whole) = series(message, body) else {
        return;
    };
    let parts = splitter.parts().map(|(_, part)| part);
    let mut all: Vec<_> = (parts.chain([splitter.kept()]))
        .flat_map(|part| series(message, part).expect("a part of what is well-formed"))
        .collect();
    whole.sort();
    all.sort();
    assert!(whole == all, "what was cut is not what came");
    assert_eq!(splitter.series().0, whole.len());
}

/// The series of a request, written out again.
fn series(message: Message, body: &[u8]) -> Option<Vec<Vec<u8>>> {
    Some(match message {
        Message::V1 => {
            let request = proto::WriteRequest::decode(body).ok()?;
            let series = request.timeseries.iter();
            series.map(|one| one.encode_to_vec()).collect()
        }
        Message::V2 => {
            let request = v2::Request::decode(body).ok()?;
            let series = request.timeseries.iter();
            series.map(|one| one.encode_to_vec()).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_and_requests_with_other_bytes_in_them_are_cut() {
        let mut random = fastrand::Rng::with_seed(1);
        let series = (0..5).map(|n| proto::TimeSeries {
            labels: vec![proto::Label {
                name: "n".to_owned(),
                value: n.to_string(),
            }],
            ..proto::TimeSeries::default()
        });
        let request = proto::WriteRequest {
            timeseries: series.collect(),
            ..proto::WriteRequest::default()
        };
        for _ in 0..20_000 {
            let mut data = vec![random.u8(..)];
            request.encode(&mut data).unwrap();
            for _ in 0..random.usize(..3) {
                let at = random.usize(..data.len());
                data[at] = random.u8(..);
            }
            nothing_is_lost(&data);
        }
    }
}
