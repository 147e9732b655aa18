//! Turns senders that go on while the layout changes a hundred times into what became of each sample.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use ingest::secure::AuthOptions;
use ingest::{Http2Options, TenantsOptions};

const CHANGES: usize = 100;
const SENDERS: usize = 3;
/// What is in every request: some layouts ask for it.
const HEADERS: &str = "Authorization: Bearer token\r\nX-Scope-OrgID: team\r\n";

/// What the test changes from layout to layout.
struct Plan {
    /// Stores by their ids, the first of which is always there.
    stores: Vec<(String, Store)>,
    /// Whether the ways to the others lead through rules that drop everything.
    stage: Option<Arc<Stage>>,
    front: ReceiverOptions,
    second: Option<ReceiverOptions>,
}

impl Plan {
    /// The layout, and the ids of the stores that get what is sent.
    fn layout(&self) -> (Layout, BTreeSet<String>) {
        let mut front = self.front.clone();
        let mut gets = BTreeSet::new();
        front.paths = Vec::new();
        for (at, (id, _)) in self.stores.iter().enumerate() {
            match &self.stage {
                Some(stage) if at > 0 => front.paths.push(through(at, stage)),
                _ => {
                    front.paths.push(Path::plain(at));
                    gets.insert(id.clone());
                }
            }
        }
        // The front is not always the first.
        front.paths.rotate_left(self.stores.len() / 2);
        let second = self.second.iter().cloned().map(|mut second| {
            second.paths = front.paths.clone();
            second
        });
        let receivers = second.chain([front.clone()]).collect();
        let layout = Layout {
            stores: self.stores.clone(),
            receivers,
            scrapers: Vec::new(),
        };
        (layout, gets)
    }

    /// The change of this number; the store that is gone with it.
    fn change(
        &mut self,
        number: usize,
        world: &World,
        authority: &tls::Authority,
    ) -> Option<Store> {
        match number % 14 {
            0 | 3 => {
                let id = format!("store {number}");
                let store = world.store(&id);
                self.stores.push((id, store));
            }
            1 => self.stage = Some(dropping(".*")),
            2 => {
                let rules = rules(Action::Drop, "s.*", "");
                let next = |stage: &Arc<Stage>| Arc::new(stage.with_rules(rules, 0, GRACE));
                self.stage = self.stage.as_ref().map(next);
            }
            4 => self.stage = None,
            5 => {
                let bearer_tokens = vec!["token".into()];
                self.front.auth = Some(AuthOptions {
                    bearer_tokens,
                    ..AuthOptions::default()
                });
                self.front.tls = Some(authority.options());
            }
            6 => {
                self.front.tenants = Some(TenantsOptions::default());
                self.front.connections_max = SENDERS;
            }
            7 => self.second = Some(receiver("second", vec![])),
            8 => {
                let second = self.second.as_mut().unwrap();
                second.address = ([127, 0, 0, 2], 0).into();
            }
            9 => {
                self.front.http2 = Some(Http2Options::default());
                self.front.idle_timeout *= 2;
                self.front.in_flight_bytes_max = 1 << 20;
                self.front.connection_in_flight_bytes_max = 1 << 20;
            }
            10 => return Some(self.stores.remove(1).1),
            11 => self.second = None,
            12 => {
                self.front = front(vec![]);
                self.front.series_max = 10;
            }
            _ => return Some(self.stores.remove(1).1),
        }
        None
    }
}

/// What one sender sent: the layouts that may have been in force.
type Sent = Vec<(f64, usize, usize)>;

fn send(
    world: &World,
    (begun, applied): (&AtomicUsize, &AtomicUsize),
    is_over: &AtomicBool,
    sender: usize,
) -> Sent {
    let mut client = world.connect("front");
    let mut sent = Sent::new();
    let first = u32::try_from(sender * 10_000_000).unwrap();
    for number in first.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let value = f64::from(number);
        let from = applied.load(Ordering::SeqCst);
        let name = format!("s{}", number % 7);
        client.send(&with_head(
            "POST /api/v1/write",
            HEADERS,
            &body(&name, value),
        ));
        let reply = client.try_reply().expect("the connection is not closed");
        assert_eq!(reply.status, 204, "{}", reply.text);
        sent.push((value, from, begun.load(Ordering::SeqCst)));
    }
    sent
}

/// Lets the senders end, also where the test fails.
struct End<'o>(&'o AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Every request was answered once, and on its sender's one connection.
fn check_counts(numbers: &ingest::Snapshot, sent: u64) {
    assert_eq!(numbers.requests[0], sent);
    assert_eq!(numbers.requests.iter().sum::<u64>(), sent);
    assert_eq!(numbers.connections_accepted, SENDERS as u64);
}

/// Every value is in exactly the stores of one of the layouts that may have been in force.
fn check_stored(sent: Sent, stores: &BTreeMap<String, Store>, gets: &[BTreeSet<String>]) {
    let mut held: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (id, store) in stores {
        for value in values(store) {
            let is_new = held.entry(value.to_bits()).or_default().insert(id.clone());
            assert!(is_new, "{value} twice in {id}");
        }
    }
    for (value, from, to) in sent {
        let held = held.remove(&value.to_bits()).unwrap_or_default();
        let may = &gets[from..=to];
        assert!(
            may.contains(&held),
            "{value} is in {held:?}, not one of {may:?}"
        );
    }
    assert!(held.is_empty(), "never sent: {held:?}");
}

#[test]
fn senders_notice_nothing_of_a_hundred_changes() {
    for engine in engines() {
        let (world, first) = one(engine, GRACE);
        let stats = world.shards.stats()["front"].clone();
        let authority = tls::Authority::new();
        let mut plan = Plan {
            stores: vec![("first".to_owned(), first.clone())],
            stage: None,
            front: front(vec![]),
            second: None,
        };
        let (begun, applied) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let is_over = AtomicBool::new(false);
        let mut gets = vec![plan.layout().1];
        let mut all_stores = BTreeMap::from([("first".to_owned(), first.clone())]);
        let sent: Sent = std::thread::scope(|scope| {
            let (world, counts, is_over) = (&world, (&begun, &applied), &is_over);
            let end = End(is_over);
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| scope.spawn(move || send(world, counts, is_over, sender)))
                .collect();
            for number in 0..CHANGES {
                let before = stats.snapshot().requests[0];
                // Something is sent under each of them.
                until(|| {
                    stats.snapshot().requests[0] > before
                        || senders
                            .iter()
                            .any(std::thread::ScopedJoinHandle::is_finished)
                });
                let gone = plan.change(number, world, &authority);
                all_stores.extend(plan.stores.iter().cloned());
                let (layout, gets_now) = plan.layout();
                gets.push(gets_now);
                begun.store(number + 1, Ordering::SeqCst);
                world.apply(layout);
                applied.store(number + 1, Ordering::SeqCst);
                if let Some(gone) = gone {
                    // At once: nobody has anything to do with it.
                    let marks = gone.watermarks();
                    assert_eq!(marks.appended, marks.durable);
                    gone.close();
                    assert_eq!(gone.watermarks(), marks);
                }
                assert_eq!(
                    world.shards.stats().len(),
                    1 + usize::from(plan.second.is_some())
                );
            }
            drop(end);
            let all = senders.into_iter().map(|sender| sender.join().unwrap());
            all.collect::<Vec<_>>().concat()
        });
        assert!(Arc::ptr_eq(&stats, &world.shards.stats()["front"]));
        check_counts(&stats.snapshot(), sent.len() as u64);
        let left: Vec<_> = plan.stores.iter().map(|(_, store)| store).collect();
        check_stored(sent, &all_stores, &gets);
        world.stop(&left);
    }
}

/// The store's device is slow: its request is waited for, as long as the grace is.
#[test]
fn a_request_that_waits_for_a_removed_store_gets_its_answer_from_it() {
    for (grace, is_enough) in [(GRACE, true), (Duration::from_millis(30), false)] {
        for engine in engines() {
            let (world, first) = one(engine, grace);
            let slow = open(world.dir.path(), "slow", |options| options.manual = true);
            let mut committer = slow.committer().unwrap();
            world.apply(named(&[("slow", &slow)], vec![front(vec![Path::plain(0)])]));
            let mut waiting = world.connect("front");
            waiting.send(&post(&body("up", 1.0)));
            until(|| slow.watermarks().appended > slow.watermarks().durable);
            // Another layout in between, which knows nothing of that request.
            let both = [("slow", &slow), ("first", &first)];
            let to_both = vec![Path::plain(0), Path::plain(1)];
            world.apply(named(&both, vec![front(to_both)]));
            let without = named(&[("first", &first)], vec![front(vec![Path::plain(0)])]);
            let has_returned = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let applying = scope.spawn(|| {
                    world.apply(without);
                    has_returned.store(true, Ordering::SeqCst);
                });
                // It is in force long before.
                let appended = slow.watermarks().appended;
                let mut other = world.connect("front");
                while world.shards.tap("slow").is_some() {
                    std::thread::yield_now();
                }
                assert_eq!(other.post(&body("up", 2.0)).status, 204);
                assert_eq!(slow.watermarks().appended, appended);
                if is_enough {
                    assert!(
                        !has_returned.load(Ordering::SeqCst),
                        "a request is in flight"
                    );
                    committer.commit_now().unwrap();
                    applying.join().unwrap();
                } else {
                    applying.join().unwrap();
                    committer.commit_now().unwrap();
                }
            });
            assert_eq!(waiting.reply().status, 204);
            assert_eq!(waiting.post(&body("up", 3.0)).status, 204);
            assert_eq!((values(&slow), values(&first)), (vec![1.0], vec![2.0, 3.0]));
            drop(committer);
            slow.close();
            world.stop(&[&first]);
        }
    }
}

/// Its head came under the old layout.
#[test]
fn a_body_that_comes_late_goes_where_the_layout_of_then_says_and_nothing_waits_for_it() {
    for engine in engines() {
        let (world, first) = one(engine, GRACE);
        let request = post(&body("up", 1.0));
        let mut late = world.connect("front");
        late.send(&request[..request.len() - 1]);
        until(|| world.snapshot("front").in_flight_bytes > 0);
        let second = world.store("second");
        world.apply(named(
            &[("second", &second)],
            vec![front(vec![Path::plain(0)])],
        ));
        first.close();
        late.send(&request[request.len() - 1..]);
        assert_eq!(late.reply().status, 204);
        assert_eq!((values(&first), values(&second)), (vec![], vec![1.0]));
        world.stop(&[&second]);
    }
}
