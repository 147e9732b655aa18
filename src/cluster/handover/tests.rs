//! Turns what another agent says about its view into whether receivers take anything here.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cluster::Peer;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::dial::Dial;
use super::*;

/// A clock that a test turns.
#[derive(Debug, Default)]
struct Hand(Mutex<Duration>);

impl wal::Clock for Hand {
    fn monotonic(&self) -> Duration {
        *self.0.lock()
    }

    fn unix_ms(&self) -> i64 {
        0
    }
}

/// The address of an agent that says it has the view it is told to have.
async fn other(view: Arc<AtomicU64>) -> Arc<str> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request_bytes = stream.read(&mut [0; 1024]).await.unwrap();
            assert!(request_bytes > 0);
            let view = format!("{:016x}", view.load(Ordering::Relaxed));
            let said = json!({"views": [{"view": view, "left": null, "waitsFor": []}]}).to_string();
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
            let answer = format!("{head}: {}\r\n\r\n{said}", said.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address.into()
}

/// That of an agent "a", which does nothing by itself.
fn handover(clock: &Arc<Hand>) -> Handover {
    let clock: SharedClock = clock.clone();
    let runtime = Handle::current();
    let dial = Dial {
        tls: None,
        numbers: Arc::default(),
        runtime: runtime.clone(),
    };
    Handover(Arc::new(Shared {
        own: "a".into(),
        sharing: Sharing::unknown(),
        ownership: Ownership::off(),
        lines: Arc::new(Lines::new(dial, clock.clone())),
        clock,
        runtime,
        ledger: Mutex::new(Ledger::new("a".into())),
        inlets: Mutex::default(),
        room: Semaphore::new(1),
        heard: Mutex::default(),
    }))
}

/// What "a" and "b", both at work, know at one moment.
fn moment(number: u64, address: &Arc<str>) -> Moment {
    let peer = |name: &str, is_self| Peer {
        name: name.into(),
        address: Arc::clone(address),
        state: State::Participant,
        is_self,
        age: (0, 0),
    };
    let mut moment = Ownership::off().moment();
    moment.number = number;
    moment.peers = vec![peer("a", true), peer("b", false)];
    moment
}

/// Whether receivers know who owns what; only they see more of it than its text.
fn is_known(handover: &Handover) -> bool {
    !format!("{:?}", handover.sharing()).contains("peers: None")
}

#[tokio::test]
async fn nothing_is_taken_by_a_new_view_before_the_others_have_it_too() {
    let of_other = Arc::new(AtomicU64::new(1));
    let address = other(Arc::clone(&of_other)).await;
    let handover = handover(&Arc::default());
    let first = handover.adopt(&moment(1, &address), None);
    let (first, _) = handover.look(&moment(1, &address), first).await;
    assert!(first.is_agreed && is_known(&handover));

    let next = moment(2, &address);
    let second = handover.adopt(&next, Some(first));
    assert!(!is_known(&handover), "the view before is over");
    let (second, is_busy) = handover.look(&next, second).await;
    assert!(is_busy && !second.is_agreed && !is_known(&handover));
    of_other.store(2, Ordering::Relaxed);
    let second = handover.adopt(&next, Some(second));
    let (second, _) = handover.look(&next, second).await;
    assert!(second.is_agreed && is_known(&handover));
}

#[tokio::test]
async fn one_that_never_has_the_same_view_is_not_waited_for_without_end() {
    let address = other(Arc::new(AtomicU64::new(1))).await;
    let clock = Arc::default();
    let handover = handover(&clock);
    let moment = moment(2, &address);
    let present = handover.adopt(&moment, None);
    *clock.0.lock() = AGREE_WITHIN - Duration::from_millis(1);
    let (present, _) = handover.look(&moment, present).await;
    assert!(!present.is_agreed && !is_known(&handover));
    *clock.0.lock() = AGREE_WITHIN;
    let (present, _) = handover.look(&moment, present).await;
    assert!(present.is_agreed && is_known(&handover));
}

#[tokio::test]
async fn what_an_agent_says_is_what_the_others_read() {
    let handover = handover(&Arc::default());
    let view = |number: u64, life: &str, waits_for: &str| {
        format!(
            r#"{{"view": {number}, "life": {life}, "isNew": true, "waitsFor": [],
                "logs": {{"w/e": {{"at": 9, "waitsFor": {waits_for}}}}}}}"#
        )
    };
    let views = [
        view(7, "1", "{}"),
        view(u64::MAX, "null", r#"{"b": 3, "c": null}"#),
    ];
    let text = format!(r#"{{"version": 1, "views": [{}]}}"#, views.join(","));
    let ledger = Ledger::from_text("a".into(), &text, Duration::ZERO).unwrap();
    let report = ledger.report();
    assert_eq!((report.len(), report[1].waits_for.len()), (2, 2));
    *handover.0.ledger.lock() = ledger;
    let answer = handover.answer("").into_body().collect().await.unwrap();
    assert_eq!(read(&answer.to_bytes()), Some(report));
}

#[tokio::test]
async fn a_large_cluster_is_asked_in_turns_and_all_of_it() {
    let (asked, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let all = (0..3 * ASKED_MAX + 1).map(|number| {
        let (asked, most) = (Arc::clone(&asked), Arc::clone(&most));
        async move {
            let now = asked.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            tokio::task::yield_now().await;
            asked.fetch_sub(1, Ordering::Relaxed);
            number
        }
    });
    let mut answered = in_turns(all).await;
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..3 * ASKED_MAX + 1));
    assert_eq!(most.load(Ordering::Relaxed), ASKED_MAX);
}
