//! Turns a layout into what each shard has to change, and remembers what runs.
//!
//! # Invariants
//! - Everything that can fail comes first: [`Control::prepare`] changes nothing that runs,
//!   [`Control::commit`] cannot fail.
//! - Stores, receivers, their ways and their sockets have numbers that are never given twice.
//!
//! # Failure
//! - What is wrong with one receiver is that receiver's failure: it goes on as it was, to the stores of the
//!   new layout. What is wrong with the layout, or a store without a writer left, fails all of it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use wal::{Committer, IoEngine, SharedClock, Store};

use crate::Error;
use crate::admit::{Flight, Gate};
use crate::http::Settings;
use crate::layout::Layout;
use crate::options::{CONNECTIONS_MAX_DEFAULT, ReceiverOptions, ShardsOptions};
use crate::own_store::NewStore;
use crate::paths::{PathTo, ways_to};
use crate::places::{Place, Places, Wish};
use crate::pull::assign::Scraping;
use crate::pull::{ScraperOptions, ScraperStats};
use crate::secure::{Guard, Tls};
use crate::share::Inlet;
use crate::spread::Spread;
use crate::stats::ReceiverStats;
use crate::switch::{Change, Listen, Switch};
use crate::tap::Tap;
use crate::tenants::Tenants;

/// What runs.
#[derive(Debug)]
pub(crate) struct Control {
    threads: usize,
    scrape_threads: usize,
    inherited: Arc<[TcpListener]>,
    engine: IoEngine,
    clock: SharedClock,
    /// The last number given.
    last_number: u64,
    stores: Vec<Kept>,
    receivers: BTreeMap<String, Served>,
    scrapers: BTreeMap<String, Scraping>,
    /// Committers so far: they go round the shards.
    committers: usize,
    pub(crate) committing: Vec<JoinHandle<()>>,
}

/// A store that the shards have writers of.
#[derive(Clone, Debug)]
struct Kept {
    id: String,
    number: u64,
    store: Store,
    tap: Tap,
    /// Closed when no shard has a writer any more.
    leases: Arc<parking_lot::Mutex<mpsc::Receiver<()>>>,
}

/// A receiver that runs.
#[derive(Debug)]
struct Served {
    number: u64,
    stats: Arc<ReceiverStats>,
    settings: Settings,
    paths: Vec<PathTo>,
    place: Place,
}

/// A receiver that is to run.
struct Wanted {
    stats: Arc<ReceiverStats>,
    settings: Settings,
    paths: Vec<PathTo>,
}

/// A layout that can be applied.
pub(crate) struct Prepared {
    stores: Vec<Kept>,
    /// For each shard.
    writers: Vec<Vec<NewStore>>,
    committers: Vec<Vec<Committer>>,
    wanted: BTreeMap<String, Wanted>,
    /// Of those that are new or move.
    places: BTreeMap<String, Place>,
    scrapers: Vec<(ScraperOptions, Vec<PathTo>)>,
    pub(crate) failed: BTreeMap<String, Error>,
}

/// What is to be waited for once the shards have switched.
#[derive(Default)]
pub(crate) struct Leaving {
    /// Closed when the last connection to a socket that is gone is served.
    pub(crate) served: Vec<mpsc::Receiver<()>>,
    /// Stores that are gone by their ids, closed when no shard has a writer of it.
    pub(crate) stores: Vec<(String, Arc<parking_lot::Mutex<mpsc::Receiver<()>>>)>,
}

impl Control {
    pub(crate) fn new(options: &ShardsOptions) -> Self {
        Self {
            threads: options.threads,
            scrape_threads: options.scrape_threads,
            inherited: options.inherited.clone(),
            engine: options.engine,
            clock: options.clock.clone(),
            last_number: 0,
            stores: Vec::new(),
            receivers: BTreeMap::new(),
            scrapers: BTreeMap::new(),
            committers: 0,
            committing: Vec::new(),
        }
    }

    /// The receivers with their addresses and numbers.
    pub(crate) fn receivers(
        &self,
    ) -> impl Iterator<Item = (&str, std::net::SocketAddr, &Arc<ReceiverStats>)> {
        let all = self.receivers.iter();
        all.map(|(name, served)| (&**name, served.place.real, &served.stats))
    }

    /// Where parts for receivers come in that share their series with other agents, by their names.
    pub(crate) fn inlets(&self) -> BTreeMap<String, Inlet> {
        let all = self.receivers.iter().filter_map(|(name, served)| {
            let options = &served.settings.options;
            let spread = served
                .place
                .spread
                .clone()
                .filter(|_| options.sharing.is_some())?;
            Some((name.clone(), Inlet::new(spread, options.body_bytes_max)))
        });
        all.collect()
    }

    /// The numbers of the scrapers, by their names.
    pub(crate) fn scrapers(&self) -> BTreeMap<String, Arc<ScraperStats>> {
        let all = self.scrapers.iter();
        all.map(|(name, scraping)| (name.clone(), scraping.stats.clone()))
            .collect()
    }

    /// Where the stores can be looked at, by their ids.
    pub(crate) fn taps(&self) -> BTreeMap<String, Tap> {
        let all = self.stores.iter();
        all.map(|kept| (kept.id.clone(), kept.tap.clone()))
            .collect()
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Does everything that can fail. If `all_or_nothing`, a receiver that fails fails the layout.
    ///
    /// # Errors
    /// What is wrong with the layout as a whole; nothing has changed.
    pub(crate) fn prepare(
        &mut self,
        layout: Layout,
        all_or_nothing: bool,
    ) -> Result<Prepared, Error> {
        layout.check()?;
        let (stores, writers) = self.stores_of(&layout.stores)?;
        let mut failed = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        let to = |path: &crate::options::Path| PathTo {
            store: stores.get(path.store).map_or(0, |kept: &Kept| kept.number),
            stages: path.stages.clone(),
        };
        let scrapers = layout.scrapers.into_iter().map(|options| {
            let paths = options.paths.iter().map(to).collect();
            (options, paths)
        });
        let scrapers = scrapers.collect();
        for options in layout.receivers {
            let name = options.name.clone();
            let paths: Vec<_> = options.paths.iter().map(to).collect();
            let old = self.receivers.get(&name);
            let stats = old.map_or_else(
                || Arc::new(new_stats(&options, self.threads)),
                |old| old.stats.clone(),
            );
            let settings = match self.settings(old, &stats, options) {
                Ok(settings) => settings,
                Err(error) => {
                    failed.insert(name.clone(), error);
                    let Some(old) = old else { continue };
                    old.settings.clone()
                }
            };
            let one = Wanted {
                stats,
                settings,
                paths,
            };
            wanted.insert(name, one);
        }
        let places = self.places_of(&mut wanted, &mut failed);
        if all_or_nothing && let Some((_, error)) = failed.pop_first() {
            return Err(error);
        }
        let committers = self.committers_of(&stores)?;
        Ok(Prepared {
            stores,
            writers,
            committers,
            wanted,
            places,
            scrapers,
            failed,
        })
    }

    /// The stores of a layout, and for each shard the writers of those that are new.
    fn stores_of(
        &mut self,
        wanted: &[(String, Store)],
    ) -> Result<(Vec<Kept>, Vec<Vec<NewStore>>), Error> {
        let mut stores = Vec::new();
        let threads = self.threads + self.scrape_threads;
        let mut writers: Vec<Vec<NewStore>> = (0..threads).map(|_| Vec::new()).collect();
        for (id, store) in wanted {
            let is_it = |kept: &&Kept| kept.id == *id && kept.store.is_same(store);
            if let Some(kept) = self.stores.iter().find(is_it) {
                stores.push(kept.clone());
                continue;
            }
            let (number, tap) = (self.number(), Tap::default());
            let (lease, leases) = mpsc::sync_channel(0);
            for writers in &mut writers {
                writers.push(NewStore {
                    number,
                    store: store.clone(),
                    writer: store.writer()?,
                    tap: tap.clone(),
                    lease: lease.clone(),
                });
            }
            stores.push(Kept {
                id: id.clone(),
                number,
                store: store.clone(),
                tap,
                leases: Arc::new(parking_lot::Mutex::new(leases)),
            });
        }
        Ok((stores, writers))
    }

    /// What a receiver goes by; what did not change is what it was.
    fn settings(
        &self,
        old: Option<&Served>,
        stats: &ReceiverStats,
        options: ReceiverOptions,
    ) -> Result<Settings, Error> {
        let old = old.map(|old| &old.settings);
        let before = old.map(|old| &*old.options);
        let has_http2 = options.http2.is_some();
        let is_same = |before: &ReceiverOptions| {
            before.tls == options.tls && before.http2.is_some() == has_http2
        };
        let tls = match old.filter(|old| is_same(&old.options)) {
            Some(old) => old.tls.clone(),
            None => tls(&options, stats, &self.clock)?,
        };
        let guard = match old.filter(|_| before.is_some_and(|b| b.auth == options.auth)) {
            Some(old) => old.guard.clone(),
            None => guard(&options)?,
        };
        let tenants = match old.filter(|_| before.is_some_and(|b| b.tenants == options.tenants)) {
            Some(old) => old.tenants.clone(),
            None => tenants(&options)?,
        };
        Ok(Settings {
            options: Arc::new(options),
            tls,
            guard,
            tenants,
        })
    }

    /// Where those listen that are new or move. Who cannot goes on where it was, or is not wanted.
    fn places_of(
        &self,
        wanted: &mut BTreeMap<String, Wanted>,
        failed: &mut BTreeMap<String, Error>,
    ) -> BTreeMap<String, Place> {
        let wish = |(name, one): (&String, &Wanted)| Wish {
            name: name.clone(),
            address: one.settings.options.address,
        };
        let wishes = wanted.iter().map(wish).collect();
        let present = self.receivers.iter();
        let present = present.map(|(name, served)| (&**name, &served.place));
        let (found, failures) =
            Places::new(present.collect(), self.threads, &self.inherited).find(wishes);
        for (name, error) in failures {
            match self.receivers.get(&name) {
                Some(old) => {
                    if let Some(one) = wanted.get_mut(&name) {
                        one.settings = old.settings.clone();
                    }
                }
                None => drop(wanted.remove(&name)),
            }
            failed.insert(name, error);
        }
        found
    }

    /// Hands the committers of new stores to the shards, or gives them threads.
    fn committers_of(&mut self, stores: &[Kept]) -> Result<Vec<Vec<Committer>>, Error> {
        let mut all: Vec<Vec<Committer>> = (0..self.threads).map(|_| Vec::new()).collect();
        for kept in stores {
            let is_new = self.stores.iter().all(|old| old.number != kept.number);
            // Somebody else may run it already, a test or a tool.
            let Some(committer) = is_new.then(|| kept.store.committer()).flatten() else {
                continue;
            };
            let at = self.committers;
            self.committers += 1;
            if self.engine == IoEngine::Uring {
                if let Some(shard) = all.get_mut(at % self.threads) {
                    shard.push(committer);
                }
                continue;
            }
            let thread = format!("committer {at}");
            let started = committer.spawn_thread();
            let started = started.map_err(|source| Error::Thread { thread, source })?;
            self.committing.push(started);
        }
        Ok(all)
    }

    /// What each shard has to change, and what is to be waited for then.
    pub(crate) fn commit(
        &mut self,
        prepared: Prepared,
        done: &mpsc::SyncSender<()>,
    ) -> (Vec<Switch>, Leaving) {
        let Prepared {
            stores,
            writers,
            committers,
            wanted,
            mut places,
            scrapers,
            ..
        } = prepared;
        let mut leaving = Leaving::default();
        let committers = committers
            .into_iter()
            .chain(std::iter::repeat_with(Vec::new));
        let mut switches: Vec<Switch> = (writers.into_iter().zip(committers))
            .map(|(stores, committers)| Switch {
                stores,
                committers,
                receivers: Vec::new(),
                listeners: Vec::new(),
                gone_listeners: Vec::new(),
                gone_receivers: Vec::new(),
                gone_stores: Vec::new(),
                scrapers: Vec::new(),
                gone_scrapers: Vec::new(),
                done: done.clone(),
            })
            .collect();
        let (shards, pullers) = switches.split_at_mut(self.threads);
        let mut before = std::mem::take(&mut self.receivers);
        for (name, one) in wanted {
            let (old, place) = (before.remove(&name), places.remove(&name));
            let Some((served, gone)) = self.serve(one, old, place, shards) else {
                continue;
            };
            if let Some(gone) = gone {
                leave(gone, shards, &mut leaving);
            }
            self.receivers.insert(name, served);
        }
        for gone in before.into_values() {
            for switch in &mut *shards {
                switch.gone_receivers.push(gone.number);
            }
            leave(gone.place, shards, &mut leaving);
        }
        self.scrape(scrapers, pullers);
        let is_gone = |kept: &&Kept| stores.iter().all(|one| one.number != kept.number);
        for gone in self.stores.iter().filter(is_gone) {
            for switch in &mut switches {
                switch.gone_stores.push(gone.number);
            }
            leaving.stores.push((gone.id.clone(), gone.leases.clone()));
        }
        self.stores = stores;
        (switches, leaving)
    }

    /// Tells the threads that scrape of all scrapers.
    fn scrape(&mut self, wanted: Vec<(ScraperOptions, Vec<PathTo>)>, pullers: &mut [Switch]) {
        let mut before = std::mem::take(&mut self.scrapers);
        for (options, paths) in wanted {
            let (name, numbers) = (options.name.clone(), (self.number(), self.number()));
            let old = before.remove(&name);
            let (scraping, changes) =
                Scraping::next(old.as_ref(), options, paths, numbers, pullers.len());
            for (switch, change) in pullers.iter_mut().zip(changes) {
                switch.scrapers.push(change);
            }
            self.scrapers.insert(name, scraping);
        }
        for gone in before.into_values() {
            for switch in &mut *pullers {
                switch.gone_scrapers.push(gone.number);
            }
        }
    }

    /// Tells the shards of one receiver; it, and the place it leaves.
    fn serve(
        &mut self,
        one: Wanted,
        old: Option<Served>,
        place: Option<Place>,
        switches: &mut [Switch],
    ) -> Option<(Served, Option<Place>)> {
        let Wanted {
            stats,
            settings,
            paths,
        } = one;
        let number = old.as_ref().map_or_else(|| self.number(), |old| old.number);
        let are_same = |old: &Served| {
            old.paths.len() == paths.len()
                && old.paths.iter().zip(&paths).all(|(a, b)| a.is_same(b))
        };
        let has_other_paths = old.as_ref().is_none_or(|old| !are_same(old));
        let paths_number = self.number();
        let change = Change {
            number,
            stats: stats.clone(),
            settings: settings.clone(),
            paths: has_other_paths.then(|| (paths_number, paths.clone())),
        };
        for switch in &mut *switches {
            switch.receivers.push(change.clone());
        }
        let options = &settings.options;
        stats.bytes.set_limits(
            options.in_flight_bytes_max,
            options.connection_in_flight_bytes_max,
        );
        stats.connections.set_limit(connections_max(options));
        stats.set_tenants(settings.tenants.clone());
        let (place, gone) = match place {
            Some(mut place) => {
                place.number = self.number();
                listen(&mut place, (number, &stats), switches);
                (place, old.map(|old| old.place))
            }
            None => (old?.place, None),
        };
        let served = Served {
            number,
            stats,
            settings,
            paths,
            place,
        };
        Some((served, gone))
    }

    /// Every shard has switched: what the receivers before had of tenants that is of no use any more.
    pub(crate) fn forget_ways(&self) {
        for served in self.receivers.values() {
            if let Some(tenants) = &served.settings.tenants {
                tenants.keep_only(&ways_to(&served.paths));
            }
        }
    }

    /// Forgets the threads of stores that were closed.
    pub(crate) fn reap(&mut self) {
        self.committing.retain(|thread| !thread.is_finished());
    }

    /// Nobody listens any more: those waiting to be accepted are refused.
    pub(crate) fn stop_listening(&mut self) {
        for served in self.receivers.values_mut() {
            served.place.sockets.clear();
        }
        self.inherited = Arc::default();
    }
}

/// Gives each shard its socket of a new place.
fn listen(
    place: &mut Place,
    (receiver, stats): (u64, &Arc<ReceiverStats>),
    switches: &mut [Switch],
) {
    let (served, all_served) = mpsc::sync_channel(0);
    place.served = Some(all_served);
    let (spread, inboxes) = Spread::new(stats);
    place.spread = Some(spread.clone());
    let listeners = std::mem::take(&mut place.for_shards);
    for ((switch, listener), inbox) in switches.iter_mut().zip(listeners).zip(inboxes) {
        switch.listeners.push(Listen {
            number: place.number,
            receiver,
            listener,
            inbox,
            spread: spread.clone(),
            served: served.clone(),
        });
    }
}

fn leave(place: Place, switches: &mut [Switch], leaving: &mut Leaving) {
    for switch in switches {
        switch.gone_listeners.push(place.number);
    }
    leaving.served.extend(place.served);
}

fn connections_max(options: &ReceiverOptions) -> u64 {
    let connections = match options.connections_max {
        0 => CONNECTIONS_MAX_DEFAULT,
        given => given,
    };
    u64::try_from(connections).unwrap_or(u64::MAX)
}

fn new_stats(options: &ReceiverOptions, shards: usize) -> ReceiverStats {
    let bytes = Flight::new(
        options.in_flight_bytes_max,
        options.connection_in_flight_bytes_max,
    );
    let connections = Gate::new(connections_max(options));
    ReceiverStats::new(options.name.clone(), shards, bytes, connections)
}

fn tls(
    receiver: &ReceiverOptions,
    stats: &ReceiverStats,
    clock: &SharedClock,
) -> Result<Option<Arc<Tls>>, Error> {
    let Some(options) = receiver.tls.clone() else {
        return Ok(None);
    };
    let (name, http2) = (receiver.name.clone(), receiver.http2.is_some());
    match Tls::new(name, options, clock.clone(), http2, stats.secure.clone()) {
        Ok(tls) => Ok(Some(Arc::new(tls))),
        Err(invalid) => Err(Error::Secure {
            receiver: receiver.name.clone(),
            problem: invalid.to_string(),
        }),
    }
}

fn guard(receiver: &ReceiverOptions) -> Result<Option<Arc<Guard>>, Error> {
    let guard = receiver.auth.as_ref().map(Guard::new).transpose();
    guard
        .map(|guard| guard.map(Arc::new))
        .map_err(|problem| Error::Secure {
            receiver: receiver.name.clone(),
            problem: format!("auth {problem}"),
        })
}

fn tenants(receiver: &ReceiverOptions) -> Result<Option<Arc<Tenants>>, Error> {
    let tenants = receiver.tenants.clone().map(Tenants::new).transpose();
    tenants
        .map(|tenants| tenants.map(Arc::new))
        .map_err(|why| Error::Options(format!("tenants of {}: {why}", receiver.name)))
}
