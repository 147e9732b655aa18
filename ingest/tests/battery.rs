//! Turns everything that may come out of a socket into a refusal, with nothing left behind.
//!
//! Each case is followed by a good request that must be stored, and each receiver ends as it began: no
//! connection open, no byte in flight, every request begun also ended.

mod framing;
mod messages;
mod slow;

use crate::common::*;
use ingest::Snapshot;
use wal::IoEngine;

/// What becomes of a connection after the answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// It takes the next request.
    Stays,
    /// It is closed.
    Closes,
    /// It waits for more, and is closed when there is none.
    ClosesAtEnd,
}

/// Bytes of a connection, the answers they must get, and what becomes of it.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    answers: &'static [u16],
    then: Then,
}

fn case(
    name: &'static str,
    bytes: impl Into<Vec<u8>>,
    answers: &'static [u16],
    then: Then,
) -> Case {
    Case {
        name,
        bytes: bytes.into(),
        answers,
        then,
    }
}

/// A receiver that refuses bodies above 64 KiB, and what it has stored.
struct Battery {
    running: Running,
    good: usize,
}

impl Battery {
    fn start() -> Self {
        Self::start_with(|_| ())
    }

    fn start_with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::new(IoEngine::Portable);
        setup.receiver.body_bytes_max = 64 << 10;
        change(&mut setup);
        Self {
            running: setup.start(),
            good: 0,
        }
    }

    fn connect(&self) -> Client {
        self.running.connect()
    }

    /// A good request on this connection is stored.
    fn is_good(&mut self, client: &mut Client, name: &str) {
        let reply = client.post(&body("good", 1.0));
        assert_eq!(
            (reply.status, reply.text.as_str()),
            (204, ""),
            "after {name}"
        );
        self.good += 1;
    }

    fn run(&mut self, case: &Case) {
        let mut client = self.connect();
        // The peer may close it before everything was sent.
        client.try_send(&case.bytes);
        for expected in case.answers {
            let reply = client.try_reply();
            let status = reply.as_ref().map(|reply| reply.status);
            assert_eq!(status, Some(*expected), "{}: {reply:?}", case.name);
        }
        match case.then {
            Then::Stays => {
                self.is_good(&mut client, case.name);
                return;
            }
            Then::Closes => {}
            Then::ClosesAtEnd => {
                client.end();
                // Nobody may be left to be told; what is told is that it was wrong.
                while let Some(reply) = client.try_reply() {
                    assert_eq!(reply.status, 400, "{}: {reply:?}", case.name);
                }
            }
        }
        assert!(client.is_closed(), "{} leaves it open", case.name);
        let mut next = self.connect();
        self.is_good(&mut next, case.name);
    }

    /// Everything is as before, and the good requests are in the log.
    fn end(self) {
        let is_quiet = |now: &Snapshot| {
            let ended: u64 = now.requests.iter().sum();
            now.connections_open == 0 && now.in_flight_bytes == 0 && now.requests_started == ended
        };
        self.running.until(is_quiet);
        let label = label_bytes(&[("__name__", "good")]);
        let all = stored(&self.running.stores[0]);
        let good = all.iter().filter(|(labels, ..)| *labels == label).count();
        assert_eq!(good, self.good);
        self.running.stop();
    }
}

fn run(cases: &[Case]) {
    run_all(Battery::start(), cases);
}

fn run_all(mut battery: Battery, cases: &[Case]) {
    for case in cases {
        battery.run(case);
    }
    battery.end();
}
