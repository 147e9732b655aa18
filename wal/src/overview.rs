//! Turns the segments of a running store into a list to look at.

use crate::{Position, Store};

/// What a segment is for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentState {
    /// Nothing is appended to it any more.
    Full,
    /// What is appended next goes here.
    Current,
    /// Ready, and empty.
    Prepared,
}

impl SegmentState {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Current => "current",
            Self::Prepared => "prepared",
        }
    }
}

/// A segment file. A segment whose device failed goes on in another file of the same id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    /// Its number.
    pub id: u64,
    /// Where it begins in the log.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// What it is for.
    pub state: SegmentState,
}

impl Store {
    /// Every segment file, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = &self.shared.segments;
        let all = segments.all();
        // Behind the list: a segment that was begun meanwhile is not called empty.
        let current = segments.id_of(self.watermarks().appended);
        let infos = all.iter().enumerate().map(|(at, segment)| {
            let (id, generation) = segment.key();
            let next = all.get(at + 1).map(|next| next.key());
            let goes_on = next.is_some_and(|(next, _)| next == id);
            let state = match id.cmp(&current) {
                std::cmp::Ordering::Equal if !goes_on => SegmentState::Current,
                std::cmp::Ordering::Greater => SegmentState::Prepared,
                _ => SegmentState::Full,
            };
            let ended = all.get(at + 1).and_then(|next| next.previous_end());
            SegmentInfo {
                id,
                from: if generation == 0 {
                    segment.start()
                } else {
                    segment.first()
                },
                to: ended.map_or(segment.end(), |end| end.min(segment.end())),
                state,
            }
        });
        infos.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    #[test]
    fn the_segments_of_a_log_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            segment_bytes: 64 << 10,
            ring_bytes: 64 << 10,
            series_chunk_bytes: 8 << 10,
            manual: true,
            ..StoreOptions::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        store.keep();
        let segments = store.segments();
        let ids: Vec<u64> = segments.iter().map(|segment| segment.id).collect();
        assert_eq!(ids, (0..ids.len() as u64).collect::<Vec<_>>());
        assert_eq!(segments[0].state, SegmentState::Current);
        assert!(segments.len() > 1, "the keeper prepares ahead");
        for pair in segments.windows(2) {
            assert_eq!(pair[0].to, pair[1].from);
            assert_eq!(pair[1].state, SegmentState::Prepared);
        }
        store.close();
    }
}
