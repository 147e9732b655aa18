//! Turns the `logging` block into how to log.

use config::{BodyReader, Handle};

use super::LogsReceiver;
use super::document::Document;

pub(crate) const NAME: &str = "logging";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"logging {
  level  = "debug"
  format = "json"
}
"#,
    texts: &[(
        "",
        &[
            ("destination", "`stderr`."),
            ("format", "`logfmt` or `json`."),
            (
                "level",
                "The least that is logged: `error`, `warn`, `info` or `debug`.",
            ),
            (
                "write_to",
                "Where lines go besides. Nothing takes logs yet, so that the list is empty.",
            ),
        ],
    )],
    metrics: &[],
    failure: "",
};

/// The shape of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Logs {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// How to log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Logging {
    pub(crate) level: tracing::Level,
    pub(crate) format: Logs,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: tracing::Level::INFO,
            format: Logs::Logfmt,
        }
    }
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> Logging {
    let level = match r.or("level", "info".to_owned()).as_str() {
        "error" => tracing::Level::ERROR,
        "warn" => tracing::Level::WARN,
        "debug" => tracing::Level::DEBUG,
        "info" => tracing::Level::INFO,
        _ => {
            r.refuse("level", "must be one of error, warn, info, debug");
            tracing::Level::INFO
        }
    };
    let format = match r.or("format", "logfmt".to_owned()).as_str() {
        "json" => Logs::Json,
        "logfmt" => Logs::Logfmt,
        _ => {
            r.refuse("format", "must be one of logfmt, json");
            Logs::Logfmt
        }
    };
    if r.or("destination", "stderr".to_owned()) != "stderr" {
        r.refuse("destination", "must be stderr");
    }
    // Nothing here takes logs yet, so that a list can only be empty.
    r.or("write_to", Vec::<Handle<LogsReceiver>>::new());
    Logging { level, format }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(text: &str) -> Result<Logging, String> {
        decoded(text, read)
    }

    #[test]
    fn level_and_format_are_read() {
        let logging = load("logging {\n  level = \"debug\"\n  format = \"json\"\n}\n").unwrap();
        assert_eq!(
            logging,
            Logging {
                level: tracing::Level::DEBUG,
                format: Logs::Json
            }
        );
    }

    #[test]
    fn another_level_is_refused() {
        assert_eq!(
            load("logging {\n  level = \"trace\"\n}\n").unwrap_err(),
            "a:2:11: \"trace\" must be one of error, warn, info, debug"
        );
    }
}
