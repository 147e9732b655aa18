//! Turns a seed into what the protocol draws from.

use std::convert::Infallible;

/// A generator that draws the same numbers for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Up to `count` of these, in any order.
    pub(crate) fn some_of<T>(&mut self, mut all: Vec<T>, count: usize) -> Vec<T> {
        self.0.shuffle(&mut all);
        all.truncate(count);
        all
    }

    /// Another one, for another use.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }
}

impl rand::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.u32(..))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.u64(..))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(into);
        Ok(())
    }
}
