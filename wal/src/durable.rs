//! Lets async callers wait for the durable watermark.

use tokio::sync::watch;

use crate::{Error, Position};

/// What the committer publishes.
#[derive(Clone, Debug)]
pub(crate) struct DurableState {
    pub(crate) position: Position,
    pub(crate) failure: Option<String>,
    /// The committer is gone: the position is final.
    pub(crate) ended: bool,
}

impl DurableState {
    pub(crate) const fn at(position: Position) -> Self {
        Self {
            position,
            failure: None,
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
}

impl Durable {
    pub(crate) const fn new(state: watch::Receiver<DurableState>) -> Self {
        Self { state }
    }

    /// Everything before this is on the device.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.borrow().position
    }

    /// Waits until everything before `position` is on the device.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::Closed`] if that will not happen any more.
    pub async fn reached(&mut self, position: Position) -> Result<(), Error> {
        self.wait(|durable| durable >= position).await.map(|_| ())
    }

    /// Waits until the watermark is beyond `position`; answers where it is.
    ///
    /// # Errors
    /// [`Error::Poisoned`] or [`Error::Closed`] if that will not happen any more.
    pub async fn changed_past(&mut self, position: Position) -> Result<Position, Error> {
        self.wait(|durable| durable > position).await
    }

    async fn wait(&mut self, enough: impl Fn(Position) -> bool) -> Result<Position, Error> {
        let state = self
            .state
            .wait_for(|state| enough(state.position) || state.end().is_some())
            .await
            .map_err(|_| Error::Closed)?;
        if enough(state.position) {
            Ok(state.position)
        } else {
            Err(state.end().unwrap_or(Error::Closed))
        }
    }
}
