//! Turns expressions and values into text, on one line, for messages and displays.
//!
//! Literals of an expression print as written, so a message shows what the author typed. Values
//! print in the language too, except that secrets, capsules and functions only show what they are.

use std::fmt;

use crate::ast::{Expr, ExprKind, Field, LiteralKind};
use crate::numbers::float_text;
use crate::scanner::is_identifier;
use crate::value::{Object, Value};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Literal(literal) => f.write_str(&literal.text),
            ExprKind::Identifier(name) => f.write_str(name),
            ExprKind::Array(items) => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            ExprKind::Object(fields) => {
                f.write_str("{")?;
                list(f, fields)?;
                f.write_str("}")
            }
            ExprKind::Paren(inner) => write!(f, "({inner})"),
            ExprKind::Unary(op, operand) => write!(f, "{op}{operand}"),
            ExprKind::Binary(left, op, right) => write!(f, "{left} {op} {right}"),
            // A point right after digits would be read as part of the number.
            ExprKind::Access(target, name) if is_number(target) => {
                write!(f, "{target} .{}", name.name)
            }
            ExprKind::Access(target, name) => write!(f, "{target}.{}", name.name),
            ExprKind::Index(target, index) => write!(f, "{target}[{index}]"),
            ExprKind::Call(function, args) => {
                write!(f, "{function}(")?;
                list(f, args)?;
                f.write_str(")")
            }
        }
    }
}

fn is_number(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Literal(literal) if literal.kind == LiteralKind::Number)
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted {
            return write!(f, "\"{}\" = {}", self.name.name, self.value);
        }
        write!(f, "{} = {}", self.name.name, self.value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Uint(n) => write!(f, "{n}"),
            Self::Float(n) => f.write_str(&float_text(*n)),
            Self::String(text) => f.write_str(&quote(text)),
            Self::Array(items) => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            Self::Object(fields) => object(f, fields),
            Self::Function(_) => f.write_str("function"),
            Self::Capsule(capsule) => write!(f, "{capsule:?}"),
            Self::Secret(secret) => write!(f, "{secret}"),
            Self::OptionalSecret(secret) if secret.is_secret() => write!(f, "{secret}"),
            Self::OptionalSecret(plain) => f.write_str(&quote(plain.expose())),
        }
    }
}

fn object(f: &mut fmt::Formatter<'_>, fields: &Object) -> fmt::Result {
    f.write_str("{")?;
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        // Keys are not unescaped when read, so nothing is escaped here.
        let quote = if is_identifier(name) { "" } else { "\"" };
        write!(f, "{quote}{name}{quote} = {value}")?;
    }
    f.write_str("}")
}

/// Text in double quotes, with escapes for what cannot stand between them as it is.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::parser::parse_expression;
    use crate::{Scope, Secret, Value};

    #[test]
    fn expressions_print_as_written_with_regular_spacing() {
        let table = [
            ("a.b [ 0 ]", "a.b[0]"),
            ("f( 1,2 , \"x\\n\")", "f(1, 2, \"x\\n\")"),
            ("{a=1,\"q k\"=[1,2]}", "{a = 1, \"q k\" = [1, 2]}"),
            ("!a&&( -b+010 )^ 2", "!a && (-b + 010) ^ 2"),
            ("[\n1,\n]", "[1]"),
        ];
        for (text, want) in table {
            assert_eq!(
                parse_expression("t", text).unwrap().1.to_string(),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn values_print_in_the_language_and_hide_secrets() {
        let mut scope = Scope::new();
        scope.set("hidden", Secret::new("hunter2"));
        let text =
            "{b = [1, 1.5, null, true], \"a b\" = \"x\\n\\\"\\x01\", c = hidden, d = sys.env}";
        let (source, expr) = parse_expression("t", text).unwrap();
        let value: Value = crate::evaluate(&expr, &scope, &source).unwrap();
        assert_eq!(value.to_string(), {
            r#"{"a b" = "x\n\"\x01", b = [1, 1.5, null, true], c = (secret), d = function}"#
        });
    }
}
