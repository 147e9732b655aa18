//! Turns handshakes and reloads of a listener into numbers that can be read at any time.
//!
//! Counted once per connection; relaxed, as they say nothing about each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a handshake ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// Well.
    Done,
    /// The peer does not speak TLS.
    NotTls,
    /// No version, cipher suite, curve or protocol that both have.
    NothingInCommon,
    /// The client showed no certificate.
    NoCertificate,
    /// The client's certificate is expired, of another CA, or otherwise no good.
    BadCertificate,
    /// The client did not like ours.
    RefusedByPeer,
    /// The peer went away.
    Closed,
    /// It took longer than the read timeout.
    TimedOut,
    /// Anything else.
    Other,
}

impl Handshake {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::NotTls,
        Self::NothingInCommon,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::RefusedByPeer,
        Self::Closed,
        Self::TimedOut,
        Self::Other,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotTls => "not_tls",
            Self::NothingInCommon => "nothing_in_common",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::Other => "other",
        }
    }

    /// Why a handshake failed, by what it failed with.
    pub(super) fn of(error: &std::io::Error) -> Self {
        let inner = error.get_ref();
        let Some(error) = inner.and_then(|error| error.downcast_ref::<rustls::Error>()) else {
            return Self::Closed;
        };
        match error {
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
                Self::NothingInCommon
            }
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(_) => Self::BadCertificate,
            rustls::Error::AlertReceived(_) => Self::RefusedByPeer,
            _ => Self::Other,
        }
    }
}

/// What became of changed certificate files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reload {
    /// They are in use.
    Done,
    /// They cannot be used; those before them are.
    Failed,
}

impl Reload {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Done, Self::Failed];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// The numbers of one listener.
#[derive(Default, Debug)]
pub struct SecureStats {
    handshakes: [AtomicU64; Handshake::ALL.len()],
    reloads: [AtomicU64; Reload::ALL.len()],
}

impl SecureStats {
    pub(super) fn shook_hands(&self, how: Handshake) {
        if let Some(counter) = self.handshakes.get(how as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn reloaded(&self, how: Reload) {
        if let Some(counter) = self.reloads.get(how as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often handshakes ended so.
    #[must_use]
    pub fn handshakes(&self, how: Handshake) -> u64 {
        let counter = self.handshakes.get(how as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// How often changed files ended so.
    #[must_use]
    pub fn reloads(&self, how: Reload) -> u64 {
        let counter = self.reloads.get(how as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_as_itself() {
        let stats = SecureStats::default();
        for (how, count) in Handshake::ALL.into_iter().zip(1..) {
            for _ in 0..count {
                stats.shook_hands(how);
            }
        }
        for (how, count) in Handshake::ALL.into_iter().zip(1..) {
            assert_eq!(stats.handshakes(how), count, "{}", how.as_str());
        }
    }
}
