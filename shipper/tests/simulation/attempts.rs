//! Turns the times of requests into a verdict on order and backoff.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use shipper::QueueOptions;

/// Failures without an answer between, from which on one shard at a time may try.
const AWAY_AFTER: u32 = 3;
/// Timers go by whole milliseconds.
const TIMER: Duration = Duration::from_millis(2);

/// What became of an attempt, as its sender sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Decided,
    /// To be tried again, after so long if that was asked for.
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
    failed_at: Duration,
    /// The next attempt may begin then, and has to by then if others are answered.
    not_before: Duration,
    not_after: Duration,
    /// The delay after another failure, at most.
    step: Duration,
}

/// The attempts of one endpoint since it was started.
#[derive(Debug)]
pub(crate) struct Attempts {
    queue: QueueOptions,
    lanes: usize,
    /// Of all lives.
    numbers: u64,
    batches: HashMap<Bytes, Batch>,
    /// The batches that each series is in until they are decided.
    busy: HashMap<u32, Vec<u64>>,
    undecided: usize,
    /// Since somebody was answered.
    failures: u32,
    answered_at: Option<Duration>,
    /// When it was last known that nobody is answered.
    away_at: Option<Duration>,
    /// When the present outage began, or it was last asked to wait; attempts since then.
    outage: Option<(Duration, u64)>,
}

impl Attempts {
    pub(crate) fn new(queue: &QueueOptions, lanes: usize) -> Self {
        Self {
            queue: queue.clone(),
            lanes,
            numbers: 0,
            batches: HashMap::new(),
            busy: HashMap::new(),
            undecided: 0,
            failures: 0,
            answered_at: None,
            away_at: None,
            outage: None,
        }
    }

    /// The endpoint begins anew; what it had under way is not ended any more.
    pub(crate) fn restarted(&mut self) {
        let numbers = self.numbers;
        *self = Self {
            numbers,
            ..Self::new(&self.queue, self.lanes)
        };
    }

    /// Attempt `attempt` (from 0) at a body begins; the number of its batch.
    ///
    /// # Errors
    /// What must never happen.
    pub(crate) fn begin(
        &mut self,
        now: Duration,
        body: &Bytes,
        attempt: u64,
        series: Vec<u32>,
    ) -> Result<u64, String> {
        let is_away = self.note_away(now);
        // Who waited when it was answered comes back at random within the longest backoff.
        let settled = |at: Duration| now > at + self.queue.max_backoff;
        let probes = is_away && attempt > 0 && self.answered_at.is_none_or(settled);
        if probes && let Some(other) = self.batches.values().find(|one| one.is_probe) {
            return Err(format!("nobody is answered and two try: {other:?}"));
        }
        if let Some((_, attempts)) = &mut self.outage {
            *attempts += 1;
        }
        let Some(batch) = self.batches.get_mut(body) else {
            return match attempt {
                0 => self.begin_batch(now, body, series),
                _ => Err(format!("attempt {attempt} at a body never seen")),
            };
        };
        if batch.is_decided || batch.is_open || attempt != batch.attempts {
            return Err(format!("attempt {attempt} at {batch:?}"));
        }
        if now < batch.not_before {
            return Err(format!("attempt {attempt} too early at {batch:?}"));
        }
        let waits_for_nobody = self.away_at.is_none_or(|at| at < batch.failed_at);
        if waits_for_nobody && now > batch.not_after + TIMER {
            return Err(format!("attempt {attempt} too late at {batch:?}"));
        }
        (batch.attempts, batch.is_open, batch.is_probe) = (attempt + 1, true, probes);
        Ok(batch.number)
    }

    fn begin_batch(
        &mut self,
        now: Duration,
        body: &Bytes,
        series: Vec<u32>,
    ) -> Result<u64, String> {
        self.numbers += 1;
        let number = self.numbers;
        for &one in &series {
            let busy = self.busy.entry(one).or_default();
            if !busy.contains(&number) {
                busy.push(number);
            }
            if busy.len() > self.lanes {
                return Err(format!("series {one}: of {busy:?} none is decided yet"));
            }
        }
        self.undecided += 1;
        if self.undecided > usize::from(self.queue.max_shards) + self.lanes - 1 {
            return Err("more batches are undecided than there are shards".to_owned());
        }
        let batch = Batch {
            number,
            series,
            attempts: 1,
            is_open: true,
            is_decided: false,
            is_probe: false,
            failed_at: now,
            not_before: now,
            not_after: now,
            step: self.queue.min_backoff,
        };
        self.batches.insert(body.clone(), batch);
        Ok(number)
    }

    /// The attempt under way at a body has come to its end.
    ///
    /// # Errors
    /// What must never happen.
    pub(crate) fn ended(&mut self, now: Duration, body: &Bytes, seen: Seen) -> Result<(), String> {
        let Some(batch) = self.batches.get_mut(body) else {
            return Err("an attempt ends that never began".to_owned());
        };
        (batch.is_open, batch.is_probe) = (false, false);
        let Seen::Failed(asked) = seen else {
            batch.is_decided = true;
            for one in &batch.series {
                let busy = self.busy.entry(*one).or_default();
                busy.retain(|other| *other != batch.number);
            }
            self.undecided -= 1;
            self.note_away(now);
            (self.failures, self.answered_at, self.outage) = (0, Some(now), None);
            return Ok(());
        };
        let (wait, step) = match asked {
            Some(asked) => (asked..asked, asked * 2),
            None => (batch.step / 2..batch.step, batch.step * 2),
        };
        let step = step.clamp(self.queue.min_backoff, self.queue.max_backoff);
        (batch.failed_at, batch.step) = (now, step);
        (batch.not_before, batch.not_after) = (now + wait.start, now + wait.end);
        self.failures += 1;
        self.note_away(now);
        if asked.is_some() {
            // How often is up to who asks.
            self.outage = None;
        }
        let (since, attempts) = *self.outage.get_or_insert((now, 0));
        let (outage, most) = (
            now - since,
            attempts_at_most(&self.queue, self.lanes, now - since),
        );
        if attempts > most {
            return Err(format!("{attempts} attempts in {outage:?}, not {most}"));
        }
        Ok(())
    }

    /// Whether nobody is answered.
    fn note_away(&mut self, now: Duration) -> bool {
        let is_away = self.failures >= AWAY_AFTER;
        if is_away {
            self.away_at = Some(now);
        }
        is_away
    }
}

/// So many attempts at most begin in an outage of such a length: of each shard one, and as many as there
/// are backoff delays in it, each as short as jitter can make it.
fn attempts_at_most(queue: &QueueOptions, lanes: usize, outage: Duration) -> u64 {
    let (mut step, mut passed, mut attempts) = (queue.min_backoff, Duration::ZERO, 1);
    loop {
        passed += step / 2;
        if passed > outage {
            return attempts * (u64::from(queue.max_shards) + lanes as u64 - 1);
        }
        attempts += 1;
        step = (step * 2).min(queue.max_backoff);
    }
}
