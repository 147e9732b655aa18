//! Keeps the bytes that could not be read as what they should be, for people to look at.
//!
//! # On disk
//! `quarantine/<name>`: nothing in there is ever read or removed by the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;
use crate::fs::Disk;

/// Writes `bytes` durably under `name`, or that name with `+` behind it where it is taken; says where.
///
/// # Errors
/// What the system said.
pub(crate) fn keep(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<PathBuf, Error> {
    let mut path = dir.join(name);
    while path.try_exists().map_err(Error::io("look for", &path))? {
        path.as_mut_os_string().push("+");
    }
    let file = disk.create(&path, 0).map_err(Error::io("create", &path))?;
    disk.write_all_at(&file, bytes, 0)
        .and_then(|()| disk.sync(&file))
        .map_err(Error::io("write", &path))?;
    disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(path)
}
