//! Finds the parts of a JSON text that a path leads to.
//!
//! Paths have `.name`, `['name']`, `[0]`, `[-1]`, `*` for all and `..` for any depth, after an
//! optional `$`. Filters, slices and unions are refused, not ignored.
//!
//! # Limits
//! At most [`RESULTS_MAX`] parts: every `..` may multiply them.

use super::argument;
use super::count;
use super::json::from_json;
use crate::value::{CallError, Value, ValueError};

/// Most parts a path may lead to.
const RESULTS_MAX: usize = 100_000;

pub(super) fn json_path(args: &[Value]) -> Result<Value, CallError> {
    count(args, 2)?;
    let document = from_json(args.get(..1).unwrap_or_default())?;
    let path: String = argument(args, 1)?;
    let steps = steps(&path).ok_or_else(|| refuse("is not a supported JSON path"))?;
    let mut found = vec![document];
    for step in &steps {
        found = found.iter().flat_map(|value| step.apply(value)).collect();
        if found.len() > RESULTS_MAX {
            return Err(refuse("leads to too many values"));
        }
    }
    Ok(Value::from(found))
}

fn refuse(message: &str) -> CallError {
    CallError::Argument(1, ValueError::new(message))
}

#[derive(Debug, PartialEq)]
enum Step {
    Name(String),
    Index(i64),
    Every,
    /// The value itself and everything below it.
    Deep,
}

impl Step {
    fn apply(&self, value: &Value) -> Vec<Value> {
        match (self, value) {
            (Self::Name(name), _) => value
                .as_object()
                .and_then(|fields| fields.get(name))
                .cloned()
                .into_iter()
                .collect(),
            (Self::Index(index), Value::Array(items)) => {
                let from_end = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let index = if *index < 0 {
                    index.saturating_add(from_end)
                } else {
                    *index
                };
                let index = usize::try_from(index).ok();
                index
                    .and_then(|index| items.get(index))
                    .cloned()
                    .into_iter()
                    .collect()
            }
            (Self::Index(_), _) => Vec::new(),
            (Self::Every, _) => children(value),
            (Self::Deep, _) => {
                let mut all = vec![value.clone()];
                all.extend(children(value).iter().flat_map(|child| self.apply(child)));
                all
            }
        }
    }
}

fn children(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.to_vec(),
        Value::Object(fields) => fields.values().cloned().collect(),
        _ => Vec::new(),
    }
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Deep);
            rest = after;
            if !rest.starts_with('[') {
                rest = name_step(rest, &mut steps)?;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = name_step(after, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('[') {
            rest = bracket_step(after, &mut steps)?;
        } else {
            return None;
        }
    }
    Some(steps)
}

fn name_step<'a>(rest: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
    match name {
        "" => return None,
        "*" => steps.push(Step::Every),
        _ if name.contains(['(', ')', '?', '@', ']', '\'', '"', ' ']) => return None,
        _ => steps.push(Step::Name(name.to_owned())),
    }
    Some(after)
}

fn bracket_step<'a>(rest: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    for quote in ['\'', '"'] {
        if let Some(quoted) = rest.strip_prefix(quote) {
            let (name, after) = quoted.split_once(quote)?;
            steps.push(Step::Name(name.to_owned()));
            return after.strip_prefix(']');
        }
    }
    let (inner, after) = rest.split_once(']')?;
    steps.push(match inner {
        "*" => Step::Every,
        _ => Step::Index(inner.parse().ok()?),
    });
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> String {
        let text = r#"{"a": {"b": [1, {"b": "x"}], "c d": true}, "b": null}"#;
        match json_path(&[Value::from(text), Value::from(path)]) {
            Ok(Value::Array(items)) => format!("{items:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_lead_to_values() {
        let table = [
            (".a.b[0]", "[Float(1.0)]"),
            ("$['a'][\"c d\"]", "[Bool(true)]"),
            ("$.a.b[-1].b", "[String(\"x\")]"),
            ("$.a.b[*].b", "[String(\"x\")]"),
            (".nope.x", "[]"),
            (".a.b[9]", "[]"),
            ("$.a.*.b", "[]"),
            ("$..c", "[]"),
        ];
        for (path, want) in table {
            assert_eq!(find(path), want, "{path}");
        }
        assert_eq!(find("$..b"), {
            "[Null, Array([Float(1.0), Object({\"b\": String(\"x\")})]), String(\"x\")]"
        });
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for path in [
            "a",
            "$.a[?(@.b)]",
            "$.a[1:2]",
            "$.a[0,1]",
            "$.",
            "$.a[",
            "$['a'",
        ] {
            assert!(
                find(path).contains("is not a supported JSON path"),
                "{path}"
            );
        }
    }
}
