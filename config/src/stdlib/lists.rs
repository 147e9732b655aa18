//! The `array` namespace: lists in, lists out.

use std::collections::BTreeMap;

use super::argument;
use crate::operators::equal;
use crate::value::{CallError, Object, Type, Value, ValueError};

pub(super) fn concat(args: &[Value]) -> Result<Value, CallError> {
    let mut all: Vec<Value> = Vec::new();
    for index in 0..args.len() {
        let items: Vec<Value> = argument(args, index)?;
        all.extend(items);
    }
    Ok(Value::from(all))
}

/// Joins two lists of objects on equal values of all keys; the right object wins on a collision. As
/// in the reference, a left object is passed through once for every right one it does not match.
pub(super) fn combine_maps(args: &[Value]) -> Result<Value, CallError> {
    if !(3..=4).contains(&args.len()) {
        let message = format!(
            "combine_maps: expected 3 or 4 arguments, got {}",
            args.len()
        );
        return Err(CallError::Bare(message));
    }
    let (left, right) = (objects(args, 0)?, objects(args, 1)?);
    let keys: Vec<String> = argument(args, 2)?;
    if keys.is_empty() {
        let message = "combine_maps: merge conditions must not be empty".to_owned();
        return Err(CallError::Bare(message));
    }
    let pass_through = args.len() == 4 && argument(args, 3)?;
    let mut all = Vec::new();
    for left in &left {
        for right in &right {
            if matches(left, right, &keys) {
                let mut joined = left.clone();
                joined.extend(right.clone());
                all.push(Value::from(joined));
            } else if pass_through {
                all.push(Value::from(left.clone()));
            }
        }
    }
    Ok(Value::from(all))
}

fn matches(left: &Object, right: &Object, keys: &[String]) -> bool {
    keys.iter()
        .all(|key| match (left.get(key), right.get(key)) {
            (Some(left), Some(right)) => equal(left, right),
            _ => false,
        })
}

/// Groups a list of objects by the text of one field, in the order of that text.
pub(super) fn group_by(args: &[Value]) -> Result<Value, CallError> {
    if args.len() != 3 {
        let message = format!("group_by: expected 3 arguments, got {}", args.len());
        return Err(CallError::Bare(message));
    }
    let items = objects(args, 0)?;
    let key: String = argument(args, 1)?;
    let drop_missing: bool = argument(args, 2)?;
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let group = match item.get(&key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => {
                let error = ValueError::wrong_type(Type::String, other);
                return Err(CallError::Argument(
                    0,
                    error.in_field(&key).in_element(index),
                ));
            }
            None if drop_missing => continue,
            None => String::new(),
        };
        groups.entry(group).or_default().push(Value::from(item));
    }
    let group = |(name, items): (String, Vec<Value>)| {
        let fields = [
            ("items".to_owned(), items.into()),
            (key.clone(), name.into()),
        ];
        Value::from(Object::from(fields))
    };
    Ok(Value::from(
        groups.into_iter().map(group).collect::<Vec<_>>(),
    ))
}

fn objects(args: &[Value], index: usize) -> Result<Vec<Object>, CallError> {
    argument(args, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(fields: &[(&str, &str)]) -> Value {
        let field = |&(key, value): &(&str, &str)| (key.to_owned(), Value::from(value));
        Value::from(fields.iter().map(field).collect::<Object>())
    }

    fn pairs(value: &Value) -> String {
        format!("{value:?}").replace("String(", "(")
    }

    #[test]
    fn combining_lets_the_right_side_win() {
        let left = Value::from(vec![
            object(&[("id", "1"), ("a", "l")]),
            object(&[("id", "9")]),
        ]);
        let right = Value::from(vec![object(&[("id", "1"), ("a", "r"), ("b", "x")])]);
        let keys = Value::from(vec![Value::from("id")]);
        let args = [left, right, keys, Value::Bool(true)];
        let want = Value::from(vec![
            object(&[("a", "r"), ("b", "x"), ("id", "1")]),
            object(&[("id", "9")]),
        ]);
        assert_eq!(pairs(&combine_maps(&args).unwrap()), pairs(&want));
        let without = combine_maps(&args[..3]).unwrap();
        assert!(matches!(without, Value::Array(items) if items.len() == 1));
    }

    #[test]
    fn grouping_needs_text() {
        let fields = Object::from([("k".to_owned(), Value::Int(1))]);
        let args = [
            Value::from(vec![Value::from(fields)]),
            Value::from("k"),
            Value::Bool(false),
        ];
        let error = group_by(&args).unwrap_err();
        let want = ValueError::new("should be string, got number")
            .in_field("k")
            .in_element(0);
        assert_eq!(error, CallError::Argument(0, want));
    }
}
