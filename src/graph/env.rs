//! Turns the `declare` blocks and imports that are in sight into the meaning of a component's name.
//!
//! # Invariants
//! - What is declared inside hides what is declared around it; an import's label hides a namespace of
//!   built-in components.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Block;

/// A custom component: its block, and what was in sight where it was declared.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) block: Arc<Block>,
    pub(crate) env: Arc<Env>,
    /// The value of `module_path` inside.
    pub(crate) module_path: String,
}

/// The custom components in sight of a module.
#[derive(Default, Debug)]
pub(crate) struct Env {
    pub(crate) around: Option<Arc<Env>>,
    pub(crate) declares: BTreeMap<String, Arc<Block>>,
    pub(crate) imports: BTreeMap<String, Arc<Env>>,
    pub(crate) module_path: String,
}

impl Env {
    /// The custom component of this name, `name` or `label.name`.
    pub(crate) fn find(self: &Arc<Self>, name: &str) -> Option<Declared> {
        if let Some(block) = self.declares.get(name) {
            return Some(Declared {
                block: block.clone(),
                env: self.clone(),
                module_path: self.module_path.clone(),
            });
        }
        let imported = name.split_once('.').and_then(|(label, rest)| {
            let env = self.imports.get(label)?;
            Some(env.find_own(rest))
        });
        match imported {
            Some(found) => found,
            None => self.around.as_ref().and_then(|around| around.find(name)),
        }
    }

    /// The same, but not what is in sight around an imported module.
    fn find_own(self: &Arc<Self>, name: &str) -> Option<Declared> {
        if self.declares.contains_key(name) {
            return self.find(name);
        }
        let (label, rest) = name.split_once('.')?;
        self.imports.get(label)?.find_own(rest)
    }

    /// Whether a name that starts so is a custom component's, or must be one.
    pub(crate) fn has(&self, name: &str) -> bool {
        let label = name.split_once('.').map(|(label, _)| label);
        self.declares.contains_key(name)
            || label.is_some_and(|label| self.imports.contains_key(label))
            || self.around.as_ref().is_some_and(|around| around.has(name))
    }

    /// Names of custom components, for the message about one that does not exist.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.declares.keys().cloned().collect();
        for (label, env) in &self.imports {
            names.extend(
                env.names()
                    .into_iter()
                    .map(|name| format!("{label}.{name}")),
            );
        }
        if let Some(around) = &self.around {
            names.extend(around.names());
        }
        names
    }
}
