//! Turns a seed into the settings of an endpoint, what its backend is like, and the weather between
//! them.

use std::fmt;
use std::time::Duration;

use shipper::{EndpointOptions, Priority, ProtobufMessage};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// No endpoint asks to wait longer.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(8);
/// Of a request or an answer on its way, in good times.
pub(crate) const LATENCY_MAX: Duration = ms(40);
/// So many samples of the bad series are refused. Few enough that no worker ever sees eight batches in
/// a row of nothing else: from then on the innocent may be given up with the bad, by design.
const BAD_SAMPLES_MAX: u64 = 12;

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// No connection.
    Refused,
    /// The connection breaks before the backend has the request.
    LostRequest,
    /// The connection breaks when the backend has answered.
    LostAnswer,
    /// The request goes nowhere.
    Hole,
    /// So late that it may be given up, and yet it arrives.
    Late,
    /// An answer that says try again.
    Busy(u16, RetryAfter),
}

/// How an answer asks to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RetryAfter {
    No,
    Seconds(u64),
    /// A date so many seconds ahead.
    Date(u64),
}

/// What a stretch of time is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    Fair,
    /// Every request has the same fault.
    Always(Fault),
    /// Every other request, on average, has some fault.
    Mixed,
}

/// What the backend speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// Remote write 1.0; answers 415 to 2.0.
    V1,
    /// Remote write 1.0; takes 2.0 for an empty message of 1.0.
    V1Unaware,
    /// Remote write 2.0, all or nothing.
    V2,
    /// Remote write 2.0; stores what is good and says how much that was.
    V2Partial,
}

/// What one backend is like.
#[derive(Clone, Debug)]
pub(crate) struct BackendPlan {
    pub(crate) dialect: Dialect,
    /// Answers 413 to more samples.
    pub(crate) samples_max: usize,
    /// Refuses the first samples of this series.
    pub(crate) bad_series: Option<u32>,
    pub(crate) bad_samples: u64,
    pub(crate) bad_status: u16,
    /// Refuses what it has already.
    pub(crate) takes_nothing_twice: bool,
    /// Until when what; fair afterwards.
    pub(crate) weather: Vec<(Duration, Weather)>,
}

impl BackendPlan {
    pub(crate) fn is_bad(&self, series: u32, number: u64) -> bool {
        self.bad_series == Some(series) && number < self.bad_samples
    }

    pub(crate) fn weather(&self, at: Duration) -> Weather {
        let now = self.weather.iter().find(|(until, _)| at < *until);
        now.map_or(Weather::Fair, |(_, weather)| *weather)
    }
}

/// What is wrong with the simulated network: a check that is worth something finds it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// A request that was lost is answered as if it were stored.
    Taken,
    /// How long to wait is asked for and not told.
    NoRetryAfter,
    /// Who waits for an answer that does not come waits for ever.
    NoTimeout,
}

/// A life.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) options: EndpointOptions,
    pub(crate) series: u32,
    pub(crate) series_per_target: u32,
    /// Every so manieth series has start timestamps.
    pub(crate) started_every: u32,
    /// Appends carry a record that nobody wants and that is so large.
    pub(crate) padding: Option<usize>,
    /// One step in so many is a restart.
    pub(crate) restart_every: u8,
    /// At most, between two steps.
    pub(crate) gap_max: Duration,
    /// From then on all weather is fair and nothing is appended.
    pub(crate) healthy_from: Duration,
    /// One per endpoint.
    pub(crate) backends: Vec<BackendPlan>,
    pub(crate) lie: Option<Lie>,
}

impl Plan {
    /// In how many lines an endpoint may get its records.
    pub(crate) const fn lanes(&self) -> usize {
        match self.options.priority {
            Priority::InOrder => 1,
            Priority::Fresh => 2,
        }
    }

    pub(crate) fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let random = &mut random;
        let options = options(random);
        let series = random.u32(2..=24);
        let healthy_from = match options.priority {
            Priority::InOrder => ms(random.u64(2_000..30_000)),
            // An outage must be long to matter.
            Priority::Fresh => ms(random.u64(20_000..60_000)),
        };
        let count = if random.u8(0..4) == 0 { 2 } else { 1 };
        let backends = (0..count)
            .map(|_| backend(random, &options, series, healthy_from))
            .collect();
        Self {
            seed,
            series,
            series_per_target: random.u32(1..=6),
            padding: [None, None, Some(100), Some(9000)][random.usize(0..4)],
            started_every: [1, 3, 1000][random.usize(0..3)],
            restart_every: [8, 16, 255][random.usize(0..3)],
            gap_max: healthy_from / random.u32(8..40),
            healthy_from,
            backends,
            options,
            lie: None,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, .. } = self;
        writeln!(f, "{:?} {:?}", options.protobuf_message, options.queue)?;
        writeln!(
            f,
            "timeout {:?}, {:?}, {:?}",
            options.remote_timeout, options.drain, options.priority
        )?;
        let (series, each) = (self.series, self.series_per_target);
        writeln!(
            f,
            "{series} series, {each} per target, healthy from {:?}",
            self.healthy_from
        )?;
        for backend in &self.backends {
            writeln!(f, "{backend:?}")?;
        }
        Ok(())
    }
}

fn options(random: &mut fastrand::Rng) -> EndpointOptions {
    let mut options = EndpointOptions::new("endpoint", "http://backend/api/v1/write");
    options.remote_timeout = ms(random.u64(200..5000));
    options.protobuf_message = match random.bool() {
        true => ProtobufMessage::V1,
        false => ProtobufMessage::V2,
    };
    let queue = &mut options.queue;
    queue.capacity = random.usize(2..60);
    queue.max_samples_per_send = random.usize(1..30);
    queue.max_shards = random.u16(1..=6);
    queue.min_shards = random.u16(1..=queue.max_shards);
    queue.batch_send_deadline = ms(random.u64(1..2000));
    queue.min_backoff = ms(random.u64(5..200));
    queue.max_backoff = queue.min_backoff.max(ms(random.u64(100..5000)));
    queue.reshard_every = ms(random.u64(200..4000));
    options.drain.read_ahead = [0, 20, 100][random.usize(0..3)];
    options.drain.max_share = Some(0.5).filter(|_| random.u8(0..8) == 0);
    options.drain.max_bytes_per_second = Some(20_000).filter(|_| random.u8(0..8) == 0);
    options.send_exemplars = false;
    if random.u8(0..4) == 0 {
        options.priority = Priority::Fresh;
    }
    options
}

fn backend(
    random: &mut fastrand::Rng,
    options: &EndpointOptions,
    series: u32,
    healthy_from: Duration,
) -> BackendPlan {
    let dialect = match options.protobuf_message {
        ProtobufMessage::V1 => Dialect::V1,
        ProtobufMessage::V2 => [
            Dialect::V1,
            Dialect::V1Unaware,
            Dialect::V2,
            Dialect::V2Partial,
        ][random.usize(0..4)],
    };
    let mut weather = Vec::new();
    let mut until = Duration::ZERO;
    while until < healthy_from {
        let longest = match options.priority {
            Priority::InOrder => 8000,
            Priority::Fresh => 25_000,
        };
        until = (until + ms(random.u64(100..longest))).min(healthy_from);
        let kind = match random.u8(0..8) {
            0..3 => Weather::Fair,
            3..6 => Weather::Always(fault(random)),
            _ => Weather::Mixed,
        };
        weather.push((until, kind));
    }
    BackendPlan {
        dialect,
        samples_max: match random.u8(0..8) {
            0 => 1,
            1 => 7,
            _ => usize::MAX,
        },
        bad_series: Some(random.u32(0..series)).filter(|_| random.u8(0..3) == 0),
        bad_samples: random.u64(1..=BAD_SAMPLES_MAX),
        bad_status: [400, 409, 422][random.usize(0..3)],
        takes_nothing_twice: random.u8(0..4) == 0,
        weather,
    }
}

/// Any fault but none.
pub(crate) fn fault(random: &mut fastrand::Rng) -> Fault {
    match random.u8(0..8) {
        0 => Fault::Refused,
        1 => Fault::LostRequest,
        2 => Fault::LostAnswer,
        3 => Fault::Hole,
        4 => Fault::Late,
        _ => {
            let seconds = random.u64(0..=RETRY_AFTER_MAX.as_secs());
            let after = match random.u8(0..4) {
                0 => RetryAfter::Seconds(seconds),
                1 => RetryAfter::Date(seconds),
                _ => RetryAfter::No,
            };
            Fault::Busy([429, 500, 503][random.usize(0..3)], after)
        }
    }
}
