//! Turns what an agent holds back into a file, and that into what its next process holds back.
//!
//! # Layout
//! `<storage.path>/cluster-handover.json`, with the text of `ledger/kept`. None while nothing is held.
//!
//! # Failure
//! - A crash leaves the file before or the new one: it is written beside, synced, and renamed.
//! - It cannot be written, or read: that is told, and a process that is killed while it holds something back ships
//!   it when it is back, perhaps before what is older. Work goes on.
//! - It is older than what is held, as its removal was not synced: what was shipped meanwhile is waited for once more.
//!
//! # Limits
//! - [`BYTES_MAX`] are read.

use std::fs::File;
use std::io::{ErrorKind, Read, Result, Write};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

const NAME: &str = "cluster-handover.json";
/// A cluster of as many agents as there may be, in as many views as are remembered.
const BYTES_MAX: u64 = 64 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    /// What is in it; none: there is none.
    text: Option<String>,
    /// What was last wrong with it.
    complaint: Option<String>,
}

impl Held {
    /// The file of this directory, and what is in it.
    pub(super) fn read(storage: &Path) -> (Self, Option<String>) {
        let mut held = Self {
            path: storage.join(NAME),
            text: None,
            complaint: None,
        };
        match read(&held.path) {
            Ok(text) => held.text = text,
            Err(error) => held.tell_unreadable(&error.to_string()),
        }
        let text = held.text.clone();
        (held, text)
    }

    pub(super) fn tell_unreadable(&self, why: &str) {
        let path = self.path.display();
        tracing::warn!(%path, why, "what was held back for the other agents is not known any more");
    }

    /// Has the file say this, on disk, when it returns.
    pub(super) async fn keep(&mut self, text: Option<String>) {
        if text == self.text {
            return;
        }
        let (path, wanted) = (self.path.clone(), text.clone());
        let written = spawn_blocking(move || match wanted {
            Some(text) => replace(&path, &text),
            None => remove(&path),
        });
        let problem = match written.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // The agent is ending.
            Err(error) => Some(error.to_string()),
        };
        match problem {
            None => (self.text, self.complaint) = (text, None),
            Some(problem) if self.complaint.as_ref() != Some(&problem) => {
                let path = self.path.display();
                tracing::error!(%path, problem, "what is held back for the other agents is not kept");
                self.complaint = Some(problem);
            }
            Some(_) => {}
        }
    }
}

/// An agent that is alone waits for nobody: what its directory says of another time counts no more.
pub(crate) fn forget(storage: &Path) {
    let path = storage.join(NAME);
    if let Err(error) = remove(&path) {
        let path = path.display();
        tracing::warn!(%path, %error, "cannot be removed");
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_there_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let (mut held, text) = Held::read(dir.path());
        assert_eq!(text, None);
        for wanted in ["one", "another"] {
            held.keep(Some(wanted.to_owned())).await;
            assert_eq!(Held::read(dir.path()).1.as_deref(), Some(wanted));
        }
        held.keep(None).await;
        assert_eq!(Held::read(dir.path()).1, None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_crash_leaves_all_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut held, _) = Held::read(dir.path());
        held.keep(Some("before".to_owned())).await;
        // What a crash in the middle of the next one finds: the file itself is never written again.
        let mut before = File::open(dir.path().join(NAME)).unwrap();
        // One that broke off left this.
        std::fs::write(dir.path().join(NAME).with_extension("new"), "aft").unwrap();
        assert_eq!(Held::read(dir.path()).1.as_deref(), Some("before"));
        held.keep(Some("after".to_owned())).await;
        let mut text = String::new();
        before.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before");
        assert_eq!(Held::read(dir.path()).1.as_deref(), Some("after"));
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let storage = dir.path().join("not yet");
        let (mut held, _) = Held::read(&storage);
        held.keep(Some("one".to_owned())).await;
        assert!(held.complaint.is_some());
        std::fs::create_dir(&storage).unwrap();
        held.keep(Some("one".to_owned())).await;
        assert!(held.complaint.is_none());
        assert_eq!(Held::read(&storage).1.as_deref(), Some("one"));
        forget(&storage);
        forget(&storage);
        assert_eq!(Held::read(&storage).1, None);
    }

    #[test]
    fn what_is_no_text_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), [0xff]).unwrap();
        assert_eq!(Held::read(dir.path()).1, None);
    }
}
