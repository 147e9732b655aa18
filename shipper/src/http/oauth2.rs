//! Turns OAuth 2.0 client credentials into the bearer token of one attempt.
//!
//! The source of the exchange is RFC 6749, 4.4 and 2.3.1: the client names itself in an
//! `Authorization` header, and in the body for the servers that only take that.
//!
//! # Invariants
//! - One token is fetched at a time; who waits meanwhile gets the same one.
//! - A token is not handed out again to who says that it was refused.
//!
//! # Failure
//! - A token endpoint that is away, refuses or answers nonsense fails the attempt, which is
//!   repeated like any other. Of its answer only the error code is repeated.
//!
//! # Limits
//! - Of an answer at most [`ANSWER_BYTES_MAX`] are read. Without `expires_in` a token is used until
//!   it is refused.

use std::time::Duration;

use reqwest::header::{self, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use tokio::sync::Mutex;
use wal::SharedClock;

use super::chain;
use super::connector::{Connections, Connector};
use super::options::OAuth2Options;
use super::secret::{Secret, SecretReader};

const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A token is renewed so long before it expires, or after half its life if that is later.
const RENEW_BEFORE: Duration = Duration::from_secs(10);
/// A longer life is as good as none.
const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where one endpoint's tokens come from.
pub(super) struct TokenSource {
    options: OAuth2Options,
    url: Url,
    client_secret: SecretReader,
    connector: Connector,
    clock: SharedClock,
    /// Held while a token is fetched: that is what makes the others wait.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Whether the server wants to know the client from the body.
    in_body: bool,
}

struct Token {
    secret: Secret,
    renew_at: Option<Duration>,
}

impl TokenSource {
    pub(super) fn new(options: OAuth2Options, clock: SharedClock) -> Result<Self, String> {
        let connections = Connections {
            tls: options.tls.clone(),
            proxy: options.proxy.clone(),
            http2: false,
            round_robin_dns: false,
            idle_max: 1,
            unix_socket: None,
        };
        let connector = Connector::new(connections, SharedClock::clone(&clock));
        let secret = options.client_secret.clone();
        Ok(Self {
            url: options.url().map_err(|invalid| invalid.problem)?,
            connector: connector.map_err(|problem| format!("oauth2: {problem}"))?,
            client_secret: SecretReader::new(secret, SharedClock::clone(&clock)),
            options,
            clock,
            state: Mutex::default(),
        })
    }

    /// A token that is good as far as known, and is not the one `refused`.
    pub(super) async fn token(&self, refused: Option<&Secret>) -> Result<Secret, String> {
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && token.renew_at.is_none_or(|at| self.clock.monotonic() < at)
            && refused != Some(&token.secret)
        {
            return Ok(token.secret.clone());
        }
        state.token = None;
        let token = match self.fetch(state.in_body).await {
            Err(Refused::Client(_)) if !state.in_body => {
                let token = self.fetch(true).await;
                state.in_body = token.is_ok();
                token
            }
            token => token,
        };
        let token = token.map_err(|refused| format!("oauth2: {}", refused.into_detail()))?;
        let secret = token.secret.clone();
        state.token = Some(token);
        Ok(secret)
    }

    async fn fetch(&self, in_body: bool) -> Result<Token, Refused> {
        let secret = self.client_secret.read().map_err(Refused::Other)?;
        let client = self.connector.client();
        let mut request = client.post(self.url.clone());
        if !in_body {
            let encode = |text: &str| -> String {
                form_urlencoded::byte_serialize(text.as_bytes()).collect()
            };
            let (id, secret) = (encode(&self.options.client_id), encode(secret.expose()));
            request = request.basic_auth(id, Some(secret));
        }
        let request = request
            .header(header::CONTENT_TYPE, FORM)
            .header(header::ACCEPT, JSON)
            .body(self.form(in_body.then_some(&secret)));
        let asked_at = self.clock.monotonic();
        let response = request
            .send()
            .await
            .map_err(|error| Refused::Other(chain(&error.without_url())))?;
        let status = response.status();
        let answer = read_answer(response).await.map_err(Refused::Other)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if !status.is_success() {
            let detail = format!(
                "the token endpoint answered {status}{}",
                error_code(&answer)
            );
            return Err(match status {
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => Refused::Client(detail),
                _ => Refused::Other(detail),
            });
        }
        token(&answer, asked_at)
            .ok_or_else(|| Refused::Other("the token endpoint's answer holds no token".to_owned()))
    }

    /// The body of the token request, with the client if its secret is given.
    fn form(&self, client_secret: Option<&Secret>) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.options.scopes.is_empty() {
            form.append_pair("scope", &self.options.scopes.join(" "));
        }
        if let Some(secret) = client_secret {
            form.append_pair("client_id", &self.options.client_id);
            form.append_pair("client_secret", secret.expose());
        }
        for (name, value) in &self.options.endpoint_params {
            form.append_pair(name, value.expose());
        }
        form.finish()
    }
}

/// Why there is no token.
enum Refused {
    /// Perhaps because the client was not known from where it stood.
    Client(String),
    Other(String),
}

impl Refused {
    fn into_detail(self) -> String {
        match self {
            Self::Client(detail) | Self::Other(detail) => detail,
        }
    }
}

async fn read_answer(mut response: Response) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| chain(&error.without_url()))?
    {
        if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("the token endpoint's answer is too long".to_owned());
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// The token of an answer that came no earlier than `asked_at`.
fn token(answer: &Value, asked_at: Duration) -> Option<Token> {
    let secret = answer.get("access_token")?.as_str()?;
    let life = answer.get("expires_in").and_then(|life| match life {
        // some servers write the number as text
        Value::String(text) => text.parse().ok(),
        life => life.as_u64(),
    });
    // 0 is no life but none known
    let life = life.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let renew_at = life.map(|life| {
        let life = life.min(LIFE_MAX);
        asked_at + life.saturating_sub(RENEW_BEFORE).max(life / 2)
    });
    (!secret.is_empty()).then(|| Token {
        secret: secret.into(),
        renew_at,
    })
}

/// The code of an error answer (RFC 6749, 5.2) if it is one; other text may be anything.
fn error_code(answer: &Value) -> String {
    let code = answer.get("error").and_then(Value::as_str);
    let is_code = |code: &&str| {
        code.len() <= 64
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    code.filter(is_code)
        .map_or_else(String::new, |code| format!(": {code}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_renewed_shortly_before_it_expires() {
        let renew_at = |answer: Value| {
            let token = token(&answer, Duration::from_secs(100)).unwrap();
            token.renew_at.map(|at| at.as_secs_f64())
        };
        for (life, at) in [
            (json!(3600), Some(3690.0)),
            (json!("60"), Some(150.0)),
            (json!(10), Some(105.0)),
            (json!(1), Some(100.5)),
            (json!(0), None),
            (json!(null), None),
            (json!("soon"), None),
        ] {
            let answer = json!({"access_token": "t", "expires_in": life});
            assert_eq!(renew_at(answer), at, "{life}");
        }
        assert!(renew_at(json!({"access_token": "t", "expires_in": u64::MAX})).is_some());
    }

    #[test]
    fn an_answer_without_a_token_has_none() {
        for answer in [
            json!({}),
            json!({"access_token": ""}),
            json!({"access_token": 1}),
        ] {
            assert!(token(&answer, Duration::ZERO).is_none(), "{answer}");
        }
    }

    #[test]
    fn only_a_code_of_an_error_is_repeated() {
        assert_eq!(
            error_code(&json!({"error": "invalid_client"})),
            ": invalid_client"
        );
        for other in ["Secret hunter2", "", "ünknown"] {
            let said = error_code(&json!({"error": other}));
            assert!(!said.contains("hunter2") && !said.contains('ü'), "{said}");
        }
    }
}
