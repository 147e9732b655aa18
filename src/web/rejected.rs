//! Turns the newest dead letters of a store into JSON.

use std::path::Path;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::json::unix_seconds;
use crate::server::{Answer, json, text};
use crate::wal::rejected::{newest, text_of};

/// At most so many, the newest first. Reads files.
pub(super) fn told(store: &Path, limit: usize) -> Answer {
    match newest(store, limit) {
        Ok(letters) => json(&letters.iter().map(one).collect::<Vec<_>>().into()),
        Err(error) => {
            tracing::warn!(%error, "dead letters cannot be shown");
            text(StatusCode::INTERNAL_SERVER_ERROR, "they cannot be read\n")
        }
    }
}

fn one(letter: &Value) -> Value {
    let status = letter["reason"].as_str().and_then(|reason| {
        let status: u16 = reason.strip_prefix("http_")?.parse().ok()?;
        Some(status)
    });
    json!({
        "endpoint": letter["endpoint"],
        "at": letter["time_ms"].as_i64().map(unix_seconds),
        "status": status,
        "reason": letter["reason"],
        "records": letter["records"],
        "text": text_of(letter),
    })
}
