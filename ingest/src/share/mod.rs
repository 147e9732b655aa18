//! Turns a request that came to one of several agents into parts, each stored by the agent that owns its
//! series.
//!
//! Behind a load balancer any agent gets any series. Were each to send what it happens to get, a backend would
//! see a series out of order. So every series has one owner: whoever gets a request keeps the series it owns
//! and passes the others on, each to its owner, and the sender is answered when all of them have theirs on
//! disk.
//!
//! | file | turns |
//! |---|---|
//! | `split` | a body into the parts of the owners |
//! | `take` | a request into what is passed on and what is kept, and into one answer |
//! | `inlet` | parts that others pass on into requests of the shards |
//!
//! # Invariants
//! - What is appended here while a view holds is owned by this agent in that view: views change between two
//!   appends ([`Sharing::change`]), and a part says by which view it was cut.
//! - A part that was passed on is never passed on again.
//! - A sender is told 2xx only when every owner has committed its part.
//!
//! # Failure
//! - An owner that is away, is asked by another view, or cannot take its part now: the sender is answered 503, or
//!   429 if the owner says so, and repeats all of it. Parts that were stored by then are stored again: at least
//!   once, in order, as with any request that is repeated.
//! - What is kept here is appended last, so that an owner that is away does not fill this log with repetitions.
//! - A part that is malformed inside: the sender drops the request, and other parts of it may be stored.
//!
//! # Threads
//! - Requests and parts stay on the shard thread they came to; passing on is done elsewhere, see [`Peers::pass`].

mod inlet;
pub mod split;
mod take;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, Response};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::negotiate::Message;

pub use inlet::{Inlet, NoRoom};
pub(crate) use inlet::{Passed, take_passed};
pub(crate) use split::Splitter;
pub(crate) use take::take;

/// What becomes of a part that is passed on: the answer of its owner, or why there is none.
pub type Passing = Pin<Box<dyn Future<Output = Result<Response<Bytes>, String>> + Send>>;

/// Those who share the series with this agent.
pub trait Peers: fmt::Debug + Send + Sync {
    /// The owner of the series with this key; none: this agent itself. Less than [`Peers::count`], and the same
    /// for a key each time.
    fn owner(&self, key: u64) -> Option<usize>;

    /// How many others there are.
    fn count(&self) -> usize;

    /// Passes a part on, from now on and not from when the future is first asked.
    fn pass(&self, to: usize, part: Part) -> Passing;
}

/// Who owns what, for a while.
#[derive(Clone, Debug)]
pub struct View {
    /// Says which one it is, to all who have the same.
    pub number: u64,
    /// None: nobody knows yet, and nothing is taken.
    pub peers: Option<Arc<dyn Peers>>,
}

/// A part of a request, for its owner.
#[derive(Clone, Debug)]
pub struct Part {
    /// The receiver it came to and goes to.
    pub receiver: Arc<str>,
    /// The view it was cut by.
    pub view: u64,
    /// What the body holds.
    pub message: Message,
    /// Compressed by snappy.
    pub body: Bytes,
    /// The headers that say who sends it.
    pub headers: HeaderMap,
}

/// The view that holds now; copies are the same.
#[derive(Clone, Debug)]
pub struct Sharing(Arc<RwLock<View>>);

impl Sharing {
    /// Nobody knows yet who owns what.
    #[must_use]
    pub fn unknown() -> Self {
        Self(Arc::new(RwLock::new(View {
            number: 0,
            peers: None,
        })))
    }

    /// Goes over to the next view. No append is under way while `between` runs: what it sees in a log was
    /// appended by views before, and everything it does not see by the next one.
    pub fn change<T>(&self, next: View, between: impl FnOnce() -> T) -> T {
        let mut view = self.0.write();
        let done = between();
        *view = next;
        done
    }

    /// The view that holds as long as the guard lives, which must not be over a wait.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.0.read()
    }
}
