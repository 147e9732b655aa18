//! Turns text into a target that is scraped: an HTTP server that answers what it is told to.

use std::sync::{Arc, Mutex};

use super::server;

/// A target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) port: u16,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug)]
struct Told {
    answer: Option<Vec<u8>>,
    /// The heads of the requests that came.
    heads: Vec<String>,
}

impl Target {
    /// One that exposes this text.
    pub(crate) fn start(body: &str) -> Self {
        let told = Arc::new(Mutex::new(Told {
            answer: Some(ok(body)),
            heads: Vec::new(),
        }));
        let by = told.clone();
        let port = server::start("target", move |request| {
            let mut told = by.lock().unwrap();
            told.heads.push(request.head);
            told.answer.clone()
        });
        Self { port, told }
    }

    /// Exposes this from now on.
    pub(crate) fn expose(&self, body: &str) {
        self.told.lock().unwrap().answer = Some(ok(body));
    }

    /// Exposes this as OpenMetrics from now on.
    pub(crate) fn expose_open_metrics(&self, body: &str) {
        let answer = answer("application/openmetrics-text; version=1.0.0", body);
        self.told.lock().unwrap().answer = Some(answer);
    }

    /// Answers this from now on, as it stands here; nothing: it takes requests and never answers.
    pub(crate) fn answer(&self, answer: Option<&[u8]>) {
        self.told.lock().unwrap().answer = answer.map(<[u8]>::to_vec);
    }

    /// The heads of all requests.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.told.lock().unwrap().heads.clone()
    }
}

fn ok(body: &str) -> Vec<u8> {
    answer("text/plain; version=0.0.4", body)
}

fn answer(content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
