//! Turns the `tls` and `auth` blocks of a listener into how it encrypts and whom it lets in.
//!
//! Arguments, names and exclusions are the reference's; `bearer_tokens` is ours. Read by every
//! component that listens and by the agent's own server.
//!
//! # Failure
//! - What cannot be used is refused where it stands, files included: they are read here once, so
//!   that a wrong path is found before anything starts. A secret is never repeated: problems of
//!   arguments that hold one are reported at their block.

mod texts;

use config::{BodyReader, Secret};
use ingest::secure::{
    AuthOptions, CIPHER_SUITES, CURVES, ClientAuth, Guard, PemSource, TlsArgument, TlsOptions,
    TlsVersion, cipher_suite, curve,
};
use wal::SystemClock;

pub(crate) use texts::{AUTH as AUTH_TEXTS, TLS as TLS_TEXTS};

/// The `tls` block of the block being read.
pub(crate) fn read_tls(r: &mut BodyReader<'_>) -> Option<TlsOptions> {
    r.block("tls", tls).flatten()
}

fn tls(r: &mut BodyReader<'_>) -> Option<TlsOptions> {
    let cert = either(r, "cert_pem", "cert_file");
    let key = either(r, "key_pem", "key_file");
    let client_ca = either(r, "client_ca_pem", "client_ca_file");
    let client_auth = client_auth(r, !matches!(client_ca, Some(None)));
    let min_version = version(r, "min_version", TlsVersion::Tls12);
    let max_version = version(r, "max_version", TlsVersion::Tls13);
    let cipher_suites = named(r, "cipher_suites", &CIPHER_SUITES, cipher_suite);
    let curves = named(r, "curve_preferences", &CURVES, curve);
    let (cert, key, client_ca) = (cert?, key?, client_ca?);
    let missing = match (&cert, &key) {
        (None, _) => Some("exactly one of cert_pem or cert_file must be configured"),
        (_, None) => Some("exactly one of key_pem or key_file must be configured"),
        _ => None,
    };
    if let Some(missing) = missing {
        r.refuse_block(missing);
    }
    let options = TlsOptions {
        client_ca,
        client_auth: client_auth?,
        min_version: min_version?,
        max_version: max_version?,
        cipher_suites: cipher_suites?,
        curves: curves?,
        ..TlsOptions::new(cert?, key?)
    };
    check(r, &options);
    Some(options)
}

/// At most one of the two; nothing at all if that was refused.
fn either(
    r: &mut BodyReader<'_>,
    pem: &'static str,
    file: &'static str,
) -> Option<Option<PemSource>> {
    let text: Option<Secret> = r.optional(pem);
    let path: Option<String> = r.optional(file);
    // as in the reference, an empty text is none
    let text = text.filter(|text| !text.expose().is_empty());
    let path = path.filter(|path| !path.is_empty());
    if text.is_some() && path.is_some() {
        let problem = format!("at most one of {pem} and {file} must be configured");
        r.refuse_block(problem);
        return None;
    }
    let text = text.map(|text| PemSource::Text(text.expose().into()));
    Some(path.map(|path| PemSource::File(path.into())).or(text))
}

fn client_auth(r: &mut BodyReader<'_>, has_ca: bool) -> Option<ClientAuth> {
    const NAME: &str = "client_auth_type";
    let name = r.or(NAME, String::new());
    let policy = match &*name {
        "" => Some(ClientAuth::None),
        name => ClientAuth::from_name(name),
    };
    match policy {
        None => r.refuse(
            NAME,
            format!("must be one of {}", ClientAuth::NAMES.join(", ")),
        ),
        Some(policy) if policy.verifies() && !has_ca => {
            let problem = "needs client_ca_pem or client_ca_file: clients are not compared with \
                           every CA the machine trusts";
            r.refuse(NAME, problem);
            return None;
        }
        Some(ClientAuth::None) if has_ca => {
            let problem = "a client CA is configured, but client_auth_type asks for no \
                           certificate: nobody would be checked";
            r.refuse(NAME, problem);
        }
        Some(_) => {}
    }
    policy
}

fn version(r: &mut BodyReader<'_>, name: &'static str, default: TlsVersion) -> Option<TlsVersion> {
    let given = r.or(name, String::new());
    if given.is_empty() {
        return Some(default);
    }
    let version = TlsVersion::from_name(&given);
    if version.is_none() {
        let problem = match &*given {
            "TLS10" | "TLS11" => {
                "is not supported: rustls does not have it, there are \"TLS12\" and \"TLS13\""
            }
            _ => "must be \"TLS12\" or \"TLS13\"",
        };
        r.refuse(name, problem);
    }
    version
}

/// A list of names that `find` knows.
fn named<T>(
    r: &mut BodyReader<'_>,
    argument: &'static str,
    known: &[&str],
    find: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let names: Vec<String> = r.or(argument, Vec::new());
    let unknown = names.iter().find(|name| find(name).is_none());
    if let Some(name) = unknown {
        let known = known.join(", ");
        r.refuse(
            argument,
            format!("has {name:?}, which rustls does not; it has {known}"),
        );
        return None;
    }
    Some(names.iter().filter_map(|name| find(name)).collect())
}

/// Refuses what the files hold where it cannot be used.
fn check(r: &mut BodyReader<'_>, options: &TlsOptions) {
    if r.is_text_only() {
        return;
    }
    let Err(invalid) = options.check(&SystemClock::shared()) else {
        return;
    };
    let (source, file) = match invalid.argument {
        TlsArgument::Cert => (Some(&options.cert), "cert_file"),
        TlsArgument::Key => (Some(&options.key), "key_file"),
        TlsArgument::ClientCa => (options.client_ca.as_ref(), "client_ca_file"),
        TlsArgument::Together => (None, ""),
    };
    match source {
        Some(PemSource::File(_)) => r.refuse(file, invalid.problem),
        _ => r.refuse_block(invalid.to_string()),
    }
}

/// The `basic` block and the tokens of an `auth` block.
pub(crate) fn read_auth(r: &mut BodyReader<'_>) -> AuthOptions {
    let mut is_whole = true;
    let basic = r.block("basic", |r| {
        is_whole = r.has_attribute("username") && r.has_attribute("password");
        let username: String = r.required("username");
        let password: Secret = r.required("password");
        if username.contains(':') {
            r.refuse("username", "must not have a colon, which ends it");
        }
        (username, password.expose().into())
    });
    let tokens: Vec<Secret> = r.or("bearer_tokens", Vec::new());
    let options = AuthOptions {
        basic,
        bearer_tokens: tokens.iter().map(|token| token.expose().into()).collect(),
    };
    // What is missing was reported; this would be about its stand-in.
    if is_whole && let Err(problem) = Guard::new(&options) {
        r.refuse_block(format!("auth {problem}"));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<Option<TlsOptions>, String> {
        decoded(&format!("c {{\ntls {{\n{body}\n}}\n}}\n"), read_tls)
    }

    fn auth(body: &str) -> Result<AuthOptions, String> {
        decoded(&format!("c {{\n{body}\n}}\n"), read_auth)
    }

    struct Files {
        _dir: tempfile::TempDir,
        cert: String,
        key: String,
    }

    fn files() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        let path = |name: &str, pem: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        Files {
            cert: path("cert", pair.cert.pem()),
            key: path("key", pair.signing_key.serialize_pem()),
            _dir: dir,
        }
    }

    #[test]
    fn everything_is_read() {
        let Files { cert, key, _dir } = &files();
        let pair = format!("cert_file = {cert:?}\nkey_file = {key:?}\n");
        let file = |path: &str| PemSource::File(path.into());
        let defaults = TlsOptions::new(file(cert), file(key));
        assert_eq!(load(&pair).unwrap(), Some(defaults.clone()));
        let all = format!(
            "{pair}client_ca_file = {cert:?}\nclient_auth_type = \"RequireAndVerifyClientCert\"\n\
             min_version = \"TLS13\"\nmax_version = \"TLS13\"\n\
             cipher_suites = [\"TLS_AES_128_GCM_SHA256\"]\ncurve_preferences = [\"CurveP256\"]\n"
        );
        let expected = TlsOptions {
            client_ca: Some(file(cert)),
            client_auth: ClientAuth::RequireAndVerify,
            min_version: TlsVersion::Tls13,
            cipher_suites: vec![cipher_suite("TLS_AES_128_GCM_SHA256").unwrap()],
            curves: vec![curve("CurveP256").unwrap()],
            ..defaults
        };
        assert_eq!(load(&all).unwrap(), Some(expected));
        let pem = std::fs::read_to_string(cert).unwrap();
        let text = format!("cert_pem = {pem:?}\nkey_file = {key:?}\n");
        assert!(matches!(
            load(&text),
            Ok(Some(TlsOptions {
                cert: PemSource::Text(_),
                ..
            }))
        ));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let Files { cert, key, _dir } = &files();
        let pair = format!("cert_file = {cert:?}\nkey_file = {key:?}\n");
        for (body, expected) in [
            ("", "a:2:1: exactly one of cert_pem or cert_file must"),
            (
                "cert_file = \"x\"",
                "a:2:1: exactly one of key_pem or key_file must",
            ),
            (
                "cert_file = \"x\"\ncert_pem = \"y\"\nkey_file = \"z\"",
                "a:2:1: at most one of cert_pem and cert_file must be configured",
            ),
            (
                &format!("cert_file = \"/nowhere\"\nkey_file = {key:?}"),
                "a:3:13: \"/nowhere\" cannot be read: No such file",
            ),
            (
                &format!("cert_file = {cert:?}\nkey_file = {cert:?}"),
                "holds no private key in PEM form",
            ),
            (
                &format!("{pair}min_version = \"TLS11\""),
                "a:5:15: \"TLS11\" is not supported: rustls does not have it",
            ),
            (
                &format!("{pair}max_version = \"TLS10\""),
                "a:5:15: \"TLS10\" is not supported: rustls does not have it",
            ),
            (
                &format!("{pair}min_version = \"SSL3\""),
                "\"SSL3\" must be \"TLS12\" or",
            ),
            (
                &format!("{pair}min_version = \"TLS13\"\nmax_version = \"TLS12\""),
                "min_version is newer than max_version",
            ),
            (
                &format!("{pair}cipher_suites = [\"TLS_RSA_WITH_RC4_128_SHA\"]"),
                "has \"TLS_RSA_WITH_RC4_128_SHA\", which rustls does not; it has TLS_AES",
            ),
            (
                &format!("{pair}curve_preferences = [\"X25519\", \"CurveP521\"]"),
                "has \"CurveP521\", which rustls does not; it has X25519, CurveP256, CurveP384",
            ),
            (
                &format!("{pair}client_auth_type = \"Always\""),
                "\"Always\" must be one of NoClientCert, RequestClientCert",
            ),
            (
                &format!("{pair}client_auth_type = \"VerifyClientCertIfGiven\""),
                "a:5:20: \"VerifyClientCertIfGiven\" needs client_ca_pem or client_ca_file",
            ),
            (
                &format!("{pair}client_ca_file = {cert:?}"),
                "asks for no certificate: nobody would be checked",
            ),
            (
                &format!(
                    "{pair}client_ca_file = {key:?}\nclient_auth_type = \"VerifyClientCertIfGiven\""
                ),
                "a:5:18: ",
            ),
        ] {
            let message = load(body).unwrap_err();
            assert!(message.contains(expected), "{body}: {message}");
            assert_eq!(message.lines().count(), 1, "{body}: {message}");
        }
    }

    #[test]
    fn credentials_are_read() {
        let both = auth(
            "basic {\n username = \"u\"\n password = \"p\"\n}\nbearer_tokens = [\"a\", \"b\"]",
        );
        let expected = AuthOptions {
            basic: Some(("u".into(), "p".into())),
            bearer_tokens: vec!["a".into(), "b".into()],
        };
        assert_eq!(both.unwrap(), expected);
        for (body, expected) in [
            ("", "a:1:1: auth needs a basic block or bearer_tokens"),
            (
                "basic {\n username = \"u\"\n}",
                "missing required attribute \"password\"",
            ),
            (
                "bearer_tokens = [\"\"]",
                "auth has an empty one among its bearer_tokens",
            ),
            (
                "basic {\n username = \"u:v\"\n password = \"p\"\n}",
                "\"u:v\" must not have a colon",
            ),
        ] {
            let message = auth(body).unwrap_err();
            assert!(message.contains(expected), "{body}: {message}");
        }
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let Files { cert, .. } = &files();
        let message = load(&format!("cert_file = {cert:?}\nkey_pem = \"hunter2\"")).unwrap_err();
        assert!(
            message.contains("the key holds no private key"),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
}
