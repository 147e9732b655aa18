//! Turns a block's body into a component's arguments, one named thing at a time.
//!
//! A component asks for each attribute and block it knows and gets a value; what it never asks for is
//! unknown. Written this way, not with a deserializer, because positions and the difference between
//! an attribute and a block must survive.
//!
//! # Failure
//! Every problem of the block is recorded and reading goes on with zero values; [`decode`] returns
//! the arguments only if nothing was recorded.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::arguments::{Argument, Shown};
use crate::ast::{Attribute, Block, Statement};
use crate::diag::{Diagnostic, Diagnostics};
use crate::eval::{Scope, blame, evaluate};
use crate::from_value::{FromValue, convert};
use crate::source::{Source, Span};
use crate::value::ValueError;

/// Reads the body of a top-level block with `read`. Its label is left to the caller.
///
/// # Errors
/// Everything wrong with the block, in reading order.
pub fn decode<T>(
    block: &Block,
    scope: &Scope,
    read: impl FnOnce(&mut BodyReader<'_>) -> T,
) -> Result<T, Diagnostics> {
    let mut reader = BodyReader::new(block, scope);
    reader.label_read = true;
    let value = read(&mut reader);
    let shown = std::mem::take(&mut reader.shown).finish();
    let mut diagnostics = reader.finish();
    if diagnostics.is_empty() {
        if let Some(kept) = &scope.kept {
            kept.keep(block.id(), shown);
        }
        return Ok(value);
    }
    diagnostics.sort_by_position();
    Err(diagnostics)
}

/// The body of a block while a component reads it.
#[derive(Debug)]
pub struct BodyReader<'a> {
    block: &'a Block,
    scope: &'a Scope,
    attributes: BTreeSet<&'a str>,
    blocks: BTreeSet<&'a str>,
    label_read: bool,
    shown: Shown,
    diagnostics: Diagnostics,
}

impl<'a> BodyReader<'a> {
    fn new(block: &'a Block, scope: &'a Scope) -> Self {
        Self {
            block,
            scope,
            attributes: BTreeSet::new(),
            blocks: BTreeSet::new(),
            label_read: false,
            shown: Shown::default(),
            diagnostics: Diagnostics::new(),
        }
    }

    /// An attribute that must be there. Records its absence.
    pub fn required<T: FromValue>(&mut self, name: &'a str) -> T {
        match self.optional(name) {
            Some(value) => value,
            None => {
                if self.found_blocks(&[name]).next().is_none() {
                    self.missing(&format!("missing required attribute {name:?}"));
                }
                T::zero()
            }
        }
    }

    /// An attribute that may be absent; `null` gives the zero of its type.
    pub fn optional<T: FromValue>(&mut self, name: &'a str) -> Option<T> {
        self.attributes.insert(name);
        let attribute = self.find_attribute(name)?;
        Some(self.convert(attribute))
    }

    /// An attribute with a default for its absence; `null` gives the zero of its type.
    pub fn or<T: FromValue>(&mut self, name: &'a str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A block that may be there once.
    pub fn block<T>(
        &mut self,
        name: &'a str,
        read: impl FnOnce(&mut BodyReader<'_>) -> T,
    ) -> Option<T> {
        self.blocks.insert(name);
        let mut found = self.found_blocks(&[name]);
        let first = found.next()?;
        let message = format!("block {name:?} may only be specified once");
        for extra in found {
            self.record(extra.span, message.clone());
        }
        Some(self.read_block(first, read))
    }

    /// A block that must be there once. Records its absence and then gives nothing.
    pub fn required_block<T>(
        &mut self,
        name: &'a str,
        read: impl FnOnce(&mut BodyReader<'_>) -> T,
    ) -> Option<T> {
        let value = self.block(name, read);
        if value.is_none() && self.find_attribute(name).is_none() {
            self.missing(&format!("missing required block {name:?}"));
        }
        value
    }

    /// A block that may be repeated, in order.
    pub fn blocks<T>(
        &mut self,
        name: &'a str,
        mut read: impl FnMut(&mut BodyReader<'_>) -> T,
    ) -> Vec<T> {
        self.variants(&[name], |_, reader| read(reader))
    }

    /// Blocks of several names that make up one list, in order across the names.
    pub fn variants<T>(
        &mut self,
        names: &[&'a str],
        mut read: impl FnMut(&str, &mut BodyReader<'_>) -> T,
    ) -> Vec<T> {
        self.blocks.extend(names);
        let found: Vec<&Block> = self.found_blocks(names).collect();
        let read = |block: &'a Block| self.read_block(block, |r| read(&block.name.name, r));
        found.into_iter().map(read).collect()
    }

    /// The label of a nested block that must have one. Records its absence.
    pub fn label(&mut self) -> String {
        self.label_read = true;
        if let Some(label) = self.block.label() {
            return label.to_owned();
        }
        let message = format!("block {:?} requires non-empty label", self.block.name.name);
        self.record(self.block.header, message);
        String::new()
    }

    /// Whether an attribute of that name is given, `null` included.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.find_attribute(name).is_some()
    }

    /// Records that an attribute's value is of the right type but cannot be used. The message
    /// follows the text of the value, as in `"x" must be a URL`.
    pub fn refuse(&mut self, name: &str, message: impl Into<String>) {
        match self.find_attribute(name) {
            Some(attribute) => {
                let error = ValueError::new(message);
                let found = blame(&self.block.source, &attribute.value, &error);
                // What could not even be converted was reported; this is about its stand-in.
                if self
                    .diagnostics
                    .iter()
                    .all(|earlier| earlier.span != found.span)
                {
                    self.diagnostics.push(found);
                }
            }
            None => self.refuse_block(message),
        }
    }

    /// Records that the attributes and blocks do not go together.
    pub fn refuse_block(&mut self, message: impl Into<String>) {
        self.record(self.block.header, message);
    }

    /// The text being read, for diagnostics of the caller's own.
    pub fn source(&self) -> &Arc<Source> {
        &self.block.source
    }

    fn convert<T: FromValue>(&mut self, attribute: &Attribute) -> T {
        let source = &self.block.source;
        let result = evaluate(&attribute.value, self.scope, source).and_then(|value| {
            if self.scope.kept.is_some() {
                let (name, value) = (attribute.name.name.clone(), T::shown(&value));
                let argument = Argument::Attribute { name, value };
                self.shown.add(attribute.span(), argument);
            }
            convert(&value).map_err(|error| blame(source, &attribute.value, &error))
        });
        result.unwrap_or_else(|error| {
            self.diagnostics.push(error);
            T::zero()
        })
    }

    fn read_block<T>(&mut self, block: &Block, read: impl FnOnce(&mut BodyReader<'_>) -> T) -> T {
        let mut reader = BodyReader::new(block, self.scope);
        let value = read(&mut reader);
        let argument = Argument::Block {
            name: block.name.name.clone(),
            label: block.label().unwrap_or_default().to_owned(),
            body: std::mem::take(&mut reader.shown).finish(),
        };
        self.shown.add(block.span, argument);
        self.diagnostics.extend(reader.finish());
        value
    }

    /// Records what was written but never asked for, and what was written twice.
    fn finish(mut self) -> Diagnostics {
        if !self.label_read && self.block.label.is_some() {
            let name = &self.block.name.name;
            self.refuse_block(format!("block {name:?} does not support specifying labels"));
        }
        let mut seen = BTreeSet::new();
        for statement in &self.block.body {
            match statement {
                Statement::Attribute(attribute) => {
                    let name = attribute.name.name.as_str();
                    let complaint = if !seen.insert(name) {
                        format!("attribute {name:?} may only be provided once")
                    } else if self.attributes.contains(name) {
                        continue;
                    } else if self.blocks.contains(name) {
                        format!("{name:?} must be a block, but is used as an attribute")
                    } else {
                        format!("unrecognized attribute name {name:?}")
                    };
                    self.record(attribute.span(), complaint);
                }
                Statement::Block(block) => {
                    let name = block.name.name.as_str();
                    let complaint = if self.blocks.contains(name) {
                        continue;
                    } else if self.attributes.contains(name) {
                        format!("{name:?} must be an attribute, but is used as a block")
                    } else {
                        format!("unrecognized block name {name:?}")
                    };
                    self.record(block.span, complaint);
                }
            }
        }
        self.diagnostics
    }

    fn find_attribute(&self, name: &str) -> Option<&'a Attribute> {
        self.block
            .body
            .iter()
            .find_map(|statement| match statement {
                Statement::Attribute(attribute) if attribute.name.name == name => Some(attribute),
                _ => None,
            })
    }

    fn found_blocks(&self, names: &[&str]) -> impl Iterator<Item = &'a Block> + use<'a> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.block
            .body
            .iter()
            .filter_map(move |statement| match statement {
                Statement::Block(block) if names.contains(&block.name.name) => Some(block),
                _ => None,
            })
    }

    fn missing(&mut self, message: &str) {
        self.record(self.block.header, message);
    }

    fn record(&mut self, span: Span, message: impl Into<String>) {
        self.diagnostics
            .push(Diagnostic::error(&self.block.source, span, message));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::parser::parse;

    #[derive(Debug, PartialEq)]
    struct Arguments {
        url: String,
        timeout: Duration,
        headers: BTreeMap<String, String>,
        names: Option<Vec<String>>,
        queue: Queue,
        rules: Vec<String>,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Queue {
        capacity: u32,
    }

    fn queue(r: &mut BodyReader<'_>) -> Queue {
        Queue {
            capacity: r.or("capacity", 10_000),
        }
    }

    fn arguments(r: &mut BodyReader<'_>) -> Arguments {
        Arguments {
            url: r.required("url"),
            timeout: r.or("timeout", Duration::from_secs(30)),
            headers: r.or("headers", BTreeMap::new()),
            names: r.optional("names"),
            queue: r.block("queue", queue).unwrap_or_default(),
            rules: r.variants(&["rule", "stage.x"], |name, r| {
                format!("{name}:{}", r.label())
            }),
        }
    }

    fn read(body: &str) -> Result<Arguments, Vec<String>> {
        let file = parse("f", &format!("c \"l\" {{\n{body}\n}}")).unwrap();
        decode(&file.blocks[0], &Scope::new(), arguments).map_err(|all| {
            all.iter()
                .map(|d| format!("{}: {}", d.pos(), d.message))
                .collect()
        })
    }

    #[test]
    fn a_whole_body_is_read() {
        let body = "url = \"u\"\nnames = [\"a\"]\ntimeout = \"5s\"\nrule \"one\" {}\n\
                    stage.x \"two\" {}\nrule \"three\" {}\nqueue {\n capacity = 5\n}";
        let arguments = read(body).unwrap();
        assert_eq!(arguments.timeout, Duration::from_secs(5));
        assert_eq!(arguments.names, Some(vec!["a".to_owned()]));
        assert_eq!(arguments.queue, Queue { capacity: 5 });
        assert_eq!(arguments.rules, ["rule:one", "stage.x:two", "rule:three"]);
    }

    #[test]
    fn absent_takes_the_default_and_null_the_zero() {
        let arguments = read("url = null\ntimeout = null\nqueue {}").unwrap();
        assert_eq!(
            (arguments.url.as_str(), arguments.timeout),
            ("", Duration::ZERO)
        );
        assert_eq!(arguments.queue.capacity, 10_000);
        assert_eq!(arguments.names, None);
    }

    #[test]
    fn every_problem_is_reported_at_its_place() {
        let table = [
            ("", "1:1: missing required attribute \"url\""),
            (
                "url = 1\nfoo = 1",
                "3:1: unrecognized attribute name \"foo\"",
            ),
            (
                "url = 1\nfoo.bar { }",
                "3:1: unrecognized block name \"foo.bar\"",
            ),
            (
                "url = 1\nurl = 2",
                "3:1: attribute \"url\" may only be provided once",
            ),
            (
                "url = 1\nqueue {}\nqueue {}",
                "4:1: block \"queue\" may only be specified once",
            ),
            (
                "url { }",
                "2:1: \"url\" must be an attribute, but is used as a block",
            ),
            (
                "url = 1\nqueue = 1",
                "3:1: \"queue\" must be a block, but is used as an attribute",
            ),
            (
                "url = 1\nrule {}",
                "3:1: block \"rule\" requires non-empty label",
            ),
            (
                "url = 1\nqueue \"x\" {}",
                "3:1: block \"queue\" does not support specifying labels",
            ),
            ("url = 1\nnames = 1", "3:9: 1 should be array, got number"),
            (
                "url = 1\nnames = [\"a\",\n true]",
                "4:2: true should be string, got bool",
            ),
            (
                "url = 1\nheaders = {\n a = [],\n}",
                "4:6: [] should be string, got array",
            ),
            ("url = nope", "2:7: identifier \"nope\" does not exist"),
            (
                "url = 1\nqueue {\n x = 1\n}",
                "4:2: unrecognized attribute name \"x\"",
            ),
        ];
        for (body, want) in table {
            assert_eq!(read(body).unwrap_err(), [want], "{body}");
        }
    }

    #[test]
    fn several_problems_come_in_reading_order() {
        let problems = read("foo = 1\ntimeout = 5\nqueue {\n capacity = -1\n}").unwrap_err();
        assert_eq!(
            problems,
            [
                "1:1: missing required attribute \"url\"",
                "2:1: unrecognized attribute name \"foo\"",
                "3:11: 5 time: missing unit in duration \"5\"",
                "5:13: -1 is out of range 0 to 4294967295",
            ]
        );
    }

    #[test]
    fn components_add_their_own_checks() {
        let file = parse("f", "c {\n url = \"x\"\n}").unwrap();
        let all = decode(&file.blocks[0], &Scope::new(), |r| {
            let url: String = r.required("url");
            r.refuse("url", "must start with http");
            r.required_block("queue", queue);
            r.refuse_block("at most one of url and file may be given");
            url
        });
        let all: Vec<String> = all.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "f:1:1: missing required block \"queue\"",
                "f:1:1: at most one of url and file may be given",
                "f:2:8: \"x\" must start with http",
            ]
        );
    }
}
