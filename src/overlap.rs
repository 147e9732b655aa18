//! Turns the addresses of an agent into sockets that the process before it or after it may have too, and the end of
//! one process into one that no new connection is lost by.
//!
//! Sockets of one address share its connections (`SO_REUSEPORT`): each new one goes to the socket that a hash of its
//! ends says, and waits there until it is accepted. Closing a socket resets what waits in it, and there is no way
//! to be chosen no more but to close. So a stop begins with a filter that drops the first packet of new
//! connections: it is repeated after a second, and by then meets the socket of the next process.
//!
//! # Invariants
//! - Sockets that somebody else handed over are never filtered: they are not ours alone.
//!
//! # Failure
//! - Without the filter, which every Linux has, connections made while a process ends may be reset.
//!
//! # Limits
//! - A handshake that takes longer than [`DRAIN`] from the peer's first packet to its second is reset.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Connections the kernel completes before anybody accepts them.
const BACKLOG: i32 = 1024;

/// How long what has begun may take to be accepted; shorter than the second after which a peer tries again.
pub(crate) const DRAIN: Duration = Duration::from_millis(500);

/// Sockets of this process and of the one before or after it, which listen.
///
/// # Errors
/// An address is not ours, or taken by somebody who does not share it.
pub(crate) fn listen(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut sockets: Vec<TcpListener> = Vec::new();
    for address in addresses {
        // Port 0 is another one for each process.
        let is_there = |one: &TcpListener| one.local_addr().ok() == Some(*address);
        if address.port() != 0 && !sockets.iter().any(is_there) {
            let why = || {
                format!("cannot share {address} with another process (--server.listen.reuse-port)")
            };
            sockets.push(shared(*address).with_context(why)?);
        }
    }
    Ok(sockets)
}

fn shared(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = (Domain::for_address(address), Type::STREAM);
    let socket = Socket::new(kind.0, kind.1, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // As receivers listen: "[::]" means every address.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Drops the first packets of new connections from now on. What has begun goes on.
pub(crate) fn turn_away(sockets: &[TcpListener]) {
    /// In the TCP header, which such a filter sees first.
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    for socket in sockets {
        if let Err(error) = SockRef::from(socket).attach_filter(&filter) {
            tracing::warn!(%error, "connections that are made now may be reset");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    const LATE: usize = 16;

    fn two() -> [TcpListener; 2] {
        let [first] =
            <[_; 1]>::try_from(vec![shared(([127, 0, 0, 1], 0).into()).unwrap()]).unwrap();
        let [second] = <[_; 1]>::try_from(listen(&[first.local_addr().unwrap()]).unwrap()).unwrap();
        [first, second]
    }

    #[test]
    fn what_had_begun_is_accepted_and_what_is_new_goes_to_the_other() {
        let [first, second] = two();
        let address = first.local_addr().unwrap();
        first.set_nonblocking(true).unwrap();
        second.set_nonblocking(true).unwrap();
        let early: Vec<TcpStream> = (0..32)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        turn_away(std::slice::from_ref(&first));
        let in_first = std::iter::from_fn(|| first.accept().ok()).count();
        assert!((1..32).contains(&in_first), "{in_first} of {}", early.len());
        // Those that the first is chosen for try again once it is gone.
        let connect = move || TcpStream::connect(address).unwrap();
        let late: Vec<_> = (0..LATE)
            .map(|_| std::thread::Builder::new().spawn(connect).unwrap())
            .collect();
        let mut in_second = 0;
        while in_second < early.len() - in_first + 1 {
            match second.accept() {
                Ok(_) => in_second += 1,
                Err(_) => std::thread::yield_now(),
            }
        }
        assert!(first.accept().is_err(), "it got a new one");
        drop(first);
        let late: Vec<TcpStream> = late.into_iter().map(|one| one.join().unwrap()).collect();
        in_second += std::iter::from_fn(|| second.accept().ok()).count();
        assert_eq!(in_first + in_second, early.len() + late.len());
    }

    #[test]
    fn what_was_accepted_is_not_filtered() {
        let [first, second] = two();
        first.set_nonblocking(false).unwrap();
        let address = first.local_addr().unwrap();
        drop(second);
        let mut peer = TcpStream::connect(address).unwrap();
        turn_away(std::slice::from_ref(&first));
        let (mut own, _) = first.accept().unwrap();
        peer.write_all(b"x").unwrap();
        own.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn an_address_that_is_not_shared_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = listen(&[taken.local_addr().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("--server.listen.reuse-port"));
    }
}
