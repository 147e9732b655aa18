//! Turns a configuration into components that are evaluated in order, and again where something changes.
//!
//! | file | turns |
//! |---|---|
//! | `sketch` | the blocks of a body into nodes, edges and an order; or cycles and unknown names |
//! | `module` | a body into nodes that are evaluated; and again what is due |
//! | `node` | one block into what it asks for and exports |
//! | `custom`, `foreach`, `import`, `env` | blocks that stand for others into modules |
//! | `check` | a configuration into what its text alone shows to be wrong |
//! | `watch`, `git` | places outside into texts, or into targets |
//! | `health` | what happened to a component into a state |
//!
//! # Invariants
//! - A configuration that does not hang together changes nothing.
//! - A component that cannot be evaluated stays as it was.
//! - It starts nothing but looks at places outside: what a component asks for is done by the agent.
//!
//! # Threads
//! - One thread has the graph. Looking at places outside happens on a runtime that another thread drives.

mod check;
mod custom;
mod env;
mod foreach;
mod git;
mod health;
mod import;
mod module;
mod node;
mod sketch;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use config::{Block, Diagnostics, File, Scope};

use crate::component::{Content, Facts, Fetch, Role};
use crate::discovery::{Discovery, Stats};

pub(crate) use check::check;
pub(crate) use health::{Health, HealthState, unix_ms};
pub(crate) use module::Module;
pub(crate) use node::{Node, State, within};
pub(crate) use sketch::What;
pub(crate) use watch::{Files, Saw, Seen, Watch, Watcher, files};

use module::Given;
use sketch::{Place, at_header};

/// How sure one must be of what is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, clap::ValueEnum)]
pub(crate) enum Stability {
    Experimental,
    PublicPreview,
    #[default]
    GenerallyAvailable,
}

impl Stability {
    /// Refuses what is experimental unless it was asked for.
    fn needs_experimental(self, block: &Block, what: &str) -> Result<(), Diagnostics> {
        if self == Self::Experimental {
            return Ok(());
        }
        let message = format!(
            "{what} is at stability level \"experimental\", which is below the minimum allowed \
             stability level; use --stability.level=experimental to enable it"
        );
        Err(at_header(block, message).into())
    }
}

/// What nodes need of the agent.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) facts: Facts,
    pub(crate) stability: Stability,
    pub(crate) watcher: Watcher,
}

impl Host {
    fn fetch(&self, id: &str, fetch: &Fetch) -> Result<Files, String> {
        self.watcher.fetch(id, fetch)
    }

    fn watch(&self, id: &str, content: &Content, now: &Files) -> Watch {
        self.watcher.watch(id, content, now)
    }

    fn discover(&self, id: &str, discovery: &Discovery, stats: &Arc<Stats>) -> Watch {
        self.watcher.discover(id, discovery, stats)
    }

    /// What `module_path` is in a module from there.
    fn module_path(&self, id: &str, fetch: &Fetch) -> String {
        let parent = |path: &std::path::Path| path.parent().unwrap_or(path).display().to_string();
        match fetch {
            Fetch::Module(path) if path.is_dir() => path.display().to_string(),
            Fetch::File(path) | Fetch::Module(path) => parent(path),
            Fetch::Http(http) => {
                let url = http.url.rsplit_once('/');
                url.map_or_else(String::new, |(before, _)| before.to_owned())
            }
            Fetch::Git(_) => self.watcher.copy_of(id).display().to_string(),
        }
    }

    fn needs_experimental(&self, block: &Block, what: &str) -> Result<(), Diagnostics> {
        self.stability.needs_experimental(block, what)
    }
}

/// The components of a configuration.
#[derive(Debug)]
pub(crate) struct Graph {
    root: Module,
    host: Host,
}

/// A component that the agent has something to do for.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Its id in the whole configuration.
    pub(crate) id: String,
    pub(crate) role: &'a Role,
    /// What it was made of: equal as long as it need not be made anew.
    pub(crate) body: &'a config::Body,
}

impl Graph {
    /// An empty one.
    pub(crate) fn new(host: Host) -> Self {
        Self {
            root: Module::new(String::new(), Place::Root),
            host,
        }
    }

    /// Takes over the files of a configuration and evaluates everything.
    ///
    /// # Errors
    /// They do not hang together; nothing has changed.
    ///
    /// # Returns
    /// What is wrong with single components, which are as they were.
    pub(crate) fn load(
        &mut self,
        files: Vec<File>,
        module_path: String,
    ) -> Result<Diagnostics, Diagnostics> {
        let blocks = files.into_iter().flat_map(|file| file.blocks);
        let blocks: Vec<Arc<Block>> = blocks.map(Arc::new).collect();
        self.root.load(Given {
            around: Arc::default(),
            module_path,
            base: Scope::new(),
            arguments: config::Object::new(),
            blocks: &blocks,
        })?;
        Ok(self.evaluate())
    }

    fn evaluate(&mut self) -> Diagnostics {
        let mut diagnostics = Diagnostics::new();
        self.root.evaluate(&self.host, &mut diagnostics);
        diagnostics
    }

    /// Something that is watched changed: evaluates what refers to it.
    pub(crate) fn seen(&mut self, seen: Seen) -> Diagnostics {
        let id = seen.id.clone();
        if self.root.watched(&id, seen) {
            self.evaluate()
        } else {
            Diagnostics::new()
        }
    }

    /// Everything the agent has to do.
    pub(crate) fn asked(&self) -> Vec<Asked<'_>> {
        let mut asked = Vec::new();
        self.visit(&mut |_, _, node| {
            if let State::Component(live) = &node.state {
                asked.push(Asked {
                    id: node.id().to_owned(),
                    role: &live.role,
                    body: &live.body,
                });
            }
        });
        asked
    }

    /// What became of looking for targets, by component, as they are written.
    pub(crate) fn discoveries(&self) -> Vec<Arc<Stats>> {
        let mut all = Vec::new();
        self.visit(&mut |_, _, node| {
            if let State::Component(live) = &node.state {
                all.extend(live.discovery.clone());
            }
        });
        all
    }

    /// Every node, with its module and its id there.
    pub(crate) fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Module, &'a str, &'a Node)) {
        self.root.visit(see);
    }
}
