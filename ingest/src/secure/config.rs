//! Turns TLS options and the bytes they name into the settings of connections.
//!
//! # Limits
//! - Sessions that clients may resume: 256 per listener, rustls' default, in memory. They are
//!   forgotten with the settings, so a client that a new CA does not know cannot resume.
//! - No early data (0-RTT), which could be replayed.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{ALL_CIPHER_SUITES, ALL_KX_GROUPS, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use wal::SharedClock;

use super::options::{ClientAuth, InvalidTls, TlsArgument, TlsOptions, TlsVersion};

/// What the files, or the arguments in their place, hold at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Material {
    /// Blocks the thread for small reads.
    pub(super) fn read(options: &TlsOptions) -> Result<Self, InvalidTls> {
        let failed = |argument| move |problem| InvalidTls::new(argument, problem);
        let client_ca = options.client_ca.as_ref();
        Ok(Self {
            cert: options.cert.read().map_err(failed(TlsArgument::Cert))?,
            key: options.key.read().map_err(failed(TlsArgument::Key))?,
            client_ca: client_ca
                .map(|source| source.read().map_err(failed(TlsArgument::ClientCa)))
                .transpose()?,
        })
    }
}

impl TlsOptions {
    /// Whether connections can be made with these options and what their files hold now.
    ///
    /// # Errors
    ///
    /// What cannot be used, and why.
    pub fn check(&self, clock: &SharedClock) -> Result<(), InvalidTls> {
        server_config(self, &Material::read(self)?, clock, false).map(drop)
    }
}

/// The settings of connections. HTTP/2 is offered if `http2`.
pub(super) fn server_config(
    options: &TlsOptions,
    material: &Material,
    clock: &SharedClock,
    http2: bool,
) -> Result<ServerConfig, InvalidTls> {
    let together = |error: rustls::Error| {
        InvalidTls::new(TlsArgument::Together, format!("do not work: {error}"))
    };
    let provider = Arc::new(provider(options));
    let time = Arc::new(Time(Arc::clone(clock)));
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
        .with_protocol_versions(versions(options)?)
        .map_err(together)?;
    let builder = match verifier(options, material, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(&material.cert, TlsArgument::Cert)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|_| InvalidTls::new(TlsArgument::Key, "holds no private key in PEM form"))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let problem = format!("cannot be used with the certificate: {error}");
        InvalidTls::new(TlsArgument::Key, problem)
    })?;
    config.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn versions(
    options: &TlsOptions,
) -> Result<&'static [&'static SupportedProtocolVersion], InvalidTls> {
    const BOTH: &[&SupportedProtocolVersion] = rustls::DEFAULT_VERSIONS;
    const OLDER: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    const NEWER: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match (options.min_version, options.max_version) {
        (TlsVersion::Tls12, TlsVersion::Tls13) => Ok(BOTH),
        (TlsVersion::Tls12, TlsVersion::Tls12) => Ok(OLDER),
        (TlsVersion::Tls13, TlsVersion::Tls13) => Ok(NEWER),
        (TlsVersion::Tls13, TlsVersion::Tls12) => {
            let problem = "leave no version: min_version is newer than max_version";
            Err(InvalidTls::new(TlsArgument::Together, problem))
        }
    }
}

/// ring with what the options leave of it.
fn provider(options: &TlsOptions) -> CryptoProvider {
    let wanted = &options.cipher_suites;
    let is_new = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
    let names_new = ALL_CIPHER_SUITES
        .iter()
        .any(|suite| is_new(suite) && wanted.contains(&suite.suite()));
    let mut provider = default_provider();
    if !wanted.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| wanted.contains(&suite.suite()) || (is_new(suite) && !names_new));
    }
    if !options.curves.is_empty() {
        let wanted = options.curves.iter();
        let found = |name| ALL_KX_GROUPS.iter().find(|group| group.name() == name);
        provider.kx_groups = wanted.filter_map(|name| found(*name).copied()).collect();
    }
    provider
}

/// At least one certificate.
fn certificates(
    pem: &[u8],
    argument: TlsArgument,
) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| InvalidTls::new(argument, "holds no certificate in PEM form"))
}

/// Who looks at the certificates of clients; nobody if they are not asked for any.
fn verifier(
    options: &TlsOptions,
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, InvalidTls> {
    let is_mandatory = match options.client_auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request | ClientAuth::VerifyIfGiven => false,
        ClientAuth::RequireAny | ClientAuth::RequireAndVerify => true,
    };
    if !options.client_auth.verifies() {
        return Ok(Some(Arc::new(Anybody {
            provider: Arc::clone(provider),
            is_mandatory,
        })));
    }
    let bad = |problem: String| InvalidTls::new(TlsArgument::ClientCa, problem);
    let ca = material.client_ca.as_deref();
    let ca = ca.ok_or_else(|| bad("is needed to verify the certificates of clients".into()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, TlsArgument::ClientCa)? {
        let added = roots.add(certificate);
        added.map_err(|error| bad(format!("holds a certificate that is none: {error}")))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if is_mandatory {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    let built = builder.build();
    built
        .map(Some)
        .map_err(|error| bad(format!("cannot be used: {error}")))
}

/// The machine's time, by which certificates are valid or not.
#[derive(Debug)]
struct Time(SharedClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.unix_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// Takes the certificate of anybody who has its key.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
    is_mandatory: bool,
}

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::PemSource;

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    fn options(cert: &str, key: &str) -> TlsOptions {
        let text = |pem: &str| PemSource::Text(pem.into());
        TlsOptions::new(text(cert), text(key))
    }

    fn problem(options: &TlsOptions) -> InvalidTls {
        options.check(&wal::SystemClock::shared()).unwrap_err()
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_shown() {
        let (cert, key) = pair();
        let hidden = "-----BEGIN CERTIFICATE-----\nhunter2\n";
        let verifying = |ca: Option<&str>| TlsOptions {
            client_ca: ca.map(|ca| PemSource::Text(ca.into())),
            client_auth: ClientAuth::RequireAndVerify,
            ..options(&cert, &key)
        };
        for (options, argument) in [
            (options(hidden, &key), TlsArgument::Cert),
            (options("", &key), TlsArgument::Cert),
            (options(&cert, "-----BEGIN hunter2"), TlsArgument::Key),
            (options(&cert, &pair().1), TlsArgument::Key),
            (verifying(None), TlsArgument::ClientCa),
            (verifying(Some(hidden)), TlsArgument::ClientCa),
        ] {
            let found = problem(&options);
            assert_eq!(found.argument, argument, "{found}");
            assert!(!found.to_string().contains("hunter2"), "{found}");
        }
        let good = verifying(Some(&cert));
        assert_eq!(good.check(&wal::SystemClock::shared()), Ok(()));
    }

    #[test]
    fn versions_suites_and_curves_are_those_given() {
        let (cert, key) = pair();
        let mut given = options(&cert, &key);
        given.min_version = TlsVersion::Tls13;
        given.max_version = TlsVersion::Tls12;
        assert_eq!(problem(&given).argument, TlsArgument::Together);
        let old = crate::secure::cipher_suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap();
        let new = crate::secure::cipher_suite("TLS_AES_128_GCM_SHA256").unwrap();
        for (wanted, count) in [
            (vec![], 9),
            (vec![old], 4),
            (vec![new], 1),
            (vec![old, new], 2),
        ] {
            given.cipher_suites = wanted;
            assert_eq!(provider(&given).cipher_suites.len(), count);
        }
        given.curves = vec![crate::secure::curve("CurveP384").unwrap()];
        assert_eq!(provider(&given).kx_groups.len(), 1);
    }
}
