//! Turns the answer of a URL, a document of target groups in JSON, into targets.
//!
//! An answer that is the same as the last is not parsed again.
//!
//! # Failure
//! - Anything but a 200 with JSON in UTF-8 is an error, and so is a document that is none.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use ring::digest::{SHA256, digest};
use shipper::HttpOptions;
use shipper::fetch::{Request, open};

use super::document::{self, Syntax};
use super::refresh::{self, Found, Group};
use super::{TEXT_BYTES_MAX, blocking};

/// A URL to ask.
#[derive(Clone, Debug)]
pub(crate) struct HttpPlace {
    pub(crate) url: String,
    pub(crate) http: HttpOptions,
}

/// What an answer must say it is.
static IS_JSON: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^(?i:application/json(;\s*charset=("utf-8"|utf-8))?)$"#).ok());

pub(super) struct Look {
    place: HttpPlace,
    /// The refresh interval, in seconds, for the server.
    every_seconds: String,
    timeout: Duration,
    /// The hash of the last answer and what was made of it.
    last: Option<(Vec<u8>, Group)>,
}

impl Look {
    pub(super) fn new(place: HttpPlace, every: Duration, timeout: Duration) -> Self {
        Self {
            place,
            every_seconds: every.as_secs_f64().to_string(),
            timeout,
            last: None,
        }
    }

    async fn ask(&self) -> Result<String, String> {
        let request = Request {
            url: &self.place.url,
            method: "GET",
            headers: vec![
                ("accept", "application/json"),
                ("x-prometheus-refresh-interval-seconds", &self.every_seconds),
            ],
            body: String::new(),
            timeout: self.timeout,
            http: &self.place.http,
            unix_socket: None,
            answer_bytes_max: TEXT_BYTES_MAX,
        };
        let answer = open(&request).await?;
        let content_type = answer.content_type().unwrap_or_default().trim().to_owned();
        let is_json = IS_JSON
            .as_ref()
            .is_some_and(|it| it.is_match(&content_type));
        if !is_json {
            return Err(format!("unsupported content type {content_type:?}"));
        }
        answer.text(TEXT_BYTES_MAX).await
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        let text = self.ask().await?;
        let hash = digest(&SHA256, text.as_bytes()).as_ref().to_vec();
        let group = match &self.last {
            Some((last, group)) if *last == hash => group.clone(),
            _ => {
                let url = self.place.url.clone();
                let parse = move || document::targets(&text, Syntax::Json, ("__meta_url", &url));
                let group = blocking(parse).await?;
                self.last = Some((hash, group.clone()));
                group
            }
        };
        Ok(vec![(self.place.url.clone(), Ok(group))])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::server::{Answer, Server};
    use super::super::target::tests::all_shown;
    use super::refresh::Look as _;
    use super::*;

    fn look(url: &str) -> Look {
        let place = HttpPlace {
            url: url.to_owned(),
            http: HttpOptions::default(),
        };
        Look::new(
            place,
            Duration::from_millis(90_500),
            Duration::from_secs(30),
        )
    }

    fn json(body: &str) -> Answer {
        ("200 OK", "application/json".to_owned(), body.to_owned())
    }

    async fn found(look: &mut Look) -> Result<Group, String> {
        let mut found = look.look().await?;
        found.remove(0).1
    }

    #[tokio::test]
    async fn the_document_of_a_url_becomes_targets() {
        let body = r#"[{"targets": ["h:1"], "labels": {"a": "b"}}]"#;
        let (server, url) = Server::tcp(|_| json(body)).await;
        let mut look = look(&url);
        let first = found(&mut look).await.unwrap();
        assert_eq!(
            all_shown(&first),
            [format!("__address__=h:1 __meta_url={url} a=b")]
        );
        let head = server.heads().remove(0);
        assert!(head.starts_with("get / http/1.1\r\n"), "{head}");
        for header in [
            "accept: application/json\r\n",
            "x-prometheus-refresh-interval-seconds: 90.5\r\n",
            "user-agent: penstock/",
        ] {
            assert!(head.contains(header), "{head}");
        }
        let again = found(&mut look).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "it is not parsed again");
        server.answer(|_| json("[]"));
        assert_eq!(found(&mut look).await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn what_is_no_document_is_an_error() {
        let (server, url) = Server::tcp(|_| json("[")).await;
        let mut look = look(&url);
        let wrong = found(&mut look).await.unwrap_err();
        assert_eq!(wrong, "EOF while parsing a list at line 1 column 1");
        for (status, content_type, want) in [
            (
                "500 Oh",
                "application/json",
                "the answer is 500 Internal Server Error",
            ),
            (
                "204 No Content",
                "application/json",
                "the answer is 204 No Content",
            ),
            (
                "200 OK",
                "text/plain",
                "unsupported content type \"text/plain\"",
            ),
            (
                "200 OK",
                "application/json; charset=latin1",
                "unsupported content type \"application/json; charset=latin1\"",
            ),
        ] {
            server.answer(move |_| (status, content_type.to_owned(), "[]".to_owned()));
            assert_eq!(found(&mut look).await.unwrap_err(), want);
        }
        for content_type in ["Application/JSON", "application/json;charset=\"UTF-8\""] {
            server.answer(move |_| ("200 OK", content_type.to_owned(), "[]".to_owned()));
            assert!(found(&mut look).await.is_ok(), "{content_type}");
        }
        drop(server);
        let wrong = found(&mut look).await.unwrap_err();
        assert!(!wrong.is_empty() && !wrong.contains(&url), "{wrong}");
    }
}
