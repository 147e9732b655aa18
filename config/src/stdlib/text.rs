//! The `string` and `file` namespaces: text in, text out.

use super::{argument, count};
use crate::from_value::FromValue;
use crate::secret::OptionalSecret;
use crate::value::{CallError, Value};

pub(super) fn join(args: &[Value]) -> Result<Value, CallError> {
    count(args, 2)?;
    let items: Vec<String> = argument(args, 0)?;
    let separator: String = argument(args, 1)?;
    Ok(Value::String(items.join(&separator)))
}

pub(super) fn split(args: &[Value]) -> Result<Value, CallError> {
    count(args, 2)?;
    let text: String = argument(args, 0)?;
    let separator: String = argument(args, 1)?;
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars().map(|c| Value::String(c.to_string())).collect()
    } else {
        text.split(&separator).map(Value::from).collect()
    };
    Ok(Value::from(parts))
}

pub(super) fn replace(args: &[Value]) -> Result<Value, CallError> {
    count(args, 3)?;
    let text: String = argument(args, 0)?;
    let (old, new): (String, String) = (argument(args, 1)?, argument(args, 2)?);
    Ok(Value::String(text.replace(&old, &new)))
}

pub(super) fn to_lower(args: &[Value]) -> Result<Value, CallError> {
    one(args, str::to_lowercase)
}

pub(super) fn to_upper(args: &[Value]) -> Result<Value, CallError> {
    one(args, str::to_uppercase)
}

pub(super) fn trim_space(args: &[Value]) -> Result<Value, CallError> {
    one(args, |text| text.trim().to_owned())
}

pub(super) fn trim(args: &[Value]) -> Result<Value, CallError> {
    two(args, |text, set| {
        text.trim_matches(|c| set.contains(c)).to_owned()
    })
}

pub(super) fn trim_prefix(args: &[Value]) -> Result<Value, CallError> {
    two(args, |text, prefix| {
        text.strip_prefix(prefix).unwrap_or(text).to_owned()
    })
}

pub(super) fn trim_suffix(args: &[Value]) -> Result<Value, CallError> {
    two(args, |text, suffix| {
        text.strip_suffix(suffix).unwrap_or(text).to_owned()
    })
}

/// Shows a secret: the one way to turn it into a string, so that it is easy to search for.
pub(super) fn nonsensitive(args: &[Value]) -> Result<Value, CallError> {
    count(args, 1)?;
    let secret: OptionalSecret = argument(args, 0)?;
    Ok(Value::from(secret.expose()))
}

/// Joins with `/` and removes what a path does not need: empty parts, `.`, and `x/..`.
pub(super) fn path_join(args: &[Value]) -> Result<Value, CallError> {
    let parts: Result<Vec<String>, CallError> =
        (0..args.len()).map(|index| argument(args, index)).collect();
    let parts: Vec<String> = parts?.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Ok(Value::from(""));
    }
    Ok(Value::String(clean_path(&parts.join("/"))))
}

fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            _ => kept.push(part),
        }
    }
    match (rooted, kept.is_empty()) {
        (true, _) => format!("/{}", kept.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => kept.join("/"),
    }
}

fn one(args: &[Value], apply: fn(&str) -> String) -> Result<Value, CallError> {
    count(args, 1)?;
    let text: String = argument(args, 0)?;
    Ok(Value::String(apply(&text)))
}

fn two(args: &[Value], apply: fn(&str, &str) -> String) -> Result<Value, CallError> {
    count(args, 2)?;
    let (text, other): (String, String) = (argument(args, 0)?, argument(args, 1)?);
    Ok(Value::String(apply(&text, &other)))
}

/// Text arguments of any number, for the functions beside this file.
pub(super) fn text<T: FromValue>(args: &[Value]) -> Result<T, CallError> {
    count(args, 1)?;
    argument(args, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let table = [
            ("this/is/a/path", "this/is/a/path"),
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/../a", "/a"),
            ("../../a/..", "../.."),
            ("a/..", "."),
            ("/", "/"),
        ];
        for (path, want) in table {
            assert_eq!(clean_path(path), want, "{path}");
        }
    }

    #[test]
    fn joining_skips_empty_parts() {
        let joined = path_join(&["", "a/", "/b"].map(Value::from)).unwrap();
        assert_eq!(String::from_value(&joined).unwrap(), "a/b");
        assert_eq!(String::from_value(&path_join(&[]).unwrap()).unwrap(), "");
    }

    #[test]
    fn splitting_by_nothing_gives_characters() {
        let parts = split(&[Value::from("aé"), Value::from("")]).unwrap();
        assert_eq!(Vec::<String>::from_value(&parts).unwrap(), ["a", "é"]);
    }
}
