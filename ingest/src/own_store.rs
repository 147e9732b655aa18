//! Turns a store into what one shard thread has of it: a writer, and a view of what is durable.
//!
//! Held by the ways that lead to the store and by requests that wait for it. With the last of them on a
//! shard the writer goes back, and whoever removed the store learns of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;

use wal::{Durable, Store, Writer};

use crate::tap::Tap;

/// A store on one shard thread.
#[derive(Debug)]
pub(crate) struct OwnStore {
    /// What tells it from every other store there ever was.
    pub(crate) number: u64,
    pub(crate) store: Store,
    pub(crate) writer: RefCell<Writer>,
    pub(crate) durable: Durable,
    pub(crate) tap: Tap,
    /// Nothing is ever sent: who waits for the store to be left sees it closed.
    _lease: mpsc::SyncSender<()>,
}

/// A store on its way to a shard thread.
#[derive(Debug)]
pub(crate) struct NewStore {
    pub(crate) number: u64,
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) tap: Tap,
    pub(crate) lease: mpsc::SyncSender<()>,
}

impl OwnStore {
    pub(crate) fn new(new: NewStore) -> Rc<Self> {
        Rc::new(Self {
            number: new.number,
            durable: new.store.durable(),
            store: new.store,
            writer: RefCell::new(new.writer),
            tap: new.tap,
            _lease: new.lease,
        })
    }
}
