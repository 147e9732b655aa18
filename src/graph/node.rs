//! Turns one block, with the names in sight, into what it asks for and what it exports.
//!
//! # Invariants
//! - What a block asked for when it last could be read stays, with its exports, while a new text of it
//!   cannot be read.
//! - A receiver's export is the same value as long as the node is there, so that what stands before it
//!   is not touched when it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::{Block, Body, Diagnostics, Object, Scope, Value};

use super::Host;
use super::foreach::Foreach;
use super::health::{Health, HealthState};
use super::import::Import;
use super::module::Module;
use super::sketch::{Item, What, at_header};
use super::watch::{Files, Saw, Seen, Watch};
use crate::component::{Content, Definition, MetricsReceiver, Role, discovery};
use crate::discovery::Stats;
use crate::exporter::unix::{Exporter, Options};

/// A block in the graph.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) block: Arc<Block>,
    pub(crate) what: What,
    pub(crate) needs: BTreeSet<String>,
    pub(crate) exports: Object,
    /// How evaluating it went.
    pub(crate) evaluated: Health,
    /// How what it watches is.
    pub(crate) watched: Option<Health>,
    pub(crate) state: State,
    /// Its text changed, or something in it.
    pub(crate) is_due: bool,
    receiver: Arc<MetricsReceiver>,
}

/// What a node holds once it was evaluated.
#[derive(Debug)]
pub(crate) enum State {
    New,
    Component(Box<Live>),
    /// A custom component is a module of its own.
    Custom(Box<Module>),
    Foreach(Box<Foreach>),
    Import(Box<Import>),
    /// What was evaluated of an argument or export.
    Value,
}

/// A component that could be read.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) body: Body,
    pub(crate) role: Role,
    /// Looks for another text, or other targets.
    watch: Option<Watch>,
    /// What became of looking for targets.
    pub(crate) discovery: Option<Arc<Stats>>,
    /// Has metrics of its own.
    pub(crate) exporter: Option<Arc<Exporter>>,
}

impl Node {
    /// A node of the module `module` (`""`: the root) that was not evaluated yet.
    pub(crate) fn new(item: Item, module: &str) -> Self {
        let receiver = Arc::new(MetricsReceiver {
            id: within(module, &item.id),
        });
        let mut node = Self {
            block: item.block,
            what: item.what,
            needs: item.needs,
            exports: Object::new(),
            evaluated: Health::created(),
            watched: None,
            state: State::New,
            is_due: true,
            receiver,
        };
        node.export_receiver();
        node
    }

    /// Its id in the whole configuration.
    pub(crate) fn id(&self) -> &str {
        &self.receiver.id
    }

    /// Exported even before it could be read: what refers to it is not at fault.
    fn export_receiver(&mut self) {
        if let What::Known(definition) = self.what
            && definition.exports.iter().any(|one| one.name == "receiver")
        {
            let capsule = config::Capsule::new("MetricsReceiver", self.receiver.clone());
            self.exports.insert("receiver".to_owned(), capsule.into());
        }
    }

    /// Takes over a new text.
    pub(crate) fn replace(&mut self, item: Item) {
        self.block = item.block;
        self.needs = item.needs;
        self.is_due = true;
        if std::mem::discriminant(&self.what) != std::mem::discriminant(&item.what) {
            self.state = State::New;
            self.exports = Object::new();
            self.evaluated = Health::created();
            self.watched = None;
        }
        self.what = item.what;
        self.export_receiver();
    }

    /// Whether it was ever evaluated without a mistake.
    pub(crate) fn is_built(&self) -> bool {
        !matches!(self.state, State::New) || matches!(self.what, What::Declare)
    }

    /// How it is.
    pub(crate) fn health(&self) -> Health {
        match &self.watched {
            Some(watched) => self.evaluated.clone().worse(watched.clone()),
            None => self.evaluated.clone(),
        }
    }

    /// The ids of the modules it made.
    pub(crate) fn modules(&self) -> Vec<String> {
        match &self.state {
            State::Custom(module) => vec![module.id.clone()],
            State::Foreach(foreach) => foreach.modules.values().map(|one| one.id.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Notes how an evaluation went.
    pub(crate) fn note(&mut self, went: &Result<bool, Diagnostics>) {
        self.evaluated = match went {
            Ok(_) => Health::now(HealthState::Healthy, "component evaluated"),
            Err(found) => {
                let message = format!("component evaluation failed: {found}");
                Health::now(HealthState::Unhealthy, message)
            }
        };
    }

    /// Evaluates a component; whether its exports changed.
    pub(crate) fn component(
        &mut self,
        definition: &Definition,
        scope: &Scope,
        host: &Host,
    ) -> Result<bool, Diagnostics> {
        let (role, body) = config::decode_recorded(&self.block, scope, definition.read)?;
        if matches!(&self.state, State::Component(live) if live.body == body) {
            return Ok(false);
        }
        let mut exports = role.exports(&self.receiver, &host.facts);
        let (mut watch, mut stats) = (None, None);
        if let Role::Content(content) = &role {
            let (files, watching) = self.look(content, host)?;
            exports.insert("content".to_owned(), content.export(&files));
            watch = Some(watching);
            self.watched = None;
        }
        if let Role::Discovery(discovery) = &role {
            let going_on = self
                .discovery()
                .unwrap_or_else(|| Arc::new(Stats::new(self.id(), discovery.place.mechanism())));
            watch = Some(host.discover(self.id(), discovery, &going_on));
            stats = Some(going_on);
            // What was found last stays until something is found.
            let found = self.exports.get(discovery::TARGETS).cloned();
            let found = found.unwrap_or_else(discovery::nothing);
            exports.insert(discovery::TARGETS.to_owned(), found);
        }
        let exporter = match &role {
            Role::ExporterUnix(options) => {
                Some(Arc::new(Exporter::new(self.id(), Options::clone(options))))
            }
            _ => None,
        };
        self.state = State::Component(Box::new(Live {
            body,
            role,
            watch,
            discovery: stats,
            exporter,
        }));
        let is_changed = exports != self.exports;
        self.exports = exports;
        Ok(is_changed)
    }

    /// What became of looking for targets so far.
    fn discovery(&self) -> Option<Arc<Stats>> {
        match &self.state {
            State::Component(live) => live.discovery.clone(),
            _ => None,
        }
    }

    /// What is there now, and a watch on it.
    fn look(&self, content: &Content, host: &Host) -> Result<(Files, Watch), Diagnostics> {
        let files = host.fetch(self.id(), &content.fetch).map_err(|problem| {
            at_header(&self.block, format!("Failed to build component: {problem}"))
        })?;
        let watch = host.watch(self.id(), content, &files);
        Ok((files, watch))
    }

    /// What it watches has another text, or cannot be read; whether its exports changed.
    pub(crate) fn watched(&mut self, seen: Seen) -> bool {
        let watch = match &self.state {
            State::Component(live) => live.watch.as_ref(),
            State::Import(import) => import.watch.as_ref(),
            _ => None,
        };
        if !watch.is_some_and(|watch| watch.saw(&seen)) {
            return false;
        }
        match seen.what {
            Saw::Targets(targets) => {
                let name = discovery::TARGETS.to_owned();
                let before = self.exports.insert(name, targets.clone());
                before != Some(targets)
            }
            Saw::Files(Err(problem)) => {
                self.watched = Some(Health::now(HealthState::Unhealthy, problem));
                false
            }
            Saw::Files(Ok(files)) => {
                self.watched = None;
                match &mut self.state {
                    State::Component(live) => match &live.role {
                        Role::Content(content) => {
                            let value = content.export(&files);
                            let before = self.exports.insert("content".to_owned(), value.clone());
                            before != Some(value)
                        }
                        _ => false,
                    },
                    State::Import(import) => {
                        import.note(files);
                        self.is_due = true;
                        false
                    }
                    _ => false,
                }
            }
        }
    }

    /// The value of an `argument`: what the module was given, or its default.
    pub(crate) fn argument(&mut self, given: &Object, scope: &Scope) -> Result<bool, Diagnostics> {
        let declared = Argument::read(&self.block, scope)?;
        let name = self.block.label().unwrap_or_default();
        let value = given.get(name).cloned().unwrap_or(declared.default);
        let exports = Object::from([("value".to_owned(), value)]);
        let is_changed = exports != self.exports || matches!(self.state, State::New);
        self.exports = exports;
        self.state = State::Value;
        Ok(is_changed)
    }

    /// The value of an `export`.
    pub(crate) fn export(&mut self, scope: &Scope) -> Result<bool, Diagnostics> {
        let value: Value = config::decode(&self.block, scope, |r| r.required("value"))?;
        let exports = Object::from([("value".to_owned(), value)]);
        let is_changed = exports != self.exports || matches!(self.state, State::New);
        self.exports = exports;
        self.state = State::Value;
        Ok(is_changed)
    }
}

/// What an `argument` block says.
#[derive(Debug)]
pub(crate) struct Argument {
    pub(crate) is_optional: bool,
    default: Value,
}

impl Argument {
    pub(crate) fn read(block: &Block, scope: &Scope) -> Result<Self, Diagnostics> {
        config::decode(block, scope, |r| {
            r.or("comment", String::new());
            Self {
                is_optional: r.or("optional", false),
                default: r.or("default", Value::Null),
            }
        })
    }
}

/// The id of a node of a module in the whole configuration.
pub(crate) fn within(module: &str, id: &str) -> String {
    if module.is_empty() {
        id.to_owned()
    } else {
        format!("{module}/{id}")
    }
}
