//! Turns what a block was read as into a tree that can be shown.
//!
//! A secret is one because of the type it is read as, so the tree is made while a component reads its
//! block: see [`Scope::keep_arguments`](crate::Scope::keep_arguments).
//!
//! # Invariants
//! What was read as a [`Secret`] is a [`Value::Secret`] here, without its text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::secret::Secret;
use crate::source::Span;
use crate::value::Value;

/// One statement of a block, evaluated.
#[derive(Debug, Clone)]
pub enum Argument {
    /// `name = value`.
    Attribute {
        /// Its name.
        name: String,
        /// What it was given.
        value: Value,
    },
    /// `name "label" { ... }`.
    Block {
        /// Its name.
        name: String,
        /// Its label; empty for none.
        label: String,
        /// What is in it.
        body: Vec<Argument>,
    },
}

impl Argument {
    fn name(&self) -> &str {
        match self {
            Self::Attribute { name, .. } | Self::Block { name, .. } => name,
        }
    }
}

/// A value whose text is not to be shown.
pub(crate) fn hidden() -> Value {
    Value::Secret(Secret::default())
}

/// The arguments of a block while it is read.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    found: Vec<(Span, Argument)>,
}

impl Shown {
    /// Adds a statement. Of one that is read twice, what is a secret stays one.
    pub(crate) fn add(&mut self, span: Span, argument: Argument) {
        let is_known =
            |(at, known): &(Span, Argument)| *at == span && known.name() == argument.name();
        let Some(at) = self.found.iter().position(is_known) else {
            self.found.push((span, argument));
            return;
        };
        if let Argument::Attribute {
            value: Value::Secret(_),
            ..
        } = argument
        {
            self.found[at].1 = argument;
        }
    }

    /// In the order they are written in.
    pub(crate) fn finish(mut self) -> Vec<Argument> {
        self.found.sort_by_key(|(span, _)| *span);
        self.found.into_iter().map(|(_, found)| found).collect()
    }
}

/// The arguments of all blocks read, by their ids; shared by copies of a scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<BTreeMap<String, Vec<Argument>>>>);

impl Kept {
    pub(crate) fn keep(&self, id: String, arguments: Vec<Argument>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, arguments);
    }

    pub(crate) fn of(&self, id: &str) -> Vec<Argument> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BodyReader, OptionalSecret, Scope, decode, parse};

    fn text(arguments: &[Argument]) -> String {
        let lines = arguments.iter().map(|argument| match argument {
            Argument::Attribute { name, value } => format!("{name}={value}"),
            Argument::Block { name, label, body } => format!("{name} {label}({})", text(body)),
        });
        lines.collect::<Vec<_>>().join(" ")
    }

    fn read(r: &mut BodyReader<'_>) {
        r.block("auth", |r| {
            r.label();
            r.required::<Secret>("password");
            r.required::<String>("user");
        });
        r.or("tokens", Vec::<Secret>::new());
        r.or("headers", BTreeMap::<String, Vec<Secret>>::new());
        r.optional::<OptionalSecret>("maybe");
        r.optional::<OptionalSecret>("surely");
        r.optional::<Option<Secret>>("twice");
        r.optional::<Value>("twice");
        r.optional::<Vec<String>>("names");
    }

    #[test]
    fn what_is_read_as_a_secret_is_not_shown() {
        let body = "names = [\"a\", \"b\"]\ntokens = [\"hush\"]\nheaders = {\"X\" = [\"hush\"]}\n\
                    maybe = \"plain\"\nsurely = key\ntwice = \"hush\"\n\
                    auth \"x\" {\n user = \"u\"\n password = \"hush\"\n}\n";
        let file = parse("f", &format!("c \"l\" {{\n{body}}}\n")).unwrap();
        let mut scope = Scope::new().keep_arguments();
        scope.set("key", Secret::new("hush"));
        decode(&file.blocks[0], &scope, read).unwrap();
        let arguments = scope.arguments("c.l");
        assert_eq!(
            text(&arguments),
            "names=[\"a\", \"b\"] tokens=[(secret)] headers={X = [(secret)]} maybe=\"plain\" \
             surely=(secret) twice=(secret) auth x(user=\"u\" password=(secret))"
        );
        assert!(!format!("{arguments:?}").contains("hush"));
        assert!(scope.arguments("c.other").is_empty());
    }
}
