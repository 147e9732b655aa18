//! Turns compressed bodies into positions without a socket: the line of one connection, for benches.

use std::sync::mpsc;

use wal::{Position, Store};

use crate::append::{Appender, Context, Incoming, KEPT_BYTES_MAX, Route};
use crate::negotiate::{Encoding, Message};
use crate::options::{Path, ReceiverOptions};
use crate::own_store::{NewStore, OwnStore};
use crate::paths::{PathTo, Paths};
use crate::tap::Tap;

/// The line of one connection without its socket, for benches: compressed bodies to positions.
#[doc(hidden)]
#[derive(Debug)]
pub struct Line {
    appender: Appender,
    paths: Paths,
    route: Route,
    positions: Vec<Position>,
}

/// Ways to stores that nobody else has.
pub(crate) fn paths_to(stores: &[Store], paths: &[Path]) -> Result<Paths, wal::Error> {
    let mut own = Vec::new();
    for (number, store) in (0..).zip(stores) {
        own.push(OwnStore::new(NewStore {
            number,
            store: store.clone(),
            writer: store.writer()?,
            tap: Tap::default(),
            lease: mpsc::sync_channel(0).0,
        }));
    }
    let paths = paths.iter().map(|path| PathTo {
        store: path.store as u64,
        stages: path.stages.clone(),
    });
    Ok(Paths::new(1, &paths.collect::<Vec<_>>(), &own))
}

#[doc(hidden)]
impl Line {
    /// A line of its own to these stores, as the receiver says.
    ///
    /// # Errors
    /// A store has no more writers.
    pub fn new(stores: &[Store], receiver: &ReceiverOptions) -> Result<Self, wal::Error> {
        Ok(Self {
            appender: Appender::default(),
            paths: paths_to(stores, &receiver.paths)?,
            route: Route::default(),
            positions: Vec::new(),
        })
    }

    /// Appends a request compressed by snappy. The positions, one per path, and the number of samples.
    ///
    /// # Errors
    /// Why it was not appended, as text.
    pub fn append(
        &mut self,
        compressed: &[u8],
        message: Message,
    ) -> Result<(&[Position], usize), String> {
        let refused = |refused| format!("{refused:?}");
        let encoding = Encoding::Snappy;
        let request = Incoming {
            compressed,
            claimed: (encoding.claimed_length(compressed, KEPT_BYTES_MAX)).map_err(refused)?,
            message,
            encoding,
            series_max: 0,
            context: Context::default(),
        };
        self.appender
            .append(
                request,
                (&mut self.paths, &mut self.route),
                &mut self.positions,
            )
            .map_err(|failure| format!("{failure:?}"))?;
        let count = self.appender.batch().samples.len();
        self.appender.finish();
        Ok((&self.positions, count))
    }
}
