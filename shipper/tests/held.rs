//! Turns a hold, and its end, into what an endpoint ships.

use std::time::Duration;

use shipper::{Priority, Stopped};

use crate::common::{Backend, LONG, Log, Reply, assert_delivered_once, options, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_beyond_a_hold_is_sent_until_it_ends() {
    for priority in [Priority::InOrder, Priority::Fresh] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        let backend = Backend::start(|_, _| Reply::ok()).await;
        let series = log.series(50);
        let position = log.store.endpoint("a").unwrap();
        log.write(&series, 0..10).await;
        let at = log.store.watermarks().appended;
        position.hold(Some(at));
        log.write(&series, 10..20).await;
        assert!(position.bytes_left(at) > 0);
        let mut options = options("a", &backend.url());
        options.priority = priority;
        let endpoint = log.ship(options.clone());
        until(|| position.bytes_left(at) == 0).await;
        assert_delivered_once(&backend.seen(), 50, 0..10);
        assert!(position.lag_bytes() > 0);

        // Held further on, it goes on so far.
        let further = log.store.watermarks().appended;
        log.write(&series, 20..30).await;
        position.hold(Some(further));
        until(|| position.bytes_left(further) == 0).await;
        assert_delivered_once(&backend.seen(), 50, 0..20);

        // Stopped, it keeps what it may not ship.
        let stopped = endpoint.stop(Duration::from_millis(300)).await;
        assert_eq!(stopped, Stopped::GaveUp { records: 500 });
        assert_delivered_once(&backend.seen(), 50, 0..20);
        position.hold(None);
        let endpoint = log.ship(options);
        let seen = backend.until_samples(50 * 30).await;
        assert_delivered_once(&seen, 50, 0..30);
        assert_eq!(endpoint.stop(LONG).await, Stopped::Drained);
        log.close();
    }
}
