//! Configurations of every shape: what is found in them are names that do not exist here, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

/// What a diagnostic may say about a configuration that is good elsewhere. What follows is the name that
/// does not exist here.
const MISSING: [&str; 4] = [
    "cannot find the definition of component name ",
    "unrecognized attribute name ",
    "unrecognized block name ",
    // At the top: texts that show the syntax have any.
    "unrecognized attribute ",
];

/// The missing names of a text, and what is found beside them.
fn missing(name: &str, text: &str) -> (BTreeMap<String, usize>, Vec<String>) {
    let all = match config::parse(name, text) {
        Ok(file) => crate::graph::check(vec![file], Stability::Experimental),
        Err(wrong) => wrong,
    };
    let (mut names, mut others) = (BTreeMap::new(), Vec::new());
    for one in all
        .iter()
        .filter(|one| one.severity == config::Severity::Error)
    {
        match MISSING
            .iter()
            .find_map(|start| one.message.strip_prefix(start))
        {
            Some(rest) => {
                let name = rest.split('"').nth(1).unwrap_or(rest).to_owned();
                *names.entry(name).or_default() += 1;
            }
            None => others.push(one.to_string()),
        }
    }
    (names, others)
}

fn read(path: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "alloy"))
        .collect();
    paths.sort();
    let file = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(file).collect()
}

/// What keeps a configuration of `tests/data/topologies` from running as it stands.
const TOPOLOGIES: [(&str, &[&str]); 7] = [
    ("edge-metrics-logs", &["loki.source.file", "loki.write"]),
    ("edge-profiles", &["pyroscope.write"]),
    (
        "edge-traces",
        &["otelcol.exporter.loadbalancing", "otelcol.receiver.otlp"],
    ),
    ("proxy-logs", &["loki.source.api", "loki.write"]),
    ("proxy-metrics", &[]),
    (
        "proxy-profiles",
        &["pyroscope.receive_http", "pyroscope.write"],
    ),
    (
        "proxy-traces",
        &[
            "otelcol.connector.spanmetrics",
            "otelcol.exporter.otlp",
            "otelcol.exporter.prometheus",
            "otelcol.processor.tail_sampling",
            "otelcol.receiver.otlp",
        ],
    ),
];

#[test]
fn configurations_of_a_fleet_lack_only_what_is_not_built_yet() {
    let files = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/topologies"));
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, TOPOLOGIES.map(|(name, _)| name));
    for ((name, text), (_, want)) in files.iter().zip(TOPOLOGIES) {
        let (found, others) = missing(name, text);
        let found: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(found, want, "{name}");
        assert_eq!(others, Vec::<String>::new(), "{name}");
        println!(
            "{name}: {}",
            if want.is_empty() {
                "runs"
            } else {
                "lacks components"
            }
        );
    }
}

/// Configurations of the reference's documents, at `PENSTOCK_CORPUS`, else beside the workspace.
fn corpus() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let corpus = std::env::var_os("PENSTOCK_CORPUS").map_or_else(beside, PathBuf::from);
    let dir = corpus.join("alloy/parse-ok");
    if dir.try_exists().unwrap() {
        return Some(dir);
    }
    println!("skipped: no corpus at {}", corpus.display());
    None
}

#[test]
fn of_what_runs_elsewhere_only_names_are_missing() {
    let Some(dir) = corpus() else { return };
    let files = read(&dir);
    let (mut whole, mut counts) = (0, BTreeMap::<String, usize>::new());
    let mut strange = Vec::new();
    for (name, text) in &files {
        let (found, others) = missing(name, text);
        whole += usize::from(found.is_empty() && others.is_empty());
        for (name, count) in found {
            *counts.entry(name).or_default() += count;
        }
        strange.extend(others);
    }
    println!("{whole} of {} have everything they need", files.len());
    let mut counts: Vec<(usize, String)> = counts
        .into_iter()
        .map(|(name, count)| (count, name))
        .collect();
    counts.sort_by(|a, b| b.cmp(a));
    for (count, name) in counts {
        println!("{count:5} {name}");
    }
    // Documents have gaps to fill in, and show parts of a whole.
    let is_gap = |one: &str| {
        one.contains("\"<") && (one.contains(">\" is not a url") || one.contains(">\" should be "))
    };
    let is_part = |one: &str| {
        one.ends_with("does not exist or is out of scope")
            || one.contains(": missing required attribute ")
    };
    strange.retain(|one| !is_gap(one) && !is_part(one));
    assert!(strange.is_empty(), "{strange:#?}");
}

fn options(path: &Path, format: ConfigFormat, stability: Stability) -> Options {
    Options {
        config: path.to_owned(),
        format,
        bypass_errors: false,
        extra_args: String::new(),
        stability,
    }
}

#[test]
fn warnings_pass_and_errors_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.alloy");
    let went = |text: &str, format: ConfigFormat, stability: Stability| {
        std::fs::write(&path, text).unwrap();
        let went = run(&options(&path, format, stability));
        went.map_err(|error| error.to_string())
    };
    let (alloy, level) = (ConfigFormat::Alloy, Stability::GenerallyAvailable);
    let old = "prometheus.remote_write \"w\" {\n  external_labels = { a = env(\"A\") }\n}\n";
    assert_eq!(went(old, alloy, level), Ok(()));
    let failed = Err("validation failed".to_owned());
    assert_eq!(went("nothing.of.this \"x\" { }", alloy, level), failed);
    assert_eq!(went("this is no language", alloy, level), failed);
    let foreach = "foreach \"f\" {\n  collection = []\n  var = \"v\"\n  template { }\n}\n";
    assert_eq!(went(foreach, alloy, Stability::Experimental), Ok(()));
    assert_eq!(went(foreach, alloy, level), failed);
    let refused = went(old, ConfigFormat::Otelcol, level).unwrap_err();
    assert!(refused.starts_with("cannot use "), "{refused}");
    let prometheus = "remote_write: [{url: 'http://h'}]\n";
    assert_eq!(went(prometheus, ConfigFormat::Prometheus, level), Ok(()));
    let scrapes = "scrape_configs: [{job_name: x, static_configs: [{targets: [h:1]}]}]\n";
    assert_eq!(went(scrapes, ConfigFormat::Prometheus, level), Ok(()));
}

#[test]
fn a_directory_is_one_configuration_and_its_broken_files_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "a.alloy",
        "prometheus.relabel \"r\" {\n  forward_to = [prometheus.echo.e.receiver]\n}\n",
    );
    write("b.penstock", "prometheus.echo \"e\" { }\n");
    let files = |path: &Path| Files {
        path: path.to_owned(),
        format: ConfigFormat::Alloy,
        bypass_errors: false,
        extra_args: String::new(),
    };
    let all = || files(dir.path()).check(Stability::default()).unwrap();
    assert!(all().is_empty(), "{}", all());
    write("b.penstock", "prometheus.echo \"e\" {");
    write("c.alloy", "= 1");
    let names: Vec<String> = all()
        .iter()
        .map(|one| one.source.name().to_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].ends_with("b.penstock") && names[1].ends_with("c.alloy"));
    let none = files(&dir.path().join("none"));
    assert!(none.check(Stability::default()).is_err());
}

#[test]
fn its_flags_are_those_of_the_reference() {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    let line = |arguments: &[&str]| {
        let line = <Line as clap::Parser>::try_parse_from([&["validate"], arguments].concat());
        line.map(|line| line.options).map_err(|error| error.kind())
    };
    let options = line(&["a.alloy"]).unwrap();
    assert_eq!(options.format, ConfigFormat::Alloy);
    assert_eq!(options.stability, Stability::GenerallyAvailable);
    let given = [
        "--config.format=promtail",
        "--stability.level",
        "experimental",
        "a",
    ];
    let options = line(&given).unwrap();
    assert_eq!(options.format, ConfigFormat::Promtail);
    assert_eq!(options.stability, Stability::Experimental);
    assert_eq!(options.config, Path::new("a"));
    let missing = clap::error::ErrorKind::MissingRequiredArgument;
    assert_eq!(line(&[]).unwrap_err(), missing);
}
