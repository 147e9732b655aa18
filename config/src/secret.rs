//! Text that is used but never shown.
//!
//! # Invariants
//! Formatting a secret, in any way, prints `(secret)`.

use std::fmt;

const HIDDEN: &str = "(secret)";

/// Text that must not be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Text that may or may not have to be hidden.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OptionalSecret {
    text: String,
    secret: bool,
}

impl OptionalSecret {
    /// Text to hide.
    pub fn secret(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            secret: true,
        }
    }

    /// Text to show.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            secret: false,
        }
    }

    /// Whether it has to be hidden.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// The text, hidden or not, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for OptionalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret {
            f.write_str(HIDDEN)
        } else {
            fmt::Debug::fmt(&self.text, f)
        }
    }
}

impl fmt::Display for OptionalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret { HIDDEN } else { &self.text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:#?}", Some(&secret)), {
            "(secret) (secret) Some(\n    (secret),\n)"
        });
        assert_eq!(
            format!("{0} {0:?}", OptionalSecret::secret("x")),
            "(secret) (secret)"
        );
        assert_eq!(format!("{0} {0:?}", OptionalSecret::plain("x")), "x \"x\"");
        assert_eq!(secret.expose(), "hunter2");
    }
}
