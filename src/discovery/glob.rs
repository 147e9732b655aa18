//! Turns a pattern into the files it matches.
//!
//! `*`, `?`, `[a-z]`, `[^a]`, `{a,b}` and `\` stay within a name, `**` as a whole name is any number of
//! directories. Files that begin with a dot are files; links are followed.
//!
//! # Invariants
//! - Only directories that can hold a match are read.
//!
//! # Failure
//! - A directory that cannot be read holds nothing, as elsewhere in the field.
//!
//! # Limits
//! - [`ENTRIES_MAX`] entries of directories are looked at, in a pattern; a link into a directory it stands in
//!   is not followed.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Far more than a directory of logs has.
const ENTRIES_MAX: usize = 1_000_000;

/// A pattern that can be matched.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// The whole of it.
    matcher: GlobMatcher,
    /// What every match begins with.
    base: PathBuf,
    /// What follows, name by name: which directories to read.
    parts: Vec<Part>,
}

/// What a name must be.
#[derive(Clone, Debug)]
enum Part {
    This(OsString),
    Like(GlobMatcher),
    /// Any names, any number of them.
    Any,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let mut names = names(text);
        let is_fixed = |name: &&String| !is_like(name);
        let fixed = names.iter().take_while(is_fixed).count();
        let parts = names.split_off(fixed);
        let mut base = PathBuf::from(if text.starts_with('/') { "/" } else { "" });
        base.extend(&names);
        let parts = parts.iter().map(|name| Part::new(name));
        let parts = parts.collect::<Result<_, _>>()?;
        let mut whole = text.to_owned();
        while whole.contains("//") {
            whole = whole.replace("//", "/");
        }
        Ok(Self {
            matcher: matcher(&whole)?,
            base,
            parts,
        })
    }

    /// Whether a path matches.
    pub(crate) fn is_match(&self, path: &Path) -> bool {
        self.matcher.is_match(path)
    }

    /// Shows every file that matches, in the order of their names.
    pub(crate) fn files(&self, see: &mut dyn FnMut(PathBuf, &Metadata)) -> Result<(), String> {
        if self.parts.is_empty() {
            if let Ok(about) = self.base.metadata()
                && about.is_file()
            {
                see(self.base.clone(), &about);
            }
            return Ok(());
        }
        let mut walk = Walk {
            matcher: &self.matcher,
            see,
            entries_left: ENTRIES_MAX,
            above: Vec::new(),
        };
        walk.directory(&self.base, &self.parts)
    }
}

impl Part {
    fn new(name: &str) -> Result<Self, String> {
        if name == "**" || name.contains('/') {
            return Ok(Self::Any);
        }
        if is_like(name) {
            return matcher(name).map(Self::Like);
        }
        Ok(Self::This(name.into()))
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    let mut glob = GlobBuilder::new(pattern);
    let glob = glob.literal_separator(true).backslash_escape(true).build();
    let glob = glob.map_err(|error| error.kind().to_string())?;
    Ok(glob.compile_matcher())
}

/// Whether a name is more than itself.
fn is_like(name: &str) -> bool {
    name.contains(['*', '?', '[', '{', '\\'])
}

/// The names of a pattern. A choice of several, in braces, is in one piece.
fn names(pattern: &str) -> Vec<String> {
    let (mut names, mut name, mut depth) = (Vec::new(), String::new(), 0_usize);
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '/' if depth == 0 => names.push(std::mem::take(&mut name)),
            '\\' => {
                name.push(c);
                name.extend(rest.next());
            }
            _ => {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                name.push(c);
            }
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

struct Walk<'a> {
    matcher: &'a GlobMatcher,
    see: &'a mut dyn FnMut(PathBuf, &Metadata),
    entries_left: usize,
    /// Device and number of the directories being read.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, parts: &[Part]) -> Result<(), String> {
        let here = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let Ok(about) = here.metadata() else {
            return Ok(());
        };
        let is = (about.dev(), about.ino());
        if !about.is_dir() || self.above.contains(&is) {
            return Ok(());
        }
        self.above.push(is);
        let went = self.entries(here, path, parts);
        self.above.pop();
        went
    }

    fn entries(&mut self, here: &Path, path: &Path, parts: &[Part]) -> Result<(), String> {
        let Ok(entries) = here.read_dir() else {
            return Ok(());
        };
        let mut names: Vec<(OsString, bool)> = Vec::new();
        for entry in entries.flatten() {
            self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
                let glob = self.matcher.glob();
                format!("{glob}: more than {ENTRIES_MAX} entries of directories")
            })?;
            let kind = entry.file_type();
            let may_be_directory = kind.is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
            names.push((entry.file_name(), may_be_directory));
        }
        names.sort_unstable();
        for (name, may_be_directory) in names {
            let entry = path.join(&name);
            if self.matcher.is_match(&entry)
                && let Ok(about) = entry.metadata()
                && about.is_file()
            {
                (self.see)(entry.clone(), &about);
            }
            if may_be_directory && let Some(rest) = below(parts, &name) {
                self.directory(&entry, rest)?;
            }
        }
        Ok(())
    }
}

/// What is asked of the names in a directory of this name; none where nothing in it can match.
fn below<'p>(parts: &'p [Part], name: &OsString) -> Option<&'p [Part]> {
    let (first, rest) = parts.split_first()?;
    match first {
        Part::Any => Some(parts),
        Part::This(this) => (this == name && !rest.is_empty()).then_some(rest),
        Part::Like(like) => (!rest.is_empty() && like.is_match(name)).then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(dir: &Path, pattern: &str) -> Vec<String> {
        let whole = dir.join(pattern);
        let mut all = Vec::new();
        let pattern = Pattern::new(whole.to_str().unwrap()).unwrap();
        let mut see = |path: PathBuf, _: &Metadata| {
            let path = path.strip_prefix(dir).unwrap();
            all.push(path.display().to_string());
        };
        pattern.files(&mut see).unwrap();
        all
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "a.log",
            "b.txt",
            ".c.log",
            "x/a.log",
            "x/y/a.log",
            "x/y/z/b.log",
            "{odd}.log",
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(dir.path().join("d.log")).unwrap();
        dir
    }

    #[test]
    fn patterns_find_what_they_find_elsewhere() {
        let dir = tree();
        let all = [".c.log", "a.log", "x/a.log", "x/y/a.log", "x/y/z/b.log"];
        for (pattern, want) in [
            ("a.log", &["a.log"][..]),
            ("d.log", &[]),
            ("none.log", &[]),
            ("*.log", &[".c.log", "a.log", "{odd}.log"]),
            ("?.log", &["a.log"]),
            ("[ab].*", &["a.log", "b.txt"]),
            ("[^a].txt", &["b.txt"]),
            ("[!b].log", &["a.log"]),
            ("{a.log,b.txt,none}", &["a.log", "b.txt"]),
            ("\\{odd\\}.log", &["{odd}.log"]),
            ("*/*.log", &["x/a.log"]),
            ("x/*/a.log", &["x/y/a.log"]),
            ("x/**/a.log", &["x/a.log", "x/y/a.log"]),
            ("**/[abc.]*og", &all),
            ("**/z/*", &["x/y/z/b.log"]),
            ("x/**", &["x/a.log", "x/y/a.log", "x/y/z/b.log"]),
            ("x/y**/*.log", &["x/y/a.log"]),
            ("{x/a,x/y/z/b}.log", &["x/a.log", "x/y/z/b.log"]),
            ("x//y/*.log", &["x/y/a.log"]),
        ] {
            assert_eq!(found(dir.path(), pattern), want, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["/a/[", "/a/{b", "/a/[z-a]", "/a/b\\"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let dir = tree();
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(dir.path().join(to), dir.path().join(name)).unwrap();
        };
        link("x", "x/y/round");
        link("x/y/z", "l");
        link("nowhere", "dead.log");
        assert_eq!(found(dir.path(), "**/b.log"), ["l/b.log", "x/y/z/b.log"]);
    }

    #[test]
    fn only_directories_that_can_hold_a_match_are_read() {
        let pattern = Pattern::new("/var/log/*/app/**/*.log").unwrap();
        assert_eq!(pattern.base, Path::new("/var/log"));
        let name = |name: &str| OsString::from(name);
        let rest = below(&pattern.parts, &name("any")).unwrap();
        assert!(below(rest, &name("other")).is_none());
        let rest = below(rest, &name("app")).unwrap();
        let deeper = below(rest, &name("deep")).unwrap();
        assert_eq!((rest.len(), deeper.len()), (2, 2));
        let flat = Pattern::new("/var/log/*.log").unwrap();
        assert!(below(&flat.parts, &name("dir.log")).is_none());
    }

    #[test]
    fn a_relative_pattern_finds_relative_paths() {
        let pattern = Pattern::new("src/discovery/gl*.rs").unwrap();
        let mut all = Vec::new();
        pattern.files(&mut |path, _| all.push(path)).unwrap();
        assert_eq!(all, [Path::new("src/discovery/glob.rs")]);
        let here = Pattern::new("Cargo.tom?").unwrap();
        let mut all = Vec::new();
        here.files(&mut |path, _| all.push(path)).unwrap();
        assert_eq!(all, [Path::new("Cargo.toml")]);
    }
}
