//! Turns the head of a request into the message its body holds and how, or into the answer why not.
//!
//! VictoriaMetrics' agent sends remote write 1.0 compressed by zstd, and goes back to snappy where that is
//! answered by 415 or 400. Older ones ask for it first: see [`Answer::victoria_metrics`].

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use crate::answer::Answer;
use crate::decode::snappy::{self, Refused};
use crate::decode::zstd;
use crate::options::ReceiverOptions;

/// Where requests are accepted: the agent's path and the one of Prometheus itself.
const PATHS: [&str; 2] = ["/api/v1/metrics/write", "/api/v1/write"];
const MEDIA_TYPE: &str = "application/x-protobuf";
const ENCODING: &str = "snappy";
/// In the query of a request that only asks whether zstd is understood.
const VICTORIA_METRICS: &str = "get_vm_proto_version=";

/// The message a body holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// `prometheus.WriteRequest` of remote write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request` of remote write 2.0.
    V2,
}

impl Message {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// Its name in the `proto` parameter of a content type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// The message of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    /// In the block format.
    Snappy,
    /// Remote write 1.0 only, as VictoriaMetrics' agent has it.
    Zstd,
    /// It is not. No sender may send that; what stays of a request that is cut is like this.
    Plain,
}

impl Encoding {
    /// The length `compressed` claims to have, at most `length_max`.
    pub(crate) fn claimed_length(
        self,
        compressed: &[u8],
        length_max: usize,
    ) -> Result<usize, Refused> {
        match self {
            Self::Snappy => snappy::claimed_length(compressed, length_max),
            Self::Zstd => zstd::claimed_length(compressed, length_max),
            Self::Plain => Ok(compressed.len()),
        }
    }

    /// Decompresses to at most `claimed` bytes of `out`.
    pub(crate) fn decompress<'o>(
        self,
        compressed: &'o [u8],
        claimed: usize,
        out: &'o mut Vec<u8>,
    ) -> Result<&'o [u8], Refused> {
        match self {
            Self::Snappy => snappy::decompress(compressed, claimed, out),
            Self::Zstd => zstd::decompress(compressed, claimed, out),
            Self::Plain => Ok(compressed),
        }
    }
}

/// Refuses everything that is no remote-write request of an accepted message, before its body is
/// read. `length` is that of the body, if the head says so.
pub(crate) fn check_head(
    head: &Parts,
    length: Option<u64>,
    options: &ReceiverOptions,
) -> Result<(Message, Encoding), Answer> {
    if !PATHS.contains(&head.uri.path()) {
        return Err(Answer::not_found(PATHS[0]));
    }
    let query = head.uri.query().unwrap_or_default();
    if query
        .split('&')
        .any(|part| part.starts_with(VICTORIA_METRICS))
    {
        return Err(Answer::victoria_metrics());
    }
    if head.method != Method::POST {
        return Err(Answer::only_post());
    }
    let given = unusual(&head.headers, &CONTENT_TYPE, MEDIA_TYPE);
    let message = message_of(given.as_deref().unwrap_or_default(), &options.messages)
        .map_err(Answer::unsupported)?;
    let given = unusual(&head.headers, &CONTENT_ENCODING, ENCODING);
    let encoding =
        encoding_of(given.as_deref().unwrap_or_default(), message).map_err(Answer::unsupported)?;
    let limit = options.body_bytes_max;
    if let Some(length) = length
        && usize::try_from(length).map_or(true, |length| length > limit)
    {
        return Err(
            Answer::too_large("the compressed body", Some(length), limit).for_message(message),
        );
    }
    Ok((message, encoding))
}

/// Nothing is snappy, which everybody used before there was another.
fn encoding_of(given: &str, message: Message) -> Result<Encoding, String> {
    if given.is_empty() || given.eq_ignore_ascii_case(ENCODING) {
        return Ok(Encoding::Snappy);
    }
    if given.eq_ignore_ascii_case("zstd") && message == Message::V1 {
        return Ok(Encoding::Zstd);
    }
    let (given, also) = match message {
        Message::V1 => (shown(given), " and zstd"),
        Message::V2 => (shown(given), ""),
    };
    Err(format!(
        "content encoding {given} is not supported, only snappy (block format){also}"
    ))
}

/// What a header says, unless it is not there or exactly `usual`. Several values are trimmed and
/// joined, unprintable bytes are lossy.
fn unusual(headers: &HeaderMap, name: &HeaderName, usual: &str) -> Option<String> {
    let mut all = headers.get_all(name).iter();
    match (all.next()?, all.next()) {
        (only, None) if only.as_bytes() == usual.as_bytes() => None,
        _ => {
            let text = headers.get_all(name).iter().map(|value| value.as_bytes());
            let text = text.map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
            Some(text.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A header value in quotes, bounded.
fn shown(value: &str) -> String {
    let cut: String = value.chars().take(100).collect();
    format!("{cut:?}")
}

/// Checks media type and the `proto` parameter; without one it is remote write 1.0.
fn message_of(given: &str, accepted: &[Message]) -> Result<Message, String> {
    let mut parts = split_parameters(given).into_iter();
    let media_type = parts.next().unwrap_or_default();
    let is_empty = media_type.is_empty() && parts.len() == 0;
    if !is_empty && !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(format!(
            "content type {} is not supported, only {MEDIA_TYPE}",
            shown(&media_type)
        ));
    }
    let mut named = Message::V1.as_str().to_owned();
    for parameter in parts {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("proto")
        {
            named = unquoted(value.trim());
        }
    }
    let message = Message::from_name(&named).filter(|one| accepted.contains(one));
    message.ok_or_else(|| {
        let accepted: Vec<_> = accepted.iter().map(|one| one.as_str()).collect();
        let (named, accepted) = (shown(&named), accepted.join(" and "));
        format!("protobuf message {named} is not supported, only {accepted}")
    })
}

/// The parts between semicolons that stand outside quotes, trimmed.
fn split_parameters(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in value.chars() {
        if c == ';' && !is_quoted {
            parts.push(String::new());
            continue;
        }
        if c == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .collect()
}

/// A token as it is, a quoted string without its quotes and escapes.
fn unquoted(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut is_escaped = false;
    for c in inner.chars() {
        is_escaped = c == '\\' && !is_escaped;
        if !is_escaped {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_is_accepted_in_every_spelling() {
        for given in [
            "",
            "application/x-protobuf",
            "Application/X-Protobuf",
            "application/x-protobuf;proto=prometheus.WriteRequest",
            "application/x-protobuf; PROTO=\"prometheus.WriteRequest\" ; charset=utf-8",
            "application/x-protobuf;version=\"a;proto=x\"",
            "application/x-protobuf; proto=\"prometheus\\.WriteRequest\"",
            "application/x-protobuf;",
        ] {
            assert_eq!(message_of(given, &Message::ALL), Ok(Message::V1), "{given}");
        }
        for given in [
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"",
        ] {
            assert_eq!(message_of(given, &Message::ALL), Ok(Message::V2), "{given}");
        }
    }

    #[test]
    fn another_type_or_message_is_refused_with_what_is_accepted() {
        for given in [
            "text/plain",
            "application/x-protobuf-x",
            "application/x-protobuf;proto=io.prometheus.write.v3.Request",
            "application/x-protobuf;proto=Prometheus.WriteRequest",
            "application/x-protobuf;proto=",
            ";proto=prometheus.WriteRequest",
            "application/json, application/x-protobuf",
        ] {
            let reason = message_of(given, &Message::ALL).unwrap_err();
            assert!(reason.contains("only "), "{given}: {reason}");
        }
    }

    #[test]
    fn a_message_that_is_not_accepted_is_refused() {
        let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        let reason = message_of(v2, &[Message::V1]).unwrap_err();
        assert!(reason.ends_with("only prometheus.WriteRequest"), "{reason}");
        let reason = message_of("", &[Message::V2]).unwrap_err();
        assert!(
            reason.ends_with("only io.prometheus.write.v2.Request"),
            "{reason}"
        );
    }
}
