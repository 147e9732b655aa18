//! Turns values into Rust types, with the conversions assignment allows.
//!
//! # Invariants
//! `null` gives the zero of every type. A secret becomes a [`Secret`], never a `String`.
//!
//! # Failure
//! The error says which element or field is to blame, so the caller can point at it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::arguments::hidden;
use crate::secret::{OptionalSecret, Secret};
use crate::units::{ByteSize, SignedDuration};
use crate::value::{Capsule, Type, Value, ValueError};

/// A type that values can be assigned to.
pub trait FromValue: Sized {
    /// What `null` stands for, and what a value that failed to decode leaves behind.
    fn zero() -> Self;

    /// Converts a value that is not `null`.
    ///
    /// # Errors
    /// The value, or a part of it, has a type or a content that cannot be assigned.
    fn from_value(value: &Value) -> Result<Self, ValueError>;

    /// The value as it may be shown: without what is a secret as this type.
    fn shown(value: &Value) -> Value {
        match value {
            Value::Secret(_) => hidden(),
            Value::OptionalSecret(secret) if secret.is_secret() => hidden(),
            other => other.clone(),
        }
    }
}

/// Converts a value, `null` included.
///
/// # Errors
/// As [`FromValue::from_value`].
pub(crate) fn convert<T: FromValue>(value: &Value) -> Result<T, ValueError> {
    match value {
        Value::Null => Ok(T::zero()),
        other => T::from_value(other),
    }
}

impl FromValue for Value {
    fn zero() -> Self {
        Self::Null
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        Ok(value.clone())
    }
}

impl FromValue for String {
    fn zero() -> Self {
        Self::new()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Int(n) => Ok(n.to_string()),
            Value::Uint(n) => Ok(n.to_string()),
            Value::Float(n) => Ok(float_text(*n)),
            Value::OptionalSecret(secret) if !secret.is_secret() => Ok(secret.expose().to_owned()),
            Value::Secret(_) | Value::OptionalSecret(_) => {
                Err(ValueError::new("secrets may not be converted into strings"))
            }
            _ => Err(ValueError::wrong_type(Type::String, value)),
        }
    }
}

/// Never scientific, as short as it can be read back.
pub(crate) fn float_text(n: f64) -> String {
    if n.is_infinite() {
        return if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    n.to_string()
}

impl FromValue for bool {
    fn zero() -> Self {
        false
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Bool(b) => Ok(*b),
            _ => Err(ValueError::wrong_type(Type::Bool, value)),
        }
    }
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
        }
    )+};
}

whole_number!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

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

impl FromValue for SignedDuration {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        String::from_value(value)?.parse().map_err(ValueError::new)
    }
}

impl FromValue for Duration {
    fn zero() -> Self {
        Self::ZERO
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        let duration = SignedDuration::from_value(value)?;
        duration
            .unsigned()
            .ok_or_else(|| ValueError::new("must not be negative"))
    }
}

impl FromValue for ByteSize {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        String::from_value(value)?.parse().map_err(ValueError::new)
    }
}

impl FromValue for Secret {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Secret(secret) => Ok(secret.clone()),
            Value::OptionalSecret(secret) => Ok(Self::new(secret.expose())),
            Value::String(text) => Ok(Self::new(text)),
            _ => Err(ValueError::wrong_type(Type::Capsule, value)),
        }
    }

    fn shown(value: &Value) -> Value {
        match value {
            Value::Null => Value::Null,
            _ => hidden(),
        }
    }
}

impl FromValue for OptionalSecret {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Secret(secret) => Ok(Self::secret(secret.expose())),
            Value::OptionalSecret(secret) => Ok(secret.clone()),
            Value::String(text) => Ok(Self::plain(text)),
            _ => Err(ValueError::wrong_type(Type::Capsule, value)),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn zero() -> Self {
        None
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        T::from_value(value).map(Some)
    }

    fn shown(value: &Value) -> Value {
        T::shown(value)
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn zero() -> Self {
        Self::new()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        let Value::Array(items) = value else {
            return Err(ValueError::wrong_type(Type::Array, value));
        };
        let item = |(index, item)| convert(item).map_err(|e: ValueError| e.in_element(index));
        items.iter().enumerate().map(item).collect()
    }

    fn shown(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(T::shown).collect::<Vec<_>>().into(),
            // It is refused anyway.
            other => T::shown(other),
        }
    }
}

impl<T: FromValue> FromValue for BTreeMap<String, T> {
    fn zero() -> Self {
        Self::new()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        let Some(fields) = value.as_object() else {
            return Err(ValueError::wrong_type(Type::Object, value));
        };
        let field = |(name, field): (&String, &Value)| match convert(field) {
            Ok(value) => Ok((name.clone(), value)),
            Err(error) => Err(ValueError::in_field(error, name)),
        };
        fields.iter().map(field).collect()
    }

    fn shown(value: &Value) -> Value {
        let Some(fields) = value.as_object() else {
            return T::shown(value);
        };
        let fields = fields.iter();
        let shown = fields.map(|(name, field)| (name.clone(), T::shown(field)));
        shown.collect::<BTreeMap<_, _>>().into()
    }
}

impl FromValue for Capsule {
    /// A capsule nobody's kind matches.
    fn zero() -> Self {
        Self::new("null", Arc::new(()))
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Capsule(capsule) => Ok(capsule.clone()),
            _ => Err(ValueError::wrong_type(Type::Capsule, value)),
        }
    }
}

/// A Rust type that is passed between components in capsules.
pub trait CapsuleKind: Any + Send + Sync {
    /// The name type errors show.
    const KIND: &'static str;
}

/// What a capsule of kind `T` holds; nothing where `null` was given.
pub struct Handle<T>(Option<Arc<T>>);

impl<T> Handle<T> {
    /// The content, unless `null` was given.
    pub fn get(&self) -> Option<&Arc<T>> {
        self.0.as_ref()
    }

    /// The content, unless `null` was given.
    pub fn into_inner(self) -> Option<Arc<T>> {
        self.0
    }
}

impl<T> Default for Handle<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// By identity: two handles are equal when they lead to the same thing.
impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl<T: CapsuleKind> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let null = if self.0.is_none() { "null " } else { "" };
        write!(f, "{null}capsule({:?})", T::KIND)
    }
}

impl<T: CapsuleKind> FromValue for Handle<T> {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        let capsule = Capsule::from_value(value)?;
        match capsule.downcast() {
            Some(content) => Ok(Self(Some(content))),
            None => {
                let (wanted, got) = (T::KIND, capsule.kind());
                let message = format!("expected capsule({wanted:?}), got capsule({got:?})");
                Err(ValueError::new(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Scope, blame, evaluate};
    use crate::parser::parse_expression;

    #[derive(Debug)]
    struct Receiver;

    impl CapsuleKind for Receiver {
        const KIND: &'static str = "prometheus.Receiver";
    }

    fn decode<T: FromValue + fmt::Debug>(text: &str) -> String {
        let mut scope = Scope::new();
        scope.set("secret", Secret::new("x"));
        scope.set("plain", OptionalSecret::plain("p"));
        scope.set("foo", Value::from(vec![Value::from(Secret::new("y"))]));
        scope.set("good", Capsule::new(Receiver::KIND, Arc::new(Receiver)));
        scope.set("other", Capsule::new("loki.Receiver", Arc::new(0_u8)));
        let (source, expr) = parse_expression("t", text).unwrap();
        let value = evaluate(&expr, &scope, &source).unwrap();
        match convert::<T>(&value) {
            Ok(value) => format!("{value:?}"),
            Err(error) => {
                let error = blame(&source, &expr, &error);
                format!("{}: {}", error.pos(), error.message)
            }
        }
    }

    #[test]
    fn durations() {
        let seconds = |s: &str| decode::<SignedDuration>(s);
        assert_eq!(seconds("\"1h30m\""), "SignedDuration(5400000000000)");
        assert_eq!(seconds("\"-5s\""), "SignedDuration(-5000000000)");
        assert_eq!(seconds("0"), "SignedDuration(0)");
        assert_eq!(
            seconds("\"1d\""),
            "1:1: \"1d\" time: unknown unit \"d\" in duration \"1d\""
        );
        assert_eq!(seconds("5"), "1:1: 5 time: missing unit in duration \"5\"");
        assert_eq!(seconds("true"), "1:1: true should be string, got bool");
        assert_eq!(decode::<Duration>("\"1.5s\""), "1.5s");
        assert_eq!(
            decode::<Duration>("\"-5s\""),
            "1:1: \"-5s\" must not be negative"
        );
    }

    #[test]
    fn strings() {
        let table = [
            ("1", "\"1\""),
            ("1.5", "\"1.5\""),
            ("1e20", "\"100000000000000000000\""),
            ("true", "1:1: true should be string, got bool"),
            ("null", "\"\""),
            ("plain", "\"p\""),
            (
                "secret",
                "1:1: secret secrets may not be converted into strings",
            ),
            (
                "plain + secret",
                "1:1: plain + secret secrets may not be converted into strings",
            ),
        ];
        for (text, want) in table {
            assert_eq!(decode::<String>(text), want, "{text}");
        }
    }

    #[test]
    fn numbers_and_bools() {
        let table = [
            ("\"5\"", "5"),
            ("\"-3\"", "-3"),
            ("5.7", "5"),
            ("\"5.7\"", "5"),
            ("\"\"", "1:1: \"\" should be number, got string"),
            ("\"+5\"", "1:1: \"+5\" should be number, got string"),
            ("\"-1.5\"", "1:1: \"-1.5\" should be number, got string"),
            ("true", "1:1: true should be number, got bool"),
        ];
        for (text, want) in table {
            assert_eq!(decode::<i64>(text), want, "{text}");
        }
        assert_eq!(
            decode::<u16>("70000"),
            "1:1: 70000 is out of range 0 to 65535"
        );
        assert_eq!(
            decode::<u64>("-1"),
            "1:1: -1 is out of range 0 to 18446744073709551615"
        );
        assert_eq!(decode::<u64>("1e300"), {
            "1:1: 1e300 is out of range 0 to 18446744073709551615"
        });
        assert_eq!(decode::<f64>("3"), "3.0");
        assert_eq!(
            decode::<bool>("\"true\""),
            "1:1: \"true\" should be bool, got string"
        );
    }

    #[test]
    fn containers_blame_the_part() {
        type Map = BTreeMap<String, String>;
        assert_eq!(decode::<Map>("{a = 1}"), "{\"a\": \"1\"}");
        assert_eq!(
            decode::<Map>("{b = 1, a = true}"),
            "1:13: true should be string, got bool"
        );
        assert_eq!(decode::<Map>("[]"), "1:1: [] should be object, got array");
        assert_eq!(decode::<Vec<String>>("[1, \"b\"]"), "[\"1\", \"b\"]");
        assert_eq!(decode::<Vec<String>>("[null]"), "[\"\"]");
        assert_eq!(
            decode::<Vec<String>>("\"x\""),
            "1:1: \"x\" should be array, got string"
        );
        assert_eq!(decode::<Vec<String>>("foo"), {
            "1:1: foo[0] secrets may not be converted into strings"
        });
        assert_eq!(decode::<Vec<Map>>("[{a = 1}, {b = [true]}]"), {
            "1:16: [true] should be string, got array"
        });
        assert_eq!(
            decode::<Vec<Map>>("([{a = foo}])"),
            "1:8: foo should be string, got array"
        );
    }

    #[test]
    fn secrets_and_capsules() {
        assert_eq!(decode::<Secret>("\"x\""), "(secret)");
        assert_eq!(decode::<OptionalSecret>("\"x\""), "\"x\"");
        assert_eq!(decode::<Vec<Handle<Receiver>>>("[good, null]"), {
            "[capsule(\"prometheus.Receiver\"), null capsule(\"prometheus.Receiver\")]"
        });
        assert_eq!(decode::<Vec<Handle<Receiver>>>("[good, other]"), {
            "1:8: other expected capsule(\"prometheus.Receiver\"), got capsule(\"loki.Receiver\")"
        });
        assert_eq!(
            decode::<Handle<Receiver>>("1"),
            "1:1: 1 should be capsule, got number"
        );
    }
}
