//! Turns a subject, a load and a sink into one thing to be watched, and taken apart in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use wal::{SharedClock, SystemClock};

use crate::Common;
use crate::fleet::Fleet;
use crate::load::{Brought, Load, Pace, Progress};
use crate::measure::Used;
use crate::sink::Sink;
use crate::subject::{Program, Subject};

/// Longest wait for the first rounds.
const WARM_UP_DEADLINE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(10);

/// What runs while something is measured. The subject is dropped before the sink, which waits for
/// its connections.
pub(crate) struct Scene {
    pub(crate) subject: Subject,
    pub(crate) load: Load,
    pub(crate) sink: Sink,
    pub(crate) clock: SharedClock,
}

/// Counts and usage at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Duration,
    pub(crate) used: Used,
    pub(crate) acked: u64,
    pub(crate) acked_bytes: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_bytes: u64,
    /// Series that took the place of another.
    pub(crate) replaced: u64,
}

/// A scene without its load.
pub(crate) struct Ended {
    pub(crate) subject: Subject,
    pub(crate) sink: Sink,
    pub(crate) progress: Arc<Progress>,
    pub(crate) brought: Brought,
}

impl Scene {
    /// Starts `program` and the load on it.
    pub(crate) fn start(
        program: &Program,
        common: &Common,
        fleet: &Fleet,
        sink: Sink,
        pace: &Pace,
    ) -> Result<Self> {
        let clock = SystemClock::shared();
        let subject = Subject::start(program, common.scratch()?, sink.address, &clock)?;
        let ingest = subject.ingest();
        let load = Load::start(ingest, fleet, common.connections, pace, &clock)?;
        Ok(Self {
            subject,
            load,
            sink,
            clock,
        })
    }

    /// The same under another load.
    pub(crate) fn with_load(self, fleet: &Fleet, connections: usize, pace: &Pace) -> Result<Self> {
        let Self {
            subject,
            load,
            sink,
            clock,
        } = self;
        load.finish()?;
        let load = Load::start(subject.ingest(), fleet, connections, pace, &clock)?;
        Ok(Self {
            subject,
            load,
            sink,
            clock,
        })
    }

    /// Waits until so many samples are through.
    pub(crate) fn warm_up(&mut self, program: &Program, samples: u64) -> Result<Moment> {
        let deadline = self.clock.monotonic() + WARM_UP_DEADLINE;
        let warm = self.wait(|now| {
            let through = if program.ships() {
                now.delivered
            } else {
                now.acked
            };
            through >= samples || now.at > deadline
        })?;
        if warm.at > deadline {
            bail!("{} did not warm up in time", program.name());
        }
        Ok(warm)
    }

    /// Looks at the scene until something is so.
    pub(crate) fn wait(&mut self, mut until: impl FnMut(&Moment) -> bool) -> Result<Moment> {
        loop {
            let now = self.moment()?;
            if until(&now) {
                return Ok(now);
            }
            self.subject.check()?;
            if self.load.is_broken() {
                bail!("the load gave up");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends the load. Why it broke says more than what `watched` says about it.
    pub(crate) fn end<T>(self, watched: Result<T>) -> Result<(T, Ended)> {
        let Self {
            sink,
            subject,
            load,
            clock: _,
        } = self;
        let progress = load.progress.clone();
        let brought = load.finish()?;
        let ended = Ended {
            subject,
            sink,
            progress,
            brought,
        };
        Ok((watched?, ended))
    }

    fn moment(&self) -> Result<Moment> {
        let used = self.subject.used()?;
        let (progress, counts) = (&self.load.progress, &self.sink.counts);
        Ok(Moment {
            at: self.clock.monotonic(),
            used,
            acked: progress.acked.load(Ordering::Relaxed),
            acked_bytes: progress.body_bytes.load(Ordering::Relaxed),
            delivered: counts.samples.load(Ordering::Relaxed),
            delivered_bytes: counts.body_bytes.load(Ordering::Relaxed),
            replaced: progress.replaced.load(Ordering::Relaxed),
        })
    }
}
