//! Turns capsules into what components pass to each other: a receiver, a rule, a target.
//!
//! # Invariants
//! A handle compares by identity, so that a component knows whether it is still given the same thing.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::from_value::FromValue;
use crate::value::{Capsule, Value, ValueError};

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

    fn type_name() -> String {
        format!("capsule({:?})", T::KIND)
    }

    fn to_value(&self) -> Value {
        match &self.0 {
            Some(content) => Value::from(Capsule::new(T::KIND, Arc::clone(content) as _)),
            None => Value::Null,
        }
    }
}
