//! Turns requests into answers and faults, and the times of requests into a verdict on backoff.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use shipper::transport::{Answer, Transport};
use shipper::{EndpointOptions, ProtobufMessage};
use tokio::sync::oneshot;
use wal::Clock;

use super::backend::{Backend, Incoming, Numbered, Reply, read};
use super::clock::DeviceClock;
use super::plan::{BackendPlan, Fault, LATENCY_MAX, Plan, RetryAfter, Weather, fault};

/// Failures without an answer between, from which on one shard at a time may try.
const AWAY_AFTER: u32 = 3;

/// What became of an attempt, as its sender sees it.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Decided,
    /// To be tried again, not before so long has passed if that was asked for.
    Failed(Option<Duration>),
}

/// The attempts at one body.
#[derive(Debug)]
struct Batch {
    number: u64,
    series: Vec<u32>,
    attempts: u64,
    is_open: bool,
    is_decided: bool,
    /// Under way as the only one that tries while nobody is answered.
    is_probe: bool,
    /// The next attempt may begin then,
    not_before: Duration,
    /// and after another failure so much later, jitter included.
    step: Duration,
}

/// What is known of the requests since the last restart.
#[derive(Debug, Default)]
struct Life {
    number: u32,
    batches: HashMap<Bytes, Batch>,
    /// The batch that each series is in until it is decided.
    busy: HashMap<u32, u64>,
    undecided: usize,
    failures: u32,
    answered_at: Option<Duration>,
    /// When the present outage began, and attempts since then.
    outage: Option<(Duration, u64)>,
}

/// The way between an endpoint and its backend.
struct State {
    plan: BackendPlan,
    options: EndpointOptions,
    random: fastrand::Rng,
    backend: Backend,
    life: Life,
    batches: u64,
    counts: Trace,
    trace: DefaultHasher,
    violation: Option<String>,
}

/// See [`State`].
#[derive(Clone)]
pub(crate) struct Network {
    clock: Arc<DeviceClock>,
    timeout: Duration,
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
}

/// A request as it sets out.
struct Journey {
    body: Bytes,
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
            backend: Backend::new(backend.clone(), plan.series),
            plan: backend,
            options: options.clone(),
            random: fastrand::Rng::with_seed(seed),
            life: Life::default(),
            batches: 0,
            counts: Trace::default(),
            trace: DefaultHasher::new(),
            violation: None,
        };
        Self {
            clock,
            timeout: options.remote_timeout,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The process is another; what it sent before may still arrive.
    pub(crate) fn restarted(&self) {
        let mut state = self.state.lock();
        let number = state.life.number + 1;
        state.life = Life {
            number,
            ..Life::default()
        };
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
            ..state.counts
        }
    }

    async fn exchange(&self, headers: &HeaderMap, body: Bytes) -> Result<Response, String> {
        let journey = self
            .state
            .lock()
            .depart(self.clock.monotonic(), headers, body);
        let key = journey.body.clone();
        let (answered, result) = {
            let reply = tokio::time::timeout(self.timeout, self.travel(journey)).await;
            match reply {
                Err(_) => (Seen::Failed(None), Err("operation timed out".to_owned())),
                Ok(Err(error)) => (Seen::Failed(None), Err(error)),
                Ok(Ok((seen, reply))) => (seen, Ok(response(reply))),
            }
        };
        self.state
            .lock()
            .ended(self.clock.monotonic(), &key, answered);
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
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let reply = state.lock().arrived(&journey.incoming);
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
        let header = vec![(RETRY_AFTER.as_str(), text)];
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
    fn depart(&mut self, now: Duration, headers: &HeaderMap, body: Bytes) -> Journey {
        let message = match headers["x-prometheus-remote-write-version"].as_bytes() {
            b"0.1.0" => ProtobufMessage::V1,
            _ => ProtobufMessage::V2,
        };
        let attempt = headers.get("retry-attempt");
        let attempt = attempt.map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let samples = read(&body, message);
        let series = samples.iter().map(|sample| sample.series).collect();
        let begun = self.begin(now, &body, attempt, series);
        let fault = match self.plan.weather(now) {
            Weather::Fair => Fault::None,
            Weather::Always(fault) => fault,
            Weather::Mixed if self.random.bool() => fault(&mut self.random),
            Weather::Mixed => Fault::None,
        };
        let batch = begun.unwrap_or_else(|violation| {
            self.violated(now, violation);
            0
        });
        let there = self.latency();
        let there = match fault {
            Fault::Late => self.options.remote_timeout.mul_f64(self.random.f64() * 2.0),
            _ => there,
        };
        self.counts.requests += 1;
        self.counts.packed += u64::from(is_packed(&samples));
        (now, attempt, message as u8, &body).hash(&mut self.trace);
        Journey {
            body,
            incoming: Incoming {
                message,
                samples,
                life: self.life.number,
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

    fn violated(&mut self, now: Duration, what: String) {
        self.violation.get_or_insert(format!("at {now:?}: {what}"));
    }

    /// An attempt begins; the number of its batch.
    fn begin(
        &mut self,
        now: Duration,
        body: &Bytes,
        attempt: u64,
        series: Vec<u32>,
    ) -> Result<u64, String> {
        let queue = &self.options.queue;
        let life = &mut self.life;
        let is_away = life.failures >= AWAY_AFTER;
        // Who waited when it was answered comes back at random within the longest backoff.
        let settled = |at: Duration| now > at + queue.max_backoff;
        let probes = is_away && attempt > 0 && life.answered_at.is_none_or(settled);
        if probes && let Some(other) = life.batches.values().find(|one| one.is_probe) {
            return Err(format!("nobody is answered and two shards try: {other:?}"));
        }
        if let Some((_, attempts)) = &mut life.outage {
            *attempts += 1;
        }
        let Some(batch) = life.batches.get_mut(body) else {
            if attempt > 0 {
                return Err(format!("attempt {attempt} at a body never seen"));
            }
            self.batches += 1;
            let number = self.batches;
            for &one in &series {
                match life.busy.insert(one, number) {
                    Some(other) if other != number => {
                        return Err(format!("series {one}: batch {other} is not decided yet"));
                    }
                    _ => {}
                }
            }
            life.undecided += 1;
            if life.undecided > usize::from(queue.max_shards) {
                return Err("more batches are undecided than there are shards".to_owned());
            }
            let batch = Batch {
                number,
                series,
                attempts: 1,
                is_open: true,
                is_decided: false,
                is_probe: false,
                not_before: now,
                step: queue.min_backoff,
            };
            life.batches.insert(body.clone(), batch);
            return Ok(number);
        };
        if batch.is_decided || batch.is_open || attempt != batch.attempts {
            return Err(format!("attempt {attempt} at {batch:?}"));
        }
        if now < batch.not_before {
            return Err(format!("attempt {attempt} too early at {batch:?}"));
        }
        (batch.attempts, batch.is_open, batch.is_probe) = (attempt + 1, true, probes);
        Ok(batch.number)
    }

    /// An attempt has come to its end.
    fn ended(&mut self, now: Duration, body: &Bytes, seen: Seen) {
        let queue = &self.options.queue;
        let life = &mut self.life;
        // None if it is of an earlier life.
        let Some(batch) = life.batches.get_mut(body) else {
            return;
        };
        (batch.is_open, batch.is_probe) = (false, false);
        let Seen::Failed(asked) = seen else {
            batch.is_decided = true;
            for one in &batch.series {
                life.busy.remove(one);
            }
            life.undecided = life.undecided.saturating_sub(1);
            (life.failures, life.answered_at, life.outage) = (0, Some(now), None);
            return;
        };
        life.failures += 1;
        self.counts.failures += 1;
        let (wait, step) = match asked {
            Some(asked) => (asked, asked * 2),
            None => (batch.step / 2, batch.step * 2),
        };
        batch.not_before = now + wait;
        batch.step = step.min(queue.max_backoff);
        let (since, attempts) = *life.outage.get_or_insert((now, 0));
        let most = attempts_at_most(&self.options, now - since);
        if attempts > most {
            let outage = now - since;
            self.violated(
                now,
                format!("{attempts} attempts in an outage of {outage:?}, not {most}"),
            );
        }
    }

    /// A request reaches the backend.
    fn arrived(&mut self, incoming: &Incoming) -> Reply {
        match self.backend.take(incoming) {
            Ok(reply) => {
                reply.0.hash(&mut self.trace);
                self.counts.refusals += u64::from(reply.0 >= 300);
                reply
            }
            Err(violation) => {
                self.violation.get_or_insert(violation);
                (500, Vec::new())
            }
        }
    }
}

/// Whether two series have several samples, side by side.
fn is_packed(samples: &[Numbered]) -> bool {
    let runs = samples.chunk_by(|a, b| a.series == b.series);
    runs.filter(|run| run.len() > 1).count() > 1
}

/// So many attempts at most begin in an outage of such a length: of each shard one, and as many as there
/// are backoff delays in it, each as short as jitter can make it.
fn attempts_at_most(options: &EndpointOptions, outage: Duration) -> u64 {
    let queue = &options.queue;
    let (mut step, mut passed, mut attempts) = (queue.min_backoff, Duration::ZERO, 1);
    loop {
        passed += step / 2;
        if passed > outage {
            return attempts * u64::from(queue.max_shards);
        }
        attempts += 1;
        step = (step * 2).min(queue.max_backoff);
    }
}
