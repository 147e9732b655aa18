//! Turns receivers that come, go, move and fail to into where they listen and what becomes of connections.

use std::net::TcpStream;

use super::*;
use ingest::Error;
use ingest::secure::Handshake;

#[test]
fn a_receiver_moves_to_another_address_and_its_counters_go_on() {
    for engine in engines() {
        let (world, first) = one(engine, GRACE);
        let before = world.address("front");
        let mut idle = world.connect("front");
        assert_eq!(idle.post(&body("up", 1.0)).status, 204);
        let request = post(&body("up", 2.0));
        let mut busy = world.connect("front");
        busy.send(&request[..request.len() - 1]);
        until(|| world.snapshot("front").in_flight_bytes > 0);
        let mut moved = front(vec![Path::plain(0)]);
        moved.address = ([127, 0, 0, 2], 0).into();
        let moved = named(&[("first", &first)], vec![moved]);
        std::thread::scope(|scope| {
            let applying = scope.spawn(|| world.apply(moved));
            assert!(idle.is_closed());
            // The new address is there before the old one is left.
            until(|| world.address("front") != before);
            assert_eq!(world.connect("front").post(&body("up", 3.0)).status, 204);
            assert!(!applying.is_finished(), "a request is in flight");
            busy.send(&request[request.len() - 1..]);
            assert_eq!(busy.reply().status, 204);
            assert!(busy.is_closed());
            applying.join().unwrap();
        });
        assert!(TcpStream::connect(before).is_err(), "nobody listens");
        assert_eq!(world.snapshot("front").requests[0], 3);
        world.stop(&[&first]);
    }
}

#[test]
fn a_request_that_outlasts_the_grace_is_cut_off_where_its_receiver_goes() {
    let (world, first) = one(IoEngine::Portable, Duration::from_millis(30));
    let stats = world.shards.stats()["front"].clone();
    let request = post(&body("up", 2.0));
    let mut busy = world.connect("front");
    busy.send(&request[..request.len() - 1]);
    until(|| world.snapshot("front").in_flight_bytes > 0);
    world.apply(Layout::default());
    first.close();
    assert!(busy.is_closed());
    assert_eq!(*stats.snapshot().requests.last().unwrap(), 1);
    assert!(world.shards.addresses().is_empty());
    world.stop(&[]);
}

#[test]
fn what_cannot_be_changed_is_told_and_goes_on_as_it_was_to_the_new_stores() {
    for engine in engines() {
        let (world, first) = one(engine, GRACE);
        let before = world.address("front");
        let mut client = world.connect("front");
        assert_eq!(client.post(&body("up", 1.0)).status, 204);
        let taken = std::net::TcpListener::bind(local()).unwrap();
        let mut elsewhere = front(vec![Path::plain(0)]);
        elsewhere.address = taken.local_addr().unwrap();
        elsewhere.series_max = 1;
        let mut badly_secured = front(vec![Path::plain(0)]);
        badly_secured.series_max = 1;
        let mut broken = tls::Authority::new().options();
        broken.key = tls::text("no key");
        badly_secured.tls = Some(broken);
        let mut new = receiver("new", vec![Path::plain(0)]);
        new.address = elsewhere.address;
        let mut stores = vec![first.clone()];
        for (wanted, is_taken) in [(elsewhere, true), (badly_secured, false)] {
            let store = world.store(&stores.len().to_string());
            let other = receiver("other", vec![Path::plain(0)]);
            let layout = named(&[("next", &store)], vec![wanted, new.clone(), other]);
            let mut failed = world.shards.apply(layout).unwrap().failed;
            stores.last().unwrap().close();
            let error = failed.remove("front").unwrap();
            assert_eq!(error.is_address_taken(), is_taken, "{error}");
            assert_eq!(matches!(error, Error::Secure { .. }), !is_taken, "{error}");
            assert!(failed.remove("new").unwrap().is_address_taken());
            assert!(failed.is_empty());
            // The others are as they should be.
            assert_eq!(world.connect("other").post(&body("up", 2.0)).status, 204);
            assert_eq!(world.address("front"), before);
            let two = ["a", "b"].map(|name| series(&[("__name__", name)], 3.0, 1));
            assert_eq!(client.post(&compressed(two.into())).status, 204);
            assert_eq!(world.connect("front").post(&body("up", 4.0)).status, 204);
            assert_eq!(values(&store), [2.0, 3.0, 3.0, 4.0]);
            let names: Vec<_> = world.shards.stats().into_keys().collect();
            assert_eq!(names, ["front", "other"]);
            stores.push(store);
        }
        world.stop(&[stores.last().unwrap()]);
    }
}

/// Connections that come while the name changes are accepted by one or the other.
#[test]
fn a_receiver_with_another_name_takes_over_the_socket() {
    for engine in engines() {
        let (world, first) = one(engine, GRACE);
        let address = world.address("front");
        let of = |name: &str| {
            let mut receiver = receiver(name, vec![Path::plain(0)]);
            receiver.address = address;
            named(&[("first", &first)], vec![receiver])
        };
        for number in 0..20 {
            let name = format!("name {number}");
            world.apply(of(&name));
            assert_eq!(world.address(&name), address);
            // Waits in the socket while the next takes over.
            let mut client = Client::new(address);
            assert_eq!(client.post(&body("up", 1.0)).status, 204);
            assert_eq!(world.snapshot(&name).requests[0], 1);
            assert_eq!(world.shards.addresses().len(), 1);
        }
        world.stop(&[&first]);
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    }
}

#[test]
fn two_receivers_change_places() {
    let (world, first) = one(IoEngine::Portable, GRACE);
    let both = |a, b| {
        let place = |name: &str, address| {
            let mut receiver = receiver(name, vec![Path::plain(0)]);
            receiver.address = address;
            receiver
        };
        named(
            &[("first", &first)],
            vec![place("front", a), place("back", b)],
        )
    };
    world.apply(both(local(), local()));
    let (a, b) = (world.address("front"), world.address("back"));
    world.apply(both(b, a));
    assert_eq!((world.address("front"), world.address("back")), (b, a));
    for (address, receiver) in [(b, "front"), (a, "back")] {
        assert_eq!(Client::new(address).post(&body("up", 1.0)).status, 204);
        assert_eq!(world.snapshot(receiver).requests[0], 1);
    }
    world.stop(&[&first]);
}

#[test]
fn tls_begins_with_the_next_connection() {
    for engine in engines() {
        let (world, first) = one(engine, GRACE);
        let mut plain = world.connect("front");
        assert_eq!(plain.post(&body("up", 1.0)).status, 204);
        let mut encrypted = front(vec![Path::plain(0)]);
        encrypted.tls = Some(tls::Authority::new().options());
        world.apply(named(&[("first", &first)], vec![encrypted.clone()]));
        assert_eq!(plain.post(&body("up", 2.0)).status, 204);
        let stats = world.shards.stats()["front"].clone();
        let refused = || stats.secure().handshakes(Handshake::NotTls);
        let mut late = world.connect("front");
        late.send(&post(&body("up", 3.0)));
        until(|| refused() == 1);
        // And ends so.
        encrypted.tls = None;
        world.apply(named(&[("first", &first)], vec![encrypted]));
        assert_eq!(world.connect("front").post(&body("up", 4.0)).status, 204);
        assert_eq!(values(&first), [1.0, 2.0, 4.0]);
        world.stop(&[&first]);
    }
}

#[test]
fn a_layout_that_makes_no_sense_changes_nothing() {
    let (world, first) = one(IoEngine::Portable, GRACE);
    let mut client = world.connect("front");
    let paths = || vec![Path::plain(0)];
    for wrong in [
        named(&[("a", &first)], vec![front(vec![Path::plain(1)])]),
        named(&[("a", &first)], vec![front(paths()), front(paths())]),
        named(&[("a", &first), ("a", &first)], vec![front(paths())]),
    ] {
        let error = world.shards.apply(wrong).unwrap_err();
        assert!(matches!(error, Error::Options(_)), "{error}");
        assert_eq!(client.post(&body("up", 1.0)).status, 204);
    }
    assert_eq!(values(&first), [1.0; 3]);
    let address = world.address("front");
    world.shards.stop_accepting();
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    let late = world.shards.apply(Layout::default());
    assert!(matches!(late, Err(Error::Options(_))), "{late:?}");
    world.stop(&[&first]);
}

/// A store of the same id that is not the same is another one.
#[test]
fn a_store_opened_again_under_its_id_is_a_new_one() {
    let (world, first) = one(IoEngine::Portable, GRACE);
    let mut client = world.connect("front");
    assert_eq!(client.post(&body("up", 1.0)).status, 204);
    let again = world.store("elsewhere");
    world.apply(named(
        &[("first", &again)],
        vec![front(vec![Path::plain(0)])],
    ));
    first.close();
    assert_eq!(client.post(&body("up", 2.0)).status, 204);
    assert_eq!((values(&first), values(&again)), (vec![1.0], vec![2.0]));
    world.stop(&[&again]);
}
