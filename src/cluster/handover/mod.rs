//! Turns changes of who takes part in the work into views for the receivers, and into what is shipped when.
//!
//! | file | turns |
//! |---|---|
//! | `ledger` | views and what the others say into how far endpoints ship |
//! | `held` | what is held into a file, for the next process |
//!
//! # Order
//! With each change the receivers stop taking anything, where the logs end is noted (`ledger`), and the others are
//! asked which view they have. When all who are there have the same one, receivers go on by it. What is held is on
//! disk by then.
//!
//! # Failure
//! - The others do not all have the same view within [`AGREE_WITHIN`]: this agent goes on by its own. Parts that are
//!   cut by another view are refused where they come, so that what is stored has an owner at least in the view of
//!   who stores it.
//!
//! # Limits
//! - [`ASKED_MAX`] of the others are asked at a time; in a cluster of more a round takes as much longer. There are at
//!   most as many as a cluster may have ([`cluster::MEMBERS_MAX`]).
//!
//! # Threads
//! - A task of its own; the ledger has a lock that is never held over a wait.

mod held;
mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Moment, Ownership, Peer, State};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use ingest::share::{Inlet, Sharing, View};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wal::{Endpoint, Position, SharedClock, Store};

use super::dial::Lines;
use super::owners::{BODIES_KIB_MAX, Owners};
use crate::server::{Answer, json as answer_json};
use held::Held;
pub(crate) use held::forget;
use ledger::{Ended, Ledger, Log, Names, Report, Said};

/// Where the others ask what is not shipped.
pub(crate) const HANDOVER_PATH: &str = "/api/v1/cluster/handover";
/// Between two times the others are asked, while something is waited for.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A connection and a task each, on a machine that has other work.
const ASKED_MAX: usize = 64;
/// Gossip takes a second or two.
const AGREE_WITHIN: Duration = Duration::from_secs(5);
/// How long an agent that is about to end stays for those who want to hear that it has shipped everything.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// An endpoint of a log that receivers feed who share their series.
#[derive(Debug)]
pub(crate) struct SharedLog {
    pub(crate) store: Store,
    pub(crate) endpoint: Endpoint,
    /// How long it waits for an agent that had its series and ships nothing.
    pub(crate) patience: Duration,
}

impl Log for SharedLog {
    fn head(&self) -> Position {
        self.store.watermarks().appended
    }

    fn left(&self, before: Position) -> u64 {
        self.endpoint.bytes_left(before)
    }

    fn hold(&self, at: Option<Position>) {
        self.endpoint.hold(at);
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// Who owns which series, and what is handed over where that changes. Copies are the same.
#[derive(Clone, Debug)]
pub(crate) struct Handover(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: Arc<str>,
    sharing: Sharing,
    ownership: Ownership,
    lines: Arc<Lines>,
    clock: SharedClock,
    runtime: Handle,
    ledger: Mutex<Ledger<SharedLog>>,
    inlets: Mutex<BTreeMap<String, Inlet>>,
    /// KiB of parts that may be read.
    room: Semaphore,
    /// Who has heard that everything is shipped here.
    heard: Mutex<BTreeSet<String>>,
}

/// What holds now.
#[derive(Debug)]
struct Present {
    number: u64,
    is_ready: bool,
    since: Duration,
    is_agreed: bool,
}

impl Handover {
    pub(super) fn start(
        (own, storage): (Arc<str>, &Path),
        ownership: Ownership,
        lines: Arc<Lines>,
        clock: &SharedClock,
        runtime: &Handle,
    ) -> Self {
        let (held, kept) = Held::read(storage);
        let now = clock.monotonic();
        let ledger = kept.and_then(|kept| {
            let ledger = Ledger::from_text(Arc::clone(&own), &kept, now);
            if ledger.is_none() {
                held.tell_unreadable("this is not what was written");
            }
            ledger
        });
        let ledger = ledger.unwrap_or_else(|| Ledger::new(Arc::clone(&own)));
        let handover = Self(Arc::new(Shared {
            ledger: Mutex::new(ledger),
            own,
            sharing: Sharing::unknown(),
            ownership,
            lines,
            clock: Arc::clone(clock),
            runtime: runtime.clone(),
            inlets: Mutex::default(),
            room: Semaphore::new(usize::try_from(BODIES_KIB_MAX).unwrap_or(usize::MAX)),
            heard: Mutex::default(),
        }));
        runtime.spawn(handover.clone().run(held));
        handover
    }

    /// What receivers share their series by.
    pub(crate) fn sharing(&self) -> Sharing {
        self.0.sharing.clone()
    }

    /// These endpoints and receivers there are now, by `log/endpoint` and by name.
    pub(crate) fn set(&self, logs: BTreeMap<String, SharedLog>, inlets: BTreeMap<String, Inlet>) {
        self.0.ledger.lock().set_logs(logs);
        *self.0.inlets.lock() = inlets;
    }

    pub(super) fn inlet(&self, receiver: &str) -> Option<Inlet> {
        self.0.inlets.lock().get(receiver).cloned()
    }

    pub(super) fn room(&self) -> &Semaphore {
        &self.0.room
    }

    /// How waits for others have ended: with everything shipped, and without; and how many endpoints wait now.
    pub(crate) fn numbers(&self) -> (u64, u64, usize) {
        let ledger = self.0.ledger.lock();
        let Ended { drained, gave_up } = ledger.ended;
        (drained, gave_up, ledger.held())
    }

    async fn run(self, mut held: Held) {
        let mut changed = self.0.ownership.changed();
        let mut present = None;
        loop {
            changed.mark_unchanged();
            let moment = self.0.ownership.moment();
            let next = self.adopt(&moment, present);
            held.keep(self.to_text()).await;
            let is_busy = self.look(&moment, next).await;
            held.keep(self.to_text()).await;
            present = Some(is_busy.0);
            let wait = async {
                match is_busy.1 {
                    true => sleep(ASK_INTERVAL).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                // An error means that the cluster is gone, and the agent soon too.
                went = changed.changed() => if went.is_err() { return },
                () = wait => {}
            }
        }
    }

    /// What the next process has to know.
    fn to_text(&self) -> Option<String> {
        self.0.ledger.lock().to_text()
    }

    /// Goes over to what holds now, if that is something else than what did.
    fn adopt(&self, moment: &Moment, present: Option<Present>) -> Present {
        let is_same = |present: &Present| {
            present.number == moment.number && present.is_ready == moment.is_ready
        };
        if let Some(present) = present.filter(is_same) {
            return present;
        }
        let others = moment.peers.iter().filter(|peer| !peer.is_self).count();
        if others > ASKED_MAX {
            let at_a_time = ASKED_MAX;
            tracing::info!(
                others,
                at_a_time,
                "the cluster is large: it is asked in turns"
            );
        }
        let now = self.0.clock.monotonic();
        let unknown = View {
            number: moment.number,
            peers: None,
        };
        self.0.sharing.change(unknown, || {
            let life = |peer: &Peer| (Arc::clone(&peer.name), peer.age.0);
            let participants = moment.participants().map(life).collect();
            let peers = moment.peers.iter().map(life).collect();
            let mut ledger = self.0.ledger.lock();
            ledger.adopt(moment.number, (participants, peers), now);
        });
        self.0.heard.lock().clear();
        Present {
            number: moment.number,
            is_ready: moment.is_ready,
            since: now,
            is_agreed: false,
        }
    }

    /// Asks whom it concerns; whether they are to be asked again.
    async fn look(&self, moment: &Moment, mut present: Present) -> (Present, bool) {
        let waits_for = self.0.ledger.lock().waits_for();
        let mut to_ask = waits_for.clone();
        if !present.is_agreed {
            to_ask.extend(moment.peers.iter().map(|peer| Arc::clone(&peer.name)));
        }
        to_ask.remove(&self.0.own);
        let reports = self.ask(moment, &to_ask).await;
        let now = self.0.clock.monotonic();
        self.0.ledger.lock().heard(&reports, now);
        if !present.is_agreed {
            // Those too that take no part yet: each of two that start may think that it is the only one that does.
            let others = moment.peers.iter().filter(|peer| !peer.is_self);
            let mut others = others.map(|peer| reports.get(&peer.name));
            let has_it = |report: &Report| {
                let newest = report.last();
                newest.is_some_and(|said| said.view == present.number)
            };
            let do_all = others.all(|report| report.is_some_and(has_it));
            let is_late = now.saturating_sub(present.since) >= AGREE_WITHIN;
            if is_late && !do_all {
                tracing::warn!("the cluster does not agree about who takes part: going on");
            }
            present.is_agreed = do_all || is_late;
            if present.is_agreed {
                self.share(moment);
            }
        }
        let is_busy = !present.is_agreed || !self.0.ledger.lock().waits_for().is_empty();
        (present, is_busy)
    }

    /// Has receivers go on by this view. One that has no part in the work passes everything on.
    fn share(&self, moment: &Moment) {
        let is_part = |state| {
            moment
                .peers
                .iter()
                .any(|peer| peer.is_self && peer.state == state)
        };
        let others = moment.participants().any(|peer| !peer.is_self);
        let may = is_part(State::Participant) || (is_part(State::Terminating) && others);
        let owners = Owners {
            moment: moment.clone(),
            lines: Arc::clone(&self.0.lines),
            runtime: self.0.runtime.clone(),
        };
        let view = View {
            number: moment.number,
            peers: (may && moment.is_ready).then(|| Arc::new(owners) as _),
        };
        self.0.sharing.change(view, || {});
    }

    /// What these say, as far as they do.
    async fn ask(&self, moment: &Moment, names: &Names) -> BTreeMap<Arc<str>, Report> {
        let peers = moment.peers.iter();
        let to_ask = peers.filter(|peer| names.contains(&peer.name));
        let asked = in_turns(to_ask.map(|peer| {
            let (name, address) = (Arc::clone(&peer.name), Arc::clone(&peer.address));
            self.clone().ask_one(name, address)
        }));
        asked.await.into_iter().flatten().collect()
    }

    async fn ask_one(self, name: Arc<str>, address: Arc<str>) -> Option<(Arc<str>, Report)> {
        let path = format!("{HANDOVER_PATH}?from={}", self.0.own);
        let request = Request::get(path).body(Full::<Bytes>::default()).ok()?;
        let answer = timeout(ANSWER_WITHIN, self.0.lines.ask(&address, request)).await;
        let answer = answer.ok()?.ok()?;
        let report = (answer.status() == StatusCode::OK).then(|| read(answer.body()));
        Some((name, report??))
    }

    /// What the others are told.
    pub(crate) fn answer(&self, query: &str) -> Answer {
        let (report, is_drained) = {
            let ledger = self.0.ledger.lock();
            (ledger.report(), ledger.is_drained())
        };
        if is_drained && let Some(from) = query.strip_prefix("from=") {
            self.0.heard.lock().insert(from.to_owned());
        }
        let views = report.into_iter().map(|said| {
            let waits_for: Vec<_> = said.waits_for.keys().map(|name| &**name).collect();
            let lives = said.waits_for.iter();
            let lives: BTreeMap<&str, _> = lives.map(|(name, life)| (&**name, life)).collect();
            json!({
                "view": format!("{:016x}", said.view),
                "life": said.life,
                "left": said.left,
                "waitsFor": waits_for,
                "lives": lives,
            })
        });
        answer_json(&json!({"views": views.collect::<Vec<_>>()}))
    }

    /// Waits, not for long, until the others know that everything is shipped here, if it is.
    pub(super) async fn until_heard(&self) {
        let others = self.0.ownership.moment();
        let others: Vec<String> = (others.participants().filter(|peer| !peer.is_self))
            .map(|peer| peer.name.to_string())
            .collect();
        let heard = async {
            while !others.iter().all(|name| self.0.heard.lock().contains(name)) {
                sleep(ASK_INTERVAL / 4).await;
            }
        };
        if self.0.ledger.lock().is_drained() {
            timeout(HEARD_WITHIN, heard).await.ok();
        }
    }
}

/// What all of these come to, [`ASKED_MAX`] at a time, in any order.
async fn in_turns<F>(mut all: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut done = Vec::new();
    loop {
        while under_way.len() < ASKED_MAX
            && let Some(next) = all.next()
        {
            under_way.spawn(next);
        }
        let Some(ended) = under_way.join_next().await else {
            return done;
        };
        done.extend(ended);
    }
}

/// What another agent has answered.
fn read(body: &[u8]) -> Option<Report> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let views = value.get("views")?.as_array()?.iter();
    let views = views.map(|view| {
        let number = u64::from_str_radix(view.get("view")?.as_str()?, 16).ok()?;
        let waits_for = view.get("waitsFor")?.as_array()?.iter();
        // Not said by agents of an earlier version, as the life above.
        let life = |name: &str| view.get("lives")?.get(name)?.as_u64();
        let waits_for = waits_for.map(|name| {
            let name = name.as_str()?;
            Some((Arc::from(name), life(name)))
        });
        let left = view.get("left")?.as_object().map(|left| {
            let left = left.iter();
            let left = left.map(|(log, left)| Some((log.clone(), left.as_u64()?)));
            left.collect::<Option<_>>()
        });
        let left = match left {
            None => None,
            Some(left) => Some(left?),
        };
        Some(Said {
            view: number,
            life: view.get("life").and_then(Value::as_u64),
            left,
            waits_for: waits_for.collect::<Option<_>>()?,
        })
    });
    views.collect()
}

#[cfg(test)]
mod tests;
