//! Turns views that agents see, or miss, and what they ship meanwhile into what a backend gets, in which order.

use parking_lot::Mutex;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A log that is so long, of which so much is shipped.
#[derive(Default, Debug)]
struct Known {
    head: u64,
    shipped: u64,
    held: Option<u64>,
}

type Shared = Arc<Mutex<Known>>;

#[derive(Debug)]
struct Fake(Shared);

impl Log for Fake {
    fn head(&self) -> Position {
        Position::new(self.0.lock().head)
    }

    fn left(&self, before: Position) -> u64 {
        before.get().saturating_sub(self.0.lock().shipped)
    }

    fn hold(&self, at: Option<Position>) {
        self.0.lock().held = at.map(Position::get);
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

fn names(all: &[&str]) -> Names {
    all.iter().map(|name| Arc::from(*name)).collect()
}

/// These, each in its first life.
fn lives(all: &[&str]) -> Lives {
    all.iter().map(|name| (Arc::from(*name), 1)).collect()
}

fn ledger(own: &str, head: u64) -> (Ledger<Fake>, Shared) {
    ledger_after(None, own, head)
}

/// That of a process after another one, which has kept this.
fn ledger_after(kept: Option<&str>, own: &str, head: u64) -> (Ledger<Fake>, Shared) {
    let shared = Shared::default();
    shared.lock().head = head;
    let mut ledger = match kept {
        None => Ledger::new(own.into()),
        Some(kept) => Ledger::from_text(own.into(), kept, at(0)).unwrap(),
    };
    ledger.set_logs([("w/e".to_owned(), Fake(shared.clone()))].into());
    (ledger, shared)
}

fn says(name: &str, views: &[(u64, u64)]) -> BTreeMap<Arc<str>, Report> {
    let views = views.iter();
    let report = views.map(|(view, left)| Said {
        view: *view,
        life: Some(1),
        left: Some([("w/e".to_owned(), *left)].into()),
        waits_for: Awaited::new(),
    });
    [(Arc::from(name), report.collect())].into()
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn who_stays_waits_for_who_went_and_for_nobody_who_came() {
    let (mut a, log) = ledger("a", 100);
    a.adopt(1, (lives(&["a", "b"]), Lives::new()), at(0));
    assert_eq!(
        a.waits_for(),
        names(&["b"]),
        "it is new for those that were there"
    );
    assert_eq!(log.lock().held, Some(100));
    a.heard(&says("b", &[(1, 7)]), at(1));
    assert_eq!(log.lock().held, Some(100));
    a.heard(&says("b", &[(1, 0)]), at(2));
    assert_eq!((log.lock().held, a.ended.drained), (None, 1));

    log.lock().head = 200;
    a.adopt(2, (lives(&["a", "b", "c"]), Lives::new()), at(3));
    assert_eq!((log.lock().held, a.waits_for()), (None, Names::new()));
    log.lock().head = 300;
    a.adopt(3, (lives(&["a", "c"]), Lives::new()), at(4));
    assert_eq!((log.lock().held, a.waits_for()), (Some(300), names(&["b"])));
    // It is back, and has seen the view after this one only.
    log.lock().head = 400;
    a.adopt(4, (lives(&["a", "b", "c"]), Lives::new()), at(5));
    a.heard(&says("b", &[(4, 1)]), at(6));
    assert_eq!((log.lock().held, a.held()), (Some(300), 1));
    a.heard(&says("b", &[(4, 0)]), at(7));
    assert_eq!((log.lock().held, a.held()), (None, 0));
    let left: Vec<_> = (a.report().into_iter())
        .map(|said| (said.view, said.left.unwrap()["w/e"]))
        .collect();
    assert_eq!(left, [(1, 100), (2, 200), (3, 300), (4, 400)]);
    // One that has no part in the work owns nothing, and waits for nobody.
    a.adopt(5, (lives(&["b", "c"]), Lives::new()), at(8));
    assert_eq!(a.waits_for(), Names::new());
    assert!(!a.is_drained());
    log.lock().shipped = 400;
    assert!(a.is_drained());
}

#[test]
fn patience_ends_when_nothing_moves_and_nothing_else_is_to_be_shipped() {
    let (mut a, log) = ledger("a", 100);
    a.adopt(1, (lives(&["a", "b"]), Lives::new()), at(0));
    let nobody = BTreeMap::new();
    // It has enough to do itself.
    a.heard(&nobody, at(100));
    assert_eq!(log.lock().held, Some(100));
    log.lock().shipped = 100;
    a.heard(&nobody, at(129));
    // It is there, and ships.
    a.heard(&says("b", &[(1, 9)]), at(129));
    a.heard(&says("b", &[(1, 8)]), at(150));
    a.heard(&says("b", &[(1, 8)]), at(179));
    assert_eq!((log.lock().held, a.ended.gave_up), (Some(100), 0));
    a.heard(&says("b", &[(1, 8)]), at(180));
    assert_eq!((log.lock().held, a.ended.gave_up), (None, 1));
    assert_eq!(a.ended.drained, 0);
}

#[test]
fn logs_come_and_go() {
    let mut a: Ledger<Fake> = Ledger::new("a".into());
    a.adopt(1, (lives(&["a", "b"]), Lives::new()), at(0));
    assert_eq!(a.report()[0].left, None);
    assert!(!a.is_drained());
    let log = Shared::default();
    log.lock().head = 50;
    a.set_logs([("w/e".to_owned(), Fake(log.clone()))].into());
    // What it holds was there before.
    assert_eq!(a.report()[0].left.as_ref().unwrap()["w/e"], 50);
    assert_eq!(log.lock().held, None);
    a.adopt(2, (lives(&["a"]), Lives::new()), at(1));
    assert_eq!(log.lock().held, Some(50));
    a.set_logs(BTreeMap::new());
    assert!((a.report().iter()).all(|said| said.left == Some(BTreeMap::new())));
    assert_eq!(a.waits_for(), Names::new(), "nothing is held");
}

#[test]
fn what_is_held_is_held_after_a_restart_until_the_others_have_shipped() {
    let (mut c, log) = ledger("c", 100);
    assert_eq!(c.to_text(), None);
    c.adopt(3, (lives(&["a", "b", "c"]), Lives::new()), at(0));
    log.lock().head = 150;
    let kept = c.to_text().unwrap();
    let (mut c, log) = ledger_after(Some(&kept), "c", 150);
    assert_eq!((log.lock().held, c.to_text()), (Some(100), Some(kept)));
    assert_eq!(c.waits_for(), names(&["a", "b"]));
    assert_eq!(c.report()[0].left.as_ref().unwrap()["w/e"], 100);
    // It is new again: what it takes now waits too.
    c.adopt(4, (lives(&["a", "b", "c"]), Lives::new()), at(1));
    let both = |left| {
        let mut both = says("a", &[(3, left), (4, 9)]);
        both.extend(says("b", &[(3, 0), (4, 0)]));
        both
    };
    c.heard(&both(7), at(2));
    assert_eq!(log.lock().held, Some(100));
    c.heard(&both(0), at(3));
    assert_eq!(log.lock().held, Some(150));
    for bad in [
        "",
        "{}",
        r#"{"version": 2, "views": []}"#,
        r#"{"version": 1, "views": [{"view": -1}]}"#,
    ] {
        assert!(
            Ledger::<Fake>::from_text("c".into(), bad, at(0)).is_none(),
            "{bad}"
        );
    }
}

#[test]
fn the_next_process_of_who_went_tells_when_the_one_before_has_shipped() {
    let (mut a, log) = ledger("a", 100);
    a.adopt(1, (lives(&["a"]), Lives::new()), at(0));
    a.adopt(2, (lives(&["a", "b"]), Lives::new()), at(0));
    a.adopt(3, (lives(&["a"]), Lives::new()), at(0));
    let said = |view, life, left| Said {
        view,
        life: Some(life),
        left: Some([("w/e".to_owned(), left)].into()),
        waits_for: Awaited::new(),
    };
    // It holds back what it took since it is back, which this agent has not seen: 5 of 6 there.
    let report = |left| vec![said(7, 2, left), said(8, 2, left + 5)];
    a.adopt(8, (lives(&["a", "b"]), Lives::new()), at(0));
    a.heard(&[("b".into(), report(1))].into(), at(1));
    assert_eq!(log.lock().held, Some(100));
    a.heard(&[("b".into(), report(0))].into(), at(2));
    assert_eq!((log.lock().held, a.ended.drained), (None, 1));
}

/// An agent, and what its log holds: keys and their numbers.
struct Agent {
    name: Arc<str>,
    ledger: Ledger<Fake>,
    known: Shared,
    /// What it has kept of its ledger.
    kept: Option<String>,
    log: Vec<(u64, u64)>,
    life: Life,
    /// The view it has, as a place among all; none: it has just started.
    view: Option<usize>,
    is_up: bool,
    is_part: bool,
}

struct World {
    random: fastrand::Rng,
    agents: Vec<Agent>,
    views: Vec<Lives>,
    taken: BTreeMap<u64, u64>,
    got: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let agents = ["a", "b", "c", "d"].map(|name| {
            let (ledger, known) = ledger(name, 0);
            Agent {
                name: name.into(),
                ledger,
                known,
                kept: None,
                log: Vec::new(),
                life: 1,
                view: None,
                is_up: true,
                is_part: true,
            }
        });
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            agents: agents.into(),
            views: Vec::new(),
            taken: BTreeMap::new(),
            got: BTreeMap::new(),
        };
        world.notice();
        world
    }

    /// The cluster finds out who takes part. Nobody misses two views one after the other.
    fn notice(&mut self) {
        for which in 0..self.agents.len() {
            if self.agents[which]
                .view
                .is_some_and(|view| view + 1 < self.views.len())
            {
                self.learn(which);
            }
        }
        let part = self.agents.iter().filter(|one| one.is_up && one.is_part);
        let part = part.map(|one| (one.name.clone(), one.life));
        self.views.push(part.collect());
    }

    fn step(&mut self) {
        let which = self.random.usize(..self.agents.len());
        match self.random.u32(..100) {
            0 => self.kill(which),
            1 => {
                self.agents[which].is_part = self.random.bool();
                self.notice();
            }
            2 => self.notice(),
            3 | 4 => self.start(which),
            5..20 => self.learn(which),
            20..60 => self.take(),
            60..85 => self.ship(which),
            _ => self.ask(which),
        }
    }

    /// One at a time, whatever it holds back.
    fn kill(&mut self, which: usize) {
        let are_up = self.agents.iter().all(|one| one.is_up);
        self.agents[which].is_up &= !are_up;
    }

    /// Starts again with what is on its disk.
    fn start(&mut self, which: usize) {
        if self.agents[which].is_up {
            return;
        }
        // It is noticed at the latest when it comes back.
        self.notice();
        let agent = &mut self.agents[which];
        let head = agent.log.len() as u64;
        let fresh = ledger_after(agent.kept.as_deref(), &agent.name, head);
        fresh.1.lock().shipped = agent.known.lock().shipped;
        (agent.ledger, agent.known) = fresh;
        (agent.is_up, agent.is_part, agent.view) = (true, true, None);
        agent.life += 1;
        self.notice();
    }

    /// Sees a view, perhaps not every one.
    fn learn(&mut self, which: usize) {
        let next = self.agents[which].view.map_or(0, |view| view + 1);
        if !self.agents[which].is_up || next >= self.views.len() {
            return;
        }
        // One that has just started hears of what is now.
        let from = match self.agents[which].view {
            None => self.views.len().saturating_sub(2),
            Some(_) => next,
        };
        let view = self.random.usize(from..self.views.len());
        let participants = self.views[view].clone();
        let others = self.agents.iter().filter(|one| one.is_up);
        let others = others.map(|one| (one.name.clone(), one.life)).collect();
        let agent = &mut self.agents[which];
        agent.view = Some(view);
        agent
            .ledger
            .adopt(view as u64, (participants, others), at(0));
    }

    /// A sample is taken by its owner, if all who take part agree about who that is.
    fn take(&mut self) {
        let view = self.views.len() - 1;
        let names = &self.views[view];
        let part = || {
            let agents = self.agents.iter();
            agents.filter(|one| names.contains_key(&one.name))
        };
        if names.is_empty() || part().any(|one| !one.is_up || one.view != Some(view)) {
            return;
        }
        // What is held is kept before anything is taken by a new view, and at times else.
        for one in &mut self.agents {
            if one.is_up {
                one.kept = one.ledger.to_text();
            }
        }
        let key = self.random.u64(..8);
        // No key moves between two who stay.
        let weight = |name: &Arc<str>| fastrand::Rng::with_seed(hash(name, key)).u64(..);
        let owner = names
            .keys()
            .max_by_key(|name| weight(name))
            .unwrap()
            .clone();
        let number = self.taken.entry(key).or_default();
        *number += 1;
        let number = *number;
        let agent = self
            .agents
            .iter_mut()
            .find(|one| one.name == owner)
            .unwrap();
        agent.log.push((key, number));
        agent.known.lock().head += 1;
    }

    fn ship(&mut self, which: usize) {
        let agent = &self.agents[which];
        let mut known = agent.known.lock();
        let end = known.held.map_or(known.head, |held| held.min(known.head));
        if !agent.is_up || known.shipped >= end {
            return;
        }
        let (key, number) = agent.log[usize::try_from(known.shipped).unwrap()];
        known.shipped += 1;
        let before = self.got.insert(key, number).unwrap_or(0);
        assert_eq!(
            number,
            before + 1,
            "sample {number} of {key} comes after {before}"
        );
    }

    fn ask(&mut self, which: usize) {
        if !self.agents[which].is_up {
            return;
        }
        let others = self.agents.iter().filter(|one| one.is_up);
        let reports = others.map(|one| (one.name.clone(), one.ledger.report()));
        let reports = reports.collect();
        self.agents[which].ledger.heard(&reports, at(0));
    }
}

fn hash(name: &str, key: u64) -> u64 {
    name.bytes()
        .fold(key, |sum, byte| sum * 257 + u64::from(byte))
}

#[test]
fn whatever_agents_see_or_miss_a_backend_gets_every_series_in_order_and_whole() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..2000 {
            world.step();
        }
        // Everybody comes back in the end: then everything is shipped, without patience.
        for which in 0..world.agents.len() {
            world.start(which);
        }
        for _ in 0..world.taken.values().sum::<u64>() {
            for which in 0..world.agents.len() {
                world.learn(which);
                world.ask(which);
                world.ship(which);
            }
        }
        assert_eq!(world.got, world.taken, "seed {seed}");
        assert!(world.taken.values().sum::<u64>() > 100, "seed {seed}");
    }
}
