//! Turns the JSON or YAML of target groups into targets.
//!
//! A document is a list of `{"targets": ["host:port"], "labels": {"name": "text"}}`. What it may hold beside
//! is refused, as elsewhere in the field; scalars of YAML are taken as they are written.
//!
//! # Limits
//! - [`TARGETS_MAX`] targets; nesting and aliases as the readers of the two bound them.

use config::yaml::{Node, NodeKind};
use serde_json::{Map, Value};

use super::TARGETS_MAX;
use super::refresh::{Group, too_many};
use super::target::{ADDRESS, Labels, group};

/// What a document is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Syntax {
    Json,
    Yaml,
}

/// The targets of a document, each with one more label: where it is from.
pub(super) fn targets(text: &str, syntax: Syntax, from: (&str, &str)) -> Result<Group, String> {
    let document = match syntax {
        Syntax::Json => serde_json::from_str(text).map_err(|error| error.to_string())?,
        Syntax::Yaml => plain(&config::yaml::parse(text).map_err(|error| error.to_string())?),
    };
    let groups = match document {
        Value::Null => Vec::new(),
        Value::Array(groups) => groups,
        other => return Err(format!("should be a list of groups, got {}", kind(&other))),
    };
    let mut all = Vec::new();
    for (at, one) in groups.iter().enumerate() {
        let wrong = |problem: String| format!("group {at}: {problem}");
        let (addresses, mut labels) = group_of(one).map_err(wrong)?;
        labels.insert(from.0.to_owned(), from.1.to_owned());
        if all.len() + addresses.len() > TARGETS_MAX {
            return Err(too_many(all.len() + addresses.len()));
        }
        for address in addresses {
            let mut labels = labels.clone();
            labels.insert(ADDRESS.to_owned(), address);
            all.push(labels);
        }
    }
    Ok(group(all))
}

/// The addresses and labels of a group.
fn group_of(one: &Value) -> Result<(Vec<String>, Labels), String> {
    let fields = match one {
        Value::Object(fields) => fields,
        Value::Null => return Err("nil target group item found".to_owned()),
        other => return Err(format!("should be an object, got {}", kind(other))),
    };
    let (mut addresses, mut labels) = (Vec::new(), Labels::new());
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("targets", Value::Array(all)) => {
                let all = all.iter().map(|address| text(address, "a target"));
                addresses = all.collect::<Result<_, _>>()?;
            }
            ("labels", Value::Object(all)) => labels = labels_of(all)?,
            ("targets" | "labels", Value::Null) => {}
            ("targets", other) => {
                return Err(format!("targets should be a list, got {}", kind(other)));
            }
            ("labels", other) => {
                return Err(format!("labels should be an object, got {}", kind(other)));
            }
            _ => return Err(format!("unknown field {name:?}")),
        }
    }
    Ok((addresses, labels))
}

fn labels_of(all: &Map<String, Value>) -> Result<Labels, String> {
    let label = |(name, value): (&String, &Value)| {
        if name.is_empty() {
            return Err("\"\" is not a valid label name".to_owned());
        }
        Ok((name.clone(), text(value, &format!("label {name:?}"))?))
    };
    all.iter().map(label).collect()
}

fn text(value: &Value, what: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("{what} should be a string, got {}", kind(other))),
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// YAML as JSON would say it, with scalars as they are written: a port need not be in quotes.
fn plain(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Scalar(_) if node.is_null() => Value::Null,
        NodeKind::Scalar(scalar) => Value::String(scalar.text.clone()),
        NodeKind::List(items) => items.iter().map(plain).collect(),
        NodeKind::Map(fields) => {
            let field = |(name, value): &(Node, Node)| {
                (name.text().unwrap_or_default().to_owned(), plain(value))
            };
            Value::Object(fields.iter().map(field).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::tests::all_shown;
    use super::*;

    fn read(text: &str, syntax: Syntax) -> Result<Vec<String>, String> {
        targets(text, syntax, ("__meta_from", "here")).map(|group| all_shown(&group))
    }

    #[test]
    fn both_syntaxes_give_the_same_targets() {
        let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"job": "x", "__meta_from": "y"}},
                       {"targets": []}, {"targets": ["c:3"]}, {"labels": null}]"#;
        let yaml = "- targets: ['a:1', b:2]\n  labels: {job: x, __meta_from: y}\n- targets: []\n\
                    - targets: [c:3]\n- labels:\n";
        let want = [
            "__address__=a:1 __meta_from=here job=x",
            "__address__=b:2 __meta_from=here job=x",
            "__address__=c:3 __meta_from=here",
        ];
        assert_eq!(read(json, Syntax::Json).unwrap(), want);
        assert_eq!(read(yaml, Syntax::Yaml).unwrap(), want);
    }

    #[test]
    fn nothing_is_no_group() {
        for (text, syntax) in [
            ("[]", Syntax::Json),
            ("null", Syntax::Json),
            ("", Syntax::Yaml),
        ] {
            assert_eq!(read(text, syntax).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn scalars_of_yaml_are_texts_as_written_and_those_of_json_are_what_they_are() {
        let yaml = "- targets: [h:1]\n  labels: {port: 0x50, on: true}\n";
        let want = ["__address__=h:1 __meta_from=here on=true port=0x50"];
        assert_eq!(read(yaml, Syntax::Yaml).unwrap(), want);
        let json = r#"[{"targets": ["h:1"], "labels": {"port": 80}}]"#;
        let wrong = read(json, Syntax::Json).unwrap_err();
        assert_eq!(
            wrong,
            "group 0: label \"port\" should be a string, got a number"
        );
    }

    #[test]
    fn what_is_no_document_is_told() {
        for (text, want) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "should be a list of groups, got an object"),
            ("[null]", "group 0: nil target group item found"),
            ("[{}, 1]", "group 1: should be an object, got a number"),
            (r#"[{"target": []}]"#, "group 0: unknown field \"target\""),
            (
                r#"[{"targets": "a"}]"#,
                "group 0: targets should be a list, got a string",
            ),
            (
                r#"[{"targets": [1]}]"#,
                "group 0: a target should be a string, got a number",
            ),
            (
                r#"[{"labels": []}]"#,
                "group 0: labels should be an object, got a list",
            ),
            (
                r#"[{"labels": {"": "a"}}]"#,
                "group 0: \"\" is not a valid label name",
            ),
        ] {
            assert_eq!(read(text, Syntax::Json).unwrap_err(), want, "{text}");
        }
        let wrong = read("- targets: [a", Syntax::Yaml).unwrap_err();
        assert!(wrong.starts_with("yaml: line "), "{wrong}");
    }

    #[test]
    fn a_document_of_too_many_targets_is_refused() {
        let many = vec!["\"h:1\""; TARGETS_MAX + 1].join(",");
        let text = format!("[{{\"targets\": [{many}]}}]");
        assert_eq!(
            read(&text, Syntax::Json).unwrap_err(),
            "100001 targets are more than 100000"
        );
    }
}
