//! Turns "where in the log" and "which series" into small ordered numbers of their own type.
//!
//! # Invariants
//! - A [`Position`] counts bytes from the birth of the store: `segment id * segment bytes + offset`.
//!   It only grows and is never reused, also across restarts.
//! - A [`SeriesRef`] names one label set in one store. 0 is [`SeriesRef::NONE`] and names nothing.

use std::fmt;

/// A byte position in the logical log of one store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// The birth of the store.
    pub const ZERO: Self = Self(0);

    /// The position `bytes` bytes after the birth of the store.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes since the birth of the store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Bytes from `earlier` to here; 0 if `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The last place at or before here where a frame may begin.
    #[must_use]
    pub(crate) const fn align_down(self) -> Self {
        Self(self.0 & !7)
    }

    /// The position `bytes` further on.
    #[must_use]
    pub(crate) const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in the log and how much lies before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Mark {
    /// The place: between two frames.
    pub position: Position,
    /// Records of all frames before it, since the birth of the store.
    pub records: u64,
}

/// The small integer that stands for a label set in one store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesRef(u32);

impl SeriesRef {
    /// Names no series.
    pub const NONE: Self = Self(0);

    /// The ref with this number; 0 is [`Self::NONE`].
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether this names no series.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The ref behind this one; behind the last there is none.
    pub(crate) const fn behind(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The number as an index into per-series arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for SeriesRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
