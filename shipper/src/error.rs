//! Turns what can keep an endpoint from starting into one type.

/// Why an endpoint does not start. Once started it reports through logs and numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is not valid.
    #[error("endpoint {endpoint}: {option}: {problem}")]
    Option {
        /// The endpoint's name.
        endpoint: String,
        /// The argument.
        option: &'static str,
        /// What is wrong with it; never a secret.
        problem: String,
    },
    /// The HTTP client could not be built.
    #[error("endpoint {endpoint}: http client: {problem}")]
    Client {
        /// The endpoint's name.
        endpoint: String,
        /// What the client says.
        problem: String,
    },
    /// The store does not give the endpoint a position.
    #[error("endpoint {endpoint}: {source}")]
    Store {
        /// The endpoint's name.
        endpoint: String,
        /// What the store says.
        source: wal::Error,
    },
}

impl Error {
    /// Whether the operator has to change the configuration.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Option { .. })
    }
}
