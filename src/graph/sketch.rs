//! Turns the blocks of a body into nodes, what each needs of the others, and the order to look at them.
//!
//! Nothing is evaluated here: this is all that can be known from the text.
//!
//! # Failure
//! Every unknown name, missing label, name used twice, reference into nothing and cycle is a diagnostic
//! with its place; one look finds all of a kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::{Block, Diagnostic, Diagnostics, Reference, Scope, Statement, Target};
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use super::env::Env;
use crate::component::{self, DEFINITIONS, Definition, Kind};

/// Where a body stands: what it may hold depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The files given to the agent.
    Root,
    /// The body of a `declare`.
    Module,
    /// The `template` of a `foreach`.
    Template,
    /// What an import brought.
    Imported,
}

/// What a block is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Known(&'static Definition),
    Declare,
    Import,
    Foreach,
    Argument,
    Export,
    /// A component that is declared somewhere in sight.
    Custom,
}

/// One block.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) block: Arc<Block>,
    pub(crate) what: What,
    /// Ids in the same body.
    pub(crate) needs: BTreeSet<String>,
}

/// A body that hangs together.
#[derive(Debug)]
pub(crate) struct Sketch {
    /// Dependencies first.
    pub(crate) items: Vec<Item>,
}

/// What a body can refer to outside itself.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) place: Place,
    pub(crate) env: &'a Env,
    /// Variables and the standard library.
    pub(crate) scope: &'a Scope,
    /// Nodes around a template, which its references may mean.
    pub(crate) nodes: &'a dyn Fn(&str) -> bool,
}

impl Sketch {
    /// Looks at the blocks of a body.
    pub(crate) fn new(blocks: &[Arc<Block>], around: Around<'_>) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let local = Local::new(blocks);
        let mut items: Vec<Item> = Vec::new();
        let mut first: BTreeMap<String, &Block> = BTreeMap::new();
        for block in blocks {
            let what = match classify(block, around, &local) {
                Ok(what) => what,
                Err(message) => {
                    diagnostics.push(at_header(block, message));
                    continue;
                }
            };
            let id = block.id();
            if let Some(message) = first.get(&id).map(|first| twice(block, first, what)) {
                diagnostics.push(at_header(block, message));
                continue;
            }
            first.insert(id.clone(), block);
            items.push(Item {
                id,
                block: block.clone(),
                what,
                needs: BTreeSet::new(),
            });
        }
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        let ids: BTreeSet<String> = items.iter().map(|item| item.id.clone()).collect();
        for item in &mut items {
            item.needs = local.uses(&item.block, item.what);
            let found = needs(item, &ids, around);
            item.needs.extend(found.0);
            diagnostics.extend(found.1);
        }
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        in_order(items).map(|items| Self { items })
    }
}

/// The custom components that a body brings itself.
struct Local {
    declares: BTreeSet<String>,
    /// Label to id.
    imports: BTreeMap<String, String>,
}

impl Local {
    fn new(blocks: &[Arc<Block>]) -> Self {
        let labels = |is: fn(&str) -> bool| {
            let some = blocks.iter().filter(move |block| is(&block.name.name));
            some.filter_map(|block| Some((block.label()?.to_owned(), block.id())))
        };
        Self {
            declares: labels(|name| name == "declare").map(|one| one.0).collect(),
            imports: labels(|name| name.starts_with("import.")).collect(),
        }
    }

    /// The node that makes a name a custom component.
    fn source(&self, name: &str) -> Option<String> {
        if self.declares.contains(name) {
            return Some(format!("declare.{name}"));
        }
        let (label, _) = name.split_once('.')?;
        self.imports.get(label).cloned()
    }

    /// The nodes that make what is used in a block custom components.
    fn uses(&self, block: &Block, what: What) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        match what {
            What::Custom => found.extend(self.source(&block.name.name)),
            What::Declare | What::Foreach => self.uses_inside(block, &mut found),
            _ => {}
        }
        found
    }

    fn uses_inside(&self, block: &Block, found: &mut BTreeSet<String>) {
        for inner in blocks_of(block) {
            found.extend(self.source(&inner.name.name));
            self.uses_inside(inner, found);
        }
    }
}

/// The blocks in the body of one.
pub(crate) fn blocks_of(block: &Block) -> impl Iterator<Item = &Block> {
    block.body.iter().filter_map(|statement| match statement {
        Statement::Block(block) => Some(block),
        Statement::Attribute(_) => None,
    })
}

pub(crate) fn at_header(block: &Block, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(&block.source, block.header, message)
}

/// The kinds of import.
pub(crate) const IMPORTS: [&str; 4] = ["import.file", "import.git", "import.http", "import.string"];

impl What {
    /// By its name, where the custom components in sight are known; none: there is no such thing.
    pub(crate) fn of(block: &Block, is_custom: impl FnOnce(&str) -> bool) -> Option<Self> {
        Some(match block.name.name.as_str() {
            "declare" => Self::Declare,
            "foreach" => Self::Foreach,
            "argument" => Self::Argument,
            "export" => Self::Export,
            name if IMPORTS.contains(&name) => Self::Import,
            name if is_custom(name) => Self::Custom,
            name => Self::Known(component::definition(name)?),
        })
    }
}

fn classify(block: &Block, around: Around<'_>, local: &Local) -> Result<What, String> {
    let name = block.name.name.as_str();
    let is_custom = |name: &str| local.source(name).is_some() || around.env.has(name);
    let what = What::of(block, is_custom).ok_or_else(|| unknown(name, around.env))?;
    allowed(name, what, around.place)?;
    let is_labelled = block.label().is_some();
    match what {
        What::Known(known) if known.kind != Kind::Component => {
            let problem = format!("block {name:?} does not support specifying labels");
            return if is_labelled { Err(problem) } else { Ok(what) };
        }
        What::Known(_) | What::Custom => {
            let problem = format!("component {name:?} must have a label");
            return if is_labelled { Ok(what) } else { Err(problem) };
        }
        _ if !is_labelled => return Err(format!("{name} block must have a label")),
        What::Declare if block.label() == Some("declare") => {
            return Err("'declare' is not a valid label for a declare block".to_owned());
        }
        _ => {}
    }
    Ok(what)
}

fn allowed(name: &str, what: What, place: Place) -> Result<(), String> {
    let no = |message: String| Err(message);
    match (place, what) {
        (Place::Imported, What::Declare | What::Import) => Ok(()),
        (Place::Imported, _) => no(format!(
            "only declare and import blocks are allowed in a module, got {name}"
        )),
        (Place::Root, What::Argument | What::Export) => {
            no(format!("{name} blocks only allowed inside a module"))
        }
        (Place::Template, What::Argument | What::Export | What::Declare | What::Import) => {
            no(format!("{name} not allowed in foreach"))
        }
        (Place::Module | Place::Template, What::Known(known)) => match known.kind {
            Kind::Component => Ok(()),
            Kind::Setting => no(format!("{name} block not allowed inside a module")),
            Kind::Service => no(format!(
                "service blocks not allowed inside a module: {name:?}"
            )),
        },
        _ => Ok(()),
    }
}

pub(super) fn unknown(name: &str, env: &Env) -> String {
    let custom = env.names();
    let known = DEFINITIONS.iter().map(|one| one.name);
    let known = known.chain(["declare", "foreach"]).chain(IMPORTS);
    let instead = component::instead(name, known.chain(custom.iter().map(String::as_str)));
    format!("cannot find the definition of component name {name:?}; {instead}")
}

fn twice(block: &Block, first: &Block, what: What) -> String {
    if let What::Known(Definition {
        kind: Kind::Service,
        name,
        ..
    }) = what
    {
        return format!("duplicate definition of {name:?}");
    }
    let place = at_header(first, "").pos();
    let file = first.source.name();
    format!("block {} already declared at {file}:{place}", block.id())
}

/// The nodes a block refers to; diagnostics about what does not exist.
fn needs(
    item: &Item,
    ids: &BTreeSet<String>,
    around: Around<'_>,
) -> (BTreeSet<String>, Diagnostics) {
    let (mut found, mut diagnostics) = (BTreeSet::new(), Diagnostics::new());
    if matches!(item.what, What::Declare) {
        // What is inside sees only what is inside.
        return (found, diagnostics);
    }
    let inner = Inner::new(item);
    for reference in config::references(&item.block) {
        if inner.means(&reference) {
            continue;
        }
        match reference.resolve(around.scope, |id| ids.contains(id)) {
            Ok(Target::Node(id)) => {
                found.insert(id);
            }
            Ok(Target::Scope) => {}
            Err(diagnostic) => {
                let elsewhere = reference.resolve(around.scope, around.nodes);
                if elsewhere.is_err() {
                    diagnostics.push(diagnostic);
                }
            }
        }
    }
    (found, diagnostics)
}

/// The names that only the template of a `foreach` knows.
struct Inner {
    variable: Option<String>,
    ids: BTreeSet<String>,
}

impl Inner {
    fn new(item: &Item) -> Self {
        let (mut variable, mut ids) = (None, BTreeSet::new());
        if matches!(item.what, What::Foreach) {
            variable = variable_of(&item.block);
            for template in blocks_of(&item.block).filter(|b| b.name.name == "template") {
                ids.extend(blocks_of(template).map(Block::id));
            }
        }
        Self { variable, ids }
    }

    fn means(&self, reference: &Reference) -> bool {
        if reference.path.first() == self.variable.as_ref() && self.variable.is_some() {
            return true;
        }
        let inside = reference.resolve(&Scope::new(), |id| self.ids.contains(id));
        matches!(inside, Ok(Target::Node(_)))
    }
}

/// The name of the variable of a `foreach`, if it is written out.
pub(crate) fn variable_of(block: &Block) -> Option<String> {
    block.body.iter().find_map(|statement| match statement {
        Statement::Attribute(attribute) if attribute.name.name == "var" => {
            let value = config::evaluate(&attribute.value, &Scope::new(), &block.source).ok()?;
            match value {
                config::Value::String(name) => Some(name),
                _ => None,
            }
        }
        _ => None,
    })
}

/// Dependencies first; every cycle is named.
fn in_order(items: Vec<Item>) -> Result<Vec<Item>, Diagnostics> {
    let mut graph: DiGraph<usize, ()> = DiGraph::new();
    let nodes: BTreeMap<&str, _> = items
        .iter()
        .enumerate()
        .map(|(at, item)| (item.id.as_str(), graph.add_node(at)))
        .collect();
    let mut diagnostics = Diagnostics::new();
    for item in &items {
        let from = nodes.get(item.id.as_str());
        for (from, to) in item
            .needs
            .iter()
            .filter_map(|id| from.zip(nodes.get(id.as_str())))
        {
            if from == to {
                let message = format!("cannot reference self: {}", item.id);
                diagnostics.push(at_header(&item.block, message));
            }
            graph.add_edge(*from, *to, ());
        }
    }
    drop(nodes);
    let mut order: Vec<usize> = Vec::new();
    for group in tarjan_scc(&graph) {
        let mut group: Vec<usize> = group
            .iter()
            .filter_map(|at| graph.node_weight(*at))
            .copied()
            .collect();
        group.sort_unstable();
        if group.len() > 1 {
            let members: Vec<&Item> = group.iter().filter_map(|at| items.get(*at)).collect();
            let names: Vec<&str> = members.iter().map(|item| item.id.as_str()).collect();
            let message = format!("cycle detected: {}", names.join(", "));
            if let Some(item) = members.first() {
                diagnostics.push(at_header(&item.block, message));
            }
        }
        order.extend(group);
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    let take = |at: usize| items.get_mut(at).and_then(Option::take);
    Ok(order.into_iter().filter_map(take).collect())
}
