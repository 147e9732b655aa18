//! Turns what a configuration wants running into what is checked before anything changes.
//!
//! # Invariants
//! - A layout that is checked names no store that is not in it, and nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use wal::Store;

use crate::Error;
use crate::options::ReceiverOptions;
use crate::paths::STAGES_MAX;
use crate::pull::ScraperOptions;

/// What is to run: the stores, and the receivers that forward to them.
#[derive(Clone, Default, Debug)]
pub struct Layout {
    /// The stores by their component's id; [`Path::store`](crate::Path::store) is a place in here. A
    /// store is the same as before if its id and its handle are.
    pub stores: Vec<(String, Store)>,
    /// The receivers, known by their names.
    pub receivers: Vec<ReceiverOptions>,
    /// The scrapers, known by their names.
    pub scrapers: Vec<ScraperOptions>,
}

/// What came of a layout.
#[derive(Default, Debug)]
pub struct Applied {
    /// Receivers that could not be changed as was asked, by name, and why. One that ran before goes on
    /// as it was, but to the stores of the new layout; one that did not run does not.
    pub failed: BTreeMap<String, Error>,
}

impl Layout {
    /// # Errors
    /// The first setting that makes no sense.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::Options(text));
        let mut ids = BTreeSet::new();
        for (id, _) in &self.stores {
            if !ids.insert(id) {
                return wrong(format!("two stores are called {id}"));
            }
        }
        let mut names = BTreeSet::new();
        let receivers = self.receivers.iter().map(|one| (&one.name, &one.paths));
        let scrapers = self.scrapers.iter().map(|one| (&one.name, &one.paths));
        for (name, paths) in receivers.chain(scrapers) {
            if !names.insert(name) {
                return wrong(format!("two receivers are called {name}"));
            }
            let paths = || paths.iter();
            if paths().any(|path| path.store >= self.stores.len()) {
                return wrong(format!("{name} forwards to a store that does not exist"));
            }
            if paths().any(|path| path.stages.len() > STAGES_MAX) {
                return wrong(format!("{name} forwards through too many components"));
            }
        }
        Ok(())
    }
}
