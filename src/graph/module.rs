//! Turns a body into nodes that are evaluated dependencies first, and again where something changed.
//!
//! # Invariants
//! - A body that does not hang together changes nothing: it is looked at as a whole before any node is.
//! - A node is evaluated if its text changed, if something in it changed, or if what it refers to did.
//!
//! # Failure
//! - A node that cannot be evaluated keeps what it had; the others go on. What refers to a node that was
//!   never built waits for it without a diagnostic of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Block, Diagnostics, Object, Scope};

use super::Host;
use super::custom;
use super::env::Env;
use super::foreach;
use super::import;
use super::node::{Node, State};
use super::sketch::{Around, Place, Sketch, What};
use super::watch::Seen;

/// A body with its own names.
#[derive(Debug)]
pub(crate) struct Module {
    /// `""` for the root, else the ids of the nodes it is in, joined by `/`.
    pub(crate) id: String,
    place: Place,
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Dependencies first.
    order: Vec<String>,
    /// As written.
    written: Vec<String>,
    /// What is in sight around it.
    around: Arc<Env>,
    module_path: String,
    /// Variables given from outside.
    base: Scope,
    /// The values of its arguments.
    arguments: Object,
}

/// What a module is loaded with.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) around: Arc<Env>,
    pub(crate) module_path: String,
    /// What bare names mean besides its own nodes.
    pub(crate) base: Scope,
    pub(crate) arguments: Object,
    pub(crate) blocks: &'a [Arc<Block>],
}

impl Module {
    /// An empty one.
    pub(crate) fn new(id: String, place: Place) -> Self {
        Self {
            id,
            place,
            nodes: BTreeMap::new(),
            order: Vec::new(),
            written: Vec::new(),
            around: Arc::default(),
            module_path: String::new(),
            base: Scope::new(),
            arguments: Object::new(),
        }
    }

    /// Takes over blocks and what is given from outside; everything is due.
    ///
    /// # Errors
    /// The blocks do not hang together; nothing has changed.
    pub(crate) fn load(&mut self, given: Given<'_>) -> Result<(), Diagnostics> {
        let mut base = given.base;
        base.set("module_path", given.module_path.clone());
        let sketch = Sketch::new(
            given.blocks,
            Around {
                place: self.place,
                env: &given.around,
                scope: &base,
                nodes: &|_| false,
            },
        )?;
        self.around = given.around;
        self.module_path = given.module_path;
        self.base = base;
        self.arguments = given.arguments;
        self.written = given.blocks.iter().map(|block| block.id()).collect();
        self.order = sketch.items.iter().map(|item| item.id.clone()).collect();
        let keep: BTreeSet<&String> = self.order.iter().collect();
        self.nodes.retain(|id, _| keep.contains(id));
        for item in sketch.items {
            match self.nodes.get_mut(&item.id) {
                Some(node) => node.replace(item),
                None => {
                    let id = item.id.clone();
                    self.nodes.insert(id, Node::new(item, &self.id));
                }
            }
        }
        Ok(())
    }

    /// The custom components in sight of its nodes.
    pub(super) fn env(&self) -> Arc<Env> {
        let mut env = Env {
            around: Some(self.around.clone()),
            module_path: self.module_path.clone(),
            ..Env::default()
        };
        for node in self.nodes.values() {
            let Some(label) = node.block.label().map(str::to_owned) else {
                continue;
            };
            match (&node.what, &node.state) {
                (What::Declare, _) => {
                    env.declares.insert(label, node.block.clone());
                }
                (What::Import, State::Import(import)) => {
                    env.imports.insert(label, import.env.clone());
                }
                _ => {}
            }
        }
        Arc::new(env)
    }

    /// Evaluates what is due; the ids of nodes whose exports changed.
    pub(crate) fn evaluate(
        &mut self,
        host: &Host,
        diagnostics: &mut Diagnostics,
    ) -> BTreeSet<String> {
        let mut changed: BTreeSet<String> = BTreeSet::new();
        let mut scope = self.base.clone();
        let mut env = self.env();
        for id in self.order.clone() {
            let is_waiting = self.is_waiting(&id);
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            let is_due = node.is_due || !node.needs.is_disjoint(&changed);
            if is_due && !is_waiting {
                node.is_due = false;
                let went = evaluate(node, (&self.arguments, &scope, &env), host);
                node.note(&went);
                match went {
                    Ok(true) => {
                        changed.insert(id.clone());
                    }
                    Ok(false) => {}
                    Err(found) => diagnostics.extend(found),
                }
                if matches!(node.what, What::Import) {
                    env = self.env();
                }
            }
            self.publish(&id, &mut scope);
        }
        changed
    }

    /// Whether something it refers to was never built.
    fn is_waiting(&self, id: &str) -> bool {
        let needs = self.nodes.get(id).map(|node| &node.needs);
        let mut needed = needs
            .into_iter()
            .flatten()
            .filter_map(|id| self.nodes.get(id));
        needed.any(|node| !node.is_built() && node.exports.is_empty())
    }

    fn publish(&self, id: &str, scope: &mut Scope) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        let is_named = !matches!(node.what, What::Export | What::Declare | What::Import);
        if is_named && (node.is_built() || !node.exports.is_empty()) {
            scope.set_path(id, node.exports.clone());
        }
    }

    /// What a custom component exports.
    pub(crate) fn exports(&self) -> Object {
        let exports = self
            .nodes
            .values()
            .filter(|node| matches!(node.what, What::Export));
        let exports = exports.filter_map(|node| {
            let value = node.exports.get("value")?;
            Some((node.block.label()?.to_owned(), value.clone()))
        });
        exports.collect()
    }

    /// What happened to a watch of the node of this id, which may be in a module of this one. Whether it
    /// is there; the modules around it are due then.
    pub(crate) fn watched(&mut self, id: &str, seen: Seen) -> bool {
        let (first, rest) = match id.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (id, None),
        };
        let Some(node) = self.nodes.get_mut(first) else {
            return false;
        };
        let Some(rest) = rest else {
            if node.watched(seen) {
                self.touch(first);
            }
            return true;
        };
        let is_there = match &mut node.state {
            State::Custom(module) => module.watched(rest, seen),
            State::Foreach(foreach) => foreach.watched(rest, seen),
            State::Import(import) => import.module.watched(rest, seen),
            _ => false,
        };
        node.is_due |= is_there;
        is_there
    }

    /// What refers to this node is due.
    fn touch(&mut self, id: &str) {
        for node in self.nodes.values_mut() {
            node.is_due |= node.needs.contains(id);
        }
    }

    /// Every node in it and in the modules of it, with the module's id and its own id there.
    pub(crate) fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Self, &'a str, &'a Node)) {
        for id in &self.written {
            let Some(node) = self.nodes.get(id) else {
                continue;
            };
            see(self, id, node);
            match &node.state {
                State::Custom(module) => module.visit(see),
                State::Foreach(foreach) => {
                    for module in foreach.modules.values() {
                        module.visit(see);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Evaluates one node; whether what others see of it changed.
fn evaluate(
    node: &mut Node,
    (arguments, scope, env): (&Object, &Scope, &Arc<Env>),
    host: &Host,
) -> Result<bool, Diagnostics> {
    match node.what {
        What::Known(definition) => node.component(definition, scope, host),
        What::Argument => node.argument(arguments, scope),
        What::Export => node.export(scope),
        // What it declares may use something that changed.
        What::Declare => Ok(true),
        What::Import => import::evaluate(node, scope, host),
        What::Custom => custom::evaluate(node, (scope, env), host),
        What::Foreach => foreach::evaluate(node, (scope, env), host),
    }
}
