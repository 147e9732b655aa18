//! Turns requests into answers and faults.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use shipper::ProtobufMessage;
use shipper::transport::{Answer, Transport};
use tokio::sync::oneshot;
use wal::Clock;

use super::attempts::{Attempts, Seen};
use super::backend::{Backend, Incoming, Numbered, Reply, read, written};
use super::clock::DeviceClock;
use super::plan::{BackendPlan, Fault, LATENCY_MAX, Lie, Plan, RetryAfter, Weather, fault};

/// The way between an endpoint and its backend.
struct State {
    plan: BackendPlan,
    timeout: Duration,
    random: fastrand::Rng,
    backend: Backend,
    /// How often the endpoint was started again.
    life: u32,
    attempts: Attempts,
    counts: Trace,
    trace: DefaultHasher,
    violation: Option<String>,
}

/// See [`State`].
#[derive(Clone)]
pub(crate) struct Network {
    clock: Arc<DeviceClock>,
    timeout: Duration,
    lie: Option<Lie>,
    state: Arc<Mutex<State>>,
}

/// What happened between an endpoint and its backend; the same if it is lived again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Trace {
    /// Of all requests with their times.
    pub(crate) hash: u64,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// Answers that were no.
    pub(crate) refusals: u64,
    /// Requests with samples brought together by series.
    pub(crate) packed: u64,
    pub(crate) stored: u64,
    pub(crate) duplicates: u64,
    pub(crate) ahead: u64,
}

/// A request as it sets out.
struct Journey {
    incoming: Incoming,
    fault: Fault,
    there: Duration,
    back: Duration,
}

impl Network {
    /// The way to backend `number` of a plan.
    pub(crate) fn new(plan: &Plan, number: usize, clock: Arc<DeviceClock>, seed: u64) -> Self {
        let options = &plan.options;
        let backend = plan.backends[number].clone();
        let state = State {
            backend: Backend::new(backend.clone(), plan.series, plan.lanes()),
            plan: backend,
            timeout: options.remote_timeout,
            random: fastrand::Rng::with_seed(seed),
            life: 0,
            attempts: Attempts::new(&options.queue, plan.lanes()),
            counts: Trace::default(),
            trace: DefaultHasher::new(),
            violation: None,
        };
        Self {
            clock,
            timeout: options.remote_timeout,
            lie: plan.lie,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The process is another; what it sent before may still arrive.
    pub(crate) fn restarted(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.attempts.restarted();
    }

    /// What must never happen and did.
    pub(crate) fn violation(&self) -> Option<String> {
        self.state.lock().violation.clone()
    }

    pub(crate) fn with_backend<T>(&self, look: impl FnOnce(&Backend) -> T) -> T {
        look(&self.state.lock().backend)
    }

    pub(crate) fn trace(&self) -> Trace {
        let state = self.state.lock();
        Trace {
            hash: state.trace.finish(),
            stored: state.backend.stored,
            duplicates: state.backend.duplicates,
            ahead: state.backend.ahead,
            ..state.counts
        }
    }

    async fn exchange(&self, headers: &HeaderMap, body: Bytes) -> Result<Response, String> {
        let begin = self.clock.monotonic();
        let journey = self.state.lock().depart(begin, headers, &body);
        let timeout = match self.lie {
            Some(Lie::NoTimeout) => Duration::MAX,
            _ => self.timeout,
        };
        let answer = tokio::time::timeout(timeout, self.travel(journey)).await;
        let (seen, result) = match answer {
            Err(_) => (Seen::Failed(None), Err("operation timed out".to_owned())),
            Ok(Err(error)) => (Seen::Failed(None), Err(error)),
            Ok(Ok((seen, reply))) => (seen, Ok(response(reply))),
        };
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        state.counts.failures += u64::from(matches!(seen, Seen::Failed(_)));
        let ended = state.attempts.ended(now, &body, seen);
        state.note(now, ended);
        result
    }

    async fn travel(&self, journey: Journey) -> Result<(Seen, Reply), String> {
        let Journey {
            fault, there, back, ..
        } = journey;
        match fault {
            Fault::Refused => {
                tokio::time::sleep(there / 8).await;
                return Err("connection refused".to_owned());
            }
            Fault::LostRequest => {
                tokio::time::sleep(there).await;
                if self.lie == Some(Lie::Taken) {
                    let count = journey.incoming.samples.len();
                    return Ok((Seen::Decided, (204, written(count))));
                }
                return Err("connection reset".to_owned());
            }
            Fault::Hole => return std::future::pending().await,
            Fault::Busy(status, after) => {
                tokio::time::sleep(there + back).await;
                let (after, header) = self.retry_after(after);
                return Ok((Seen::Failed(after), (status, header)));
            }
            Fault::None | Fault::LostAnswer | Fault::Late => {}
        }
        // A task of its own: a sender that hangs up does not keep it from arriving.
        let (answer, answered) = oneshot::channel();
        let (state, clock) = (Arc::clone(&self.state), Arc::clone(&self.clock));
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let reply = state.lock().arrived(clock.monotonic(), &journey.incoming);
            tokio::time::sleep(back).await;
            answer.send(reply).ok();
        });
        let reply = answered.await.expect("every request is answered");
        if fault == Fault::LostAnswer {
            return Err("connection reset".to_owned());
        }
        Ok((Seen::Decided, reply))
    }

    /// What is asked for, as the sender will understand it, and the header for it.
    fn retry_after(&self, after: RetryAfter) -> (Option<Duration>, Vec<(&'static str, String)>) {
        let (wait, text) = match after {
            RetryAfter::No => return (None, Vec::new()),
            RetryAfter::Seconds(seconds) => (Duration::from_secs(seconds), seconds.to_string()),
            RetryAfter::Date(seconds) => {
                let now_ms = u64::try_from(self.clock.unix_ms()).unwrap();
                let date_ms = (now_ms / 1000 + seconds) * 1000;
                let date = std::time::UNIX_EPOCH + Duration::from_millis(date_ms);
                let wait = Duration::from_millis(date_ms.saturating_sub(now_ms));
                (wait, httpdate::fmt_http_date(date))
            }
        };
        let mut header = vec![(RETRY_AFTER.as_str(), text)];
        if self.lie == Some(Lie::NoRetryAfter) {
            header.clear();
        }
        (Some(wait).filter(|wait| !wait.is_zero()), header)
    }
}

impl Transport for Network {
    fn post<'a>(&'a self, _: &'a Url, headers: HeaderMap, body: Bytes) -> Answer<'a> {
        Box::pin(async move { self.exchange(&headers, body).await })
    }
}

fn response((status, headers): Reply) -> Response {
    let mut response = hyper::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Response::from(response.body("the backend says so").unwrap())
}

impl State {
    /// A request sets out.
    fn depart(&mut self, now: Duration, headers: &HeaderMap, body: &Bytes) -> Journey {
        let message = match headers["x-prometheus-remote-write-version"].as_bytes() {
            b"0.1.0" => ProtobufMessage::V1,
            _ => ProtobufMessage::V2,
        };
        let attempt = headers.get("retry-attempt");
        let attempt = attempt.map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let samples = read(body, message);
        let series = samples.iter().map(|sample| sample.series).collect();
        let begun = self.attempts.begin(now, body, attempt, series);
        let fault = match self.plan.weather(now) {
            Weather::Fair => Fault::None,
            Weather::Always(fault) => fault,
            Weather::Mixed if self.random.bool() => fault(&mut self.random),
            Weather::Mixed => Fault::None,
        };
        let batch = self.note(now, begun).unwrap_or_default();
        let there = self.latency();
        let there = match fault {
            Fault::Late => self.timeout.mul_f64(self.random.f64() * 2.0),
            _ => there,
        };
        self.counts.requests += 1;
        self.counts.packed += u64::from(is_packed(&samples));
        (now, attempt, message as u8, body).hash(&mut self.trace);
        Journey {
            incoming: Incoming {
                message,
                samples,
                life: self.life,
                batch,
            },
            fault,
            there,
            back: self.latency(),
        }
    }

    fn latency(&mut self) -> Duration {
        LATENCY_MAX.mul_f64(self.random.f64())
    }

    /// Keeps the first thing that must never happen.
    fn note<T>(&mut self, now: Duration, result: Result<T, String>) -> Option<T> {
        result
            .map_err(|what| self.violation.get_or_insert(format!("at {now:?}: {what}")))
            .ok()
    }

    /// A request reaches the backend.
    fn arrived(&mut self, now: Duration, incoming: &Incoming) -> Reply {
        let taken = self.backend.take(incoming);
        let reply = self.note(now, taken).unwrap_or_default();
        reply.0.hash(&mut self.trace);
        self.counts.refusals += u64::from(reply.0 >= 300);
        reply
    }
}

/// Whether two series have several samples, side by side.
fn is_packed(samples: &[Numbered]) -> bool {
    let runs = samples.chunk_by(|a, b| a.series == b.series);
    runs.filter(|run| run.len() > 1).count() > 1
}
