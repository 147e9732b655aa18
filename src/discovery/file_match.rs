//! Turns targets with a pattern for a path into targets with the path of every file that matches.
//!
//! # Failure
//! - A target without a pattern gives none.
//!
//! # Limits
//! - Those of `glob`, for each pattern.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Object, Value};
use wal::SystemClock;

use super::glob::Pattern;
use super::refresh::{self, Found, Group, too_many};
use super::{TARGETS_MAX, blocking};

/// Where the path of a file is, and the pattern for it before.
pub(crate) const PATH: &str = "__path__";

/// Patterns with the labels of what they match.
#[derive(Clone, Debug)]
pub(crate) struct FileMatchPlace {
    pub(crate) targets: Arc<[PathTarget]>,
    /// Files that were not changed for longer are left out; zero: none is.
    pub(crate) ignore_older_than: Duration,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct PathTarget {
    pub(crate) labels: Object,
    pub(crate) pattern: Pattern,
    /// What is left out.
    pub(crate) exclude: Option<Pattern>,
}

#[derive(Debug)]
pub(super) struct Look(FileMatchPlace);

impl Look {
    pub(super) const fn new(place: FileMatchPlace) -> Self {
        Self(place)
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        let place = self.0.clone();
        let now_ms = SystemClock::shared().unix_ms();
        let group = blocking(move || files(&place, now_ms)).await?;
        Ok(vec![(String::new(), Ok(group))])
    }
}

fn files(place: &FileMatchPlace, now_ms: i64) -> Result<Group, String> {
    let mut all: Vec<Value> = Vec::new();
    let age = place.ignore_older_than.as_millis();
    let is_fresh = |about: &Metadata| {
        let changed_ms = about.mtime() * 1000 + about.mtime_nsec() / 1_000_000;
        age == 0 || i128::from(now_ms - changed_ms) <= i128::try_from(age).unwrap_or(i128::MAX)
    };
    for target in &*place.targets {
        let mut see = |path: PathBuf, about: &Metadata| {
            let is_excluded = |exclude: &Pattern| exclude.is_match(&path);
            if target.exclude.as_ref().is_some_and(is_excluded) || !is_fresh(about) {
                return;
            }
            // It fails only for an empty path, or where there is no current directory.
            let path = std::path::absolute(&path).unwrap_or(path);
            let mut labels = target.labels.clone();
            labels.insert(PATH.to_owned(), path.display().to_string().into());
            all.push(labels.into());
        };
        target.pattern.files(&mut see)?;
        if all.len() > TARGETS_MAX {
            return Err(too_many(all.len()));
        }
    }
    Ok(all.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::target::tests::all_shown;
    use super::refresh::Look as _;
    use super::*;

    fn place(dir: &Path, targets: &[(&str, Option<&str>, &str)], older: u64) -> FileMatchPlace {
        let pattern = |text: &str| Pattern::new(dir.join(text).to_str().unwrap()).unwrap();
        let target = |(path, exclude, job): &(&str, Option<&str>, &str)| PathTarget {
            labels: Object::from([("job".to_owned(), (*job).into())]),
            pattern: pattern(path),
            exclude: exclude.map(pattern),
        };
        FileMatchPlace {
            targets: targets.iter().map(target).collect(),
            ignore_older_than: Duration::from_secs(older),
        }
    }

    async fn found(place: FileMatchPlace, dir: &Path) -> Vec<String> {
        let found = Look::new(place).look().await.unwrap();
        let dir = format!("{}/", dir.display());
        let shown = all_shown(found[0].1.as_ref().unwrap());
        shown.iter().map(|line| line.replace(&dir, "")).collect()
    }

    #[tokio::test]
    async fn every_file_that_matches_is_a_target() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        for name in ["a.log", "b.log", "d/e/c.log", "d/e/c.log.gz"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let targets = [
            ("**/*.log*", Some("**/*.gz"), "x"),
            ("a.log", None, "y"),
            ("none", None, "z"),
        ];
        let place = place(dir.path(), &targets, 0);
        assert_eq!(
            found(place, dir.path()).await,
            [
                "__path__=a.log job=x",
                "__path__=b.log job=x",
                "__path__=d/e/c.log job=x",
                "__path__=a.log job=y",
            ]
        );
    }

    #[tokio::test]
    async fn what_was_not_changed_for_long_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old.log", "new.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let old = dir.path().join("old.log");
        let old = fs::File::options().write(true).open(old).unwrap();
        let changed = old.metadata().unwrap().modified().unwrap() - Duration::from_secs(100);
        old.set_modified(changed).unwrap();
        let place = |older| place(dir.path(), &[("*.log", None, "x")], older);
        assert_eq!(
            found(place(90), dir.path()).await,
            ["__path__=new.log job=x"]
        );
        assert_eq!(found(place(200), dir.path()).await.len(), 2);
        assert_eq!(found(place(0), dir.path()).await.len(), 2);
    }

    #[tokio::test]
    async fn paths_are_absolute() {
        let pattern = Pattern::new("Cargo.tom*").unwrap();
        let target = PathTarget {
            labels: Object::new(),
            pattern,
            exclude: None,
        };
        let place = FileMatchPlace {
            targets: [target].into(),
            ignore_older_than: Duration::ZERO,
        };
        let want = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let found = found(place, Path::new("/nowhere")).await;
        assert_eq!(found, [format!("__path__={}", want.display())]);
    }
}
