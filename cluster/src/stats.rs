//! Turns what happens in a cluster into numbers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Numbers that only grow.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
            pub(crate) suspects: AtomicU64,
        }

        /// [`Stats`] at one moment.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Others that do not answer just now; goes up and down.
            pub suspects: u64,
        }

        impl Stats {
            /// All of them now.
            #[must_use]
            pub fn counts(&self) -> Counts {
                Counts {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    suspects: self.suspects.load(Ordering::Relaxed),
                }
            }
        }
    };
}

stats! {
    /// Others that came.
    joined,
    /// Others that went, or were found to be gone.
    left,
    /// Others that have changed their state, restarted or renewed themselves.
    updated,
    /// Changes of state heard of, of those.
    state_changed,
    /// Times two agents had one name, and this one saw it.
    conflicts,
    /// Times this agent was held for gone and renewed itself.
    renewed,
    /// Agents that asked to be let in, and were.
    welcomed,
    /// Agents that let this one in.
    joins,
    /// Messages that could not be understood.
    malformed,
    /// Messages of another cluster.
    foreign,
    /// Messages refused for another reason.
    refused,
    /// Own messages that were refused.
    refused_by_others,
    /// Own changes of state told to the others.
    told,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
