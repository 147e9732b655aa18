//! Turns any number of those who ask at one time into one collection, and its page into all their answers.
//!
//! # Invariants
//! - At most one collection of a [`Flight`] is under way: who asks meanwhile gets its page.
//!
//! # Failure
//! - A collection that takes longer than [`PATIENCE`] is answered for by an error. It goes on, and as long as it
//!   does, those who ask wait for it: however long it hangs, it is one thread.
//!
//! # Threads
//! - The collection runs on a thread of its own that nobody waits for when the agent ends.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Longer than any scrape that is left to its defaults waits.
const PATIENCE: Duration = Duration::from_secs(30);

type Page = Option<Arc<str>>;

/// What is asked for again and again.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Gets the page of the collection that is under way.
    under_way: Mutex<Option<watch::Receiver<Page>>>,
}

impl Flight {
    /// The page that `collect` makes, or the one that is being made.
    ///
    /// # Errors
    /// There is none in time.
    pub(super) async fn page(
        &self,
        collect: impl FnOnce() -> String + Send + 'static,
    ) -> Result<Arc<str>, String> {
        let mut page = self.join(collect)?;
        let made = async {
            let made = page.wait_for(Option::is_some).await;
            made.ok().and_then(|page| page.clone())
        };
        match tokio::time::timeout(PATIENCE, made).await {
            Ok(Some(page)) => Ok(page),
            Ok(None) => Err("the collection ended early".to_owned()),
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                Err(format!("the collection takes longer than {seconds} s"))
            }
        }
    }

    fn join(
        &self,
        collect: impl FnOnce() -> String + Send + 'static,
    ) -> Result<watch::Receiver<Page>, String> {
        let mut under_way = self.under_way.lock();
        let is_going_on =
            |page: &&watch::Receiver<Page>| page.has_changed().is_ok() && page.borrow().is_none();
        if let Some(page) = under_way.as_ref().filter(is_going_on) {
            return Ok(page.clone());
        }
        let (made, page) = watch::channel(None);
        let collect = move || drop(made.send_replace(Some(collect().into())));
        let thread = std::thread::Builder::new().name("collect".to_owned());
        let started = thread.spawn(collect);
        started.map_err(|error| format!("a thread could not be started: {error}"))?;
        *under_way = Some(page.clone());
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_meanwhile_get_the_same_page() {
        let flight = Arc::new(Flight::default());
        let (go, gone) = mpsc::sync_channel::<()>(1);
        let first = {
            let collect = move || {
                gone.recv().unwrap();
                "first".to_owned()
            };
            flight.join(collect).unwrap()
        };
        let others: Vec<_> = (0..3)
            .map(|_| flight.join(|| unreachable!("one is under way")).unwrap())
            .collect();
        go.send(()).unwrap();
        for mut page in others.into_iter().chain([first]) {
            let page = page.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(&*page.unwrap(), "first");
        }
        let next = flight.page(|| "second".to_owned()).await;
        assert_eq!(&*next.unwrap(), "second");
    }

    #[tokio::test]
    async fn one_that_broke_is_not_waited_for() {
        let flight = Flight::default();
        let broken = flight.page(|| panic!("on purpose")).await;
        assert_eq!(broken.unwrap_err(), "the collection ended early");
        assert_eq!(&*flight.page(|| "whole".to_owned()).await.unwrap(), "whole");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_given_up_and_stays_one() {
        let flight = Flight::default();
        let (go, gone) = mpsc::sync_channel::<()>(1);
        let hang = move || {
            gone.recv().unwrap_or_default();
            "late".to_owned()
        };
        let error = flight.page(hang).await.unwrap_err();
        assert_eq!(error, "the collection takes longer than 30 s");
        let error = flight.page(|| unreachable!("one hangs")).await.unwrap_err();
        assert_eq!(error, "the collection takes longer than 30 s");
        drop(go);
    }
}
