//! Turns edges and passing samples into endless answers.
//!
//! # Failure
//! A peer that goes away or takes nothing ends its stream: the connection is given up (`server`), the
//! channel closes, and the task that fills it ends.
//!
//! # Limits
//! [`STREAMS_MAX`] streams at a time, over all connections; one more is answered 503. [`CHUNKS_MAX`]
//! chunks of each wait for the peer; then who fills it waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::json;
use super::model::{Edge, Model};
use super::request::Asked;
use crate::server::{Answer, Body, fresh, text};
use crate::telemetry::families::float;

/// A page has one or two of them.
const STREAMS_MAX: usize = 16;
const CHUNKS_MAX: usize = 4;
/// Lines that go out together.
const LINES_MAX: usize = 64;
const FILTER_BYTES_MAX: usize = 1024;
/// Ends a chunk.
const END: &str = "|;|";

/// The endless answers there may be.
#[derive(Debug)]
pub(super) struct Streams {
    permits: Arc<Semaphore>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

impl Streams {
    /// An endless answer, and where its chunks go; nothing if there are too many.
    fn open(&self) -> Option<(mpsc::Sender<Bytes>, Answer)> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let (chunks, taken) = mpsc::channel(CHUNKS_MAX);
        let mut answer = Response::new(Body::endless(taken, permit));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        Some((chunks, fresh(answer)))
    }

    /// How much takes each edge of a module, again and again.
    pub(super) fn graph(&self, model: &Arc<dyn Model>, module: &str, asked: &Asked<'_>) -> Answer {
        let window = match asked.number("window", (1, 60), 5) {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
        };
        if model.components(module).is_none() {
            return super::not_found();
        }
        if asked.is_head {
            return text(StatusCode::OK, "");
        }
        let Some((chunks, answer)) = self.open() else {
            return too_many();
        };
        let (model, module) = (Arc::clone(model), module.to_owned());
        tokio::spawn(tell_edges(model, module, window, chunks));
        answer
    }

    /// What passes a component.
    pub(super) fn debug(&self, model: &Arc<dyn Model>, id: &str, asked: &Asked<'_>) -> Answer {
        let probability = match asked.number("sampleProb", (0.0, 1.0), 1.0) {
            Ok(probability) => probability,
            Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
        };
        let filter = asked.value("filter").unwrap_or_default();
        if filter.len() > FILTER_BYTES_MAX {
            let problem = format!("filter must have at most {FILTER_BYTES_MAX} bytes\n");
            return text(StatusCode::BAD_REQUEST, problem);
        }
        if asked.is_head {
            return match model.component(id).filter(|one| one.summary.live_debugging) {
                Some(_) => text(StatusCode::OK, ""),
                None => super::not_found(),
            };
        }
        let Some((chunks, answer)) = self.open() else {
            return too_many();
        };
        match model.debug(id, probability, &filter) {
            Some(lines) => {
                tokio::spawn(tell_lines(lines, chunks));
                answer
            }
            None => super::not_found(),
        }
    }
}

fn too_many() -> Answer {
    let problem = format!("there are {STREAMS_MAX} streams already\n");
    text(StatusCode::SERVICE_UNAVAILABLE, problem)
}

async fn tell_lines(mut lines: mpsc::Receiver<String>, chunks: mpsc::Sender<Bytes>) {
    let mut some = Vec::with_capacity(LINES_MAX);
    loop {
        let count = tokio::select! {
            biased;
            () = chunks.closed() => return,
            count = lines.recv_many(&mut some, LINES_MAX) => count,
        };
        let chunk: String = some
            .drain(..)
            .flat_map(|line| [line, END.to_owned()])
            .collect();
        if count == 0 || chunks.send(chunk.into()).await.is_err() {
            return;
        }
    }
}

async fn tell_edges(
    model: Arc<dyn Model>,
    module: String,
    window: Duration,
    chunks: mpsc::Sender<Bytes>,
) {
    let (mut before, mut at) = (counts(&model.edges(&module)), Instant::now());
    loop {
        tokio::select! {
            biased;
            () = chunks.closed() => return,
            () = tokio::time::sleep_until(at + window) => {}
        }
        let edges = model.edges(&module);
        let (now, now_at) = (counts(&edges), Instant::now());
        let seconds = now_at.duration_since(at).as_secs_f64();
        let told = edges.iter().map(|edge| {
            let count = |all: &Counts| all.get(&(edge.from.clone(), edge.to.clone())).copied();
            let (from, to) = (count(&before), count(&now));
            let records = from.zip(to).map_or(0, |(from, to)| to.saturating_sub(from));
            json::edge(edge, float(records) / seconds)
        });
        let chunk = Value::from(told.collect::<Vec<_>>()).to_string() + END;
        (before, at) = (now, now_at);
        if chunks.send(chunk.into()).await.is_err() {
            return;
        }
    }
}

type Counts = BTreeMap<(String, String), u64>;

fn counts(edges: &[Edge]) -> Counts {
    let count = |edge: &Edge| ((edge.from.clone(), edge.to.clone()), (edge.records)());
    edges.iter().map(count).collect()
}
