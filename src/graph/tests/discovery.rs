//! Targets that are looked for, in a graph: when they are there, whom they change, what a load changes.

use std::path::Path;

use crate::discovery::Stats;

use super::*;

/// What a component exports, as text.
fn exported(bed: &Bed, id: &str, name: &str) -> String {
    let mut found = None;
    bed.graph.visit(&mut |_, _, node| {
        if node.id() == id {
            found = node.exports.get(name).cloned();
        }
    });
    let Some(Value::Array(targets)) = found else {
        panic!("{id} exports no {name}: {found:?}");
    };
    let target = |target: &Value| {
        let labels = target.as_object().unwrap().iter();
        let labels = labels.filter(|(name, _)| !name.starts_with("__meta"));
        let labels = labels.map(|(name, text)| format!("{name}={text}").replace('"', ""));
        labels.collect::<Vec<_>>().join(" ")
    };
    targets.iter().map(target).collect::<Vec<_>>().join(", ")
}

fn stats(bed: &Bed) -> Arc<Stats> {
    bed.graph.discoveries().remove(0)
}

const FILE: &str = "discovery.file.f";
const RELABEL: &str = "discovery.relabel.r";

/// A file and rules; how often the file is read, and which files.
fn config(dir: &Path, pattern: &str, refresh_interval: &str) -> String {
    format!(
        "discovery.relabel \"r\" {{\n  targets = discovery.file.f.targets\n  rule {{\n    \
         source_labels = [\"__address__\"]\n    target_label = \"x\"\n  }}\n}}\n\
         discovery.file \"f\" {{\n  files = [\"{}\"]\n  refresh_interval = \"{refresh_interval}\"\n}}\n",
        dir.join(pattern).display(),
    )
}

fn write(dir: &Path, name: &str, address: &str) {
    let text = format!("[{{\"targets\": [\"{address}\"]}}]");
    std::fs::write(dir.join(name), text).unwrap();
}

#[test]
fn targets_are_none_until_they_are_found_and_change_who_refers_to_them() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.json", "a:1");
    let mut bed = stable();
    bed.load(&config(dir.path(), "*.json", "1h")).unwrap();
    assert_eq!(exported(&bed, FILE, "targets"), "");
    assert_eq!(exported(&bed, RELABEL, "output"), "");
    assert!(bed.outside().is_empty());
    assert_eq!(exported(&bed, FILE, "targets"), "__address__=a:1");
    assert_eq!(exported(&bed, RELABEL, "output"), "__address__=a:1 x=a:1");
    assert_eq!(bed.health(FILE).state, HealthState::Healthy);
    assert_eq!(stats(&bed).snapshot().targets, 1);
}

#[test]
fn a_load_keeps_what_did_not_change_and_the_targets_of_what_did() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.json", "a:1");
    write(dir.path(), "b.json", "b:1");
    let mut bed = stable();
    bed.load(&config(dir.path(), "a.json", "1h")).unwrap();
    assert!(bed.outside().is_empty());
    let before = stats(&bed);
    bed.load(&config(dir.path(), "a.json", "1h")).unwrap();
    assert!(Arc::ptr_eq(&before, &stats(&bed)));
    bed.load(&config(dir.path(), "b.json", "1h")).unwrap();
    assert_eq!(exported(&bed, FILE, "targets"), "__address__=a:1");
    assert!(Arc::ptr_eq(&before, &stats(&bed)), "its counters go on");
    assert!(bed.outside().is_empty());
    assert_eq!(exported(&bed, RELABEL, "output"), "__address__=b:1 x=b:1");
    let now = before.snapshot();
    assert_eq!((now.looks, now.updates), (2, 2), "one for each text");
}

#[test]
fn what_is_wrong_with_the_arguments_makes_it_unhealthy_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.json", "a:1");
    let mut bed = stable();
    bed.load(&config(dir.path(), "a.json", "1h")).unwrap();
    assert!(bed.outside().is_empty());
    let wrong = bed.load(&config(dir.path(), "a.json", "0s")).unwrap_err();
    assert!(wrong.contains("must be greater than 0"), "{wrong}");
    assert_eq!(bed.health(FILE).state, HealthState::Unhealthy);
    assert_eq!(exported(&bed, FILE, "targets"), "__address__=a:1");
}
