//! Turns what an operator names into the directory of one store.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The store in `dir`: that itself, or the only one in it.
///
/// # Errors
/// There is none, or more than one: they are listed.
pub(super) fn find(dir: &Path) -> anyhow::Result<PathBuf> {
    if is_store(dir) {
        return Ok(dir.to_owned());
    }
    let unreadable = || format!("cannot read {}", dir.display());
    let mut stores = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if is_store(&path) {
            stores.push(path);
        }
    }
    stores.sort_unstable();
    match &stores[..] {
        [] => bail!(
            "{} is no store, and none is in it: a store is <storage.path>/<component id>",
            dir.display()
        ),
        [store] => Ok(store.clone()),
        many => {
            let names: Vec<String> = many.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "{} stores are in it, name one: {}",
                many.len(),
                names.join(", ")
            )
        }
    }
}

fn is_store(dir: &Path) -> bool {
    dir.join("segments").is_dir() && dir.join("series").is_dir()
}
