//! Turns files with documents of target groups into targets.
//!
//! Looking is listing files and when they were changed; what changed is read, and everything once per
//! refresh interval: some file systems know times to the second only.
//!
//! # Failure
//! - A file that cannot be read, or is no document, keeps its targets; one that is gone has none.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::document::{self, Syntax};
use super::glob::Pattern;
use super::refresh::{self, Found, Group};
use super::{TEXT_BYTES_MAX, blocking};

/// Files to read.
#[derive(Clone, Debug)]
pub(crate) struct FilePlace {
    pub(crate) files: Arc<[Pattern]>,
}

/// What a change of a file changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    bytes: u64,
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        Self {
            bytes: about.len(),
            changed: (about.mtime(), about.mtime_nsec()),
            inode: about.ino(),
        }
    }
}

/// What was read of each file.
type Known = BTreeMap<PathBuf, (Stamp, Result<Group, String>)>;

#[derive(Debug)]
pub(super) struct Look {
    files: Arc<[Pattern]>,
    known: Known,
    every: Duration,
    read_at: Instant,
}

impl Look {
    /// One that reads everything again after this time.
    pub(super) fn new(place: FilePlace, every: Duration) -> Self {
        Self {
            files: place.files,
            known: Known::new(),
            every,
            read_at: Instant::now(),
        }
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        let mut known = std::mem::take(&mut self.known);
        if self.read_at.elapsed() >= self.every {
            self.read_at = Instant::now();
            known.values_mut().for_each(|(stamp, _)| stamp.inode = 0);
        }
        let files = self.files.clone();
        self.known = blocking(move || read(&files, &known)).await?;
        let found = self.known.iter();
        let found = found.map(|(path, (_, group))| (path.display().to_string(), group.clone()));
        Ok(found.collect())
    }
}

/// What the files hold now. What is equal to what is known is the same.
fn read(files: &[Pattern], known: &Known) -> Result<Known, String> {
    let mut next = Known::new();
    for pattern in files {
        pattern.files(&mut |path, about| {
            if next.contains_key(&path) {
                return;
            }
            let stamp = Stamp::of(about);
            let before = known.get(&path);
            let group = match before {
                Some((before, group)) if *before == stamp => group.clone(),
                _ => document(&path, stamp.bytes),
            };
            // One that was equal is not compared again further on.
            let group = match before {
                Some((_, before)) if *before == group => before.clone(),
                _ => group,
            };
            next.insert(path, (stamp, group));
        })?;
    }
    Ok(next)
}

fn document(path: &Path, bytes: u64) -> Result<Group, String> {
    let name = path.display().to_string();
    let failed = |problem: &dyn std::fmt::Display| format!("{name}: {problem}");
    if bytes > TEXT_BYTES_MAX {
        return Err(failed(&format!("it has more than {TEXT_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let extension = path.extension().unwrap_or_default();
    let syntax = if extension.eq_ignore_ascii_case("json") {
        Syntax::Json
    } else {
        Syntax::Yaml
    };
    let found = document::targets(&text, syntax, ("__meta_filepath", &name));
    found.map_err(|problem| failed(&problem))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::target::tests::all_shown;
    use super::refresh::Look as _;
    use super::*;

    fn look(dir: &Path, every: u64) -> Look {
        let patterns = ["*.json", "*.y*ml", "a.json"].map(|name| dir.join(name));
        let patterns = patterns.map(|path| Pattern::new(path.to_str().unwrap()).unwrap());
        let files = patterns.into();
        Look::new(FilePlace { files }, Duration::from_secs(every))
    }

    /// Files with their targets, or what is wrong with them.
    async fn found(look: &mut Look, dir: &Path) -> Vec<String> {
        let dir = format!("{}/", dir.display());
        let found = look.look().await.unwrap().into_iter();
        let shown = found.map(|(source, group)| match group {
            Ok(group) => format!("{source}: {}", all_shown(&group).join(", ")),
            Err(problem) => problem,
        });
        shown.map(|line| line.replace(&dir, "")).collect()
    }

    #[tokio::test]
    async fn what_is_in_the_files_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let mut look = look(dir.path(), 1000);
        assert_eq!(found(&mut look, dir.path()).await, [""; 0]);
        write("a.json", r#"[{"targets": ["a:1"], "labels": {"x": "1"}}]"#);
        write("b.yml", "- targets: ['b:1']\n");
        write("c.txt", "not looked at");
        let a = "a.json: __address__=a:1 __meta_filepath=a.json x=1";
        let b = "b.yml: __address__=b:1 __meta_filepath=b.yml";
        assert_eq!(found(&mut look, dir.path()).await, [a, b]);
        write("b.yml", "- targets: ['b:1', 'b:2']\n");
        let more =
            "b.yml: __address__=b:1 __meta_filepath=b.yml, __address__=b:2 __meta_filepath=b.yml";
        assert_eq!(found(&mut look, dir.path()).await, [a, more]);
        write("a.json", "[{]");
        let broken = "a.json: key must be a string at line 1 column 3";
        assert_eq!(found(&mut look, dir.path()).await, [broken, more]);
        fs::remove_file(dir.path().join("a.json")).unwrap();
        assert_eq!(found(&mut look, dir.path()).await, [more]);
    }

    #[tokio::test]
    async fn what_did_not_change_is_not_read_again_before_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, r#"[{"targets": ["a:1"]}]"#).unwrap();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        let mut look = look(dir.path(), 1000);
        let first = look.look().await.unwrap();
        let again = look.look().await.unwrap();
        let group = |found: &Found| found[0].1.clone().unwrap();
        assert!(Arc::ptr_eq(&group(&first), &group(&again)));
        // Another text of the same length and time goes unnoticed, but not for ever.
        fs::write(&path, r#"[{"targets": ["b:1"]}]"#).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(changed).unwrap();
        assert_eq!(group(&look.look().await.unwrap()), group(&first));
        look.every = Duration::ZERO;
        assert_ne!(group(&look.look().await.unwrap()), group(&first));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_an_error_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "[]").unwrap();
        fs::write(dir.path().join("b.json"), [0xff, 0xfe]).unwrap();
        let big = fs::File::create(dir.path().join("c.json")).unwrap();
        big.set_len(TEXT_BYTES_MAX + 1).unwrap();
        let mut look = look(dir.path(), 1000);
        let found = found(&mut look, dir.path()).await;
        assert_eq!(
            found,
            [
                "a.json: ",
                "b.json: stream did not contain valid UTF-8",
                "c.json: it has more than 33554432 bytes",
            ]
        );
    }
}
