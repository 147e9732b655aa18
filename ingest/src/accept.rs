//! Turns a listening socket into connections that are served, until it is told to stop.
//!
//! # Failure
//! - Accepting fails (too many open files): counted, tried again after [`ACCEPT_PAUSE`].
//!
//! # Limits
//! - Connections per receiver, over all shards; beyond it a connection is closed at once.
//!
//! # Threads
//! - A task of the shard thread; its connections are tasks of the same.

use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::http::Receiver;
use crate::protocol::serve;
use crate::share::take_passed;
use crate::spread::{HandedOver, Inbox, Place, Spread};

/// How long a shard waits after it could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop, then lets them finish.
pub(crate) async fn receive(
    receiver: Rc<Receiver>,
    (listener, mut inbox, spread): (TcpListener, Inbox, Spread),
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(receiver = receiver.stats.name(), %error, "cannot listen");
            return;
        }
    };
    let mut connections = JoinSet::new();
    // Where parts of requests go that others pass on: their series come in the order of no sender.
    let inside = Rc::new(Connection::new(&receiver));
    loop {
        tokio::select! {
            // First the stop: who takes the socket over gets every connection from then on. Accepting
            // comes last, as of that there can always be more.
            biased;
            // An error means that nobody is left to say stop; that is a stop too.
            _ = async { stop.wait_for(|stop| *stop).await.is_ok() } => break,
            Some(_) = connections.join_next() => {}
            Some(handed_over) = inbox.recv() => {
                take_over(handed_over, (&receiver, &inside), (&mut connections, &stop));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(kept) = spread.keep(receiver.worker.shard, stream) {
                        connections.spawn_local(admit(kept, receiver.clone(), stop.clone()));
                    }
                }
                Err(error) => {
                    receiver.counters().accept_failed();
                    tracing::warn!(receiver = receiver.stats.name(), %error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // They were accepted: what they have sent by now is answered.
    inbox.close();
    while let Ok(handed_over) = inbox.try_recv() {
        take_over(handed_over, (&receiver, &inside), (&mut connections, &stop));
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, finished).await.is_err() {
        let open = connections.len();
        tracing::warn!(
            receiver = receiver.stats.name(),
            open,
            "closing busy connections"
        );
        connections.shutdown().await;
    }
}

/// Serves a connection that another shard has accepted, or a part that another agent passes on.
fn take_over(
    handed_over: HandedOver,
    (receiver, inside): (&Rc<Receiver>, &Rc<Connection>),
    (connections, stop): (&mut JoinSet<()>, &watch::Receiver<bool>),
) {
    let (stream, place) = match handed_over {
        HandedOver::Connection(stream, place) => (stream, place),
        HandedOver::Part(part) => {
            connections.spawn_local(take_passed(receiver.clone(), inside.clone(), part));
            return;
        }
    };
    match TcpStream::from_std(stream) {
        Ok(stream) => {
            connections.spawn_local(admit((stream, place), receiver.clone(), stop.clone()));
        }
        Err(error) => {
            receiver.counters().accept_failed();
            tracing::warn!(receiver = receiver.stats.name(), %error, "cannot take over");
        }
    }
}

/// Serves a connection if there may be one more, else closes it.
async fn admit(
    (stream, _place): (TcpStream, Place),
    receiver: Rc<Receiver>,
    stop: watch::Receiver<bool>,
) {
    let stats = receiver.stats.clone();
    let Some(_permit) = stats.connections.enter() else {
        receiver.counters().connection_refused();
        return;
    };
    receiver.counters().connection_accepted();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(receiver = stats.name(), %error, "cannot set nodelay");
    }
    serve(stream, receiver, stop).await;
}
