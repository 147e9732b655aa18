//! Turns a `foreach` block into one module for each item of its collection.
//!
//! # Invariants
//! - An item is known by its key: what it makes stays while the key does, wherever in the collection it is.
//!
//! # Limits
//! - [`ITEMS_MAX`] items.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use config::{Block, BodyReader, Diagnostics, Object, Scope, Value};

use super::Host;
use super::env::Env;
use super::module::{Given, Module};
use super::node::{Node, State, within};
use super::sketch::{Place, at_header, blocks_of};
use super::watch::Seen;

/// More items are most likely a mistake, and each is a pipeline of its own.
const ITEMS_MAX: usize = 10_000;

/// The modules of the items, by their keys.
#[derive(Default, Debug)]
pub(crate) struct Foreach {
    pub(crate) modules: BTreeMap<String, Module>,
}

impl Foreach {
    /// As [`Module::watched`].
    pub(super) fn watched(&mut self, id: &str, seen: Seen) -> bool {
        let Some((key, rest)) = id.split_once('/') else {
            return false;
        };
        let module = self.modules.get_mut(key);
        module.is_some_and(|module| module.watched(rest, seen))
    }
}

/// What a `foreach` block says.
pub(super) struct Arguments {
    collection: Vec<Value>,
    variable: String,
    id: String,
    hash_string_id: bool,
}

/// Evaluates the node. It exports nothing.
pub(super) fn evaluate(
    node: &mut Node,
    (scope, env): (&Scope, &Arc<Env>),
    host: &Host,
) -> Result<bool, Diagnostics> {
    host.needs_experimental(&node.block, "foreach")?;
    let arguments = read(&node.block, scope)?;
    let Some(template) = template(&node.block) else {
        return Err(at_header(&node.block, NO_TEMPLATE).into());
    };
    let blocks: Vec<Arc<Block>> = blocks_of(template).cloned().map(Arc::new).collect();
    let parent = node.id().to_owned();
    let mut before = match std::mem::replace(&mut node.state, State::New) {
        State::Foreach(foreach) => foreach.modules,
        _ => BTreeMap::new(),
    };
    let mut foreach = Foreach::default();
    let mut diagnostics = Diagnostics::new();
    for (key, item) in keyed(&arguments) {
        let mut base = scope.clone();
        base.set(&arguments.variable, item);
        let module = before.remove(&key);
        let mut module =
            module.unwrap_or_else(|| Module::new(within(&parent, &key), Place::Template));
        let loaded = module.load(Given {
            around: env.clone(),
            module_path: env.module_path.clone(),
            base,
            arguments: Object::new(),
            blocks: &blocks,
        });
        match loaded {
            Ok(()) => {
                module.evaluate(host, &mut diagnostics);
            }
            // The same for every item.
            Err(found) if diagnostics.is_empty() => diagnostics.extend(found),
            Err(_) => {}
        }
        foreach.modules.insert(key, module);
    }
    node.state = State::Foreach(Box::new(foreach));
    if diagnostics.is_empty() {
        Ok(false)
    } else {
        Err(diagnostics)
    }
}

fn read(block: &Block, scope: &Scope) -> Result<Arguments, Diagnostics> {
    config::decode(&without_template(block), scope, arguments)
}

pub(super) const NO_TEMPLATE: &str = "missing required block \"template\"";

pub(super) fn template(block: &Block) -> Option<&Block> {
    blocks_of(block).find(|inner| inner.name.name == "template")
}

/// The block without its template, which is a body of its own.
pub(super) fn without_template(block: &Block) -> Block {
    let mut own = block.clone();
    own.body.retain(
        |statement| !matches!(statement, config::Statement::Block(inner) if inner.name.name == "template"),
    );
    own
}

pub(super) fn arguments(r: &mut BodyReader<'_>) -> Arguments {
    let arguments = Arguments {
        collection: r.required("collection"),
        variable: r.required("var"),
        id: r.or("id", String::new()),
        hash_string_id: r.or("hash_string_id", false),
    };
    r.or("enable_metrics", false);
    if arguments.collection.len() > ITEMS_MAX {
        r.refuse("collection", format!("has more than {ITEMS_MAX} items"));
    }
    arguments
}

/// Every item with its key, which is unique.
fn keyed(arguments: &Arguments) -> Vec<(String, Value)> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut keyed = Vec::new();
    for item in &arguments.collection {
        let identity = item
            .as_object()
            .and_then(|object| object.get(&arguments.id));
        let key = match identity.unwrap_or(item) {
            Value::String(text) if arguments.hash_string_id => digest(text),
            Value::String(text) => text
                .chars()
                .map(|c| if c.is_alphanumeric() { c } else { '_' })
                .collect(),
            Value::Int(number) => number.to_string(),
            Value::Uint(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Float(number) => format!("{number:.6}").replace('.', "_"),
            other => digest(&format!("{other:?}")),
        };
        let count = seen.entry(key.clone()).or_default();
        *count += 1;
        keyed.push((format!("foreach_{key}_{count}"), item.clone()));
    }
    keyed
}

/// The first half of the SHA-256, in hexadecimal.
fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let half = digest.as_ref().iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect()
}
