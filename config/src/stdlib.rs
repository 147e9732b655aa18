//! Turns the names every configuration may use into values: constants and functions.
//!
//! Functions are grouped by namespace in the files below this one; old names at the top level lead to
//! the same functions.

mod encoding;
mod format;
mod json;
mod json_path;
mod lists;
mod text;
mod yaml;

use std::sync::LazyLock;

use crate::from_value::{FromValue, convert};
use crate::value::{CallError, Function, Object, Value};

type Native = fn(&[Value]) -> Result<Value, CallError>;

/// Dotted names and what they call.
const FUNCTIONS: &[(&str, Native)] = &[
    ("array.combine_maps", lists::combine_maps),
    ("array.concat", lists::concat),
    ("array.group_by", lists::group_by),
    ("coalesce", coalesce),
    ("convert.nonsensitive", text::nonsensitive),
    ("encoding.from_URLbase64", encoding::from_base64_url),
    ("encoding.from_base64", encoding::from_base64),
    ("encoding.from_json", json::from_json),
    ("encoding.from_yaml", yaml::from_yaml),
    ("encoding.to_URLbase64", encoding::to_base64_url),
    ("encoding.to_base64", encoding::to_base64),
    ("encoding.to_json", json::to_json),
    ("encoding.url_decode", encoding::url_decode),
    ("encoding.url_encode", encoding::url_encode),
    ("file.path_join", text::path_join),
    ("json_path", json_path::json_path),
    ("string.format", format::format),
    ("string.join", text::join),
    ("string.replace", text::replace),
    ("string.split", text::split),
    ("string.to_lower", text::to_lower),
    ("string.to_upper", text::to_upper),
    ("string.trim", text::trim),
    ("string.trim_prefix", text::trim_prefix),
    ("string.trim_space", text::trim_space),
    ("string.trim_suffix", text::trim_suffix),
    ("sys.env", env),
];

/// Old names and the dotted ones they stand for.
const DEPRECATED: &[(&str, &str)] = &[
    ("base64_decode", "encoding.from_base64"),
    ("concat", "array.concat"),
    ("env", "sys.env"),
    ("format", "string.format"),
    ("join", "string.join"),
    ("json_decode", "encoding.from_json"),
    ("nonsensitive", "convert.nonsensitive"),
    ("replace", "string.replace"),
    ("split", "string.split"),
    ("to_lower", "string.to_lower"),
    ("to_upper", "string.to_upper"),
    ("trim", "string.trim"),
    ("trim_prefix", "string.trim_prefix"),
    ("trim_space", "string.trim_space"),
    ("trim_suffix", "string.trim_suffix"),
    ("yaml_decode", "encoding.from_yaml"),
];

const EXPERIMENTAL: &[&str] = &["array.combine_maps", "array.group_by"];

static IDENTIFIERS: LazyLock<Object> = LazyLock::new(identifiers);

/// What a bare name means, such as `string` or `coalesce`.
pub(crate) fn identifier(name: &str) -> Option<Value> {
    IDENTIFIERS.get(name).cloned()
}

pub(crate) fn is_identifier(name: &str) -> bool {
    IDENTIFIERS.contains_key(name)
}

/// The name to use instead of a deprecated one.
pub fn deprecated(name: &str) -> Option<&'static str> {
    DEPRECATED
        .iter()
        .find(|(old, _)| *old == name)
        .map(|(_, new)| *new)
}

/// Whether a dotted name needs the experimental stability level.
pub fn is_experimental(dotted: &str) -> bool {
    EXPERIMENTAL.contains(&dotted)
}

fn identifiers() -> Object {
    let mut all = Object::new();
    let mut namespaces: std::collections::BTreeMap<&str, Object> =
        std::collections::BTreeMap::new();
    for &(name, native) in FUNCTIONS {
        let function = Value::Function(Function::new(name, native));
        match name.split_once('.') {
            Some((namespace, name)) => {
                namespaces
                    .entry(namespace)
                    .or_default()
                    .insert(name.to_owned(), function.clone());
            }
            None => {
                all.insert(name.to_owned(), function.clone());
            }
        }
        for (old, _) in DEPRECATED.iter().filter(|(_, new)| *new == name) {
            all.insert((*old).to_owned(), function.clone());
        }
    }
    namespaces.insert("constants", constants());
    all.extend(
        namespaces
            .into_iter()
            .map(|(name, fields)| (name.to_owned(), fields.into())),
    );
    all
}

/// Operating system and processor have the names that release files use.
fn constants() -> Object {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    let fields = [
        ("hostname", hostname()),
        ("os", os.to_owned()),
        ("arch", arch.to_owned()),
        (
            "version",
            concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
    ];
    fields
        .into_iter()
        .map(|(name, text)| (name.to_owned(), Value::String(text)))
        .collect()
}

/// Read from the kernel, not from the environment, which shells set and services do not.
fn hostname() -> String {
    let read = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    read()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn env(args: &[Value]) -> Result<Value, CallError> {
    count(args, 1)?;
    let name: String = argument(args, 0)?;
    // Names with these make the standard library panic on some systems; none can be set.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Ok(Value::from(""));
    }
    Ok(Value::String(std::env::var(name).unwrap_or_default()))
}

fn coalesce(args: &[Value]) -> Result<Value, CallError> {
    let first = args.iter().find(|value| !value.is_empty());
    Ok(first.or(args.last()).cloned().unwrap_or(Value::Null))
}

/// The argument at `index`, converted as an attribute would be.
fn argument<T: FromValue>(args: &[Value], index: usize) -> Result<T, CallError> {
    let value = args.get(index).unwrap_or(&Value::Null);
    convert(value).map_err(|error| CallError::Argument(index, error))
}

fn count(args: &[Value], wanted: usize) -> Result<(), CallError> {
    if args.len() == wanted {
        return Ok(());
    }
    Err(CallError::Function(format!(
        "expected {wanted} args, got {}",
        args.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_old_name_leads_to_a_function() {
        for (old, new) in DEPRECATED {
            assert!(
                FUNCTIONS.iter().any(|(name, _)| name == new),
                "{old} -> {new}"
            );
            assert!(is_identifier(old));
        }
        assert_eq!(deprecated("env"), Some("sys.env"));
        assert!(is_experimental("array.group_by") && !is_experimental("array.concat"));
        assert!(is_identifier("yaml_decode") && !is_identifier("trim_all"));
    }

    #[test]
    fn constants_use_release_names() {
        let constants = constants();
        assert_eq!(constants.len(), 4);
        let text = |name| String::from_value(&constants[name]).unwrap();
        assert!(text("version").starts_with('v') && !text("arch").contains("x86_64"));
    }

    #[test]
    fn environment_gives_empty_text_for_what_is_unset() {
        for name in ["PENSTOCK_SURELY_UNSET", "", "A=B"] {
            let value = env(&[Value::from(name)]).unwrap();
            assert_eq!(String::from_value(&value), Ok(String::new()));
        }
        let path = env(&[Value::from("PATH")]).unwrap();
        assert_eq!(
            String::from_value(&path),
            Ok(std::env::var("PATH").unwrap())
        );
    }
}
