//! Lets async callers wait for the durable watermark.

use tokio::sync::watch;

use crate::error::FullReason;
use crate::{Error, Position};

/// What the committer publishes.
#[derive(Clone, Debug)]
pub(crate) struct DurableState {
    pub(crate) position: Position,
    pub(crate) failure: Option<String>,
    /// The device takes nothing now.
    pub(crate) stalled: bool,
    /// The committer is gone: the position is final.
    pub(crate) ended: bool,
}

impl DurableState {
    pub(crate) const fn at(position: Position) -> Self {
        Self {
            position,
            failure: None,
            stalled: false,
            ended: false,
        }
    }

    fn end(&self) -> Option<Error> {
        let failed = self.failure.clone().map(Error::Poisoned);
        failed.or_else(|| self.ended.then_some(Error::Closed))
    }
}

/// A view of a store's durable watermark.
#[derive(Clone, Debug)]
pub struct Durable {
    state: watch::Receiver<DurableState>,
    ends: watch::Receiver<bool>,
}

impl Durable {
    pub(crate) const fn new(
        state: watch::Receiver<DurableState>,
        ends: watch::Receiver<bool>,
    ) -> Self {
        Self { state, ends }
    }

    /// Everything before this is on the device.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.borrow().position
    }

    /// Waits until everything before `position` is on the device.
    ///
    /// # Errors
    /// [`Error::Full`] if the device takes nothing now, so that the caller can say so instead of
    /// waiting (it may still become durable); [`Error::Poisoned`] or [`Error::Closed`] if that will
    /// not happen any more.
    pub async fn reached(&mut self, position: Position) -> Result<(), Error> {
        let state = self
            .state
            .wait_for(|state| state.position >= position || state.stalled || state.end().is_some())
            .await
            .map_err(|_| Error::Closed)?;
        if state.position >= position {
            return Ok(());
        }
        Err(state.end().unwrap_or(Error::Full {
            reason: FullReason::Device,
        }))
    }

    /// Waits until the watermark is beyond `position`, however long the device takes; answers where it
    /// is.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::Closed`] if that will not happen any more.
    pub async fn changed_past(&mut self, position: Position) -> Result<Position, Error> {
        let state = self
            .state
            .wait_for(|state| state.position > position || state.end().is_some())
            .await
            .map_err(|_| Error::Closed)?;
        if state.position > position {
            return Ok(state.position);
        }
        Err(state.end().unwrap_or(Error::Closed))
    }

    /// Waits until the log has ended; why.
    pub async fn ended(&mut self) -> Error {
        // An error means that the store is gone, which is an end too.
        drop(self.ends.wait_for(|ended| *ended).await);
        self.state.borrow().end().unwrap_or(Error::Closed)
    }
}
