//! Turns the HTTP client arguments of a block into the shipper's options.
//!
//! Every component that is an HTTP client has these arguments, named and excluding each other as in
//! the reference; a component reads them with [`read`] from the block they stand in.
//!
//! # Failure
//! - What cannot be used is refused where it stands. A secret is never repeated: problems of
//!   arguments that hold one are reported at their block.

mod texts;

use std::collections::BTreeMap;

use config::{BodyReader, Secret};
use shipper::{
    Auth, HttpOptions, OAuth2Options, ProxyOptions, SecretSource, SigV4Options, TlsOptions,
    TlsVersion,
};

pub(crate) use texts::{
    BASIC as BASIC_TEXTS, CLIENT as CLIENT_TEXTS, CLOUDS as CLOUD_TEXTS, PROXY as PROXY_TEXTS,
    TLS as TLS_TEXTS,
};

/// The arguments in the block being read. `defaults` are those of the component; with `clouds` the
/// forms of auth that only endpoints of `prometheus.remote_write` have are taken too.
pub(crate) fn read(r: &mut BodyReader<'_>, defaults: &HttpOptions, clouds: bool) -> HttpOptions {
    let mut options = HttpOptions {
        auth: read_auth(r, clouds),
        headers: secrets(r.or("http_headers", BTreeMap::new())),
        tls: r.block("tls_config", read_tls).unwrap_or_default(),
        proxy: read_proxy(r),
        enable_http2: r.or("enable_http2", defaults.enable_http2),
        follow_redirects: r.or("follow_redirects", defaults.follow_redirects),
        round_robin_dns: defaults.round_robin_dns,
    };
    if let Err(invalid) = options.validate() {
        match invalid.option {
            "proxy_from_environment" | "no_proxy" => r.refuse(invalid.option, invalid.problem),
            "proxy_url" | "http_headers" | "proxy_connect_header" => {
                r.refuse_block(format!("{} {}", invalid.option, invalid.problem));
            }
            _ => r.refuse_block(invalid.problem),
        }
        // reported once: what is left is not to be used, nor to be complained about again
        options = HttpOptions::default();
    }
    options
}

fn read_auth(r: &mut BodyReader<'_>, clouds: bool) -> Auth {
    let basic = r.block("basic_auth", read_basic);
    let authorization = r.block("authorization", read_authorization);
    let oauth2 = r.block("oauth2", read_oauth2);
    let token: Option<Secret> = r.optional("bearer_token");
    let file: Option<String> = r.optional("bearer_token_file");
    if token.is_some() && file.is_some() {
        r.refuse_block("at most one of bearer_token & bearer_token_file must be configured");
    }
    let bearer = (token.is_some() || file.is_some()).then(|| Auth::bearer(source(token, file)));
    let clouds = if clouds { read_clouds(r) } else { Vec::new() };
    let forms = [&basic, &authorization, &oauth2, &bearer];
    let given = forms.iter().filter(|form| form.is_some()).count();
    if given + clouds.len() > 1 {
        let problem = if !clouds.is_empty() {
            "at most one of sigv4, azuread, google_iam, basic_auth, oauth2, bearer_token & \
             bearer_token_file must be configured"
        } else if authorization.is_some() && bearer.is_some() {
            "authorization is not compatible with bearer_token & bearer_token_file"
        } else if bearer.is_some() {
            "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured"
        } else {
            "at most one of basic_auth, oauth2 & authorization must be configured"
        };
        r.refuse_block(problem);
    }
    let forms = [basic, authorization, oauth2, bearer].into_iter().flatten();
    forms.chain(clouds).next().unwrap_or_default()
}

/// The forms given, one entry each. Those that are not supported are refused.
fn read_clouds(r: &mut BodyReader<'_>) -> Vec<Auth> {
    let mut found: Vec<Auth> = r.block("sigv4", read_sigv4).into_iter().collect();
    for name in ["azuread", "google_iam"] {
        let is_there = r.block(name, |r| {
            r.refuse_block(format!("{name} is not supported"));
            ignore_body(r);
        });
        found.extend(is_there.map(|()| Auth::None));
    }
    found
}

/// Takes what a block that is refused may hold, so that only the refusal is reported.
fn ignore_body(r: &mut BodyReader<'_>) {
    for name in ["cloud", "scope", "credentials_file"] {
        r.optional::<String>(name);
    }
    let arguments = ["client_id", "tenant_id", "token_file_path"];
    for name in ["managed_identity", "oauth", "sdk", "workload_identity"] {
        r.block(name, |r| {
            for name in arguments {
                r.optional::<String>(name);
            }
            r.optional::<Secret>("client_secret");
        });
    }
}

pub(crate) fn read_basic(r: &mut BodyReader<'_>) -> Auth {
    let username = r.or("username", String::new());
    let password = r.optional("password");
    let file = r.optional("password_file");
    if password.is_some() && file.is_some() {
        r.refuse_block("at most one of basic_auth password & password_file must be configured");
    }
    Auth::Basic {
        username,
        password: source(password, file),
    }
}

fn read_authorization(r: &mut BodyReader<'_>) -> Auth {
    let scheme = r.or("type", String::new()).trim().to_owned();
    let credentials = r.optional("credentials");
    let file = r.optional("credentials_file");
    if credentials.is_some() && file.is_some() {
        r.refuse_block(
            "at most one of authorization credentials & credentials_file must be configured",
        );
    }
    let credentials = source(credentials, file);
    if scheme.is_empty() {
        return Auth::bearer(credentials);
    }
    Auth::Authorization {
        scheme,
        credentials,
    }
}

fn read_oauth2(r: &mut BodyReader<'_>) -> Auth {
    let client_id = r.or("client_id", String::new());
    let secret = r.optional("client_secret");
    let file = r.optional("client_secret_file");
    if secret.is_some() && file.is_some() {
        r.refuse_block(
            "at most one of oauth2 client_secret & client_secret_file must be configured",
        );
    }
    let endpoint_params: BTreeMap<String, Secret> = r.or("endpoint_params", BTreeMap::new());
    let endpoint_params = endpoint_params.into_iter();
    Auth::OAuth2(Box::new(OAuth2Options {
        client_id,
        client_secret: source(secret, file),
        scopes: r.or("scopes", Vec::new()),
        token_url: r.or("token_url", String::new()).into(),
        endpoint_params: endpoint_params
            .map(|(name, value)| (name, value.expose().into()))
            .collect(),
        tls: r.block("tls_config", read_tls).unwrap_or_default(),
        proxy: read_proxy(r),
    }))
}

fn read_sigv4(r: &mut BodyReader<'_>) -> Auth {
    for name in ["role_arn", "external_id"] {
        if !r.or(name, String::new()).is_empty() {
            r.refuse(
                name,
                "is not supported: no role is assumed, give keys or a profile",
            );
        }
    }
    if r.or("use_fips_sts_endpoint", false) {
        let problem = "is not supported: the token service (STS) is not used";
        r.refuse("use_fips_sts_endpoint", problem);
    }
    let defaults = SigV4Options::default();
    Auth::SigV4(SigV4Options {
        region: r.or("region", defaults.region),
        access_key: r.or("access_key", defaults.access_key),
        secret_key: r.or("secret_key", Secret::default()).expose().into(),
        profile: r.or("profile", defaults.profile),
        service_name: r.or("service_name", defaults.service_name),
    })
}

fn read_tls(r: &mut BodyReader<'_>) -> TlsOptions {
    let mut either = |pem: &'static str, file: &'static str| {
        let text: Option<Secret> = r.optional(pem);
        let path: Option<String> = r.optional(file);
        // as in the reference, an empty text is none
        let text = text.filter(|text| !text.expose().is_empty());
        let path = path.filter(|path| !path.is_empty());
        if text.is_some() && path.is_some() {
            r.refuse_block(format!(
                "at most one of {pem} and {file} must be configured"
            ));
        }
        (text.is_some() || path.is_some()).then(|| source(text, path))
    };
    let ca = either("ca_pem", "ca_file");
    let cert = either("cert_pem", "cert_file");
    let key = either("key_pem", "key_file");
    let min_version = match &*r.or("min_version", String::new()) {
        "" => TlsVersion::default(),
        name => TlsVersion::from_name(name).unwrap_or_else(|| {
            let problem = "must be \"TLS10\", \"TLS11\", \"TLS12\" or \"TLS13\"";
            r.refuse("min_version", problem);
            TlsVersion::default()
        }),
    };
    TlsOptions {
        ca,
        cert,
        key,
        server_name: r.or("server_name", String::new()),
        insecure_skip_verify: r.or("insecure_skip_verify", false),
        min_version,
    }
}

fn read_proxy(r: &mut BodyReader<'_>) -> ProxyOptions {
    let url = r.or("proxy_url", String::new());
    ProxyOptions {
        proxy_url: (!url.is_empty()).then(|| url.into()),
        no_proxy: r.or("no_proxy", String::new()),
        from_environment: r.or("proxy_from_environment", false),
        connect_headers: secrets(r.or("proxy_connect_header", BTreeMap::new())),
    }
}

/// A file where one is given, else the text.
fn source(text: Option<Secret>, file: Option<String>) -> SecretSource {
    match file {
        Some(path) => SecretSource::File(path.into()),
        None => SecretSource::Text(text.unwrap_or_default().expose().into()),
    }
}

fn secrets(headers: BTreeMap<String, Vec<Secret>>) -> BTreeMap<String, Vec<shipper::Secret>> {
    let reveal = |values: Vec<Secret>| values.iter().map(|value| value.expose().into()).collect();
    let headers = headers.into_iter();
    headers
        .map(|(name, values)| (name, reveal(values)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<HttpOptions, String> {
        let read = |r: &mut BodyReader<'_>| read(r, &HttpOptions::default(), true);
        decoded(&format!("c {{\n{body}\n}}\n"), read)
    }

    fn text(secret: &str) -> SecretSource {
        SecretSource::Text(secret.into())
    }

    #[test]
    fn nothing_given_gives_the_defaults() {
        assert_eq!(load("").unwrap(), HttpOptions::default());
    }

    #[test]
    fn every_form_of_auth_is_read() {
        let form = |body: &str| load(body).unwrap().auth;
        let file = |path: &str| SecretSource::File(path.into());
        assert_eq!(form("bearer_token = \"t\""), Auth::bearer(text("t")));
        assert_eq!(form("bearer_token_file = \"/t\""), Auth::bearer(file("/t")));
        let body = "basic_auth {\n username = \"u\"\n password_file = \"/p\"\n}";
        let password = file("/p");
        let username = "u".to_owned();
        assert_eq!(form(body), Auth::Basic { username, password });
        let body = "authorization {\n credentials = \"c\"\n}";
        assert_eq!(form(body), Auth::bearer(text("c")));
        let body = "authorization {\n type = \"Api\"\n credentials_file = \"/c\"\n}";
        let scheme = "Api".to_owned();
        let credentials = file("/c");
        assert_eq!(
            form(body),
            Auth::Authorization {
                scheme,
                credentials
            }
        );
        let body = "sigv4 {\n region = \"r\"\n access_key = \"a\"\n secret_key = \"s\"\n}";
        let expected = SigV4Options {
            region: "r".into(),
            access_key: "a".into(),
            secret_key: "s".into(),
            ..SigV4Options::default()
        };
        assert_eq!(form(body), Auth::SigV4(expected));
    }

    #[test]
    fn oauth2_has_connections_of_its_own() {
        let body = "oauth2 {\n client_id = \"id\"\n client_secret = \"s\"\n token_url = \"https://t/\"\n \
             scopes = [\"a\", \"b\"]\n endpoint_params = {\"audience\" = \"x\"}\n proxy_url = \"http://p\"\n \
             tls_config {\n insecure_skip_verify = true\n }\n}";
        let Auth::OAuth2(options) = load(body).unwrap().auth else {
            panic!("not oauth2");
        };
        assert_eq!(
            (&*options.client_id, options.token_url.expose()),
            ("id", "https://t/")
        );
        assert_eq!(options.client_secret, text("s"));
        assert_eq!(options.scopes, ["a", "b"]);
        assert_eq!(options.endpoint_params["audience"].expose(), "x");
        assert_eq!(options.proxy.proxy_url.unwrap().expose(), "http://p");
        assert!(options.tls.insecure_skip_verify);
    }

    #[test]
    fn the_connection_is_read() {
        let options = load(
            "enable_http2 = false\nfollow_redirects = false\nproxy_url = \"http://u:p@p:1\"\n\
             no_proxy = \"a\"\nproxy_connect_header = {\"X\" = [\"1\", \"2\"]}\n\
             http_headers = {\"Y\" = [\"3\"]}\n\
             tls_config {\n ca_file = \"/ca\"\n cert_pem = \"c\"\n key_pem = \"k\"\n \
             server_name = \"h\"\n min_version = \"TLS13\"\n}",
        )
        .unwrap();
        assert!(!options.enable_http2 && !options.follow_redirects);
        assert_eq!(options.proxy.no_proxy, "a");
        assert_eq!(options.proxy.connect_headers["X"].len(), 2);
        assert_eq!(options.headers["Y"], ["3".into()]);
        let expected = TlsOptions {
            ca: Some(SecretSource::File("/ca".into())),
            cert: Some(text("c")),
            key: Some(text("k")),
            server_name: "h".into(),
            insecure_skip_verify: false,
            min_version: TlsVersion::Tls13,
        };
        assert_eq!(options.tls, expected);
        assert!(
            load("proxy_from_environment = true")
                .unwrap()
                .proxy
                .from_environment
        );
    }

    #[test]
    fn what_excludes_each_other_is_refused_in_the_reference_s_words() {
        let basic = "basic_auth {\n username = \"u\"\n}\n";
        let any = "at most one of sigv4, azuread, google_iam, basic_auth, oauth2, bearer_token & \
                   bearer_token_file must be configured";
        for (body, expected) in [
            (format!("{basic}sigv4 {{\n region = \"r\"\n}}"), any),
            (
                format!("{basic}bearer_token = \"t\""),
                "a:1:1: at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be \
                 configured",
            ),
            (
                "authorization {}\nbearer_token = \"t\"".into(),
                "a:1:1: authorization is not compatible with bearer_token & bearer_token_file",
            ),
            (
                format!("{basic}authorization {{}}"),
                "a:1:1: at most one of basic_auth, oauth2 & authorization must be configured",
            ),
            (
                "basic_auth {\n password = \"a\"\n password_file = \"b\"\n}".into(),
                "a:2:1: at most one of basic_auth password & password_file must be configured",
            ),
            (
                "tls_config {\n ca_pem = \"a\"\n ca_file = \"b\"\n}".into(),
                "a:2:1: at most one of ca_pem and ca_file must be configured",
            ),
            (
                "tls_config {\n cert_file = \"a\"\n}".into(),
                "exactly one of key_pem or key_file must be configured",
            ),
            (
                "tls_config {\n min_version = \"SSL3\"\n}".into(),
                "a:3:16: \"SSL3\" must be \"TLS10\"",
            ),
            (
                "no_proxy = \"x\"".into(),
                "a:2:12: \"x\" if no_proxy is configured, proxy_url must also be configured",
            ),
            (
                "authorization {\n type = \"basic\"\n}".into(),
                "authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
            ),
        ] {
            let message = load(&body).unwrap_err();
            assert!(message.contains(expected), "{body}: {message}");
        }
    }

    #[test]
    fn what_is_not_supported_says_so_once() {
        for (body, expected) in [
            (
                "azuread {\n cloud = \"x\"\n sdk {\n tenant_id = \"t\"\n }\n}",
                "a:2:1: azuread is not",
            ),
            (
                "google_iam {\n credentials_file = \"x\"\n}",
                "a:2:1: google_iam is not supported",
            ),
            (
                "sigv4 {\n role_arn = \"arn\"\n}",
                "a:3:13: \"arn\" is not supported",
            ),
        ] {
            let message = load(body).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn a_secret_is_not_repeated() {
        for body in [
            "proxy_url = \"socks5://u:hunter2@p\"",
            "http_headers = {\"X\" = [\"hunter2\\n\"]}",
            "proxy_url = \"http://p\"\nproxy_connect_header = {\"X\" = [\"hunter2\\n\"]}",
            "oauth2 {\n client_id = \"x\"\n token_url = \"ftp://u:hunter2@p\"\n}",
            "sigv4 {\n secret_key = \"hunter2\"\n}",
        ] {
            let message = load(body).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
