//! Turns names and texts into targets, and targets into values of the language.
//!
//! # Invariants
//! - A target is an object of texts; a label without a text is one that is not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{FromValue, Object, Type, Value, ValueError};

use super::refresh::Group;

/// Where a target is.
pub(super) const ADDRESS: &str = "__address__";

/// The labels of a target while it is made.
pub(super) type Labels = BTreeMap<String, String>;

/// One target.
pub(crate) fn value(labels: Labels) -> Value {
    let labels = labels.into_iter().filter(|(_, text)| !text.is_empty());
    let labels = labels.map(|(name, text)| (name, Value::String(text)));
    Value::from(labels.collect::<Object>())
}

/// Targets as they came.
pub(super) fn group(targets: Vec<Labels>) -> Group {
    targets.into_iter().map(value).collect()
}

/// Targets in an order of their own: what tells of them tells in any.
pub(super) fn sorted_group(mut targets: Vec<Labels>) -> Group {
    targets.sort_unstable();
    group(targets)
}

/// A name as a part of a label's name.
pub(super) fn sanitized(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(kept).collect()
}

/// An address of a host or an IP.
pub(super) fn host_port(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The argument that other components' targets are given to. It is shared, not copied, where it can be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets(pub(crate) Arc<[Value]>);

impl Targets {
    /// The labels of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Value, &Object)> {
        let all = self.0.iter();
        all.filter_map(|target| Some((target, target.as_object()?)))
    }
}

impl FromValue for Targets {
    fn zero() -> Self {
        Self(Arc::default())
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        let Value::Array(targets) = value else {
            return Err(ValueError::wrong_type(Type::Array, value));
        };
        if targets.iter().all(is_target) {
            return Ok(Self(targets.clone()));
        }
        let all = targets.iter().enumerate();
        let all = all.map(|(at, target)| match target {
            Value::Null => Ok(Value::from(Object::new())),
            target if is_target(target) => Ok(target.clone()),
            other => match BTreeMap::<String, String>::from_value(other) {
                Ok(labels) => Ok(labels.to_value()),
                Err(error) => Err(error.in_element(at)),
            },
        });
        all.collect::<Result<_, _>>().map(Self)
    }

    fn type_name() -> String {
        Vec::<BTreeMap<String, String>>::type_name()
    }

    fn to_value(&self) -> Value {
        Value::Array(self.0.clone())
    }
}

/// Whether it is one already.
fn is_target(value: &Value) -> bool {
    let Value::Object(labels) = value else {
        return false;
    };
    labels.values().all(|text| matches!(text, Value::String(_)))
}

/// The text of a label; empty where it is not there.
pub(super) fn label<'a>(labels: &'a Object, name: &str) -> &'a str {
    match labels.get(name) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A target as text: `name=text` in order.
    pub(in crate::discovery) fn shown(target: &Value) -> String {
        let labels = target.as_object().unwrap().iter();
        let labels = labels.map(|(name, text)| match text {
            Value::String(text) => format!("{name}={text}"),
            other => panic!("{name} is {other:?}"),
        });
        labels.collect::<Vec<_>>().join(" ")
    }

    /// Every target of a group as text.
    pub(in crate::discovery) fn all_shown(group: &[Value]) -> Vec<String> {
        group.iter().map(shown).collect()
    }

    #[test]
    fn a_label_without_a_text_is_not_there() {
        let labels = [("a", "1"), ("b", "")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(shown(&value(Labels::from(labels))), "a=1");
    }

    #[test]
    fn a_name_becomes_a_part_of_a_labels_name() {
        assert_eq!(sanitized("com.docker/compose-é1"), "com_docker_compose__1");
        assert_eq!(host_port("::1", 80), "[::1]:80");
        assert_eq!(host_port("10.0.0.1", 80), "10.0.0.1:80");
    }

    #[test]
    fn targets_are_shared_and_numbers_become_texts() {
        let read = |text: &str| {
            let source = format!("c \"x\" {{\n t = {text}\n}}\n");
            let file = config::parse("a", &source).unwrap();
            let scope = config::Scope::new();
            let read = config::decode(&file.blocks[0], &scope, |r| r.required::<Targets>("t"));
            read.map_err(|found| found.to_string())
        };
        let targets = read("[{a = \"1\"}, {a = 2, b = 1.5}, null]").unwrap();
        assert_eq!(all_shown(&targets.0), ["a=1", "a=2 b=1.5", ""]);
        let wrong = read("[{}, {a = [1]}]").unwrap_err();
        assert!(wrong.contains("should be string, got array"), "{wrong}");
        let wrong = read("{a = \"1\"}").unwrap_err();
        assert!(wrong.contains("should be array, got object"), "{wrong}");
        let Value::Array(list) = targets.to_value() else {
            panic!("a list");
        };
        let again = Targets::from_value(&Value::Array(list.clone())).unwrap();
        assert!(Arc::ptr_eq(&list, &again.0));
    }
}
