//! Turns a block whose name was declared into a module with the arguments of the block.
//!
//! # Failure
//! - An argument that is missing, or that the declaration does not have, is a diagnostic at the block; the
//!   module goes on with what it was given before.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Block, Diagnostic, Diagnostics, Object, Scope, Statement};

use super::Host;
use super::env::{Declared, Env};
use super::module::{Given, Module};
use super::node::{Argument, Node, State};
use super::sketch::{Place, at_header, blocks_of, unknown};

/// Evaluates the node; whether its exports changed.
pub(super) fn evaluate(
    node: &mut Node,
    (scope, env): (&Scope, &Arc<Env>),
    host: &Host,
) -> Result<bool, Diagnostics> {
    let name = &node.block.name.name;
    let Some(declared) = env.find(name) else {
        let message = unknown(name, env);
        return Err(at_header(&node.block, message).into());
    };
    let arguments = read_arguments(&node.block, &declared, scope)?;
    let blocks: Vec<Arc<Block>> = blocks_of(&declared.block).cloned().map(Arc::new).collect();
    let given = Given {
        around: declared.env,
        module_path: declared.module_path,
        base: Scope::new(),
        arguments,
        blocks: &blocks,
    };
    let id = node.id().to_owned();
    if !matches!(node.state, State::Custom(_)) {
        let mut module = Box::new(Module::new(id, Place::Module));
        module.load(given)?;
        node.state = State::Custom(module);
    } else if let State::Custom(module) = &mut node.state {
        module.load(given)?;
    }
    let State::Custom(module) = &mut node.state else {
        return Ok(false);
    };
    let mut diagnostics = Diagnostics::new();
    module.evaluate(host, &mut diagnostics);
    let exports = module.exports();
    let is_changed = exports != node.exports;
    node.exports = exports;
    if diagnostics.is_empty() {
        Ok(is_changed)
    } else {
        Err(diagnostics)
    }
}

/// The values of the block's attributes, checked against the arguments that are declared.
fn read_arguments(
    block: &Block,
    declared: &Declared,
    scope: &Scope,
) -> Result<Object, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let mut expected: BTreeMap<&str, bool> = BTreeMap::new();
    for argument in blocks_of(&declared.block).filter(|inner| inner.name.name == "argument") {
        match Argument::read(argument, &Scope::new()) {
            Ok(read) => {
                expected.insert(argument.label().unwrap_or_default(), read.is_optional);
            }
            Err(found) => diagnostics.extend(found),
        }
    }
    let mut values = Object::new();
    for statement in &block.body {
        let mut refuse = |span, message: String| {
            diagnostics.push(Diagnostic::error(&block.source, span, message));
        };
        match statement {
            Statement::Attribute(attribute) => {
                let name = &attribute.name.name;
                if !expected.contains_key(name.as_str()) {
                    let message =
                        format!("Provided argument {name:?} is not defined in the module");
                    refuse(attribute.span(), message);
                } else if values.contains_key(name) {
                    let message = format!("attribute {name:?} may only be provided once");
                    refuse(attribute.span(), message);
                } else {
                    match config::evaluate(&attribute.value, scope, &block.source) {
                        Ok(value) => {
                            values.insert(name.clone(), value);
                        }
                        Err(found) => diagnostics.push(found),
                    }
                }
            }
            Statement::Block(inner) => {
                let message = format!("unrecognized block name {:?}", inner.name.name);
                refuse(inner.span, message);
            }
        }
    }
    for (name, is_optional) in expected {
        let is_given = block.body.iter().any(
            |statement| matches!(statement, Statement::Attribute(one) if one.name.name == name),
        );
        if !is_optional && !is_given {
            let message = format!("missing required argument {name:?} to module");
            diagnostics.push(at_header(block, message));
        }
    }
    if diagnostics.is_empty() {
        Ok(values)
    } else {
        Err(diagnostics)
    }
}
