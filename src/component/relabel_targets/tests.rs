//! Targets and rules as a configuration gives them, those of Prometheus' own cases among them.

use std::path::PathBuf;
use std::sync::Arc;

use config::Scope;
use serde_json::{Map, Value as Json};

use super::*;

fn load(body: &str) -> Result<RelabelTargets, String> {
    let text = format!("discovery.relabel \"x\" {{\n{body}\n}}\n");
    let file = config::parse("a", &text).map_err(|error| error.to_string())?;
    config::decode(&file.blocks[0], &Scope::new(), read).map_err(|found| found.to_string())
}

fn list(value: &Value) -> &Arc<[Value]> {
    match value {
        Value::Array(all) => all,
        other => panic!("a list: {other:?}"),
    }
}

/// A target as text.
fn shown(target: &Value) -> String {
    let labels = target.as_object().unwrap().iter();
    let labels = labels.map(|(name, text)| format!("{name}={text}"));
    labels.collect::<Vec<_>>().join(" ").replace('"', "")
}

#[test]
fn targets_are_rewritten_or_dropped_and_keep_what_is_theirs() {
    let body = "targets = [\n {__address__ = \"a:1\", __meta_x = \"1\", job = \"j\"},\n \
                {__address__ = \"b:1\", __meta_x = \"2\"},\n {__address__ = \"c:1\", empty = \"\"}]\n\
                rule {\n source_labels = [\"__meta_x\"]\n regex = \"2\"\n action = \"drop\"\n}\n\
                rule {\n source_labels = [\"__meta_x\"]\n regex = \"(.+)\"\n target_label = \"x\"\n}\n";
    let relabel = load(body).unwrap();
    let output: Vec<String> = list(&relabel.output).iter().map(shown).collect();
    assert_eq!(
        output,
        [
            "__address__=a:1 __meta_x=1 job=j x=1",
            "__address__=c:1 empty="
        ]
    );
    assert_eq!(list(&relabel.rules).len(), 2);
    let rule = list(&relabel.rules)[0].as_object().unwrap();
    assert_eq!(rule["action"], Value::from("drop"));
}

#[test]
fn a_rule_that_cannot_be_is_refused() {
    let wrong = load("targets = []\nrule {\n regex = \"(\"\n target_label = \"x\"\n}").unwrap_err();
    assert!(wrong.starts_with("a:4:10: "), "{wrong}");
    let wrong = load("rule {\n target_label = \"x\"\n}").unwrap_err();
    assert!(
        wrong.contains("missing required attribute \"targets\""),
        "{wrong}"
    );
}

/// Cases of Prometheus, at `PENSTOCK_CORPUS`, else beside the workspace.
fn cases() -> Option<Vec<Json>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let corpus = std::env::var_os("PENSTOCK_CORPUS").map_or_else(beside, PathBuf::from);
    let path = corpus.join("relabel/cases.json");
    if !path.try_exists().unwrap() {
        println!("skipped: no {}", path.display());
        return None;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let all: Json = serde_json::from_str(&text).unwrap();
    Some(all["cases"].as_array().unwrap().clone())
}

/// What stands in a block, and what an object of labels is. A text is one of JSON.
fn block(fields: &Map<String, Json>) -> String {
    let field = |(name, value): (&String, &Json)| format!("{name} = {value}\n");
    fields.iter().map(field).collect()
}

#[test]
fn the_cases_of_prometheus_come_out_the_same() {
    let Some(cases) = cases() else { return };
    let mut seen = 0;
    for case in &cases {
        let mut body = format!("targets = [{}]\n", object(&case["input"]));
        for rule in case["relabel_configs"].as_array().unwrap() {
            body += &format!("rule {{\n{}}}\n", block(rule.as_object().unwrap()));
        }
        let relabel = load(&body).unwrap_or_else(|wrong| panic!("{}: {wrong}", case["name"]));
        let output: Vec<String> = list(&relabel.output).iter().map(shown).collect();
        let want = match case["drop"].as_bool().unwrap() {
            true => Vec::new(),
            false => {
                let labels = load(&format!("targets = [{}]", object(&case["output"])));
                list(&labels.unwrap().output).iter().map(shown).collect()
            }
        };
        assert_eq!(output, want, "{}", case["name"]);
        seen += 1;
    }
    assert!(seen >= 92, "{seen}");
}

/// Labels as an object of the language; names need not be identifiers.
fn object(labels: &Json) -> String {
    let labels = labels.as_object().unwrap().iter();
    let labels = labels.map(|(name, text)| format!("{} = {text}", Json::from(name.as_str())));
    format!("{{{}}}", labels.collect::<Vec<_>>().join(", "))
}
