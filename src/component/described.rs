//! Turns the blocks of a configuration into what can be told of them: names, references, arguments.

use std::collections::{BTreeMap, BTreeSet};

use config::{Argument, Block, Scope, Target, Value};

/// A block, evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    /// `NAME.LABEL`, or `NAME`.
    pub(crate) id: String,
    pub(crate) name: String,
    /// Empty for none.
    pub(crate) label: String,
    /// Ids of the blocks it names, sorted.
    pub(crate) references: Vec<String>,
    /// What it was given, without secrets.
    pub(crate) arguments: Vec<Argument>,
    /// What others may refer to.
    pub(crate) exports: Vec<(String, Value)>,
}

/// Describes all blocks, whose ids are the keys of `nodes`; `scope` is that of their evaluation.
pub(super) fn describe(
    blocks: &[&Block],
    nodes: &BTreeMap<String, usize>,
    scope: &Scope,
) -> Vec<Described> {
    let one = |block: &&Block| Described {
        id: block.id(),
        name: block.name.name.clone(),
        label: block.label().unwrap_or_default().to_owned(),
        references: references(block, nodes),
        arguments: scope.arguments(&block.id()),
        exports: exports(block, scope),
    };
    blocks.iter().map(one).collect()
}

fn references(block: &Block, nodes: &BTreeMap<String, usize>) -> Vec<String> {
    let empty = Scope::new();
    let targets = config::references(block)
        .into_iter()
        .filter_map(
            |reference| match reference.resolve(&empty, |id| nodes.contains_key(id)) {
                Ok(Target::Node(id)) => Some(id),
                Ok(Target::Scope) | Err(_) => None,
            },
        );
    targets.collect::<BTreeSet<_>>().into_iter().collect()
}

fn exports(block: &Block, scope: &Scope) -> Vec<(String, Value)> {
    let Some(label) = block.label() else {
        return Vec::new();
    };
    let mut parts = block.name.name.split('.').chain([label]);
    let mut found = parts.next().and_then(|first| scope.get(first));
    for part in parts {
        found = found.and_then(|value| value.as_object()?.get(part).cloned());
    }
    let fields = found.as_ref().and_then(Value::as_object);
    let fields = fields.into_iter().flatten();
    fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
