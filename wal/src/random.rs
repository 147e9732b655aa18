//! Gives randomness to everything that needs it, so that a test can repeat a run bit by bit.

use std::fmt;
use std::sync::Arc;

/// Where randomness comes from.
pub trait Random: Send + Sync + fmt::Debug {
    /// 64 bits nobody can foresee.
    fn next_u64(&self) -> u64;
}

/// A source of randomness that many own.
pub type SharedRandom = Arc<dyn Random>;

/// The randomness of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        fastrand::u64(..)
    }
}
