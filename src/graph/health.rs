//! Turns what happened to a component into one state with a reason.

use wal::SystemClock;

/// How a component is, from good to bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum HealthState {
    /// As it should be.
    Healthy,
    /// Not evaluated yet.
    Unknown,
    /// Does not do, or not fully, what it is told.
    Unhealthy,
    /// Does nothing any more.
    Exited,
}

impl HealthState {
    /// Every state, from good to bad.
    pub(crate) const ALL: [Self; 4] = [Self::Healthy, Self::Unknown, Self::Unhealthy, Self::Exited];

    /// Its name for users.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
            Self::Exited => "exited",
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> i64 {
    SystemClock::shared().unix_ms()
}

/// A state, why, and since when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Health {
    pub(crate) state: HealthState,
    pub(crate) message: String,
    /// In milliseconds since the Unix epoch.
    pub(crate) updated_ms: i64,
}

impl Default for Health {
    fn default() -> Self {
        Self::created()
    }
}

impl Health {
    /// In this state from now on.
    pub(crate) fn now(state: HealthState, message: impl Into<String>) -> Self {
        Self {
            state,
            message: message.into(),
            updated_ms: unix_ms(),
        }
    }

    /// Made, not evaluated.
    pub(crate) fn created() -> Self {
        Self::now(HealthState::Unknown, "component created")
    }

    /// The worse of two; of equals the newer.
    pub(crate) fn worse(self, other: Self) -> Self {
        let (a, b) = (
            (self.state, self.updated_ms),
            (other.state, other.updated_ms),
        );
        if a >= b { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_counts_and_of_equals_the_newer() {
        let good = Health::now(HealthState::Healthy, "a");
        let bad = Health::now(HealthState::Unhealthy, "b");
        assert_eq!(good.clone().worse(bad.clone()), bad);
        assert_eq!(bad.clone().worse(good.clone()), bad);
        let newer = Health {
            updated_ms: good.updated_ms + 1000,
            ..Health::now(HealthState::Healthy, "c")
        };
        assert_eq!(newer.clone().worse(good), newer);
    }
}
