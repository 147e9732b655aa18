//! Turns an `import.*` block into the custom components that what it brings declares.
//!
//! # Failure
//! - What cannot be had the first time is a diagnostic. What cannot be had, or read, later makes the node
//!   unhealthy; what it brought last stays in sight.

use std::sync::Arc;

use config::{Block, Body, BodyReader, Diagnostics, OptionalSecret, Scope};

use super::Host;
use super::env::Env;
use super::module::{Given, Module};
use super::node::{Node, State};
use super::sketch::{Place, at_header};
use super::watch::{Files, Watch};
use crate::component::{Content, read_import_file, read_import_git, read_import_http};

/// What an import brought.
#[derive(Debug)]
pub(crate) struct Import {
    /// What others see.
    pub(crate) env: Arc<Env>,
    /// The imports in it.
    pub(crate) module: Module,
    body: Body,
    /// The files as they are now; not read yet if they differ from those read last.
    files: Files,
    read: Option<Files>,
    module_path: String,
    /// Looks for another text.
    pub(super) watch: Option<Watch>,
}

impl Import {
    /// Notes other files.
    pub(super) fn note(&mut self, files: Files) {
        self.files = files;
    }
}

/// Where the text is.
pub(super) enum Where {
    Here(String),
    There(Content),
}

/// What reads the arguments of an import.
pub(super) fn reader(name: &str) -> impl FnOnce(&mut BodyReader<'_>) -> Where + use<'_> {
    move |r| match name {
        "import.file" => Where::There(read_import_file(r)),
        "import.http" => Where::There(read_import_http(r)),
        "import.git" => Where::There(read_import_git(r)),
        _ => {
            let content: OptionalSecret = r.required("content");
            Where::Here(content.expose().to_owned())
        }
    }
}

/// Evaluates the node; whether it brought something else.
pub(super) fn evaluate(node: &mut Node, scope: &Scope, host: &Host) -> Result<bool, Diagnostics> {
    let name = node.block.name.name.clone();
    let (found, body) = config::decode_recorded(&node.block, scope, reader(&name))?;
    if !matches!(&node.state, State::Import(import) if import.body == body) {
        let import = fetch(node, found, body, scope, host)?;
        node.state = State::Import(Box::new(import));
        node.watched = None;
    }
    let State::Import(import) = &mut node.state else {
        return Ok(false);
    };
    let went = read(import, host);
    if went.is_err() && import.read.is_none() {
        node.state = State::New;
    }
    went
}

/// Reads the files if there are others, and what they import.
fn read(import: &mut Import, host: &Host) -> Result<bool, Diagnostics> {
    let mut is_changed = false;
    if import.read.as_ref() != Some(&import.files) {
        let blocks = parse(&import.files)?;
        import.module.load(Given {
            around: Arc::default(),
            module_path: import.module_path.clone(),
            base: Scope::new(),
            arguments: config::Object::new(),
            blocks: &blocks,
        })?;
        import.read = Some(import.files.clone());
        is_changed = true;
    }
    let mut diagnostics = Diagnostics::new();
    is_changed |= !import.module.evaluate(host, &mut diagnostics).is_empty();
    if is_changed {
        import.env = import.module.env();
    }
    if diagnostics.is_empty() {
        Ok(is_changed)
    } else {
        Err(diagnostics)
    }
}

/// Has the text for the first time.
fn fetch(
    node: &Node,
    found: Where,
    body: Body,
    scope: &Scope,
    host: &Host,
) -> Result<Import, Diagnostics> {
    let here = match scope.get("module_path") {
        Some(config::Value::String(path)) => path,
        _ => String::new(),
    };
    let (files, module_path, watch) = match found {
        Where::Here(text) => (vec![(node.id().to_owned(), text)], here, None),
        Where::There(content) => {
            let files = host.fetch(node.id(), &content.fetch).map_err(|problem| {
                at_header(&node.block, format!("Failed to build component: {problem}"))
            })?;
            let watch = host.watch(node.id(), &content, &files);
            (
                files,
                host.module_path(node.id(), &content.fetch),
                Some(watch),
            )
        }
    };
    Ok(Import {
        env: Arc::default(),
        module: Module::new(node.id().to_owned(), Place::Imported),
        body,
        files,
        read: None,
        module_path,
        watch,
    })
}

fn parse(files: &Files) -> Result<Vec<Arc<Block>>, Diagnostics> {
    let mut blocks = Vec::new();
    for (name, text) in files {
        let file = config::parse(name, text)?;
        blocks.extend(file.blocks.into_iter().map(Arc::new));
    }
    Ok(blocks)
}
