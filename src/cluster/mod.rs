//! Turns the `--cluster.*` flags into a running membership: sockets, names, files and time for the crate `cluster`.
//!
//! | file | turns |
//! |---|---|
//! | `settings` | flags into values known to be good |
//! | `advertise` | network interfaces into where the others reach this agent |
//! | `discovery` | join addresses, names and SRV records among them, into `host:port` |
//! | `transport` | messages into requests, a connection and a queue for each of the others |
//! | `inbox` | requests of the others into messages, and what is answered into answers |
//! | `driver` | all of these and time into what the cluster does |
//! | `dial` | addresses into connections to the others |
//! | `owners` | parts of requests whose series others own into requests to them, and those of others into parts |
//! | `handover` | changes of who owns what into when it is shipped |
//! | `numbers` | what happens into counters |
//!
//! # Order
//! It begins once the agent's own address is taken, so that the others can answer; the agent takes part in the work
//! when its first load is done. At the end the others are told first: that it is about to leave, before anything
//! is closed, and that it is gone, before the own address is.
//!
//! # Threads
//! - Everything runs on the control thread and waits for nobody: what the rest of the agent asks is a copy behind a lock.

mod advertise;
mod dial;
mod discovery;
mod driver;
mod handover;
mod inbox;
mod numbers;
mod owners;
mod settings;
mod transport;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cluster::{Cluster, Ownership, State, Stats};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use wal::SharedClock;

use dial::{Dial, Lines};
use driver::{Driver, Told};
pub(crate) use handover::{HANDOVER_PATH, Handover, SharedLog, forget};
pub(crate) use inbox::{MESSAGE_PATH, answer};
pub(crate) use numbers::{Numbers, Way};
pub(crate) use owners::{PARTS_PATH, take as take_part};
pub(crate) use settings::Settings;
use transport::Outgoing;

/// What the others are told at the end, twice, may take this long each time: 5 s together.
const TELL_WITHIN: Duration = Duration::from_millis(2500);
/// Messages that wait to be looked at; they are looked at faster than they come.
const WAITING_MAX: usize = 1024;

/// A running membership. Copies are the same.
#[derive(Clone, Debug)]
pub(crate) struct Clustering {
    name: Arc<str>,
    wait_for_size: usize,
    ownership: Ownership,
    stats: Arc<Stats>,
    numbers: Arc<Numbers>,
    handover: Handover,
    told: mpsc::Sender<Told>,
    /// Messages that are under way.
    under_way: watch::Receiver<usize>,
}

impl Clustering {
    /// Joins the others, if there are any, for as long as `runtime` runs. What is to be known by the next process is
    /// kept in `storage`.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub(crate) fn start(
        settings: Settings,
        storage: &Path,
        clock: &SharedClock,
        runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let (told, told_rx) = mpsc::channel(WAITING_MAX);
        let numbers = Arc::<Numbers>::default();
        let Settings { options, join, tls } = settings;
        let (name, wait_for_size) = (options.cluster_name.as_str().into(), options.wait_for_size);
        let node = (options.node_name.clone(), options.address.clone());
        let (under_way_tx, under_way) = watch::channel(0);
        let dial = Dial {
            tls,
            numbers: Arc::clone(&numbers),
            runtime: runtime.clone(),
        };
        let outgoing = Outgoing {
            dial: dial.clone(),
            told: told.clone(),
            numbers: Arc::clone(&numbers),
            under_way: Arc::new(under_way_tx),
            waiting_bytes: Arc::default(),
            clock: Arc::clone(clock),
            runtime: runtime.clone(),
        };
        let driver = Driver::new(outgoing, join);
        let cluster = Cluster::new(&options, driver, clock.monotonic())
            .context("cannot cluster with these settings")?;
        let lines = Arc::new(Lines::new(dial, Arc::clone(clock)));
        let own = (node.0.as_str().into(), storage);
        let handover = Handover::start(own, cluster.ownership(), lines, clock, runtime);
        let clustering = Self {
            handover,
            name,
            wait_for_size,
            ownership: cluster.ownership(),
            stats: cluster.stats(),
            numbers,
            told,
            under_way,
        };
        tracing::info!(
            name = node.0,
            address = node.1,
            cluster = %clustering.name,
            "clustering"
        );
        runtime.spawn(driver::run(cluster, told_rx, Arc::clone(clock)));
        Ok(clustering)
    }

    /// Who owns what.
    pub(crate) const fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Who owns which series.
    pub(crate) const fn handover(&self) -> &Handover {
        &self.handover
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn wait_for_size(&self) -> usize {
        self.wait_for_size
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Messages that are under way to the others, and those of them that wait here.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let here = self.told.max_capacity() - self.told.capacity();
        (*self.under_way.borrow(), here)
    }

    /// Takes part in the work from now on.
    pub(crate) async fn participate(&self) {
        self.enter(State::Participant).await;
    }

    /// Tells the others that this agent is about to leave.
    pub(crate) async fn terminate(&self) {
        self.enter(State::Terminating).await;
        self.until_told().await;
    }

    /// Tells the others that this agent is gone.
    pub(crate) async fn leave(&self) {
        self.handover.until_heard().await;
        let (done, is_done) = oneshot::channel();
        self.tell(Told::Leave(done), is_done).await;
        self.until_told().await;
    }

    async fn enter(&self, state: State) {
        let (done, is_done) = oneshot::channel();
        self.tell(Told::Enter(state, done), is_done).await;
    }

    async fn tell(&self, what: Told, is_done: oneshot::Receiver<()>) {
        let told = async {
            // Both fail when the runtime is ending.
            self.told.send(what).await.ok();
            is_done.await.ok();
        };
        timeout(TELL_WITHIN, told).await.ok();
    }

    /// Waits until everything that was to be said is, or was given up.
    async fn until_told(&self) {
        let mut under_way = self.under_way.clone();
        let told = under_way.wait_for(|count| *count == 0);
        if timeout(TELL_WITHIN, told).await.is_err() {
            tracing::warn!("not all of the others could be told that this agent leaves");
        }
    }
}
