//! Turns the form of auth into the credentials of one request.
//!
//! # Failure
//! - A secret, token or key that cannot be had fails the attempt, which is then repeated like any
//!   other.

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Url};
use wal::SharedClock;

use super::oauth2::TokenSource;
use super::options::Auth;
use super::secret::{Secret, SecretReader};
use super::sigv4::Signer;

/// Adds credentials to requests.
pub(super) enum Credentials {
    None,
    Basic {
        username: String,
        password: SecretReader,
    },
    Authorization {
        scheme: String,
        credentials: SecretReader,
    },
    OAuth2(Box<TokenSource>),
    SigV4(Signer),
}

/// What a signature covers.
pub(super) struct Content<'a> {
    pub(super) url: &'a Url,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Credentials {
    pub(super) fn new(auth: &Auth, clock: SharedClock) -> Result<Self, String> {
        Ok(match auth {
            Auth::None => Self::None,
            Auth::Basic { username, password } => Self::Basic {
                username: username.clone(),
                password: SecretReader::new(password.clone(), clock),
            },
            Auth::Authorization {
                scheme,
                credentials,
            } => Self::Authorization {
                scheme: scheme.clone(),
                credentials: SecretReader::new(credentials.clone(), clock),
            },
            Auth::OAuth2(options) => {
                Self::OAuth2(Box::new(TokenSource::new((**options).clone(), clock)?))
            }
            Auth::SigV4(options) => Self::SigV4(Signer::new(options, clock, super::environment)?),
        })
    }

    /// The request with its credentials, or what keeps it from having them. A token that is not the
    /// one `refused` comes back too, so that it can be said to have been refused in its turn.
    pub(super) async fn apply(
        &self,
        request: RequestBuilder,
        content: Content<'_>,
        refused: Option<&Secret>,
    ) -> Result<(RequestBuilder, Option<Secret>), String> {
        Ok(match self {
            Self::None => (request, None),
            Self::Basic { username, password } => {
                let password = password.read()?;
                (request.basic_auth(username, Some(password.expose())), None)
            }
            Self::Authorization {
                scheme,
                credentials,
            } => {
                let value = authorization(scheme, &credentials.read()?)?;
                (request.header(header::AUTHORIZATION, value), None)
            }
            Self::OAuth2(source) => {
                let token = source.token(refused).await?;
                let value = authorization("Bearer", &token)?;
                (request.header(header::AUTHORIZATION, value), Some(token))
            }
            Self::SigV4(signer) => {
                let headers = signer.headers(content.url, content.headers, content.body)?;
                (request.headers(headers), None)
            }
        })
    }
}

fn authorization(scheme: &str, credentials: &Secret) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", credentials.expose()))
        .map_err(|_| "the credentials cannot be put into a header")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::clock::ManualClock;
    use super::super::options::SigV4Options;
    use super::super::secret::SecretSource;
    use super::*;

    async fn header(auth: Auth) -> Result<Option<String>, String> {
        crate::send::install_crypto_provider();
        let (_, clock) = ManualClock::shared();
        let credentials = Credentials::new(&auth, clock)?;
        let url = Url::parse("http://localhost/").unwrap();
        let content = Content {
            url: &url,
            headers: &HeaderMap::new(),
            body: b"",
        };
        let request = reqwest::Client::new().post(url.clone());
        let (request, _) = credentials.apply(request, content, None).await?;
        let request = request.build().unwrap();
        let header = request.headers().get("authorization");
        Ok(header.map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        }))
    }

    fn text(secret: &str) -> SecretSource {
        SecretSource::Text(secret.into())
    }

    #[tokio::test]
    async fn each_form_gives_its_header() {
        let basic = Auth::Basic {
            username: "Aladdin".into(),
            password: text("open sesame"),
        };
        let other = Auth::Authorization {
            scheme: "Api-Key".into(),
            credentials: text("k3y"),
        };
        for (auth, expected) in [
            (Auth::None, None),
            (Auth::bearer(text("t0ken")), Some("Bearer t0ken")),
            (other, Some("Api-Key k3y")),
            (basic, Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
        ] {
            assert_eq!(header(auth).await.unwrap().as_deref(), expected);
        }
        let signed = Auth::SigV4(SigV4Options {
            region: "r".into(),
            access_key: "A".into(),
            secret_key: "s".into(),
            ..SigV4Options::default()
        });
        let signed = header(signed).await.unwrap().unwrap();
        assert!(signed.contains("Credential=A/19700101/r/aps/aws4_request"));
    }

    #[tokio::test]
    async fn missing_file_fails_the_attempt() {
        let file = SecretSource::File("/nonexistent/token".into());
        let problem = header(Auth::bearer(file)).await.unwrap_err();
        assert!(problem.contains("/nonexistent/token"));
    }

    #[tokio::test]
    async fn credentials_that_are_no_header_are_not_shown() {
        let problem = header(Auth::bearer(text("hunter2\nX: y")))
            .await
            .unwrap_err();
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}
