//! Turns the repository's own files into verdicts on the rules that no compiler keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates a crate may name in its manifest.
const ARROWS: [(&str, &[&str]); 9] = [
    (
        "penstock",
        &["cluster", "config", "ingest", "labels", "shipper", "wal"],
    ),
    ("cluster", &[]),
    ("wal", &[]),
    ("labels", &[]),
    ("config", &[]),
    ("ingest", &["labels", "wal"]),
    ("shipper", &["labels", "wal"]),
    ("bench", &["ingest", "shipper", "wal"]),
    ("penstock-fuzz", &["cluster", "config", "ingest", "wal"]),
];

/// Where `unsafe` may stand, and why.
const UNSAFE: [(&str, &str); 2] = [
    ("wal/src/sys.rs", "memory maps behind a safe type"),
    ("wal/src/tracker.rs", "cells of its loom model"),
];

const LINES_MAX: usize = 600;
/// Longer files, and why.
const LONG: [(&str, &str); 2] = [
    ("Cargo.lock", "written by cargo"),
    ("fuzz/Cargo.lock", "written by cargo"),
];

/// What measurements wrote, which nobody reads as text.
const RECORDED: &str = "bench/runs";

/// A comment in the list of dependencies may be about this many entries below it: crates that
/// come from one project and are here for one reason.
const DEPENDENCIES_OF_A_COMMENT: usize = 3;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository by its path, without what is built or recorded by tools.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = relative(&path);
            if path.is_dir() && !is_ignored(&name) {
                dirs.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.insert(name, text);
            }
        }
    }
    assert!(files.len() > 50, "this is the root: {}", root().display());
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn is_ignored(dir: &str) -> bool {
    let ignore = fs::read_to_string(root().join(".gitignore")).unwrap();
    let mut ignored = ignore.lines().map(|line| line.trim_matches('/'));
    let last = PathBuf::from(dir);
    dir == ".git" || dir == RECORDED || ignored.any(|line| line == dir || last.ends_with(line))
}

fn sources() -> impl Iterator<Item = (String, String)> {
    files()
        .into_iter()
        .filter(|(name, _)| name.ends_with(".rs"))
}

/// The entries of a manifest's tables whose headers end with `table`, as (name, whole line).
fn entries(manifest: &str, table: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            is_inside = header.trim_end_matches(']').ends_with(table);
        } else if is_inside && !line.starts_with(['#', ' ']) && line.contains('=') {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            found.push((name.to_owned(), line.to_owned()));
        }
    }
    found
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let files = files();
    let manifests = files
        .iter()
        .filter(|(name, _)| name.ends_with("Cargo.toml"));
    let crates: BTreeMap<String, &String> = manifests
        .map(|(_, text)| {
            let mut package = entries(text, "package").into_iter();
            let (_, line) = package.find(|(name, _)| name == "name").unwrap();
            (line.split('"').nth(1).unwrap().to_owned(), text)
        })
        .collect();
    let expected: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = crates.keys().map(String::as_str).collect();
    assert_eq!(found, expected, "every crate has its arrows");
    for (name, allowed) in ARROWS {
        // Without [workspace.dependencies], which is a list and not a use.
        let manifest = crates[name].replace("[workspace.dependencies]", "[workspace.list]");
        let is_table_of_one = manifest.contains("dependencies.");
        assert!(!is_table_of_one, "{name}: one line for each dependency");
        let uses = entries(&manifest, "dependencies");
        let ours = uses.iter().map(|(name, _)| name.as_str());
        let ours: Vec<&str> = ours.filter(|used| found.contains(used)).collect();
        for used in ours {
            assert!(allowed.contains(&used), "{name} depends on {used}");
        }
    }
}

#[test]
fn every_source_file_begins_with_what_it_is() {
    for (name, text) in sources() {
        let is_documented = text.starts_with("//! ") || text.starts_with("#![");
        assert!(is_documented, "{name} has no module documentation");
    }
}

#[test]
fn unsafe_code_stands_only_where_it_is_explained() {
    let allowed = UNSAFE.map(|(name, _)| name);
    for (name, text) in sources() {
        let is_unsafe = text.lines().any(|line| {
            let code = line.split("//").next().unwrap();
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| word == concat!("un", "safe"))
        });
        assert_eq!(
            is_unsafe,
            allowed.contains(&name.as_str()),
            "{name}: allowed are {allowed:?}"
        );
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (name, text) in files() {
        let lines = text.lines().count();
        let is_listed = LONG.iter().any(|(long, _)| *long == name);
        assert_eq!(lines > LINES_MAX, is_listed, "{name} has {lines} lines");
    }
}

#[test]
fn nothing_is_left_undone() {
    let undone = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    for (name, text) in files() {
        if name.ends_with(".lock") {
            continue;
        }
        for (line, number) in text.lines().zip(1..) {
            for word in undone {
                assert!(!line.contains(word), "{name}:{number}: {word}");
            }
        }
    }
}

#[test]
fn every_outside_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, list) = manifest.split_once("[workspace.dependencies]\n").unwrap();
    let list = list.split("\n[").next().unwrap();
    // Ours need no reason.
    let outside = list.lines().filter(|line| !line.contains("path ="));
    let mut since_comment = DEPENDENCIES_OF_A_COMMENT;
    let mut count = 0;
    for line in outside.filter(|line| !line.is_empty()) {
        if line.starts_with("# ") {
            since_comment = 0;
            continue;
        }
        since_comment += 1;
        count += 1;
        assert!(
            since_comment <= DEPENDENCIES_OF_A_COMMENT,
            "no reason above {line}"
        );
        assert!(line.contains("default-features = false"), "{line}");
    }
    assert!(count > 20, "only {count} were looked at");
}
