//! Turns the credentials of a request into "may" or "may not".
//!
//! # Invariants
//! - How long a look takes says nothing about what is accepted: presented and accepted credentials
//!   are compared by their HMAC under a key of this process that nobody knows, and every accepted
//!   one is compared, whichever fits.
//!
//! # Limits
//! - [`TOKENS_MAX`] tokens, so that a look stays short.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use ring::hmac;
use ring::rand::SystemRandom;

use super::pem::Secret;

/// Most bearer tokens of a listener.
pub const TOKENS_MAX: usize = 64;

/// Who may speak to a listener. Either form is enough where both are given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthOptions {
    /// A user name and its password.
    pub basic: Option<(String, Secret)>,
    /// Tokens, any of which will do.
    pub bearer_tokens: Vec<Secret>,
}

/// Lets in who shows accepted credentials.
pub struct Guard {
    key: hmac::Key,
    /// Of the scheme in small letters, a space and the credentials as they are sent.
    accepted: Vec<hmac::Tag>,
    challenge: HeaderValue,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard for these options.
    ///
    /// # Errors
    ///
    /// There are no credentials, an empty one, too many, or no randomness.
    pub fn new(options: &AuthOptions) -> Result<Self, String> {
        let tokens = &options.bearer_tokens;
        if options.basic.is_none() && tokens.is_empty() {
            return Err("needs a basic block or bearer_tokens".into());
        }
        if tokens.len() > TOKENS_MAX {
            return Err(format!("has more than {TOKENS_MAX} bearer_tokens"));
        }
        let is_empty = |secret: &Secret| secret.expose().is_empty();
        if tokens.iter().any(is_empty) {
            return Err("has an empty one among its bearer_tokens".into());
        }
        if options.basic.as_ref().is_some_and(|(_, p)| is_empty(p)) {
            return Err("has an empty password".into());
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "cannot be used: the machine gives no randomness".to_owned())?;
        let basic = options.basic.iter().map(|(user, password)| {
            let plain = format!("{user}:{}", password.expose());
            format!("basic {}", STANDARD.encode(plain))
        });
        let bearer = tokens.iter().map(|t| format!("bearer {}", t.expose()));
        let accepted = basic
            .chain(bearer)
            .map(|text| hmac::sign(&key, text.as_bytes()))
            .collect();
        let challenge = if options.basic.is_some() {
            "Basic realm=\"penstock\", charset=\"UTF-8\""
        } else {
            "Bearer realm=\"penstock\""
        };
        Ok(Self {
            key,
            accepted,
            challenge: HeaderValue::from_static(challenge),
        })
    }

    /// Whether a request with these headers may come in.
    #[must_use]
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let bytes = value.as_bytes();
        let Some(space) = bytes.iter().position(|byte| *byte == b' ') else {
            return false;
        };
        let (scheme, credentials) = bytes.split_at(space);
        let mut presented = hmac::Context::with_key(&self.key);
        presented.update(&scheme.to_ascii_lowercase());
        presented.update(b" ");
        presented.update(credentials.trim_ascii_start());
        let presented = presented.sign();
        let equal = |accepted: &hmac::Tag| accepted.as_ref() == presented.as_ref();
        let fits = self.accepted.iter().filter(|accepted| equal(accepted));
        fits.count() > 0
    }

    /// What a refused request is told to show (`WWW-Authenticate`).
    #[must_use]
    pub fn challenge(&self) -> HeaderValue {
        self.challenge.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(&AuthOptions {
            basic: Some(("u".into(), "p:w".into())),
            bearer_tokens: vec!["one".into(), "two".into()],
        })
        .unwrap()
    }

    fn admits(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        guard().admits(&headers)
    }

    #[test]
    fn any_accepted_credential_is_enough() {
        let basic = format!("Basic {}", STANDARD.encode("u:p:w"));
        let spelled = format!("bAsIc   {}", STANDARD.encode("u:p:w"));
        for value in [&basic, &spelled, "Bearer one", "bearer two"] {
            assert!(admits(value), "{value}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let no_basic = format!("Bearer {}", STANDARD.encode("u:p:w"));
        for value in [
            &encoded("u:p:W"),
            &encoded("u:p"),
            &encoded("U:p:w"),
            &encoded("u:p:w "),
            &encoded("u"),
            "Basic",
            "Basic ",
            "Bearer",
            "Bearer ",
            "Bearer onetwo",
            "Bearer one two",
            "Digest one",
            "one",
            "",
            &no_basic,
        ] {
            assert!(!admits(value), "{value}");
        }
        assert!(!guard().admits(&HeaderMap::new()));
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer one"));
        }
        assert!(!guard().admits(&twice), "it is not said which one counts");
    }

    #[test]
    fn credentials_that_let_everybody_in_are_refused() {
        let basic = |password: &str| AuthOptions {
            basic: Some(("u".into(), password.into())),
            ..AuthOptions::default()
        };
        let tokens = |tokens: Vec<&str>| AuthOptions {
            bearer_tokens: tokens.into_iter().map(Secret::from).collect(),
            ..AuthOptions::default()
        };
        for (options, says) in [
            (AuthOptions::default(), "needs a basic block"),
            (basic(""), "empty password"),
            (tokens(vec!["a", ""]), "empty one"),
            (tokens(vec!["a"; TOKENS_MAX + 1]), "more than 64"),
        ] {
            let problem = Guard::new(&options).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
        assert!(!format!("{:?} {:?}", guard(), basic("hunter2")).contains("hunter2"));
    }
}
