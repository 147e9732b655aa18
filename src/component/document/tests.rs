//! That the documents are of what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::super::definition::{DEFINITIONS, Definition};
use super::render::{self, BY_HAND, is_refused, join, nested, texts};
use crate::graph::{self, Stability};

const WRITE: &str = "PENSTOCK_WRITE_DOCS";

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/components")
}

/// The names of every argument and block that is described.
fn names(one: &Definition) -> BTreeSet<String> {
    let schema = one.schema();
    let mut names: BTreeSet<String> = schema
        .attributes
        .iter()
        .map(|one| one.name.clone())
        .collect();
    nested(one, &schema, "", &mut |path, block| {
        if !is_refused(one, path) {
            names.extend(
                block
                    .body
                    .attributes
                    .iter()
                    .map(|one| join(path, &one.name)),
            );
        }
        names.insert(path.to_owned());
    });
    names
}

#[test]
fn every_argument_has_a_text_and_every_text_an_argument() {
    for one in &DEFINITIONS {
        let mut told = BTreeSet::new();
        for (name, text) in texts(one) {
            assert!(text.ends_with('.'), "{}: {name}: {text}", one.name);
            assert!(
                told.insert(name.clone()),
                "{}: {name} has two texts",
                one.name
            );
        }
        let names = names(one);
        let without: Vec<_> = names.difference(&told).collect();
        assert!(
            without.is_empty(),
            "{}: without a text: {without:?}",
            one.name
        );
        let nowhere: Vec<_> = told.difference(&names).collect();
        assert!(
            nowhere.is_empty(),
            "{}: texts of nothing: {nowhere:?}",
            one.name
        );
    }
}

#[test]
fn every_example_is_a_good_configuration() {
    for one in &DEFINITIONS {
        let text = one.document.example;
        assert!(text.contains(one.name), "{}", one.name);
        assert_good(one.name, text);
    }
    for (_, file, _) in BY_HAND {
        let page = std::fs::read_to_string(dir().join(file)).unwrap();
        let examples: Vec<&str> = page.split("```alloy\n").skip(1).collect();
        assert!(!examples.is_empty(), "{file} has no example");
        for example in examples {
            assert_good(file, example.split("```").next().unwrap());
        }
    }
}

fn assert_good(name: &str, text: &str) {
    let file = config::parse(name, text).unwrap_or_else(|wrong| panic!("{}", wrong.pretty(false)));
    let wrong = graph::check(vec![file], Stability::Experimental);
    assert!(wrong.is_empty(), "{}", wrong.pretty(false));
}

/// Names of metric families in the sources that make them.
fn families() -> BTreeSet<String> {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry")];
    let name = regex::Regex::new("\"((?:penstock|prometheus)_[a-z_0-9]+)").unwrap();
    let mut found = BTreeSet::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let text = std::fs::read_to_string(path).unwrap();
                found.extend(name.captures_iter(&text).map(|one| one[1].to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_metric_belongs_to_a_component_and_every_component_has_those_it_names() {
    let families = families();
    assert!(families.len() > 40, "{families:?}");
    let named: Vec<&str> = DEFINITIONS
        .iter()
        .flat_map(|one| one.document.metrics)
        .copied()
        .collect();
    for start in &named {
        assert!(
            families.iter().any(|one| one.starts_with(start)),
            "{start}* is nothing"
        );
    }
    for family in families {
        assert!(
            named.iter().any(|start| family.starts_with(start)),
            "{family} is in no document"
        );
    }
}

#[test]
fn the_pages_are_those_of_what_there_is() {
    let mut want: BTreeMap<String, String> = DEFINITIONS
        .iter()
        .map(|one| (format!("{}.md", one.name), render::page(one)))
        .collect();
    want.insert("README.md".to_owned(), render::index(&DEFINITIONS));
    if std::env::var_os(WRITE).is_some_and(|value| value == "1") {
        for (file, text) in &want {
            std::fs::write(dir().join(file), text).unwrap();
        }
    }
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(dir()).unwrap() {
        there.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    let by_hand = BY_HAND.iter().map(|(_, file, _)| (*file).to_owned());
    let expected: BTreeSet<String> = want.keys().cloned().chain(by_hand).collect();
    assert_eq!(
        there, expected,
        "write them with `just docs`; remove what is too much"
    );
    for (file, text) in want {
        let is = std::fs::read_to_string(dir().join(&file)).unwrap();
        assert!(
            is == text,
            "docs/components/{file} is out of date: write it with `just docs`"
        );
    }
}
