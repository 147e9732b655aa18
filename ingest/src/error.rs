//! Says why receiving could not start or stop, one variant per thing a caller does differently.

use std::io;
use std::net::SocketAddr;

/// Why the shards did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens on the address.
    #[error("cannot listen on {address} for {receiver}: the address is already in use")]
    AddressTaken {
        /// The receiver's name.
        receiver: String,
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for {receiver}: {source}")]
    Listen {
        /// The receiver's name.
        receiver: String,
        /// What was asked for.
        address: SocketAddr,
        /// The answer of the system.
        source: io::Error,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Options(String),
    /// Certificates or credentials cannot be used.
    #[error("cannot secure {receiver}: {problem}")]
    Secure {
        /// The receiver's name.
        receiver: String,
        /// What is wrong, without any secret.
        problem: String,
    },
    /// A store gave no writer.
    #[error("cannot write to the log: {0}")]
    Log(#[from] wal::Error),
    /// A thread or its runtime could not be started.
    #[error("cannot start thread {thread}: {source}")]
    Thread {
        /// The thread's name.
        thread: String,
        /// The answer of the system.
        source: io::Error,
    },
    /// A thread panicked: a bug.
    #[error("thread {thread} panicked")]
    Panicked {
        /// The thread's name.
        thread: String,
    },
}

impl Error {
    /// Whether another process has the address.
    #[must_use]
    pub const fn is_address_taken(&self) -> bool {
        matches!(self, Self::AddressTaken { .. })
    }
}
