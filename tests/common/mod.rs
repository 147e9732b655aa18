//! Turns a test into real processes on free ports, and what they hold into values to compare.
//!
//! | file | does |
//! |---|---|
//! | `process` | a child that ends with the test and shows its log when the test fails |
//! | `mount` | file systems that a test may fill and break |
//! | `http` | requests over plain sockets |
//! | `kubernetes` | an API of objects that come, change and go, and that fails when told to |
//! | `agent` | Penstock: start, kill, restart, its own metrics |
//! | `backend` | Prometheus and VictoriaMetrics: receive, die, come back, tell what they hold |
//! | `scraper` | node exporter and a Prometheus agent that scrapes it and remote-writes |
//! | `recorder` | a backend that takes everything and tells what it was |
//! | `server` | functions into HTTP servers |
//! | `target` | a target that is scraped and answers what it is told to |
//! | `load` | senders that know what was acknowledged |
//! | `sink` | a backend that keeps what came twice, and goes away or slows down when told to |

pub(crate) mod agent;
pub(crate) mod backend;
pub(crate) mod http;
pub(crate) mod kubernetes;
pub(crate) mod load;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod recorder;
pub(crate) mod scraper;
pub(crate) mod server;
pub(crate) mod sink;
pub(crate) mod target;

use std::net::TcpListener;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How often a condition is looked at. Nothing relies on it but how long a test takes.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long processes may take to start, to catch up, to end: a busy machine must not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How often a start is tried again because somebody took the port first.
const START_ATTEMPTS: usize = 5;

#[expect(clippy::disallowed_methods, reason = "real processes need real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "backends refuse what is too old")]
pub(crate) fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// Waits until `poll` finds what it looks for; fails with what it said last.
pub(crate) fn eventually<T>(deadline: Duration, mut poll: impl FnMut() -> Result<T, String>) -> T {
    let end = now() + deadline;
    loop {
        match poll() {
            Ok(found) => return found,
            Err(missing) => assert!(now() < end, "not within {deadline:?}: {missing}"),
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Starts something on a free port; `None` means that somebody took the port meanwhile.
pub(crate) fn on_free_port<T>(mut start: impl FnMut(u16) -> Option<T>) -> T {
    (0..START_ATTEMPTS)
        .find_map(|_| start(free_port()))
        .expect("a port that stays free")
}

/// A port nobody listens on. It is below those the system gives to outgoing connections: a port
/// that is to be dead for a while must not be anybody's other end.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
