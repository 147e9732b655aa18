//! Runs the parser and the evaluator over a corpus of real configurations with known outcomes.
//!
//! The corpus is at `PENSTOCK_CORPUS`, else beside the workspace; where there is none the tests say
//! so and pass.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "the counts are the result")]

use std::path::PathBuf;

use config::{FromValue, Scope, Statement, Value};
use serde_json::Value as Json;

fn corpus() -> Option<PathBuf> {
    let path = match std::env::var_os("PENSTOCK_CORPUS") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"),
    };
    if path.join("manifest.json").try_exists().unwrap() {
        return Some(path);
    }
    println!("skipped: no corpus at {}", path.display());
    None
}

fn read_json(path: &PathBuf) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Name, text and manifest entry of every file in a folder of the corpus.
fn entries(folder: &str) -> Vec<(String, String, Json)> {
    let Some(corpus) = corpus() else {
        return Vec::new();
    };
    let manifest = read_json(&corpus.join("manifest.json"));
    let all = manifest["entries"].as_array().unwrap();
    let wanted = all
        .iter()
        .filter(|entry| entry["file"].as_str().unwrap().starts_with(folder));
    let read = |entry: &Json| {
        let file = entry["file"].as_str().unwrap().to_owned();
        let text = std::fs::read_to_string(corpus.join(&file)).unwrap();
        (file, text, entry.clone())
    };
    wanted.map(read).collect()
}

#[derive(Default)]
struct Counts {
    blocks: u64,
    attributes: u64,
}

impl Counts {
    fn add(&mut self, statements: &[Statement]) {
        for statement in statements {
            match statement {
                Statement::Attribute(_) => self.attributes += 1,
                Statement::Block(block) => {
                    self.blocks += 1;
                    self.add(&block.body);
                }
            }
        }
    }
}

fn check_counts(file: &str, text: &str, expect: &Json) -> Result<Vec<Statement>, String> {
    let (_, statements) = config::parse_body(file, text).map_err(|all| all.to_string())?;
    let mut counts = Counts::default();
    counts.add(&statements);
    let got = (Some(counts.blocks), Some(counts.attributes));
    if got == (expect["blocks"].as_u64(), expect["attributes"].as_u64()) {
        return Ok(statements);
    }
    Err(format!(
        "{file}: {got:?} blocks and attributes, want {expect}"
    ))
}

fn top_level(statement: &Statement) -> String {
    match statement {
        Statement::Attribute(attribute) => format!("{} =", attribute.name.name),
        Statement::Block(block) => {
            let label = block
                .label()
                .map(|label| format!(" {label}"))
                .unwrap_or_default();
            format!("{}{label}", block.name.name)
        }
    }
}

fn report(what: &str, total: usize, failures: &[String]) {
    println!("{what}: {} of {total} as expected", total - failures.len());
    assert!(
        failures.is_empty(),
        "{} of {total}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn good_files_parse_to_the_expected_statements() {
    let mut failures = Vec::new();
    let files = entries("alloy/parse-ok/");
    for (file, text, entry) in &files {
        match check_counts(file, text, &entry["expect"]) {
            Err(failure) => failures.push(failure),
            Ok(statements) => {
                let got: Vec<String> = statements.iter().map(top_level).collect();
                let want: Vec<&str> = entry["expect"]["top_level"]
                    .as_array()
                    .map(|names| names.iter().filter_map(Json::as_str).collect())
                    .unwrap_or_default();
                if got != want {
                    failures.push(format!("{file}: top level {got:?}, want {want:?}"));
                }
            }
        }
    }
    report("parse-ok", files.len(), &failures);
}

#[test]
fn good_files_are_formatted_as_expected() {
    let Some(corpus) = corpus() else { return };
    let mut failures = Vec::new();
    let files = entries("alloy/parse-ok/");
    for (file, text, entry) in &files {
        let want = entry["formatted"].as_str().unwrap();
        let want = std::fs::read_to_string(corpus.join(want)).unwrap();
        match config::format(file, text) {
            Ok(got) if got == want => {
                if config::format(file, &got).as_ref() != Ok(&got) {
                    failures.push(format!("{file}: formatted again it is another"));
                }
            }
            Ok(got) => {
                let differs = got
                    .lines()
                    .zip(want.lines())
                    .position(|(got, want)| got != want);
                failures.push(format!("{file}: differs at line {differs:?}, from 0"));
            }
            Err(all) => failures.push(format!("{file}: {all}")),
        }
    }
    report("fmt", files.len(), &failures);
}

#[test]
fn converted_files_are_formatted_already() {
    let Some(corpus) = corpus() else { return };
    let mut failures = Vec::new();
    let mut total = 0;
    for (_, _, entry) in entries("alloy/convert/") {
        let Some(expected) = entry["expected_alloy"].as_str() else {
            continue;
        };
        if entry["expected_alloy_parses"].as_bool() == Some(true) {
            total += 1;
            let text = std::fs::read_to_string(corpus.join(expected)).unwrap();
            if config::format(expected, &text).as_ref() != Ok(&text) {
                failures.push(expected.to_owned());
            }
        }
    }
    report("fmt of converted", total, &failures);
}

#[test]
fn converted_files_parse_to_the_expected_statements() {
    let Some(corpus) = corpus() else { return };
    let mut failures = Vec::new();
    let mut total = 0;
    for (_, _, entry) in entries("alloy/convert/") {
        let Some(expected) = entry["expected_alloy"].as_str() else {
            continue;
        };
        total += 1;
        let text = std::fs::read_to_string(corpus.join(expected)).unwrap();
        let parses = entry["expected_alloy_parses"].as_bool() == Some(true);
        let result = check_counts(expected, &text, &entry["expect"]);
        match result {
            Err(failure) if parses => failures.push(failure),
            Ok(_) if !parses => failures.push(format!("{expected}: parses")),
            _ => {}
        }
    }
    report("convert", total, &failures);
}

#[test]
fn bad_files_give_the_expected_diagnostics() {
    let mut failures = Vec::new();
    let files = entries("alloy/parse-fail/");
    let mut diagnostics = 0;
    for (file, text, entry) in &files {
        let mut want: Vec<(u64, u64, String)> = Vec::new();
        for diag in entry["diags"].as_array().unwrap() {
            let number = |name: &str| diag[name].as_u64().unwrap();
            want.push((
                number("line"),
                number("col"),
                diag["msg"].as_str().unwrap().to_owned(),
            ));
        }
        diagnostics += want.len();
        let got = match config::parse_body(file, text) {
            Ok(_) => Vec::new(),
            Err(all) => all
                .iter()
                .map(|d| {
                    (
                        d.pos().line.into(),
                        d.pos().column.into(),
                        d.message.clone(),
                    )
                })
                .collect::<Vec<(u64, u64, String)>>(),
        };
        // Only the order may differ: ours is by position.
        want.sort();
        let mut sorted = got.clone();
        sorted.sort();
        if sorted != want {
            failures.push(format!("{file}:\n  got  {got:?}\n  want {want:?}"));
        }
    }
    println!("parse-fail: {diagnostics} diagnostics");
    report("parse-fail", files.len(), &failures);
}

/// Values as the reference prints them: whole floats are whole numbers in JSON.
fn same(got: &Value, want: &Json) -> bool {
    match (got, want) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(got), Json::Bool(want)) => got == want,
        (Value::String(got), Json::String(want)) => got == want,
        (Value::Array(got), Json::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same(got, want))
        }
        (Value::Object(got), Json::Object(want)) => {
            got.len() == want.len()
                && got
                    .iter()
                    .all(|(k, v)| want.get(k).is_some_and(|want| same(v, want)))
        }
        (Value::Int(_) | Value::Uint(_) | Value::Float(_), Json::Number(want)) => {
            f64::from_value(got).ok() == want.as_f64()
        }
        _ => false,
    }
}

fn check_expression(case: &Json) -> Result<(), String> {
    let text = case["expr"].as_str().unwrap();
    let parsed = config::parse_expression("e", text);
    if let Some(want) = case["parse_error"].as_array() {
        let Err(all) = parsed else {
            return Err(format!("{text}: parses"));
        };
        let number = |diag: &Json, name: &str| diag[name].as_u64().unwrap();
        let want: Vec<String> = want
            .iter()
            .map(|d| format!("{}:{}: {}", number(d, "line"), number(d, "col"), d["msg"]))
            .collect();
        let got: Vec<String> = all
            .iter()
            .map(|d| format!("{}: {}", d.pos(), Json::from(d.message.as_str())))
            .collect();
        return if got == want {
            Ok(())
        } else {
            Err(format!("{text}: {got:?}, want {want:?}"))
        };
    }
    let (source, expr) = parsed.map_err(|all| format!("{text}: {all}"))?;
    let result = config::evaluate(&expr, &Scope::new(), &source);
    match (result, case["eval_error"].as_str()) {
        (Ok(value), None) if same(&value, &case["value"]) => Ok(()),
        (Ok(value), want) => Err(format!(
            "{text}: {value:?}, want {want:?} {}",
            case["value"]
        )),
        (Err(error), Some(want)) => {
            // A few errors of the reference have no position; ours always have one.
            let got = format!("{}: {}", error.pos(), error.message);
            let same = got == want || error.message == want;
            if same {
                Ok(())
            } else {
                Err(format!("{text}: {got}, want {want}"))
            }
        }
        (Err(error), None) => Err(format!("{text}: {error}")),
    }
}

#[test]
fn expressions_evaluate_as_expected() {
    let Some(corpus) = corpus() else { return };
    let cases = read_json(&corpus.join("alloy/expressions.json"));
    let cases = cases["cases"].as_array().unwrap();
    let mut failures = Vec::new();
    let mut total = 0;
    for case in cases {
        total += 1;
        failures.extend(check_expression(case).err());
    }
    report("expressions", total, &failures);
}
