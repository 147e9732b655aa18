//! Turns values into Rust's numbers, and numbers into text.
//!
//! # Failure
//! A number that its type cannot hold is refused, where the reference would wrap around.

use crate::from_value::FromValue;
use crate::value::{Type, Value, ValueError};

/// Never scientific, as short as it can be read back.
pub(crate) fn float_text(n: f64) -> String {
    if n.is_infinite() {
        return if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    n.to_string()
}

impl FromValue for f64 {
    fn zero() -> Self {
        0.0
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match number(value)? {
            Number::Whole(n) => Ok(n as Self),
            Number::Float(n) => Ok(n),
        }
    }

    fn type_name() -> String {
        "number".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::Float(*self)
    }
}

macro_rules! whole_number {
    ($($type:ty),+) => {$(
        impl FromValue for $type {
            fn zero() -> Self {
                0
            }

            fn from_value(value: &Value) -> Result<Self, ValueError> {
                let range = || format!("is out of range {} to {}", Self::MIN, Self::MAX);
                truncated(number(value)?)
                    .and_then(|n| Self::try_from(n).ok())
                    .ok_or_else(|| ValueError::new(range()))
            }

            fn type_name() -> String {
                "number".to_owned()
            }

            fn to_value(&self) -> Value {
                whole(i128::try_from(*self).unwrap_or(i128::MAX))
            }
        }
    )+};
}

whole_number!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

/// The smallest kind that holds it.
fn whole(n: i128) -> Value {
    match (i64::try_from(n), u64::try_from(n)) {
        (Ok(n), _) => Value::Int(n),
        (_, Ok(n)) => Value::Uint(n),
        // No type assigned to holds more.
        _ => Value::Float(n as f64),
    }
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i128),
    Float(f64),
}

/// A fraction is dropped; a value out of range is refused where the reference would wrap around.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked first"
)]
fn truncated(number: Number) -> Option<i128> {
    match number {
        Number::Whole(n) => Some(n),
        Number::Float(n) if n.abs() < 1e20 => Some(n.trunc() as i128),
        Number::Float(_) => None,
    }
}

fn number(value: &Value) -> Result<Number, ValueError> {
    match value {
        Value::Int(n) => Ok(Number::Whole(i128::from(*n))),
        Value::Uint(n) => Ok(Number::Whole(i128::from(*n))),
        Value::Float(n) => Ok(Number::Float(*n)),
        Value::String(text) => {
            parse_number(text).ok_or_else(|| ValueError::wrong_type(Type::Number, value))
        }
        _ => Err(ValueError::wrong_type(Type::Number, value)),
    }
}

/// The first character or a point decides how the text is read, so `-1.5` is no number: it is taken
/// for a signed whole one.
fn parse_number(text: &str) -> Option<Number> {
    if text.starts_with('-') {
        return text
            .parse::<i64>()
            .ok()
            .map(|n| Number::Whole(i128::from(n)));
    }
    if text.contains(['.', 'e', 'E']) {
        return text
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite())
            .map(Number::Float);
    }
    if text.starts_with('+') {
        return None;
    }
    text.parse::<u64>()
        .ok()
        .map(|n| Number::Whole(i128::from(n)))
}
