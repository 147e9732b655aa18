//! Applies operators to values.
//!
//! # Invariants
//! Whole-number arithmetic wraps, as in the reference, so no operand can cause a panic. Mixed kinds
//! are brought to the wider of unsigned, signed, float.

use crate::ast::{BinaryOp, UnaryOp};
use crate::secret::{OptionalSecret, Secret};
use crate::value::{Type, Value, ValueError};

/// Which operand is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blame {
    Left(ValueError),
    Right(ValueError),
}

/// Applies an operator to its operand.
pub(crate) fn unary(op: UnaryOp, value: &Value) -> Result<Value, ValueError> {
    match (op, value) {
        (UnaryOp::Not, Value::Bool(b)) => Ok(Value::Bool(!b)),
        (UnaryOp::Not, _) => Err(ValueError::wrong_type(Type::Bool, value)),
        (UnaryOp::Negate, Value::Int(n)) => Ok(Value::Int(n.wrapping_neg())),
        (UnaryOp::Negate, Value::Uint(n)) => Ok(Value::Int(n.cast_signed().wrapping_neg())),
        (UnaryOp::Negate, Value::Float(n)) => Ok(Value::Float(-n)),
        (UnaryOp::Negate, _) => Err(ValueError::wrong_type(Type::Number, value)),
    }
}

/// Applies an operator between its operands.
pub(crate) fn binary(left: &Value, op: BinaryOp, right: &Value) -> Result<Value, Blame> {
    let (left, right) = &unify_secrets(left, right);
    match op {
        BinaryOp::Eq => return Ok(Value::Bool(equal(left, right))),
        BinaryOp::NotEq => return Ok(Value::Bool(!equal(left, right))),
        _ => {}
    }
    check_type(left, op).map_err(Blame::Left)?;
    check_type(right, op).map_err(Blame::Right)?;
    if left.type_of() != right.type_of() {
        return Err(Blame::Right(ValueError::wrong_type(left.type_of(), right)));
    }
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(if op == BinaryOp::And {
            *a && *b
        } else {
            *a || *b
        })),
        (Value::String(a), Value::String(b)) if op == BinaryOp::Add => {
            Ok(Value::String(format!("{a}{b}")))
        }
        (Value::String(a), Value::String(b)) => Ok(Value::Bool(ordered(a, op, b))),
        (Value::Secret(a), Value::Secret(b)) => {
            Ok(Secret::new(format!("{}{}", a.expose(), b.expose())).into())
        }
        (Value::OptionalSecret(a), Value::OptionalSecret(b)) => Ok(join_optional(a, b)),
        _ => numeric(left, op, right),
    }
}

fn check_type(value: &Value, op: BinaryOp) -> Result<(), ValueError> {
    let allowed: &[Type] = match op {
        BinaryOp::Or | BinaryOp::And => &[Type::Bool],
        BinaryOp::Add => &[Type::Number, Type::String, Type::Capsule],
        BinaryOp::Less | BinaryOp::LessEq | BinaryOp::Greater | BinaryOp::GreaterEq => {
            &[Type::Number, Type::String]
        }
        _ => &[Type::Number],
    };
    let got = value.type_of();
    if allowed.contains(&got) {
        return Ok(());
    }
    let names: Vec<String> = allowed.iter().map(Type::to_string).collect();
    let names = names.join(" ");
    Err(ValueError::new(format!(
        "should be one of [{names}] for binop {op}, got {got}"
    )))
}

/// Two numbers of one kind.
enum Pair {
    Int(i64, i64),
    Uint(u64, u64),
    Float(f64, f64),
}

fn pair(left: &Value, right: &Value) -> Option<Pair> {
    Some(match (left, right) {
        (Value::Uint(a), Value::Uint(b)) => Pair::Uint(*a, *b),
        (Value::Float(_), _) | (_, Value::Float(_)) => Pair::Float(as_f64(left)?, as_f64(right)?),
        _ => Pair::Int(as_i64(left)?, as_i64(right)?),
    })
}

fn as_i64(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        Value::Uint(n) => Some(n.cast_signed()),
        _ => None,
    }
}

fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::Float(n) => Some(*n),
        _ => None,
    }
}

fn numeric(left: &Value, op: BinaryOp, right: &Value) -> Result<Value, Blame> {
    let Some(pair) = pair(left, right) else {
        let types = format!("lhs {} rhs {}", left.type_of(), right.type_of());
        let message = format!("could not perform binop {op} for unknown types {types}");
        return Err(Blame::Left(ValueError::new(message)));
    };
    let divides = matches!(op, BinaryOp::Div | BinaryOp::Mod);
    if divides && right.is_empty() {
        return Err(Blame::Right(ValueError::new("divide by zero error")));
    }
    Ok(match pair {
        Pair::Int(a, b) => ints(a, op, b),
        Pair::Uint(a, b) => uints(a, op, b),
        Pair::Float(a, b) => floats(a, op, b),
    })
}

fn ints(a: i64, op: BinaryOp, b: i64) -> Value {
    Value::Int(match op {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Div => a.wrapping_div(b),
        BinaryOp::Mod => a.wrapping_rem(b),
        // A negative exponent gives the base back: the reference multiplies zero more times.
        BinaryOp::Pow if b < 0 => a,
        // Wrapping multiplication has the same bits for both signs.
        BinaryOp::Pow => power(a.cast_unsigned(), b.cast_unsigned()).cast_signed(),
        _ => return Value::Bool(ordered(&a, op, &b)),
    })
}

fn uints(a: u64, op: BinaryOp, b: u64) -> Value {
    Value::Uint(match op {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Div => a.wrapping_div(b),
        BinaryOp::Mod => a.wrapping_rem(b),
        BinaryOp::Pow => power(a, b),
        _ => return Value::Bool(ordered(&a, op, &b)),
    })
}

fn floats(a: f64, op: BinaryOp, b: f64) -> Value {
    Value::Float(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => return Value::Bool(ordered(&a, op, &b)),
    })
}

/// `base` to the `exponent`, modulo 2^64, in at most 64 steps whatever the exponent.
fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result: u64 = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    result
}

fn ordered<T: PartialOrd + ?Sized>(a: &T, op: BinaryOp, b: &T) -> bool {
    match op {
        BinaryOp::Less => a < b,
        BinaryOp::LessEq => a <= b,
        BinaryOp::Greater => a > b,
        _ => a >= b,
    }
}

/// Whether two values are equal; different types never are, and neither are functions.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |((ka, va), (kb, vb)): ((&String, &Value), (&String, &Value))| {
                ka == kb && equal(va, vb)
            };
            a.len() == b.len() && a.iter().zip(b.iter()).all(same)
        }
        (Value::Secret(a), Value::Secret(b)) => a == b,
        (Value::OptionalSecret(a), Value::OptionalSecret(b)) => a == b,
        (Value::Capsule(a), Value::Capsule(b)) => a.same(b) || equal_as_objects(left, right),
        _ => match pair(left, right) {
            Some(Pair::Int(a, b)) => a == b,
            Some(Pair::Uint(a, b)) => a == b,
            Some(Pair::Float(a, b)) => a == b,
            None => false,
        },
    }
}

fn equal_as_objects(left: &Value, right: &Value) -> bool {
    let (Some(left), Some(right)) = (left.as_object(), right.as_object()) else {
        return false;
    };
    equal(&Value::from(left.clone()), &Value::from(right.clone()))
}

/// Brings a secret and what stands beside it to one type, never to one that shows more.
fn unify_secrets(left: &Value, right: &Value) -> (Value, Value) {
    match (left, right) {
        (Value::Secret(_), _) => (left.clone(), hide(right)),
        (_, Value::Secret(_)) => (hide(left), right.clone()),
        (Value::OptionalSecret(a), Value::String(b)) if a.is_secret() => {
            (left.clone(), OptionalSecret::secret(b).into())
        }
        (Value::String(a), Value::OptionalSecret(b)) if b.is_secret() => {
            (OptionalSecret::secret(a).into(), right.clone())
        }
        (Value::OptionalSecret(a), Value::String(_)) => (a.expose().into(), right.clone()),
        (Value::String(_), Value::OptionalSecret(b)) => (left.clone(), b.expose().into()),
        _ => (left.clone(), right.clone()),
    }
}

fn hide(value: &Value) -> Value {
    match value {
        Value::String(text) => Secret::new(text).into(),
        Value::OptionalSecret(secret) => Secret::new(secret.expose()).into(),
        other => other.clone(),
    }
}

fn join_optional(a: &OptionalSecret, b: &OptionalSecret) -> Value {
    let text = format!("{}{}", a.expose(), b.expose());
    if a.is_secret() || b.is_secret() {
        return OptionalSecret::secret(text).into();
    }
    OptionalSecret::plain(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_never_uncovers_a_secret() {
        let string = Value::from("s");
        let secret: Value = Secret::new("x").into();
        let hidden: Value = OptionalSecret::secret("h").into();
        let plain: Value = OptionalSecret::plain("p").into();
        let add = |a: &Value, b: &Value| format!("{:?}", binary(a, BinaryOp::Add, b));
        for (a, b) in [
            (&secret, &string),
            (&string, &secret),
            (&secret, &plain),
            (&hidden, &secret),
        ] {
            assert_eq!(add(a, b), "Ok(Secret((secret)))");
        }
        assert_eq!(add(&hidden, &string), "Ok(OptionalSecret((secret)))");
        assert_eq!(add(&string, &hidden), "Ok(OptionalSecret((secret)))");
        assert_eq!(add(&plain, &string), "Ok(String(\"ps\"))");
        assert_eq!(add(&plain, &plain), "Ok(OptionalSecret(\"pp\"))");
        assert!(equal(&secret, &secret) && !equal(&secret, &Secret::new("y").into()));
    }

    #[test]
    fn extreme_operands_wrap() {
        let table = [
            (i64::MIN, BinaryOp::Div, -1, i64::MIN),
            (i64::MIN, BinaryOp::Mod, -1, 0),
            (i64::MAX, BinaryOp::Add, 1, i64::MIN),
            (2, BinaryOp::Pow, 64, 0),
            (-3, BinaryOp::Pow, 3, -27),
            (0, BinaryOp::Pow, 0, 1),
            (2, BinaryOp::Pow, -1, 2),
        ];
        for (a, op, b, want) in table {
            let got = binary(&Value::Int(a), op, &Value::Int(b)).unwrap();
            assert!(equal(&got, &Value::Int(want)), "{a} {op} {b} = {got:?}");
        }
        assert_eq!(
            power(3, u64::MAX),
            power(3, u64::MAX >> 1).wrapping_pow(2).wrapping_mul(3)
        );
    }
}
