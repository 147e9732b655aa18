//! Turns a `tls_config` and the files it names into the settings of connections.
//!
//! # Failure
//! - Messages say which argument or file cannot be used, never what is in it: it may be a key.
//!
//! # Limits
//! - TLS 1.2 is the oldest version spoken, also where `min_version` allows older ones.
//! - `server_name` is what the server's certificate must be for; the name asked for in the
//!   handshake (SNI) stays the url's.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::InvalidOption;
use super::secret::{SecretSource, read_file};

const NEWEST: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum TlsVersion {
    /// TLS 1.0 or newer; as 1.2.
    Tls10,
    /// TLS 1.1 or newer; as 1.2.
    Tls11,
    /// TLS 1.2 or newer.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// A version by the name it has in a configuration, such as `TLS12`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "TLS10" => Some(Self::Tls10),
            "TLS11" => Some(Self::Tls11),
            "TLS12" => Some(Self::Tls12),
            "TLS13" => Some(Self::Tls13),
            _ => None,
        }
    }

    const fn versions(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        match self {
            Self::Tls10 | Self::Tls11 | Self::Tls12 => rustls::DEFAULT_VERSIONS,
            Self::Tls13 => NEWEST,
        }
    }
}

/// The `tls_config` block. Certificates and keys are in PEM form.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsOptions {
    /// The certificates a server's must come from; none: those the machine trusts.
    pub ca: Option<SecretSource>,
    /// The client's certificate, with those between it and its CA.
    pub cert: Option<SecretSource>,
    /// Its private key.
    pub key: Option<SecretSource>,
    /// The name the server's certificate must have; empty: the url's.
    pub server_name: String,
    /// Whether any certificate will do.
    pub insecure_skip_verify: bool,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
}

impl TlsOptions {
    pub(super) fn validate(&self) -> Result<(), InvalidOption> {
        let problem = match (&self.cert, &self.key) {
            (Some(_), None) => {
                "exactly one of key_pem or key_file must be configured when a client certificate \
                 is configured"
            }
            (None, Some(_)) => {
                "exactly one of cert_pem or cert_file must be configured when a client key is \
                 configured"
            }
            _ if !self.server_name.is_empty() && self.name().is_none() => {
                "server_name is neither a host name nor an address"
            }
            _ => return Ok(()),
        };
        Err(InvalidOption::new("tls_config", problem))
    }

    /// Whether anything is in a file and may change.
    pub(super) fn has_files(&self) -> bool {
        let sources = [&self.ca, &self.cert, &self.key];
        sources
            .iter()
            .any(|source| matches!(source, Some(SecretSource::File(_))))
    }

    fn name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.server_name.clone()).ok()
    }
}

/// What the files, or the arguments in their place, hold at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Material {
    pub(super) fn read(options: &TlsOptions) -> Result<Self, String> {
        let read = |source: &Option<SecretSource>| match source {
            None => Ok(None),
            Some(SecretSource::Text(text)) => Ok(Some(text.expose().as_bytes().to_vec())),
            Some(SecretSource::File(path)) => read_file(path).map(Some),
        };
        Ok(Self {
            ca: read(&options.ca)?,
            cert: read(&options.cert)?,
            key: read(&options.key)?,
        })
    }
}

/// What connections of HTTP/1.1 that others make are to be like, as the files are now.
///
/// # Errors
/// What cannot be used, and why.
pub fn client_tls(options: &TlsOptions) -> Result<ClientConfig, String> {
    options
        .validate()
        .map_err(|invalid| format!("{}: {}", invalid.option, invalid.problem))?;
    client_config(options, &Material::read(options)?, false)
}

/// The settings of connections. HTTP/2 is offered if `http2`.
pub(super) fn client_config(
    options: &TlsOptions,
    material: &Material,
    http2: bool,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(options.min_version.versions())
        .map_err(|error| error.to_string())?;
    let builder = if options.insecure_skip_verify || !options.server_name.is_empty() {
        let verifier = Arc::new(Verifier::new(options, material, provider)?);
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(roots(material)?)
    };
    let mut config = match (&material.cert, &material.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|_| "the client key is no private key in PEM form")?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("client certificate and key: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

/// The CA certificates given, else the machine's.
fn roots(material: &Material) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &material.ca {
        for certificate in certificates(ca, "ca")? {
            roots
                .add(certificate)
                .map_err(|error| format!("the ca holds a certificate that is none: {error}"))?;
        }
        return Ok(roots);
    }
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "some of the machine's certificates are not used");
    }
    roots.add_parsable_certificates(native.certs);
    Ok(roots)
}

/// At least one certificate.
fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| format!("the {what} holds no certificate in PEM form"))
}

/// Takes certificates for one name whatever the url's, or any. Signatures are checked always: the
/// server has the key of the certificate it shows.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    wanted: Option<(Arc<WebPkiServerVerifier>, ServerName<'static>)>,
}

impl Verifier {
    fn new(
        options: &TlsOptions,
        material: &Material,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let wanted = match options.name() {
            Some(name) if !options.insecure_skip_verify => {
                let roots = Arc::new(roots(material)?);
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(|error| format!("ca: {error}"))?;
                Some((verifier, name))
            }
            _ => None,
        };
        Ok(Self { provider, wanted })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.wanted {
            Some((verifier, name)) => {
                verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
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

    fn text(pem: &str) -> Option<SecretSource> {
        Some(SecretSource::Text(pem.into()))
    }

    fn config(options: &TlsOptions) -> Result<ClientConfig, String> {
        client_config(options, &Material::read(options).unwrap(), true)
    }

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_no_certificate_or_key_is_named_and_not_shown() {
        let (cert, key) = pair();
        let options = |ca, cert, key| TlsOptions {
            ca,
            cert,
            key,
            ..TlsOptions::default()
        };
        let hidden = "-----BEGIN CERTIFICATE-----\nhunter2\n";
        for (options, expected) in [
            (options(text(hidden), None, None), "the ca holds"),
            (options(text(""), None, None), "the ca holds"),
            (
                options(None, text(hidden), text(&key)),
                "the client certificate holds",
            ),
            (
                options(None, text(&cert), text("-----BEGIN hunter2")),
                "the client key is no",
            ),
            (
                options(None, text(&cert), text(&pair().1)),
                "client certificate and key",
            ),
        ] {
            let problem = config(&options).err().unwrap();
            assert!(problem.contains(expected), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let good = config(&options(text(&cert), text(&cert), text(&key))).unwrap();
        assert_eq!(good.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn certificate_and_key_come_in_pairs_and_a_name_is_a_name() {
        let problem = |cert, key, server_name: &str| {
            let options = TlsOptions {
                cert,
                key,
                server_name: server_name.into(),
                ..TlsOptions::default()
            };
            options.validate().err().map(|invalid| invalid.problem)
        };
        assert!(
            problem(text("a"), None, "")
                .unwrap()
                .contains("key_pem or key_file")
        );
        assert!(
            problem(None, text("a"), "")
                .unwrap()
                .contains("cert_pem or cert_file")
        );
        assert!(problem(None, None, "a b").unwrap().contains("server_name"));
        assert_eq!(problem(text("a"), text("a"), "h"), None);
    }

    #[test]
    fn versions_have_the_names_of_the_reference() {
        for (name, count) in [("TLS10", 2), ("TLS11", 2), ("TLS12", 2), ("TLS13", 1)] {
            assert_eq!(TlsVersion::from_name(name).unwrap().versions().len(), count);
        }
        assert_eq!(TlsVersion::from_name("TLS14"), None);
    }
}
