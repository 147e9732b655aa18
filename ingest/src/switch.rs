//! Turns the difference between two layouts into what one shard thread has and serves.
//!
//! # Invariants
//! - A shard switches between two requests: what is appended before goes the old ways, what is appended
//!   after the new ones, nothing in between.
//! - Whoever listens in another's place takes over its sockets in the same step in which that stops: no
//!   connection comes in between.
//! - The committers run until the stores are closed, so requests in flight when accepting stops can still
//!   become durable.
//!
//! # Threads
//! - A shard thread's main task. Layouts come over a channel; that it is closed says stop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use wal::{Committer, SharedClock};

use crate::accept::receive;
use crate::append::Appender;
use crate::http::{Receiver, Settings, Worker};
use crate::own_store::{NewStore, OwnStore};
use crate::paths::{PathTo, Paths};
use crate::pull::assign::ScraperChange;
use crate::pull::pool::{Puller, Scraper};
use crate::spread::{Inbox, Spread};
use crate::stats::ReceiverStats;

/// The difference between two layouts for one shard. What has a number that is not there is new.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) stores: Vec<NewStore>,
    pub(crate) committers: Vec<Committer>,
    /// All that go on, and the new ones.
    pub(crate) receivers: Vec<Change>,
    pub(crate) listeners: Vec<Listen>,
    pub(crate) gone_listeners: Vec<u64>,
    pub(crate) gone_receivers: Vec<u64>,
    pub(crate) gone_stores: Vec<u64>,
    /// All that go on, and the new ones.
    pub(crate) scrapers: Vec<ScraperChange>,
    pub(crate) gone_scrapers: Vec<u64>,
    /// Dropped when it is done.
    pub(crate) done: mpsc::SyncSender<()>,
}

/// What a receiver goes by from now on.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) stats: Arc<ReceiverStats>,
    pub(crate) settings: Settings,
    /// The number of the ways, and the ways; none: they are as before.
    pub(crate) paths: Option<(u64, Vec<PathTo>)>,
}

/// A socket to listen on.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) number: u64,
    /// The number of the receiver.
    pub(crate) receiver: u64,
    pub(crate) listener: TcpListener,
    pub(crate) inbox: Inbox,
    pub(crate) spread: Spread,
    /// Dropped when the last connection is gone.
    pub(crate) served: mpsc::SyncSender<()>,
}

/// What one shard thread is made of.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: usize,
    pub(crate) clock: SharedClock,
    pub(crate) scrape_seed: u64,
    pub(crate) grace: Duration,
    pub(crate) switches: tokio::sync::mpsc::Receiver<Switch>,
    /// Dropped when the last connection is gone.
    pub(crate) drained: mpsc::SyncSender<()>,
}

/// What a shard thread has now.
struct Present {
    worker: Rc<Worker>,
    puller: Rc<Puller>,
    scrapers: BTreeMap<u64, Rc<Scraper>>,
    grace: Duration,
    stores: Vec<Rc<OwnStore>>,
    receivers: BTreeMap<u64, Rc<Receiver>>,
    /// Who listens, and what tells it to stop.
    listeners: BTreeMap<u64, watch::Sender<bool>>,
    receiving: JoinSet<()>,
    committers: JoinSet<()>,
}

/// The life of a shard thread.
pub(crate) async fn run(mut shard: Shard) {
    let worker = Rc::new(Worker {
        shard: shard.number,
        clock: shard.clock.clone(),
        appender: RefCell::new(Appender::default()),
        cutting: RefCell::default(),
        buffers: RefCell::default(),
    });
    let mut present = Present {
        worker,
        puller: Rc::new(Puller::new(shard.clock, shard.scrape_seed)),
        scrapers: BTreeMap::new(),
        grace: shard.grace,
        stores: Vec::new(),
        receivers: BTreeMap::new(),
        listeners: BTreeMap::new(),
        receiving: JoinSet::new(),
        committers: JoinSet::new(),
    };
    loop {
        tokio::select! {
            switch = shard.switches.recv() => match switch {
                Some(switch) => present.switch(switch),
                None => break,
            },
            Some(_) = present.receiving.join_next() => {}
            Some(_) = present.committers.join_next() => {}
        }
    }
    for scraper in std::mem::take(&mut present.scrapers).into_values() {
        scraper.end(false);
    }
    present.listeners.clear();
    while present.receiving.join_next().await.is_some() {}
    let mut committers = std::mem::take(&mut present.committers);
    // Gives the writers back, so that nothing of this thread holds up the log.
    drop(present);
    drop(shard.drained);
    while committers.join_next().await.is_some() {}
}

impl Present {
    /// Goes from one layout to the next. Nothing here waits or fails.
    fn switch(&mut self, switch: Switch) {
        self.stores
            .extend(switch.stores.into_iter().map(OwnStore::new));
        for committer in switch.committers {
            self.committers.spawn_local(committer.run_uring());
        }
        for change in switch.receivers {
            self.change(change);
        }
        for listen in switch.listeners {
            self.listen(listen);
        }
        for change in switch.scrapers {
            self.change_scraper(change);
        }
        for number in switch.gone_scrapers {
            if let Some(scraper) = self.scrapers.remove(&number) {
                scraper.end(true);
            }
        }
        for number in switch.gone_listeners {
            if let Some(stop) = self.listeners.remove(&number) {
                stop.send_replace(true);
            }
        }
        // Both live on in the connections that are not finished.
        self.receivers
            .retain(|number, _| !switch.gone_receivers.contains(number));
        self.stores
            .retain(|own| !switch.gone_stores.contains(&own.number));
        drop(switch.done);
    }

    fn change(&mut self, change: Change) {
        let Change {
            number,
            stats,
            settings,
            paths,
        } = change;
        let paths = paths.map(|(number, paths)| Paths::new(number, &paths, &self.stores));
        if let Some(receiver) = self.receivers.get(&number) {
            receiver.change(settings, paths);
        } else if let Some(paths) = paths {
            let receiver = Receiver::new(stats, self.worker.clone(), settings, paths);
            self.receivers.insert(number, receiver);
        }
    }

    fn change_scraper(&mut self, change: ScraperChange) {
        let ScraperChange {
            number,
            stats,
            terms,
            paths,
            targets,
            elsewhere,
        } = change;
        let paths = paths.map(|(number, paths)| Paths::new(number, &paths, &self.stores));
        let scraper = if let Some(scraper) = self.scrapers.get(&number) {
            scraper.change(terms, paths);
            scraper.clone()
        } else if let Some(paths) = paths {
            let scraper = Scraper::new(stats, self.puller.clone(), terms, paths);
            self.scrapers.insert(number, scraper.clone());
            scraper
        } else {
            return;
        };
        scraper.assign(&targets, |id| elsewhere.contains(&id));
    }

    fn listen(&mut self, listen: Listen) {
        let Some(receiver) = self.receivers.get(&listen.receiver) else {
            return;
        };
        let (stop, stopped) = watch::channel(false);
        let arriving = (listen.listener, listen.inbox, listen.spread);
        let receiving = receive(receiver.clone(), arriving, stopped, self.grace);
        self.receiving.spawn_local(async move {
            receiving.await;
            drop(listen.served);
        });
        self.listeners.insert(listen.number, stop);
    }
}
