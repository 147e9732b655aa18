//! Turns YAML text into values.

use super::text::text;
use crate::value::{CallError, Value, ValueError};
use crate::yaml::parse;

pub(super) fn from_yaml(args: &[Value]) -> Result<Value, CallError> {
    let input: String = text(args)?;
    match parse(&input) {
        Ok(node) => Ok(node.value()),
        Err(error) => Err(CallError::Argument(0, ValueError::new(error.to_string()))),
    }
}
