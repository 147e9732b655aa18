//! Chooses how files are written: io_uring where the kernel lets us, else plain calls on a thread.

/// How the committer reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoEngine {
    /// tokio-uring on the ingest threads.
    Uring,
    /// Blocking calls on one thread per store.
    Portable,
}

impl IoEngine {
    /// The best engine here and, if it is not io_uring, why. Container runtimes commonly forbid
    /// io_uring, and `tokio_uring::start` would panic there.
    #[must_use]
    pub fn probe() -> (Self, Option<String>) {
        match io_uring::IoUring::new(8) {
            Ok(_) => (Self::Uring, None),
            Err(e) => (
                Self::Portable,
                Some(format!("io_uring is not available: {e}")),
            ),
        }
    }

    /// `io_uring` or `portable`, as in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Portable => "portable",
        }
    }
}
