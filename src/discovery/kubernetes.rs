//! Turns the objects of a Kubernetes cluster into targets.
//!
//! | file | turns |
//! |---|---|
//! | `access` | what is said of the API into a URL and credentials |
//! | `transport` | the requests of kube into ours |
//! | `watch` | lists and watches into what became of objects |
//! | `objects` | JSON into what labels are made of |
//! | `store` | objects that come and go into targets of those that changed |
//! | `targets`, `endpoints`, `labels` | an object and those joined with it into targets |
//!
//! One kind of objects has the targets; others are watched only where their labels are joined.
//!
//! # Invariants
//! - Nothing is told of until everything that is watched was listed once: a target never lacks what it is joined
//!   with because that came later.
//!
//! # Failure
//! - A watch that fails keeps its objects, is tried again, and what it missed is listed.
//!
//! # Limits
//! - [`store::OBJECTS_MAX`] objects; of each only what labels need is kept. Lists come in pages of 500.
//!
//! # Threads
//! - All watches are one task. Many changed objects are made targets of on a thread for blocking work.

mod access;
mod endpoints;
mod labels;
mod objects;
mod store;
mod targets;
mod transport;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use access::Access;
pub(crate) use objects::Kind;

use super::refresh::{self, Found};
use super::stats::{Event, Stats};
use super::{APART, blocking};
use objects::Object;
use store::{Change, OBJECTS_MAX, Store};
use transport::Link;
use watch::{Saw, Server, Wanted};

/// Most namespaces that are watched apart: each has connections of its own.
pub(crate) const NAMESPACES_MAX: usize = 256;
/// How long after a change others may join it.
const GATHER: Duration = Duration::from_millis(100);
/// Time to the next look for what says where the API is.
const RETRY: Duration = Duration::from_secs(5);
/// From so many changed objects on their targets are made elsewhere.
const MANY: usize = 64;

/// What targets are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
}

impl Role {
    pub(crate) const ALL: [Self; 6] = [
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::Ingress,
    ];

    /// The objects that have the targets.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Node => Kind::Node,
            Self::Pod => Kind::Pod,
            Self::Service => Kind::Service,
            Self::Endpoints => Kind::Endpoints,
            Self::EndpointSlice => Kind::EndpointSlice,
            Self::Ingress => Kind::Ingress,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|role| role.kind().name() == name)
    }

    /// The kinds that can be selected from, in the order the reference names them.
    pub(crate) const fn selectable(self) -> &'static [Kind] {
        match self {
            Self::Node => &[Kind::Node],
            Self::Pod => &[Kind::Pod],
            Self::Service => &[Kind::Service],
            Self::Ingress => &[Kind::Ingress],
            Self::Endpoints => &[Kind::Pod, Kind::Service, Kind::Endpoints],
            Self::EndpointSlice => &[Kind::Pod, Kind::Service, Kind::EndpointSlice],
        }
    }
}

/// Whose labels targets have besides their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AttachMetadata {
    pub(crate) node: bool,
    pub(crate) namespace: bool,
}

/// Which objects of a kind count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Selector {
    pub(crate) kind: Kind,
    pub(crate) label: String,
    pub(crate) field: String,
}

/// A cluster to watch.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesPlace {
    pub(crate) role: Role,
    pub(crate) access: Access,
    /// Whether the namespace of this pod is one of them.
    pub(crate) own_namespace: bool,
    /// None, and not the own one: all.
    pub(crate) namespaces: Vec<String>,
    pub(crate) selectors: Vec<Selector>,
    pub(crate) attach: AttachMetadata,
}

impl KubernetesPlace {
    /// Everything that is watched, given the namespace of this pod.
    fn wanted(&self, own: Option<String>) -> Vec<Wanted> {
        let mut namespaces: BTreeSet<String> = self.namespaces.iter().cloned().collect();
        namespaces.extend(own);
        // As in the reference, one without a name is all of them.
        if namespaces.contains("") {
            namespaces.clear();
        }
        let mut kinds = vec![self.role.kind()];
        if matches!(self.role, Role::Endpoints | Role::EndpointSlice) {
            kinds.extend([Kind::Pod, Kind::Service]);
        }
        if self.role != Role::Node {
            let attach = self.attach;
            let is_on_nodes = !matches!(self.role, Role::Service | Role::Ingress);
            kinds.extend((attach.node && is_on_nodes).then_some(Kind::Node));
            kinds.extend(attach.namespace.then_some(Kind::Namespace));
        }
        let mut all = Vec::new();
        for kind in kinds {
            let selector = self.selectors.iter().find(|selector| selector.kind == kind);
            let chosen = |text: fn(&Selector) -> &String| {
                let text = selector.map(text).filter(|text| !text.is_empty());
                text.cloned()
            };
            let one = |namespace: Option<String>| Wanted {
                kind,
                namespace,
                label: chosen(|selector| &selector.label),
                field: chosen(|selector| &selector.field),
            };
            if kind.is_namespaced() && !namespaces.is_empty() {
                all.extend(namespaces.iter().cloned().map(|name| one(Some(name))));
            } else {
                all.push(one(None));
            }
        }
        all
    }
}

/// One watch.
struct Watched {
    wanted: Wanted,
    link: Arc<Link>,
    /// The keys in the list that is being read, until it is complete.
    listed: Option<BTreeSet<Box<str>>>,
    /// Whether it was complete once.
    is_known: bool,
    problem: Option<String>,
}

/// Everything that runs once it is known where the API is.
struct Running {
    server: Server,
    watched: Vec<Watched>,
    seen: SelectAll<BoxStream<'static, (usize, Saw)>>,
}

impl Running {
    /// Whether everything was listed once.
    fn is_known(&self) -> bool {
        self.watched.iter().all(|watched| watched.is_known)
    }
}

pub(super) struct Look {
    place: KubernetesPlace,
    stats: Arc<Stats>,
    running: Option<Running>,
    store: Store,
    objects_max: usize,
    /// Whether objects were refused for want of room.
    is_full: bool,
    /// Whether something is to be told.
    is_due: bool,
    /// Whether where the API is, or who asks there, was not known last time.
    is_lost: bool,
    /// Whether the API did not know who asks.
    is_unknown: bool,
}

impl Look {
    pub(super) fn new(place: KubernetesPlace, stats: Arc<Stats>) -> Self {
        Self::with_room(place, stats, OBJECTS_MAX)
    }

    fn with_room(place: KubernetesPlace, stats: Arc<Stats>, objects_max: usize) -> Self {
        Self {
            store: Store::new(place.role, place.attach, objects_max),
            objects_max,
            place,
            stats,
            running: None,
            is_full: false,
            is_due: false,
            is_lost: false,
            is_unknown: false,
        }
    }

    async fn start(&mut self) -> Result<(), String> {
        let is_own = self.place.own_namespace;
        let resolved = self.place.access.resolve(is_own).await?;
        let wanted = self.place.wanted(resolved.namespace.clone());
        let server = Server::new(resolved)?;
        let mut running = Running {
            server,
            watched: Vec::new(),
            seen: SelectAll::new(),
        };
        for (at, wanted) in wanted.into_iter().enumerate() {
            let link = Arc::default();
            let stream = running.server.watch(&wanted, &link);
            running.seen.push(stream.map(move |saw| (at, saw)).boxed());
            running.watched.push(Watched {
                wanted,
                link,
                listed: None,
                is_known: false,
                problem: None,
            });
        }
        self.running = Some(running);
        Ok(())
    }

    /// Takes what is seen until something is to be told, and it is time for that.
    async fn wait(&mut self) {
        let mut due = None;
        loop {
            let Some(running) = &mut self.running else {
                return;
            };
            if self.is_full && self.store.len() < self.objects_max / 10 * 9 {
                // Nobody knows what was refused: all is listed again.
                (self.is_full, self.running) = (false, None);
                return;
            }
            if self.is_due || (running.is_known() && self.store.changed() > 0) {
                let apart = self.stats.next_told(APART);
                due.get_or_insert_with(|| apart.max(Instant::now() + GATHER));
            }
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                seen = running.seen.next() => {
                    let Some((at, saw)) = seen else { return };
                    self.take(at, saw);
                }
                () = running.server.answered.notified() => {
                    for watched in &mut running.watched {
                        if watched.link.take_answered() {
                            self.is_due |= watched.problem.take().is_some();
                        }
                    }
                }
                () = wait => return,
            }
        }
    }

    fn take(&mut self, at: usize, saw: Saw) {
        let store = &mut self.store;
        let running = self.running.as_mut();
        let Some(watched) = running.and_then(|running| running.watched.get_mut(at)) else {
            return;
        };
        let kind = watched.wanted.kind;
        let mut apply = |object: Object| {
            let change = store.apply(object);
            self.is_due |= change == Change::Refused && !self.is_full;
            self.is_full |= change == Change::Refused;
            self.stats.saw(kind, event(change));
        };
        match saw {
            Saw::Listing => watched.listed = Some(BTreeSet::new()),
            Saw::Listed(object) => {
                if let Some(listed) = &mut watched.listed {
                    listed.insert(store::key(&object));
                }
                apply(object);
            }
            Saw::Applied(object) => apply(object),
            Saw::Deleted(object) => {
                let change = store.delete(kind, &store::key(&object));
                self.stats.saw(kind, event(change));
            }
            Saw::Complete => {
                let listed = watched.listed.take().unwrap_or_default();
                for key in store.keys(kind, watched.wanted.namespace.as_deref()) {
                    if !listed.contains(&key) {
                        let change = store.delete(kind, &key);
                        self.stats.saw(kind, event(change));
                    }
                }
                self.is_due |= !watched.is_known;
                watched.is_known = true;
            }
            Saw::Failed {
                problem,
                is_expired,
                is_unknown,
            } => {
                self.is_unknown |= is_unknown;
                self.stats.watch_failed();
                watched.listed = None;
                // What failed may have begun as a good answer.
                watched.link.take_answered();
                // That a history is gone is how it goes after a while without the server.
                if !is_expired || !watched.is_known {
                    self.is_due = true;
                    watched.problem = Some(problem);
                }
            }
        }
        self.stats.hold(store.len());
    }

    /// Everything there is now, once all of it was listed.
    async fn found(&mut self) -> Result<Found, String> {
        let problems = self.problems();
        if self.store.changed() < MANY {
            self.store.make()?;
        } else {
            let empty = Store::new(self.place.role, self.place.attach, self.objects_max);
            let mut store = std::mem::replace(&mut self.store, empty);
            let made = blocking(move || Ok((store.make(), store))).await;
            let (made, store) = made.inspect_err(|_| self.running = None)?;
            self.store = store;
            made?;
        }
        let mut found = self.store.found();
        found.extend(problems);
        Ok(found)
    }

    /// What is wrong with watches.
    fn problems(&self) -> Found {
        let watched = self.running.iter().flat_map(|running| &running.watched);
        let failed = watched.filter_map(|watched| {
            let problem = watched.problem.as_ref()?;
            let shown = watched.wanted.shown();
            Some((shown.clone(), Err(format!("{shown}: {problem}"))))
        });
        let full = || {
            let problem = format!("there are more than {} objects", self.objects_max);
            ("objects".to_owned(), Err(problem))
        };
        failed.chain(self.is_full.then(full)).collect()
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        // Of a file of kubectl everything else is read again when it changes.
        if self.is_unknown && matches!(self.place.access, Access::Kubeconfig(_)) {
            (self.is_unknown, self.is_lost, self.running) = (false, true, None);
        }
        loop {
            if self.running.is_none() {
                if self.is_lost {
                    sleep(RETRY).await;
                }
                self.is_lost = true;
                self.start().await?;
                self.is_lost = false;
            }
            self.wait().await;
            let Some(running) = &self.running else {
                continue;
            };
            self.is_due = false;
            if running.is_known() {
                return self.found().await;
            }
            // What was found before, by this or by what was begun again, stays as a whole.
            let problems = self.problems();
            let all = problems
                .into_iter()
                .filter_map(|(_, problem)| problem.err());
            let all = all.collect::<Vec<_>>().join("; ");
            if !all.is_empty() {
                return Err(all);
            }
        }
    }
}

const fn event(change: Change) -> Option<Event> {
    match change {
        Change::Added => Some(Event::Added),
        Change::Updated => Some(Event::Updated),
        Change::Deleted => Some(Event::Deleted),
        Change::Nothing | Change::Refused => None,
    }
}

#[cfg(test)]
mod tests;
