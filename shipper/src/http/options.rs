//! Turns the HTTP client arguments of a component into values that are known to be good.
//!
//! Names, defaults and which of them exclude each other are the reference's; what cannot be written
//! in these types (two forms of auth, a password and its file) is refused where they are read.
//!
//! # Invariants
//! - [`HttpOptions`] may hold anything; [`HttpOptions::validate`] says what cannot work.

use std::collections::BTreeMap;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::proxy::ProxyOptions;
use super::secret::{Secret, SecretSource};
use super::tls::TlsOptions;

/// Headers that belong to the connection or have an argument of their own.
const RESERVED_HEADERS: [&str; 11] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// How a component speaks HTTP: arguments every HTTP client has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpOptions {
    /// How requests say who sends them.
    pub auth: Auth,
    /// Further headers, each with its values. They are often tokens, hence secret.
    pub headers: BTreeMap<String, Vec<Secret>>,
    /// Certificates, keys and versions.
    pub tls: TlsOptions,
    /// The way there.
    pub proxy: ProxyOptions,
    /// Whether HTTP/2 is offered over TLS.
    pub enable_http2: bool,
    /// Whether redirects that keep method and body (307, 308) are followed.
    pub follow_redirects: bool,
    /// Whether each new connection goes to the next address of the host, not to the first.
    pub round_robin_dns: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            headers: BTreeMap::new(),
            tls: TlsOptions::default(),
            proxy: ProxyOptions::default(),
            enable_http2: true,
            follow_redirects: true,
            round_robin_dns: false,
        }
    }
}

/// How requests say who sends them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// They do not, unless the url holds a user name.
    #[default]
    None,
    /// User name and password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: SecretSource,
    },
    /// `Authorization: scheme credentials`.
    Authorization {
        /// The scheme, `Bearer` for a bearer token.
        scheme: String,
        /// What follows it.
        credentials: SecretSource,
    },
    /// A token from a token endpoint.
    OAuth2(Box<OAuth2Options>),
    /// A signature of each request, as AWS asks for.
    SigV4(SigV4Options),
}

impl Auth {
    /// A bearer token.
    #[must_use]
    pub fn bearer(token: SecretSource) -> Self {
        Self::Authorization {
            scheme: "Bearer".to_owned(),
            credentials: token,
        }
    }
}

/// OAuth 2.0 client credentials (RFC 6749, 4.4); the `oauth2` block.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OAuth2Options {
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretSource,
    /// What the token is to be good for.
    pub scopes: Vec<String>,
    /// The token endpoint; secret because it may hold a password.
    pub token_url: Secret,
    /// Further parameters of the token request.
    pub endpoint_params: BTreeMap<String, Secret>,
    /// Certificates, keys and versions for the token endpoint.
    pub tls: TlsOptions,
    /// The way to the token endpoint.
    pub proxy: ProxyOptions,
}

/// AWS Signature Version 4; the `sigv4` block. What is empty is looked for in the environment and
/// in the shared credentials file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigV4Options {
    /// The region, or `AWS_REGION`.
    pub region: String,
    /// The access key, or `AWS_ACCESS_KEY_ID`.
    pub access_key: String,
    /// The secret key, or `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Secret,
    /// The profile in the shared credentials file.
    pub profile: String,
    /// The service signed for, `aps` by default.
    pub service_name: String,
}

impl Default for SigV4Options {
    fn default() -> Self {
        Self {
            region: String::new(),
            access_key: String::new(),
            secret_key: Secret::default(),
            profile: String::new(),
            service_name: "aps".to_owned(),
        }
    }
}

/// An argument that cannot work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidOption {
    /// The argument, with its block.
    pub option: &'static str,
    /// What is wrong with it; never a secret.
    pub problem: String,
}

impl InvalidOption {
    pub(super) fn new(option: &'static str, problem: impl Into<String>) -> Self {
        Self {
            option,
            problem: problem.into(),
        }
    }
}

impl HttpOptions {
    /// Checks everything that can be checked without the files.
    ///
    /// # Errors
    /// The first argument that cannot work.
    pub fn validate(&self) -> Result<(), InvalidOption> {
        self.header_map()?;
        self.tls.validate()?;
        self.proxy.validate()?;
        match &self.auth {
            Auth::None | Auth::Basic { .. } => Ok(()),
            Auth::Authorization { scheme, .. } => check_scheme(scheme),
            Auth::OAuth2(options) => options.validate(),
            Auth::SigV4(options) => options.validate(),
        }
    }

    /// The further headers, marked sensitive.
    pub(super) fn header_map(&self) -> Result<HeaderMap, InvalidOption> {
        let invalid = |problem| InvalidOption::new("http_headers", problem);
        let headers = self.headers.iter();
        let headers =
            headers.flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let map = header_map(headers).map_err(invalid)?;
        for name in map.keys() {
            if RESERVED_HEADERS.contains(&name.as_str()) {
                return Err(invalid(format!("{:?} is reserved", name.as_str())));
            }
        }
        Ok(map)
    }
}

impl OAuth2Options {
    fn validate(&self) -> Result<(), InvalidOption> {
        if self.client_id.is_empty() {
            return Err(InvalidOption::new(
                "oauth2",
                "oauth2 client_id cannot be empty",
            ));
        }
        self.url()?;
        self.tls.validate()?;
        self.proxy.validate()
    }

    pub(super) fn url(&self) -> Result<Url, InvalidOption> {
        let invalid = |problem| InvalidOption::new("oauth2", problem);
        if self.token_url.expose().is_empty() {
            return Err(invalid("oauth2 token_url cannot be empty"));
        }
        let url = Url::parse(self.token_url.expose()).ok();
        url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| invalid("token_url must begin with http:// or https:// and have a host"))
    }
}

impl SigV4Options {
    fn validate(&self) -> Result<(), InvalidOption> {
        if self.access_key.is_empty() != self.secret_key.expose().is_empty() {
            return Err(InvalidOption::new(
                "sigv4",
                "must provide a AWS SigV4 Access key and Secret Key if credentials are specified \
                 in the SigV4 config",
            ));
        }
        if !self.access_key.is_empty() && !self.profile.is_empty() {
            let problem = "at most one of access_key & profile must be configured";
            return Err(InvalidOption::new("sigv4", problem));
        }
        Ok(())
    }
}

/// A scheme is a token (RFC 9110, 11.1), as a header's name is.
fn check_scheme(scheme: &str) -> Result<(), InvalidOption> {
    let problem = if scheme.eq_ignore_ascii_case("basic") {
        "authorization type cannot be set to \"basic\", use \"basic_auth\" instead"
    } else if HeaderName::from_bytes(scheme.as_bytes()).is_err() {
        "authorization type is not a word"
    } else {
        return Ok(());
    };
    Err(InvalidOption::new("authorization", problem))
}

/// Headers whose values are marked sensitive, or which of them is not legal.
pub(super) fn header_map<'a>(
    headers: impl Iterator<Item = (&'a String, &'a Secret)>,
) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} is no header name"))?;
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| format!("the value of {name:?} is not legal"))?;
        value.set_sensitive(true);
        map.append(header, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut HttpOptions)) -> String {
        let mut options = HttpOptions::default();
        change(&mut options);
        options.validate().unwrap_err().problem
    }

    fn oauth2(client_id: &str, token_url: &str) -> Auth {
        Auth::OAuth2(Box::new(OAuth2Options {
            client_id: client_id.into(),
            token_url: token_url.into(),
            ..OAuth2Options::default()
        }))
    }

    #[test]
    fn defaults_are_valid() {
        HttpOptions::default().validate().unwrap();
    }

    #[test]
    fn a_header_may_have_several_values_and_none_is_reserved_or_shown() {
        let values = ["a", "b"].map(Secret::from).to_vec();
        let mut options = HttpOptions::default();
        options.headers.insert("X-Tenant".into(), values);
        let map = options.header_map().unwrap();
        let values: Vec<_> = map.get_all("x-tenant").iter().collect();
        assert_eq!(values, ["a", "b"]);
        assert!(values.iter().all(|value| value.is_sensitive()));
        for (name, value) in [("Host", "x"), ("a b", "x"), ("x", "hunter2\n")] {
            let values = vec![Secret::from(value)];
            let problem = problem(|o| drop(o.headers.insert(name.into(), values)));
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn auth_that_cannot_work_is_refused() {
        let scheme = |scheme: &str| Auth::Authorization {
            scheme: scheme.into(),
            credentials: SecretSource::default(),
        };
        let keys = |access_key: &str, secret_key: &str| {
            Auth::SigV4(SigV4Options {
                access_key: access_key.into(),
                secret_key: secret_key.into(),
                profile: access_key.into(),
                ..SigV4Options::default()
            })
        };
        for (auth, expected) in [
            (scheme("Basic"), "use \"basic_auth\" instead"),
            (scheme("two words"), "not a word"),
            (oauth2("", "http://h"), "client_id cannot be empty"),
            (oauth2("id", ""), "token_url cannot be empty"),
            (oauth2("id", "mailto:x"), "token_url must begin with"),
            (keys("", "s"), "Access key and Secret Key"),
            (keys("a", "s"), "access_key & profile"),
        ] {
            let problem = problem(|o| o.auth = auth.clone());
            assert!(problem.contains(expected), "{auth:?}: {problem}");
        }
    }
}
