//! Turns a place outside the configuration into its text, now and whenever it changes; targets that are looked
//! for into the lists that are found.
//!
//! # Failure
//! - What cannot be had is an error in words; the next look is made as if nothing had happened. Only the
//!   first of equal failures in a row is told.
//!
//! # Limits
//! - [`TEXT_BYTES_MAX`] of a text, [`FILES_MAX`] files of a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use config::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::git;
use crate::component::{Content, Fetch, HttpFetch};
use crate::discovery::{Discovery, Stats};

/// Names and texts.
pub(crate) type Files = Vec<(String, String)>;

/// Far more than a configuration or a credential has.
pub(crate) const TEXT_BYTES_MAX: u64 = 16 << 20;
pub(crate) const FILES_MAX: usize = 1_000;

/// What became of something that is watched.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The node.
    pub(crate) id: String,
    /// The watch that saw it: the node may have another one by now, of another place.
    pub(crate) watch: u64,
    pub(crate) what: Saw,
}

/// What was seen.
#[derive(Debug)]
pub(crate) enum Saw {
    /// The texts of a place, or why they cannot be had.
    Files(Result<Files, String>),
    /// Other targets than before.
    Targets(Value),
}

/// Looks at one place again and again until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    task: JoinHandle<()>,
    number: u64,
}

impl Watch {
    /// Whether something was seen by this watch.
    pub(crate) const fn saw(&self, seen: &Seen) -> bool {
        self.number == seen.watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The number of the next watch.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Looks for nodes.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    /// Where looking waits. It must be driven by another thread than the one that asks.
    pub(crate) runtime: Handle,
    pub(crate) seen: mpsc::Sender<Seen>,
    /// Where copies of repositories are kept.
    pub(crate) storage: Arc<Path>,
}

impl Watcher {
    /// What is there now. Waits for it.
    pub(crate) fn fetch(&self, id: &str, fetch: &Fetch) -> Result<Files, String> {
        self.runtime.block_on(look(fetch.clone(), self.copy_of(id)))
    }

    /// Where the copy of a node's repository is.
    pub(crate) fn copy_of(&self, id: &str) -> PathBuf {
        self.storage.join(id)
    }

    /// Tells of changes from now on.
    pub(crate) fn watch(&self, id: &str, content: &Content, now: &Files) -> Watch {
        let (id, content, mut now) = (id.to_owned(), content.clone(), Ok(now.clone()));
        let (seen, copy) = (self.seen.clone(), self.copy_of(&id));
        let watch = NEXT.fetch_add(1, Ordering::Relaxed);
        let task = self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(content.every).await;
                let next = look(content.fetch.clone(), copy.clone()).await;
                if next == now {
                    continue;
                }
                now = next;
                let (id, what) = (id.clone(), Saw::Files(now.clone()));
                if seen.send(Seen { id, watch, what }).await.is_err() {
                    return;
                }
            }
        });
        Watch {
            task,
            number: watch,
        }
    }

    /// Tells of targets from now on; `stats` are the component's.
    pub(crate) fn discover(&self, id: &str, discovery: &Discovery, stats: &Arc<Stats>) -> Watch {
        let (id, discovery, stats) = (id.to_owned(), discovery.clone(), stats.clone());
        let seen = self.seen.clone();
        let watch = NEXT.fetch_add(1, Ordering::Relaxed);
        let task = self.runtime.spawn(discovery.run(stats, move |targets| {
            let (id, what) = (id.clone(), Saw::Targets(targets));
            let seen = seen.clone();
            async move { seen.send(Seen { id, watch, what }).await.is_ok() }
        }));
        Watch {
            task,
            number: watch,
        }
    }
}

/// The text of a place.
async fn look(fetch: Fetch, copy: PathBuf) -> Result<Files, String> {
    let blocking = |read: Box<dyn FnOnce() -> Result<Files, String> + Send>| async move {
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|ended| Err(format!("reading ended early: {ended}")))
    };
    match fetch {
        Fetch::File(path) => blocking(Box::new(move || Ok(vec![file(&path)?]))).await,
        Fetch::Module(path) => blocking(Box::new(move || files(&path))).await,
        Fetch::Git(fetch) => blocking(Box::new(move || git::files(&fetch, &copy))).await,
        Fetch::Http(fetch) => http(&fetch).await,
    }
}

fn file(path: &Path) -> Result<(String, String), String> {
    let name = path.display().to_string();
    let failed =
        |problem: &dyn std::fmt::Display| format!("failed to read file: {name}: {problem}");
    let length = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if length > TEXT_BYTES_MAX {
        return Err(failed(&format!("it has more than {TEXT_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    Ok((name, text))
}

/// A file, or the configuration files of a directory in the order of their names.
pub(crate) fn files(path: &Path) -> Result<Files, String> {
    if !path.is_dir() {
        return Ok(vec![file(path)?]);
    }
    let unreadable = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension();
        if extension.is_some_and(|e| e == "alloy" || e == "penstock") && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let path = path.display();
        return Err(format!("{path} holds no *.alloy or *.penstock file"));
    }
    if paths.len() > FILES_MAX {
        return Err(format!(
            "{} holds more than {FILES_MAX} files",
            path.display()
        ));
    }
    paths.sort();
    paths.iter().map(|path| file(path)).collect()
}

async fn http(fetch: &HttpFetch) -> Result<Files, String> {
    let request = shipper::fetch::Request {
        url: &fetch.url,
        method: &fetch.method,
        headers: fetch
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect(),
        body: fetch.body.clone(),
        timeout: fetch.timeout,
        http: &fetch.http,
        unix_socket: None,
        answer_bytes_max: TEXT_BYTES_MAX,
    };
    let text = shipper::fetch::fetch(request).await;
    let text = text.map_err(|problem| format!("failed to fetch: {problem}"))?;
    Ok(vec![(fetch.url.clone(), text.trim().to_owned())])
}
