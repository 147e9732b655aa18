//! Turns what a listener is told about certificates and credentials into who may speak to it.
//!
//! | file | turns |
//! |---|---|
//! | `options` | the names of a configuration into versions, cipher suites, curves |
//! | `pem` | certificates and keys, or their files, into bytes |
//! | `config` | options and bytes into the settings of connections |
//! | `tls` | a socket into an encrypted one, and changed files into other settings |
//! | `auth` | the credentials of a request into "may" or "may not" |
//! | `stats` | handshakes and reloads into numbers |
//!
//! # Invariants
//! - No error, log line or `Debug` text holds a key, a password or a token.

mod auth;
mod config;
mod options;
mod pem;
mod stats;
mod tls;

pub use auth::{AuthOptions, Guard, TOKENS_MAX};
pub use options::{
    CIPHER_SUITES, CURVES, ClientAuth, InvalidTls, TlsArgument, TlsOptions, TlsVersion,
    cipher_suite, curve,
};
pub use pem::{PemSource, Secret};
pub use stats::{Handshake, Reload, SecureStats};
pub use tls::Tls;
