//! Turns two hundred kills at random moments, with endpoints at different lags, into the account of
//! every delivery: nothing missing, nothing invented, in order, and little twice.
//!
//! The endpoints are sinks that keep what came twice. Every run of the agent sends its number along,
//! so that the account is exact: which kill made a sample be sent again, and which order is whose.
//! What a sender repeated, as a kill took the answer, may be in the log twice: that is left out of
//! what counts as sent again, but not of the order.
//!
//! The seed of a run is printed; `PENSTOCK_TEST_SEED` runs one again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::common::agent::{Agent, config_with};
use crate::common::backend::Samples;
use crate::common::load::Sender;
use crate::common::sink::{Log, RUN_HEADER, Sink, expected};
use crate::common::{PATIENCE, now};

const KILLS: usize = 200;
const SENDERS: [&str; 2] = ["first", "second"];
/// Between two requests of a sender: about what the slow endpoint can take.
const PACE: Duration = Duration::from_millis(15);
/// How much later the slow endpoint answers.
const SLOW: Duration = Duration::from_millis(15);

/// One in so many milliseconds the sink that is away comes back.
const COMES_ONE_IN: u32 = 600;

/// Small, so that little can be in flight.
const SHARDS: usize = 2;
const CAPACITY: usize = 100;
const SAMPLES_PER_SEND: usize = 50;
/// What a shard has taken up and not done with may hold back what others have delivered long ago.
/// Twice, as shards do not get the same number of series.
const HELD_BACK: usize = 2 * SHARDS * (CAPACITY + SAMPLES_PER_SEND);
/// Positions are saved every 200 ms; the rest is for a disk that takes its time.
const SAVED_WITHIN: Duration = Duration::from_millis(1200);

/// When the next kill comes.
#[derive(Debug)]
enum Moment {
    /// So long after the start: the log is about to be recovered, or just was.
    StartUp(Duration),
    /// After so many acknowledgements to every sender.
    Acks(i64),
    /// After so many deliveries to the endpoint with this index.
    Deliveries(usize, usize),
}

impl Moment {
    fn random(rng: &mut fastrand::Rng) -> Self {
        match rng.u32(0..30) {
            0..15 => Self::StartUp(Duration::from_micros(rng.u64(0..30_000))),
            15..21 => Self::StartUp(Duration::from_micros(rng.u64(0..400_000))),
            21..26 => Self::Acks(rng.i64(1..15)),
            // Long enough that most of what was delivered must not come again.
            26 => Self::Acks(rng.i64(100..130)),
            _ => Self::Deliveries(rng.usize(0..2), rng.usize(1..1000)),
        }
    }
}

/// Everything that takes part.
struct World {
    agent: Agent,
    senders: [Sender; 2],
    /// One that keeps up, one that is slow, one that is mostly away.
    sinks: [Sink; 3],
    /// When each run was killed.
    kills: Vec<Instant>,
    /// When the last sink comes and goes: apart from the moments of the kills, which the seed alone
    /// tells.
    outages: fastrand::Rng,
}

impl World {
    fn config(port: u16, run: usize, sinks: &[Sink]) -> String {
        let urls: Vec<String> = sinks.iter().map(Sink::url).collect();
        let more = format!(
            "    headers = {{\"{RUN_HEADER}\" = \"{run}\"}}\n    queue_config {{\n      \
             capacity = {CAPACITY}\n      max_samples_per_send = {SAMPLES_PER_SEND}\n      \
             min_shards = {SHARDS}\n      max_shards = {SHARDS}\n      min_backoff = \"10ms\"\n      \
             max_backoff = \"50ms\"\n    }}\n"
        );
        config_with(port, &urls, &more)
    }

    fn wait(&mut self, moment: &Moment) {
        match *moment {
            // Not to let anything happen: this is the random moment.
            Moment::StartUp(delay) => std::thread::sleep(delay),
            Moment::Acks(more) => {
                let enough = self.senders.each_ref().map(|sender| sender.acked() + more);
                self.until(|world| {
                    let acked = world.senders.each_ref().map(Sender::acked);
                    let mut both = acked.iter().zip(&enough);
                    both.all(|(acked, enough)| acked >= enough)
                });
            }
            Moment::Deliveries(sink, more) => {
                // Everything may be delivered: new data must come before there is more.
                let enough = self.sinks[sink].deliveries() + more;
                self.until(|world| world.sinks[sink].deliveries() >= enough);
            }
        }
    }

    /// Looks often: kills are to come at any moment, not every 20 ms.
    fn until(&mut self, mut is_so: impl FnMut(&Self) -> bool) {
        let end = now() + PATIENCE;
        while !is_so(self) {
            assert!(!self.agent.process.has_ended(), "it ended by itself");
            assert!(now() < end, "no progress");
            self.come_or_go();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill_and_start_again(&mut self) {
        assert!(!self.agent.process.has_ended(), "it ended by itself");
        self.kills.push(now());
        self.agent.process.kill();
        let config = Self::config(self.agent.port, self.kills.len(), &self.sinks);
        self.agent.configure(&config);
        self.agent.start_again();
    }

    /// Called about every millisecond of a wait: stays away three times as long as it comes.
    fn come_or_go(&mut self) {
        let mostly_away = &self.sinks[2];
        match mostly_away.is_up() {
            true if self.outages.u32(0..COMES_ONE_IN) < 3 => mostly_away.go_down(),
            false if self.outages.u32(0..COMES_ONE_IN) < 1 => mostly_away.come_back(),
            _ => {}
        }
    }
}

fn rng() -> fastrand::Rng {
    let seed = match std::env::var("PENSTOCK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("PENSTOCK_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("PENSTOCK_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[test]
fn nothing_acked_is_lost_and_little_comes_twice_across_200_kills() {
    let mut rng = rng();
    let start = now();
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    sinks[1].delay(SLOW);
    let agent = Agent::start_with(dir.path(), &[], |port| World::config(port, 0, &sinks));
    let senders = SENDERS.map(|name| Sender::start_paced(agent.port, name, PACE));
    let mut world = World {
        agent,
        senders,
        sinks,
        kills: Vec::new(),
        outages: rng.fork(),
    };
    for _ in 0..KILLS {
        let moment = Moment::random(&mut rng);
        world.wait(&moment);
        world.kill_and_start_again();
    }
    println!("{KILLS} kills in {:.1?}", start.elapsed());
    world.wait(&Moment::Acks(1));
    if !world.sinks[2].is_up() {
        world.sinks[2].come_back();
    }
    let (mut acked, mut repeated) = (Samples::new(), Samples::new());
    for sender in world.senders {
        let (of_sender, repeated_by_sender) = sender.finish();
        acked.extend(of_sender);
        repeated.extend(repeated_by_sender);
    }
    for sink in &world.sinks {
        world.agent.until_delivered(&sink.url());
        assert_eq!(world.agent.refused(&sink.url()), 0.0);
    }
    println!("all delivered after {:.1?}", start.elapsed());

    let (acked, repeated) = (expected(acked), expected(repeated));
    for (name, sink) in ["prompt", "slow", "mostly away"].iter().zip(&world.sinks) {
        let log = sink.log();
        log.assert_holds(&acked);
        let repeated = log.known(&repeated);
        let again = Again::count(&log, &world.kills, &repeated);
        println!(
            "{name}: {} samples; sent again: {} after kills (at most {} after one), {} after a lost \
             answer",
            acked.values().map(Vec::len).sum::<usize>(),
            again.after_kills,
            again.most_after_a_kill,
            again.after_lost_answers,
        );
        assert_in_order(&log, &repeated);
    }
}

/// How much was sent again.
#[derive(Debug, Default)]
struct Again {
    after_kills: usize,
    most_after_a_kill: usize,
    after_lost_answers: usize,
}

impl Again {
    /// Fails if a kill made more be sent again than what was not yet saved as delivered.
    fn count(log: &Log, kills: &[Instant], repeated: &BTreeSet<(u32, i64)>) -> Self {
        let mut again = Self::default();
        let mut after_kill = vec![0; kills.len()];
        let mut times: BTreeMap<(u32, i64), Vec<usize>> = BTreeMap::new();
        for delivery in &log.deliveries {
            let key = (delivery.series, delivery.timestamp);
            if !repeated.contains(&key) {
                times.entry(key).or_default().push(delivery.request);
            }
        }
        let last = last_of_connections(log);
        for requests in times.values_mut() {
            requests.sort_by_key(|request| log.requests[*request].run);
            for pair in requests.windows(2) {
                let (run, next) = (log.requests[pair[0]].run, log.requests[pair[1]].run);
                if run < next {
                    after_kill[run] += 1;
                } else {
                    let was_lost = last[&log.requests[pair[0]].connection] == pair[0];
                    assert!(was_lost, "run {run} repeats what was answered");
                    again.after_lost_answers += 1;
                }
            }
        }
        for (run, (count, killed)) in after_kill.iter().zip(kills).enumerate() {
            let fresh = log.deliveries.iter().filter(|delivery| {
                let request = &log.requests[delivery.request];
                let is_saved = |at: Instant| at + SAVED_WITHIN < *killed;
                request.run == run && !request.answered.is_some_and(is_saved)
            });
            let most = fresh.count() + HELD_BACK;
            assert!(*count <= most, "kill {run}: {count} again, at most {most}");
            again.after_kills += count;
            again.most_after_a_kill = again.most_after_a_kill.max(*count);
        }
        again
    }
}

/// The last request of each connection: the only one whose answer may have been lost.
fn last_of_connections(log: &Log) -> BTreeMap<u64, usize> {
    let requests = log.requests.iter().zip(0..);
    requests.map(|(r, number)| (r.connection, number)).collect()
}

/// Fails unless the samples of each series came in order within each run of the agent, apart from
/// requests that were repeated because their answer was lost.
fn assert_in_order(log: &Log, repeated: &BTreeSet<(u32, i64)>) {
    struct Newest {
        request: usize,
        first: i64,
        last: i64,
    }
    let last_of_connections = last_of_connections(log);
    let mut newest: BTreeMap<(usize, u32), Newest> = BTreeMap::new();
    for delivery in &log.deliveries {
        let (number, time) = (delivery.request, delivery.timestamp);
        let request = &log.requests[number];
        let newest = newest
            .entry((request.run, delivery.series))
            .or_insert(Newest {
                request: number,
                first: time,
                last: i64::MIN,
            });
        let connection = log.requests[newest.request].connection;
        let may_repeat =
            number != newest.request && last_of_connections[&connection] == newest.request;
        let is_copy = time == newest.last && repeated.contains(&(delivery.series, time));
        let is_in_order = time > newest.last || is_copy || (may_repeat && time == newest.first);
        assert!(is_in_order, "{delivery:?} after {}", newest.last);
        if number != newest.request {
            newest.first = time;
        }
        (newest.request, newest.last) = (number, time);
    }
}
