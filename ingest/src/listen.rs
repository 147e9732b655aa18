//! Turns an address into one listening socket per shard.
//!
//! All sockets share the address (`SO_REUSEPORT`); the kernel spreads connections over them.
//!
//! # Failure
//! - An address that somebody listens on is an error that names it. `SO_REUSEPORT` alone would
//!   share the port with any other process of the same user and silently take part of its traffic,
//!   so the address is first bound without it. That cannot be asked while a receiver that is about to
//!   go listens on the same port, on this address or on all.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;

/// Connections the kernel completes before we accept them.
const BACKLOG: i32 = 1024;

/// Sockets on `address`, as many as `count`, and the address with its real port. `beside` one of our own
/// on the same port, it is not looked for others'.
pub(crate) fn listen(
    receiver: &str,
    address: SocketAddr,
    (count, beside): (usize, bool),
) -> Result<(Vec<TcpListener>, SocketAddr), Error> {
    let failed = |source: io::Error| {
        let receiver = receiver.to_owned();
        if source.kind() == io::ErrorKind::AddrInUse {
            Error::AddressTaken { receiver, address }
        } else {
            Error::Listen {
                receiver,
                address,
                source,
            }
        }
    };
    // With port 0 the kernel picks a port nobody has; there is nothing to look for.
    if address.port() != 0 && !beside {
        drop(bound(address, false).map_err(failed)?);
    }
    let mut at = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bound(at, true).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        let listener = TcpListener::from(socket);
        at = listener.local_addr().map_err(failed)?;
        listeners.push(listener);
    }
    Ok((listeners, at))
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // "[::]" means every address, IPv4 too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier run that linger do not count as taken.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn all_sockets_share_the_port_the_first_was_given() {
        let (listeners, at) = listen("r", local(), (3, false)).unwrap();
        assert_ne!(at.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), at);
        }
    }

    #[test]
    fn a_taken_address_is_an_error_that_names_it() {
        let taken = TcpListener::bind(local()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen("front", address, (1, false)).unwrap_err();
        assert!(error.is_address_taken());
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_shared_by_somebody_else_counts_as_taken() {
        let (_other, address) = listen("other", local(), (2, false)).unwrap();
        assert!(
            listen("mine", address, (2, false))
                .unwrap_err()
                .is_address_taken()
        );
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_of_its_own() {
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
        let error = listen("r", elsewhere, (1, false)).unwrap_err();
        assert!(matches!(error, Error::Listen { .. }), "{error}");
    }
}
