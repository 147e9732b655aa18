//! Turns values into Rust types, with the conversions assignment allows.
//!
//! # Invariants
//! `null` gives the zero of every type. A secret becomes a [`Secret`], never a `String`.
//!
//! # Failure
//! The error says which element or field is to blame, so the caller can point at it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::numbers::float_text;
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

    /// What the language calls the type, such as `list(string)`.
    fn type_name() -> String;

    /// The value that [`Self::from_value`] turns into this. Secrets stay hidden, receivers stay the same.
    fn to_value(&self) -> Value;
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

    fn type_name() -> String {
        "any".to_owned()
    }

    fn to_value(&self) -> Value {
        self.clone()
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

    fn type_name() -> String {
        "string".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }
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

    fn type_name() -> String {
        "bool".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
}

impl FromValue for SignedDuration {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        String::from_value(value)?.parse().map_err(ValueError::new)
    }

    fn type_name() -> String {
        "duration".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
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

    fn type_name() -> String {
        "duration".to_owned()
    }

    fn to_value(&self) -> Value {
        // Longer than the language can write is as good as forever: the longest it can.
        let nanos = i64::try_from(self.as_nanos()).unwrap_or(i64::MAX);
        SignedDuration::from_nanos(nanos).to_value()
    }
}

impl FromValue for ByteSize {
    fn zero() -> Self {
        Self::default()
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        String::from_value(value)?.parse().map_err(ValueError::new)
    }

    fn type_name() -> String {
        "size".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
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

    fn type_name() -> String {
        "secret".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::Secret(self.clone())
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

    fn type_name() -> String {
        "optional secret".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::OptionalSecret(self.clone())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn zero() -> Self {
        None
    }

    fn from_value(value: &Value) -> Result<Self, ValueError> {
        T::from_value(value).map(Some)
    }

    fn type_name() -> String {
        T::type_name()
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
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

    fn type_name() -> String {
        format!("list({})", T::type_name())
    }

    fn to_value(&self) -> Value {
        Value::from(self.iter().map(T::to_value).collect::<Vec<_>>())
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

    fn type_name() -> String {
        format!("map({})", T::type_name())
    }

    fn to_value(&self) -> Value {
        let field = |(name, field): (&String, &T)| (name.clone(), field.to_value());
        Value::from(self.iter().map(field).collect::<BTreeMap<_, _>>())
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

    fn type_name() -> String {
        "capsule".to_owned()
    }

    fn to_value(&self) -> Value {
        Value::Capsule(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::CapsuleKind;
    use crate::Handle;
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

    /// What a type makes of a text, its value and what it makes of that again.
    fn round<T: FromValue + fmt::Debug>(text: &str) -> (String, String) {
        let (source, expr) = parse_expression("t", text).unwrap();
        let value = evaluate(&expr, &Scope::new(), &source).unwrap();
        let first: T = convert(&value).unwrap();
        let again: T = convert(&first.to_value()).unwrap();
        assert_eq!(format!("{first:?}"), format!("{again:?}"), "{text}");
        (T::type_name(), first.to_value().to_string())
    }

    #[test]
    fn every_type_has_a_name_and_shows_its_value_in_the_language() {
        let expect = |(name, shown): (String, String), want: &str, value: &str| {
            assert_eq!((&*name, &*shown), (want, value));
        };
        expect(round::<String>("1.5"), "string", "\"1.5\"");
        expect(round::<u16>("\"7\""), "number", "7");
        expect(
            round::<u64>("18446744073709551615"),
            "number",
            "18446744073709551615",
        );
        expect(round::<f64>("1"), "number", "1");
        expect(round::<bool>("true"), "bool", "true");
        expect(round::<Duration>("\"90s\""), "duration", "\"1m30s\"");
        expect(round::<ByteSize>("\"1.5KiB\""), "size", "\"1KiB512B\"");
        expect(round::<Secret>("\"x\""), "secret", "(secret)");
        expect(round::<OptionalSecret>("\"x\""), "optional secret", "\"x\"");
        expect(round::<Option<u8>>("null"), "number", "null");
        expect(round::<Vec<String>>("[1]"), "list(string)", "[\"1\"]");
        let map = "map(list(secret))";
        expect(
            round::<BTreeMap<String, Vec<Secret>>>("{a = [\"x\"]}"),
            map,
            "{a = [(secret)]}",
        );
        expect(round::<Value>("{a = 1}"), "any", "{a = 1}");
        assert_eq!(
            Duration::MAX.to_value().to_string(),
            "\"2562047h47m16.854775807s\""
        );
    }

    #[test]
    fn a_receiver_stays_the_same_when_it_is_shown() {
        let value = Value::from(Capsule::new(Receiver::KIND, Arc::new(Receiver)));
        let handle: Handle<Receiver> = convert(&value).unwrap();
        assert_eq!(handle.to_value(), value);
        assert_eq!(Handle::<Receiver>::default().to_value(), Value::Null);
        assert_eq!(
            Handle::<Receiver>::type_name(),
            "capsule(\"prometheus.Receiver\")"
        );
    }
}
