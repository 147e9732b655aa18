//! Turns an endpoint's options into a part of the world: the endpoint, its backend, and time of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use shipper::{Endpoint, EndpointHandle, Stopped};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use wal::Store;

use super::clock::{DeviceClock, instant};
use super::network::Network;
use super::plan::Plan;

/// An aborted task ends its own tasks, and those theirs: more turns than that takes.
const TURNS_TO_END: usize = 16;

/// An endpoint, its backend, and the time between them.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) network: Network,
    /// How often the number of shards was seen to be another.
    pub(crate) reshards: u32,
    runtime: Runtime,
    begin: Instant,
    clock: Arc<DeviceClock>,
    handle: Option<EndpointHandle>,
    /// The state of the shipper's randomness, which is the thread's.
    chance: u64,
    shards: u16,
}

impl Site {
    pub(crate) fn new(plan: &Plan, number: usize, wrong_ms: &Arc<AtomicI64>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let begin = runtime.block_on(async { instant() });
        let clock = DeviceClock::of_runtime(begin, wrong_ms);
        let seed = plan.seed ^ (number as u64 + 1).rotate_left(32);
        Self {
            name: format!("endpoint-{number}"),
            network: Network::new(plan, number, Arc::clone(&clock), seed),
            reshards: 0,
            runtime,
            begin,
            clock,
            handle: None,
            chance: seed,
            shards: 0,
        }
    }

    pub(crate) fn start(&mut self, plan: &Plan, store: &Store) {
        let mut options = plan.options.clone();
        options.name.clone_from(&self.name);
        let _within = self.runtime.enter();
        let transport = Arc::new(self.network.clone());
        let clock = Arc::<DeviceClock>::clone(&self.clock);
        let runtime = self.runtime.handle();
        let handle = Endpoint::start_over(transport, store.clone(), options, clock, runtime);
        let handle = handle.unwrap();
        self.shards = handle.stats().snapshot().shards;
        self.handle = Some(handle);
    }

    /// Runs this endpoint's part of the world.
    fn run<T>(&mut self, what: impl Future<Output = T>) -> T {
        fastrand::seed(self.chance);
        let result = self.runtime.block_on(what);
        self.chance = fastrand::get_seed();
        if let Some(violation) = self.network.violation() {
            panic!("{}: {violation}", self.name);
        }
        result
    }

    pub(crate) fn run_until(&mut self, at: Duration) {
        let at = self.begin + at;
        self.run(async move { tokio::time::sleep_until(at).await });
        if let Some(handle) = &self.handle {
            let shards = handle.stats().snapshot().shards;
            self.reshards += u32::from(shards != self.shards);
            self.shards = shards;
        }
    }

    /// Ends it where it is.
    pub(crate) fn kill(&mut self) {
        self.handle = None;
        self.run(async {
            for _ in 0..TURNS_TO_END {
                tokio::task::yield_now().await;
            }
        });
        self.network.restarted();
    }

    /// Ends it in an orderly way; how long that took.
    pub(crate) fn stop(&mut self, deadline: Duration) -> Duration {
        let handle = self.handle.take().expect("it runs");
        let (stopped, took) = self.run(async {
            let start = instant();
            (handle.stop(deadline).await, instant() - start)
        });
        assert!(took <= deadline + Duration::from_millis(1), "{took:?}");
        if let Stopped::GaveUp { .. } = stopped {
            assert!(took >= deadline, "{took:?}");
        }
        self.network.restarted();
        took
    }
}
