//! Turns expressions into values, given what names mean.
//!
//! # Failure
//! The first problem ends evaluation of an expression. The diagnostic stands at the part to blame
//! and starts with that part's text.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::arguments::{Argument, Kept};
use crate::ast::{Expr, ExprKind, Ident};
use crate::diag::Diagnostic;
use crate::literal::literal_value;
use crate::operators::{self, Blame};
use crate::source::Source;
use crate::stdlib;
use crate::value::{CallError, Object, Step, Type, Value, ValueError};

/// What bare names mean: variables first, then the standard library.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    variables: Object,
    /// Where to keep the arguments of blocks that are read, if anywhere.
    pub(crate) kept: Option<Kept>,
}

impl Scope {
    /// A scope that knows only the standard library.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps what every block read within it was given.
    #[must_use]
    pub fn keep_arguments(mut self) -> Self {
        self.kept.get_or_insert_default();
        self
    }

    /// What the block of this id was given, in the order it is written, if that was kept.
    pub fn arguments(&self, id: &str) -> Vec<Argument> {
        self.kept.as_ref().map_or_else(Vec::new, |kept| kept.of(id))
    }

    /// Gives a name a value, replacing the present one.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Gives a dotted name such as `prometheus.remote_write.default` a value, adding it to the
    /// objects its first parts stand for. A part that is something else becomes an object.
    pub fn set_path(&mut self, dotted: &str, value: impl Into<Value>) {
        let mut fields = &mut self.variables;
        let mut parts = dotted.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                fields.insert(part.to_owned(), value.into());
                return;
            }
            let next = fields.entry(part.to_owned()).or_insert(Value::Null);
            if !matches!(next, Value::Object(_)) {
                *next = Value::from(BTreeMap::new());
            }
            let Value::Object(object) = next else { return };
            fields = Arc::make_mut(object);
        }
    }

    /// What a bare name means here.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.variables
            .get(name)
            .cloned()
            .or_else(|| stdlib::identifier(name))
    }

    /// Whether a bare name means anything here.
    pub fn contains(&self, name: &str) -> bool {
        self.variables.contains_key(name) || stdlib::is_identifier(name)
    }
}

/// The value of an expression of `source`.
///
/// # Errors
/// The first problem met.
pub fn evaluate(expr: &Expr, scope: &Scope, source: &Arc<Source>) -> Result<Value, Diagnostic> {
    Evaluator { scope, source }.value(expr)
}

/// A diagnostic about a value that came from `expr`: it stands at the innermost part that is
/// written out in the expression, and names the way from there to the part to blame.
pub(crate) fn blame(source: &Arc<Source>, expr: &Expr, error: &ValueError) -> Diagnostic {
    let mut node = expr;
    let mut path = error.path.iter();
    let mut rest = path.as_slice();
    while let Some(part) = path.next().and_then(|step| written_part(node, step)) {
        node = part;
        rest = path.as_slice();
    }
    let way: String = rest.iter().map(Step::to_string).collect();
    Diagnostic::error(source, node.span, format!("{node}{way} {}", error.message))
}

fn written_part<'a>(expr: &'a Expr, step: &Step) -> Option<&'a Expr> {
    match (&expr.kind, step) {
        (ExprKind::Paren(inner), _) => written_part(inner, step),
        (ExprKind::Array(items), Step::Index(index)) => items.get(*index),
        (ExprKind::Object(fields), Step::Field(name)) => fields
            .iter()
            .rev()
            .find(|field| field.name.name == *name)
            .map(|field| &field.value),
        _ => None,
    }
}

struct Evaluator<'a> {
    scope: &'a Scope,
    source: &'a Arc<Source>,
}

impl Evaluator<'_> {
    fn value(&self, expr: &Expr) -> Result<Value, Diagnostic> {
        match &expr.kind {
            ExprKind::Literal(literal) => literal_value(literal).map_err(|e| self.blame(expr, &e)),
            ExprKind::Identifier(name) => self.scope.get(name).ok_or_else(|| {
                let message = format!("identifier {name:?} does not exist");
                Diagnostic::error(self.source, expr.span, message)
            }),
            ExprKind::Array(items) => Ok(Value::from(self.values(items)?)),
            ExprKind::Object(fields) => {
                let mut object = Object::new();
                for field in fields {
                    object.insert(field.name.name.clone(), self.value(&field.value)?);
                }
                Ok(Value::from(object))
            }
            ExprKind::Paren(inner) => self.value(inner),
            ExprKind::Unary(op, operand) => {
                let value = self.value(operand)?;
                operators::unary(*op, &value).map_err(|e| self.blame(operand, &e))
            }
            ExprKind::Binary(left, op, right) => {
                let (a, b) = (self.value(left)?, self.value(right)?);
                operators::binary(&a, *op, &b).map_err(|error| match error {
                    Blame::Left(error) => self.blame(left, &error),
                    Blame::Right(error) => self.blame(right, &error),
                })
            }
            ExprKind::Access(target, name) => self.access(target, name),
            ExprKind::Index(target, index) => self.index(target, index),
            ExprKind::Call(function, args) => self.call(function, args),
        }
    }

    fn values(&self, exprs: &[Expr]) -> Result<Vec<Value>, Diagnostic> {
        exprs.iter().map(|expr| self.value(expr)).collect()
    }

    fn access(&self, target: &Expr, name: &Ident) -> Result<Value, Diagnostic> {
        let value = self.value(target)?;
        if let Some(object) = value.as_object() {
            return object.get(&name.name).cloned().ok_or_else(|| {
                let message = format!("field {:?} does not exist", name.name);
                Diagnostic::error(self.source, name.span, message)
            });
        }
        let message = match value.type_of() {
            Type::Capsule => not_a_container(&value),
            other => format!(
                "cannot access field {:?} on value of type {other}",
                name.name
            ),
        };
        Err(self.blame(target, &ValueError::new(message)))
    }

    fn index(&self, target: &Expr, index: &Expr) -> Result<Value, Diagnostic> {
        let container = self.value(target)?;
        let key = self.value(index)?;
        if let Value::Array(items) = &container {
            let at = array_index(&key).map_err(|e| self.blame(index, &e))?;
            let item = usize::try_from(at).ok().and_then(|at| items.get(at));
            return item.cloned().ok_or_else(|| {
                let length = items.len();
                let message = format!("index {at} is out of range of array with length {length}");
                self.blame(index, &ValueError::new(message))
            });
        }
        let Some(object) = container.as_object() else {
            return Err(self.blame(target, &ValueError::new(not_a_container(&container))));
        };
        match &key {
            Value::String(key) => Ok(object.get(key).cloned().unwrap_or(Value::Null)),
            _ => Err(self.blame(index, &ValueError::wrong_type(Type::String, &key))),
        }
    }

    fn call(&self, function: &Expr, args: &[Expr]) -> Result<Value, Diagnostic> {
        let callee = self.value(function)?;
        let Value::Function(callee) = callee else {
            return Err(self.blame(function, &ValueError::wrong_type(Type::Function, &callee)));
        };
        let values = self.values(args)?;
        callee.call(&values).map_err(|error| match error {
            CallError::Argument(index, error) => {
                self.blame(args.get(index).unwrap_or(function), &error)
            }
            CallError::Function(message) => self.blame(function, &ValueError::new(message)),
            CallError::Bare(message) => Diagnostic::error(self.source, function.span, message),
        })
    }

    fn blame(&self, expr: &Expr, error: &ValueError) -> Diagnostic {
        blame(self.source, expr, error)
    }
}

fn not_a_container(value: &Value) -> String {
    match value.type_of() {
        Type::Capsule => {
            "expected object or array or a capsule convertible to an object, got capsule".to_owned()
        }
        other => format!("expected object or array, got {other}"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an index drops its fraction"
)]
fn array_index(value: &Value) -> Result<i64, ValueError> {
    match value {
        Value::Int(n) => Ok(*n),
        Value::Uint(n) => Ok(n.cast_signed()),
        Value::Float(n) => Ok(*n as i64),
        _ => Err(ValueError::wrong_type(Type::Number, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_expression;
    use crate::value::Capsule;

    fn scope() -> Scope {
        let mut scope = Scope::new();
        scope.set_path("a.b.c", Value::Int(7));
        scope.set_path("a.b.list", vec![Value::from("x")]);
        scope.set("cap", Capsule::new("test.Kind", Arc::new(1_u8)));
        let target = Object::from([("__address__".to_owned(), Value::from("h:1"))]);
        scope.set(
            "target",
            Capsule::new("Target", Arc::new(2_u8)).with_object(target),
        );
        scope
    }

    fn run(text: &str) -> String {
        let (source, expr) = parse_expression("t", text).unwrap();
        match evaluate(&expr, &scope(), &source) {
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("{}: {}", error.pos(), error.message),
        }
    }

    #[test]
    fn verified_expressions() {
        let table = [
            ("010", "Int(8)"),
            ("08", "Float(8.0)"),
            ("1.", "Float(1.0)"),
            ("1e3", "Float(1000.0)"),
            ("-2 ^ 2", "Int(4)"),
            ("2 ^ -1", "Int(2)"),
            ("10/4", "Int(2)"),
            ("7 % 4.5", "Float(2.5)"),
            ("5.0 == (10/2)", "Bool(true)"),
            ("9223372036854775808", "Uint(9223372036854775808)"),
            ("18446744073709551616", "Float(1.8446744073709552e19)"),
            ("{a=1}[\"b\"]", "Null"),
            ("{a=1}.b", "1:7: field \"b\" does not exist"),
            (
                "[1,2][5]",
                "1:7: 5 index 5 is out of range of array with length 2",
            ),
            ("1 + \"a\"", "1:5: \"a\" should be number, got string"),
            (
                "true && 1",
                "1:9: 1 should be one of [bool] for binop &&, got number",
            ),
            ("1/0", "1:3: 0 divide by zero error"),
            ("!1", "1:2: 1 should be bool, got number"),
            ("\"\\x41\\101\"", "String(\"AA\")"),
            ("`a\r\nb`", "String(\"a\\nb\")"),
            ("coalesce(0, false, \"\", 5)", "Int(5)"),
            ("string.format(\"%s\")", "String(\"%!s(MISSING)\")"),
            ("string.join([1,2], \",\")", "String(\"1,2\")"),
        ];
        for (text, want) in table {
            assert_eq!(run(text), want, "{text}");
        }
    }

    #[test]
    fn operators_follow_precedence_and_types() {
        let table = [
            ("1 + 2 * 3 - 4 / 2", "Int(5)"),
            ("2 ^ 3 ^ 2", "Int(512)"),
            ("10 - 3 - 2", "Int(5)"),
            ("1 < 2 && \"a\" < \"b\" || false", "Bool(true)"),
            ("3 == 3.00", "Bool(true)"),
            ("[1, {a = 2}] == [1.0, {\"a\" = 2}]", "Bool(true)"),
            ("1 == \"1\"", "Bool(false)"),
            ("sys.env == sys.env", "Bool(false)"),
            ("{a = 1, a = 2}.a", "Int(2)"),
            ("{\"\" = 1}", "Object({\"\\\"\\\"\": Int(1)})"),
            ("true || (1/0 == 0)", "1:12: 0 divide by zero error"),
            (
                "true + 1",
                "1:1: true should be one of [number string capsule] for binop +, got bool",
            ),
            (
                "\"a\" - 1",
                "1:1: \"a\" should be one of [number] for binop -, got string",
            ),
            ("-\"a\"", "1:2: \"a\" should be number, got string"),
            ("-9223372036854775808", "Int(-9223372036854775808)"),
            ("5.5 % 0", "1:7: 0 divide by zero error"),
            ("null == null", "Bool(true)"),
        ];
        for (text, want) in table {
            assert_eq!(run(text), want, "{text}");
        }
    }

    #[test]
    fn names_and_access() {
        let table = [
            ("a.b.c", "Int(7)"),
            ("a.b.list[0]", "String(\"x\")"),
            ("a.b.nope", "1:5: field \"nope\" does not exist"),
            (
                "a.b.c.d",
                "1:1: a.b.c cannot access field \"d\" on value of type number",
            ),
            ("nope", "1:1: identifier \"nope\" does not exist"),
            ("a[1]", "1:3: 1 should be string, got number"),
            ("[1][\"x\"]", "1:5: \"x\" should be number, got string"),
            (
                "[1][-1]",
                "1:5: -1 index -1 is out of range of array with length 1",
            ),
            ("1[0]", "1:1: 1 expected object or array, got number"),
            ("a()", "1:1: a should be function, got object"),
            ("target.__address__", "String(\"h:1\")"),
            ("target[\"x\"]", "Null"),
            ("target.x", "1:8: field \"x\" does not exist"),
            (
                "cap.x",
                "1:1: cap expected object or array or a capsule convertible to an object, got capsule",
            ),
            (
                "cap == cap && cap != target && target == target",
                "Bool(true)",
            ),
            ("sys.env()", "1:1: sys.env expected 1 args, got 0"),
            ("sys.env([])", "1:9: [] should be string, got array"),
            (
                "string.join([1, [true]], 1)",
                "1:17: [true] should be string, got array",
            ),
            (
                "string.join([1, true], 1)",
                "1:17: true should be string, got bool",
            ),
        ];
        for (text, want) in table {
            assert_eq!(run(text), want, "{text}");
        }
    }

    #[test]
    fn variables_come_before_the_standard_library() {
        let mut scope = Scope::new();
        scope.set_path("string.x", Value::Int(1));
        let (source, expr) = parse_expression("t", "string.x").unwrap();
        assert!(matches!(
            evaluate(&expr, &scope, &source),
            Ok(Value::Int(1))
        ));
        assert!(scope.contains("string") && scope.contains("coalesce") && !scope.contains("nope"));
    }
}
