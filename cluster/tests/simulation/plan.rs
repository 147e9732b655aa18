//! Turns a seed into settings, a network and what goes wrong.

use std::time::Duration;

use fastrand::Rng;

/// What goes wrong, or just happens.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A process ends without a word.
    Crash,
    /// One that has ended begins again at its address.
    Restart { is_clock_back: bool },
    /// A process ends in order.
    Leave,
    /// Another process begins.
    Join,
    /// One that has ended begins again at another address, as a container does.
    Move,
    /// Another process begins with a name that is taken.
    Namesake,
    /// Processes hear each other only within two groups.
    Partition,
    /// All hear each other again.
    Heal,
    /// A process stands still for a while.
    Pause(Duration),
}

/// A life to be lived.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) processes: usize,
    /// When they begin.
    pub(super) starts: Vec<Duration>,
    pub(super) faults: Vec<(Duration, Fault)>,
    /// When nothing goes wrong any more.
    pub(super) calm_at: Duration,
    pub(super) delay: (Duration, Duration),
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) join_peers_max: usize,
    pub(super) rejoin_interval: Duration,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let processes = rng.usize(2..=7);
        let is_together = rng.bool();
        let starts = (0..processes).map(|_| ms(if is_together { 0 } else { rng.u64(0..15_000) }));
        let starts = starts.collect();
        let mut faults = Vec::new();
        let mut at = ms(rng.u64(2_000..20_000));
        let mut is_apart = false;
        for _ in 0..rng.usize(0..10) {
            let fault = match rng.u32(0..100) {
                0..15 => Fault::Crash,
                15..30 => Fault::Restart {
                    is_clock_back: rng.u32(0..4) == 0,
                },
                30..40 => Fault::Leave,
                40..50 => Fault::Join,
                50..58 => Fault::Move,
                58..65 => Fault::Namesake,
                65..80 if is_apart => Fault::Heal,
                65..85 => Fault::Partition,
                _ => Fault::Pause(ms(rng.u64(500..30_000))),
            };
            is_apart = match fault {
                Fault::Partition => true,
                Fault::Heal => false,
                _ => is_apart,
            };
            faults.push((at, fault));
            at += ms(*rng.choice(&[50, 500, 5_000, 15_000]).unwrap() * rng.u64(1..4));
        }
        let slowest = *rng.choice(&[2, 50, 200]).unwrap();
        let is_bad = rng.bool();
        Self {
            seed,
            processes,
            starts,
            faults,
            calm_at: at + ms(5_000),
            delay: (ms(1), ms(1 + slowest)),
            loss: if is_bad { rng.f64() * 0.3 } else { 0.0 },
            duplication: if is_bad { rng.f64() * 0.2 } else { 0.0 },
            join_peers_max: *rng.choice(&[0, 1, 5]).unwrap(),
            rejoin_interval: Duration::from_secs(*rng.choice(&[10, 60]).unwrap()),
        }
    }
}
