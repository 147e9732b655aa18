//! Turns a wish for a place into a directory, removed at the end unless it was asked for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A directory for the demo.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    is_kept: bool,
}

impl Scratch {
    /// Makes `keep`, which must be new or empty, or else a temporary directory.
    pub(super) fn create(keep: Option<&Path>) -> Result<Self> {
        let Some(path) = keep else {
            let name = format!(
                "penstock-demo-{}-{:08x}",
                std::process::id(),
                fastrand::u32(..)
            );
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
            return Ok(Self {
                path,
                is_kept: false,
            });
        };
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        if fs::read_dir(path)?.next().is_some() {
            // A store from an earlier demo would deliver its samples into this one.
            bail!("{} is not empty", path.display());
        }
        Ok(Self {
            path: path.canonicalize()?,
            is_kept: true,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it stays.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_is_removed_and_a_wanted_one_stays() {
        let temporary = Scratch::create(None).unwrap();
        let path = temporary.path().to_owned();
        fs::write(path.join("a"), "b").unwrap();
        drop(temporary);
        assert!(!path.try_exists().unwrap());

        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("a/b");
        let kept = Scratch::create(Some(&wanted)).unwrap();
        fs::write(kept.path().join("a"), "b").unwrap();
        drop(kept);
        assert!(wanted.try_exists().unwrap());
        assert!(Scratch::create(Some(&wanted)).is_err());
    }
}
