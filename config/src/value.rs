//! The values expressions turn into.
//!
//! # Invariants
//! Arrays and objects are shared, so copying a value costs a reference count. Objects keep their
//! keys sorted: whatever is made from one is the same every time.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::operators::equal;
use crate::secret::{OptionalSecret, Secret};

/// The fields of an object.
pub type Object = BTreeMap<String, Value>;

/// The result of an expression.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing; assigning it unsets.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, the usual kind.
    Int(i64),
    /// A whole number; literals take this kind only above the range of `Int`.
    Uint(u64),
    /// A number with a fraction or beyond the whole ranges.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Arc<[Value]>),
    /// Named values.
    Object(Arc<Object>),
    /// Something to call.
    Function(Function),
    /// Something only components understand.
    Capsule(Capsule),
    /// A capsule around text that must not be shown.
    Secret(Secret),
    /// A capsule around text that may have to be hidden.
    OptionalSecret(OptionalSecret),
}

impl Value {
    /// The type as far as the language distinguishes it.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) | Self::Uint(_) | Self::Float(_) => Type::Number,
            Self::String(_) => Type::String,
            Self::Array(_) => Type::Array,
            Self::Object(_) => Type::Object,
            Self::Function(_) => Type::Function,
            Self::Capsule(_) | Self::Secret(_) | Self::OptionalSecret(_) => Type::Capsule,
        }
    }

    /// The fields of an object, or of a capsule that can be seen as one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::Capsule(capsule) => capsule.object.as_deref(),
            _ => None,
        }
    }

    /// Whether `coalesce` passes over this value.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(b) => !b,
            Self::Int(n) => *n == 0,
            Self::Uint(n) => *n == 0,
            Self::Float(n) => *n == 0.0,
            Self::String(s) => s.is_empty(),
            Self::Array(items) => items.is_empty(),
            Self::Object(fields) => fields.is_empty(),
            Self::Function(_) => false,
            Self::Capsule(capsule) => capsule.object.as_ref().is_some_and(|o| o.is_empty()),
            Self::Secret(secret) => secret.expose().is_empty(),
            Self::OptionalSecret(secret) => secret.expose().is_empty(),
        }
    }
}

/// As `==` of the language: functions are never equal, and capsules only if they are the same.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        equal(self, other)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::Array(items.into())
    }
}

impl From<Object> for Value {
    fn from(fields: Object) -> Self {
        Self::Object(Arc::new(fields))
    }
}

impl From<Secret> for Value {
    fn from(secret: Secret) -> Self {
        Self::Secret(secret)
    }
}

impl From<OptionalSecret> for Value {
    fn from(secret: OptionalSecret) -> Self {
        Self::OptionalSecret(secret)
    }
}

impl From<Capsule> for Value {
    fn from(capsule: Capsule) -> Self {
        Self::Capsule(capsule)
    }
}

/// The types of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the type of that name")]
pub enum Type {
    Null,
    Number,
    String,
    Bool,
    Array,
    Object,
    Function,
    Capsule,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Number => "number",
            Self::String => "string",
            Self::Bool => "bool",
            Self::Array => "array",
            Self::Object => "object",
            Self::Function => "function",
            Self::Capsule => "capsule",
        })
    }
}

/// A function of the standard library.
#[derive(Clone, Copy)]
pub struct Function {
    name: &'static str,
    call: fn(&[Value]) -> Result<Value, CallError>,
}

impl Function {
    pub(crate) fn new(name: &'static str, call: fn(&[Value]) -> Result<Value, CallError>) -> Self {
        Self { name, call }
    }

    pub(crate) fn call(self, args: &[Value]) -> Result<Value, CallError> {
        (self.call)(args)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({})", self.name)
    }
}

/// A value that passes through the language unseen, such as a place to send samples to.
///
/// Two capsules are equal when they hold the same thing, not merely an equal one; capsules seen as
/// objects are equal when the objects are.
#[derive(Clone)]
pub struct Capsule {
    kind: &'static str,
    value: Arc<dyn Any + Send + Sync>,
    object: Option<Arc<Object>>,
}

impl Capsule {
    /// A capsule of `kind`, the name type errors show, around `value`.
    pub fn new(kind: &'static str, value: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            kind,
            value,
            object: None,
        }
    }

    /// A capsule that expressions may also read as an object.
    #[must_use]
    pub fn with_object(mut self, object: Object) -> Self {
        self.object = Some(Arc::new(object));
        self
    }

    /// The kind it was made with.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What it holds, if that is a `T`.
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.value).downcast().ok()
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.kind == other.kind && Arc::ptr_eq(&self.value, &other.value)
    }
}

impl fmt::Debug for Capsule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capsule({:?})", self.kind)
    }
}

/// Why a value cannot be used, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// From the outermost container inwards.
    pub(crate) path: Vec<Step>,
    pub(crate) message: String,
}

/// One step into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Index(usize),
    Field(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Field(name) => write!(f, ".{name}"),
        }
    }
}

impl ValueError {
    /// An error about the whole value; the message follows the expression, as in `X must be short`.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            message: message.into(),
        }
    }

    /// The value is of the wrong type.
    pub fn wrong_type(wanted: Type, got: &Value) -> Self {
        Self::new(format!("should be {wanted}, got {}", got.type_of()))
    }

    /// The same error, seen from the array that has the value at `index`.
    #[must_use]
    pub fn in_element(mut self, index: usize) -> Self {
        self.path.insert(0, Step::Index(index));
        self
    }

    /// The same error, seen from the object that has the value at `name`.
    #[must_use]
    pub fn in_field(mut self, name: &str) -> Self {
        self.path.insert(0, Step::Field(name.to_owned()));
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.path {
            write!(f, "{step}")?;
        }
        if !self.path.is_empty() {
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ValueError {}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The argument at this index cannot be used.
    Argument(usize, ValueError),
    /// The function cannot give a result; the message follows the function's name.
    Function(String),
    /// As `Function`, but the message names the function itself.
    Bare(String),
}
