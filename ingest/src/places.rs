//! Turns the addresses receivers want into sockets: new ones, or those of one that goes.
//!
//! # Invariants
//! - Nobody loses its sockets here: those taken over are duplicates.
//! - A receiver whose wish fails stays where it is, and so nobody else takes its place.
//!
//! # Failure
//! - An address that is taken, by others or by a receiver that stays, or that is not ours: the failure of
//!   the receiver that wants it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use crate::Error;
use crate::listen::listen;
use crate::spread::Spread;

/// An address that somebody wants to listen on.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The receiver.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

/// Where a receiver listens.
#[derive(Debug)]
pub(crate) struct Place {
    /// Given when it is used.
    pub(crate) number: u64,
    /// What was asked for, and with its real port.
    pub(crate) asked: SocketAddr,
    pub(crate) real: SocketAddr,
    /// Duplicates of the shards' sockets, for whoever takes the place over.
    pub(crate) sockets: Vec<TcpListener>,
    /// The shards' own, until they have them.
    pub(crate) for_shards: Vec<TcpListener>,
    /// To the shards that listen here.
    pub(crate) spread: Option<Spread>,
    /// Closed when nobody listens here any more and the last connection is served.
    pub(crate) served: Option<mpsc::Receiver<()>>,
}

impl Place {
    fn is_at(&self, address: SocketAddr) -> bool {
        address.port() != 0 && (self.asked == address || self.real == address)
    }

    fn new(
        (receiver, asked, real): (&str, SocketAddr, SocketAddr),
        for_shards: Vec<TcpListener>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            receiver: receiver.to_owned(),
            address: asked,
            source,
        };
        let sockets = for_shards.iter().map(TcpListener::try_clone);
        Ok(Self {
            number: 0,
            asked,
            real,
            sockets: sockets.collect::<Result<_, _>>().map_err(failed)?,
            for_shards,
            spread: None,
            served: None,
        })
    }
}

/// Who listens where.
#[derive(Debug)]
pub(crate) struct Places<'p> {
    present: BTreeMap<&'p str, &'p Place>,
    threads: usize,
    /// See [`ShardsOptions::inherited`](crate::ShardsOptions::inherited).
    inherited: &'p [TcpListener],
}

type Found = (BTreeMap<String, Place>, BTreeMap<String, Error>);

impl<'p> Places<'p> {
    pub(crate) fn new(
        present: BTreeMap<&'p str, &'p Place>,
        threads: usize,
        inherited: &'p [TcpListener],
    ) -> Self {
        Self {
            present,
            threads,
            inherited,
        }
    }

    /// The places of those that are new or move, and why some could not. Whoever has no wish goes.
    pub(crate) fn find(&self, wishes: Vec<Wish>) -> Found {
        let stays = |wish: &Wish| {
            let place = self.present.get(&*wish.name);
            place.is_some_and(|place| place.asked == wish.address)
        };
        // Of whoever leaves: it is gone, or wants another place.
        let mut leaving = self.present.clone();
        for wish in wishes.iter().filter(|wish| stays(wish)) {
            leaving.remove(&*wish.name);
        }
        let (mut found, mut failed): Found = Default::default();
        let mut takers = Vec::new();
        for wish in wishes.into_iter().filter(|wish| !stays(wish)) {
            if leaving.values().any(|place| place.is_at(wish.address)) {
                takers.push(wish);
                continue;
            }
            let port = wish.address.port();
            let beside = port != 0 && leaving.values().any(|place| place.real.port() == port);
            match self.bind(&wish, beside) {
                Ok(place) => drop(found.insert(wish.name, place)),
                Err(error) => {
                    leaving.remove(&*wish.name);
                    failed.insert(wish.name, error);
                }
            }
        }
        let mut taken = BTreeMap::new();
        for wish in &takers {
            let place = leaving.values().find(|place| place.is_at(wish.address));
            let place = place.map(|place| take_over(wish, place));
            taken.extend(place.map(|place| (wish.name.clone(), place)));
        }
        takers.retain(|wish| match taken.remove(&wish.name) {
            Some(Ok(place)) => {
                found.insert(wish.name.clone(), place);
                true
            }
            Some(Err(error)) => {
                leaving.remove(&*wish.name);
                failed.insert(wish.name.clone(), error);
                false
            }
            None => true,
        });
        // Who cannot leave is in the way of the next.
        while let Some(at) = takers
            .iter()
            .position(|wish| !can_take(wish, &leaving, &takers))
        {
            let wish = takers.remove(at);
            leaving.remove(&*wish.name);
            found.remove(&wish.name);
            failed.insert(
                wish.name.clone(),
                Error::AddressTaken {
                    receiver: wish.name,
                    address: wish.address,
                },
            );
        }
        (found, failed)
    }

    fn bind(&self, wish: &Wish, beside: bool) -> Result<Place, Error> {
        let is_there = |one: &&TcpListener| one.local_addr().ok() == Some(wish.address);
        let (sockets, real) = match self.inherited.iter().find(is_there) {
            Some(inherited) => (self.shared(wish, inherited)?, wish.address),
            None => listen(&wish.name, wish.address, (self.threads, beside))?,
        };
        Place::new((&wish.name, wish.address, real), sockets)
    }

    /// A socket that was handed over, for each shard: all accept from it.
    fn shared(&self, wish: &Wish, inherited: &TcpListener) -> Result<Vec<TcpListener>, Error> {
        let each = (0..self.threads).map(|_| {
            let socket = inherited.try_clone()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        each.collect::<io::Result<_>>()
            .map_err(|source| Error::Listen {
                receiver: wish.name.clone(),
                address: wish.address,
                source,
            })
    }
}

/// Whether somebody leaves the place, and nobody before takes it.
fn can_take(wish: &Wish, leaving: &BTreeMap<&str, &Place>, takers: &[Wish]) -> bool {
    let is_left = leaving.values().any(|place| place.is_at(wish.address));
    let first = takers.iter().find(|other| other.address == wish.address);
    is_left && first.is_some_and(|first| first.name == wish.name)
}

fn take_over(wish: &Wish, place: &Place) -> Result<Place, Error> {
    let failed = |source| Error::Listen {
        receiver: wish.name.clone(),
        address: wish.address,
        source,
    };
    let sockets = place.sockets.iter().map(TcpListener::try_clone);
    let sockets = sockets.collect::<Result<_, _>>().map_err(failed)?;
    Place::new((&wish.name, wish.address, place.real), sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn wish(name: &str, address: SocketAddr) -> Wish {
        Wish {
            name: name.to_owned(),
            address,
        }
    }

    fn nobody() -> Places<'static> {
        Places::new(BTreeMap::new(), 2, &[])
    }

    /// Two that run.
    fn two() -> (Place, Place) {
        let (mut found, failed) = nobody().find(vec![wish("a", local()), wish("b", local())]);
        assert!(failed.is_empty(), "{failed:?}");
        (found.remove("a").unwrap(), found.remove("b").unwrap())
    }

    fn find(present: [(&str, &Place); 2], wishes: Vec<Wish>) -> (Vec<String>, Vec<String>) {
        let (found, failed) = Places::new(present.into(), 2, &[]).find(wishes);
        (found.into_keys().collect(), failed.into_keys().collect())
    }

    #[test]
    fn who_wants_what_it_has_is_left_alone() {
        let (a, b) = two();
        let wishes = vec![wish("a", local()), wish("b", local())];
        assert_eq!(find([("a", &a), ("b", &b)], wishes), (vec![], vec![]));
    }

    #[test]
    fn a_place_that_is_left_is_taken_over_also_crosswise() {
        let (a, b) = two();
        let present = [("a", &a), ("b", &b)];
        let renamed = vec![wish("c", a.real), wish("b", local())];
        assert_eq!(find(present, renamed), (vec!["c".into()], vec![]));
        let crossed = vec![wish("a", b.real), wish("b", a.real)];
        assert_eq!(
            find(present, crossed),
            (vec!["a".into(), "b".into()], vec![])
        );
    }

    #[test]
    fn who_cannot_leave_keeps_its_place_and_all_behind_it_theirs() {
        let (a, b) = two();
        let present = [("a", &a), ("b", &b)];
        let other = TcpListener::bind(local()).unwrap();
        let taken = other.local_addr().unwrap();
        let wishes = vec![wish("a", taken), wish("b", a.real), wish("c", b.real)];
        let all = ["a", "b", "c"].map(String::from).to_vec();
        assert_eq!(find(present, wishes), (vec![], all));
        let stays = vec![wish("a", local()), wish("b", local()), wish("c", a.real)];
        assert_eq!(find(present, stays), (vec![], vec!["c".into()]));
        let twice = vec![wish("c", a.real), wish("d", a.real), wish("b", local())];
        assert_eq!(find(present, twice), (vec!["c".into()], vec!["d".into()]));
    }

    #[test]
    fn a_socket_that_was_handed_over_is_listened_on() {
        let handed = [TcpListener::bind(local()).unwrap()];
        let address = handed[0].local_addr().unwrap();
        let places = Places::new(BTreeMap::new(), 2, &handed);
        let (mut found, failed) = places.find(vec![wish("a", address)]);
        assert!(failed.is_empty(), "{failed:?}");
        let place = found.remove("a").unwrap();
        // It came while nobody served.
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let (_, from) = place.for_shards[1].accept().unwrap();
        assert_eq!(from, waiting.local_addr().unwrap());
    }

    #[test]
    fn all_addresses_instead_of_one_can_be_had_while_the_one_goes() {
        let (a, b) = two();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], a.real.port()));
        let wishes = vec![wish("a", everywhere), wish("b", local())];
        let present = [("a", &a), ("b", &b)];
        assert_eq!(find(present, wishes), (vec!["a".into()], vec![]));
    }
}
