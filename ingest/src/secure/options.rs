//! Turns the names a configuration has for versions, cipher suites and curves into rustls' own.
//!
//! The names are Go's, as in the reference. What rustls does not have is refused by whoever reads
//! the configuration: [`TlsVersion::from_name`], [`cipher_suite`] and [`curve`] know no more.

use rustls::crypto::ring::ALL_CIPHER_SUITES;
use rustls::{CipherSuite, NamedGroup};

use super::pem::PemSource;

/// Go's name of each cipher suite there is.
pub const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Go's name of each curve there is.
pub const CURVES: [&str; 3] = ["X25519", "CurveP256", "CurveP384"];

/// A version of TLS. There are no older ones: rustls has none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// A version by the name it has in a configuration, such as `TLS12`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "TLS12" => Some(Self::Tls12),
            "TLS13" => Some(Self::Tls13),
            _ => None,
        }
    }
}

/// What a client has to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientAuth {
    /// Nothing; it is not asked.
    #[default]
    None,
    /// A certificate if it has one, of anybody.
    Request,
    /// A certificate of anybody.
    RequireAny,
    /// No certificate, or one that comes from the CA.
    VerifyIfGiven,
    /// A certificate that comes from the CA.
    RequireAndVerify,
}

impl ClientAuth {
    /// All names a configuration may use.
    pub const NAMES: [&'static str; 5] = [
        "NoClientCert",
        "RequestClientCert",
        "RequireAnyClientCert",
        "VerifyClientCertIfGiven",
        "RequireAndVerifyClientCert",
    ];

    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::None,
            Self::Request,
            Self::RequireAny,
            Self::VerifyIfGiven,
            Self::RequireAndVerify,
        ];
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        all.get(at).copied()
    }

    /// Whether certificates are looked at, for which a CA is needed.
    #[must_use]
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// The cipher suite of this name. Go knows two of them without their last part, too.
#[must_use]
pub fn cipher_suite(name: &str) -> Option<CipherSuite> {
    let mut known = CIPHER_SUITES
        .iter()
        .filter(|known| **known == name || known.strip_suffix("_SHA256") == Some(name))
        .filter(|known| **known == name || name.ends_with("POLY1305"));
    let own = known.next()?;
    let suites = ALL_CIPHER_SUITES.iter().map(|suite| suite.suite());
    let mut suites = suites.filter(|suite| {
        let named = suite.as_str().unwrap_or_default();
        named == *own || named.replacen("TLS13_", "TLS_", 1) == *own
    });
    suites.next()
}

/// The curve of this name.
#[must_use]
pub fn curve(name: &str) -> Option<NamedGroup> {
    match name {
        "X25519" => Some(NamedGroup::X25519),
        "CurveP256" => Some(NamedGroup::secp256r1),
        "CurveP384" => Some(NamedGroup::secp384r1),
        _ => None,
    }
}

/// How a listener encrypts. Certificates and keys are in PEM form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsOptions {
    /// The certificate, with those between it and its CA.
    pub cert: PemSource,
    /// Its private key.
    pub key: PemSource,
    /// The certificates a client's must come from.
    pub client_ca: Option<PemSource>,
    /// What a client has to show.
    pub client_auth: ClientAuth,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// The newest version spoken.
    pub max_version: TlsVersion,
    /// The cipher suites used; empty: all. Those of TLS 1.3 are limited only where one of them is
    /// named, as Go does not limit them either.
    pub cipher_suites: Vec<CipherSuite>,
    /// The curves used, the preferred one first; empty: all.
    pub curves: Vec<NamedGroup>,
}

impl TlsOptions {
    /// The defaults for this certificate and key: clients show nothing.
    #[must_use]
    pub const fn new(cert: PemSource, key: PemSource) -> Self {
        Self {
            cert,
            key,
            client_ca: None,
            client_auth: ClientAuth::None,
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            curves: Vec::new(),
        }
    }

    /// Whether anything is in a file and may change.
    pub(super) fn has_files(&self) -> bool {
        let sources = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        sources.into_iter().flatten().any(PemSource::is_file)
    }
}

/// Which of the options cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsArgument {
    /// The certificate.
    Cert,
    /// The key.
    Key,
    /// The clients' CA.
    ClientCa,
    /// They do not go together.
    Together,
}

/// What is wrong with the options, without what they hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidTls {
    /// What cannot be used.
    pub argument: TlsArgument,
    /// Why, as the end of a sentence that begins with its name.
    pub problem: String,
}

impl InvalidTls {
    pub(super) fn new(argument: TlsArgument, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { argument, problem }
    }
}

impl std::fmt::Display for InvalidTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.argument {
            TlsArgument::Cert => "the certificate",
            TlsArgument::Key => "the key",
            TlsArgument::ClientCa => "the client CA",
            TlsArgument::Together => "the settings of TLS",
        };
        write!(f, "{what} {}", self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_offered_is_known() {
        for name in CIPHER_SUITES {
            assert!(cipher_suite(name).is_some(), "{name}");
        }
        assert_eq!(CIPHER_SUITES.len(), ALL_CIPHER_SUITES.len());
        for name in CURVES {
            assert!(curve(name).is_some(), "{name}");
        }
        for name in ClientAuth::NAMES {
            assert!(ClientAuth::from_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn names_of_what_there_is_not_are_unknown() {
        for name in ["TLS_RSA_WITH_RC4_128_SHA", "", "TLS_AES_128_GCM"] {
            assert_eq!(cipher_suite(name), None, "{name}");
        }
        let short = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        let long = format!("{short}_SHA256");
        assert_eq!(cipher_suite(short), cipher_suite(&long));
        assert_eq!(curve("CurveP521"), None);
        assert_eq!(TlsVersion::from_name("TLS11"), None);
        assert_eq!(ClientAuth::from_name("Never"), None);
    }
}
