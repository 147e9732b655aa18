//! Turns YAML text into nodes that know their lines, and nodes into values.
//!
//! A crate turns the text into events; what is built of them is bounded here. Plain scalars mean what the
//! reference's reader takes them for: the core schema, with the old octal numbers and merge keys (`<<`).
//!
//! # Failure
//! The first fault is an error with its line. A key given twice is one.
//!
//! # Limits
//! Nesting is bounded by [`MAX_DEPTH`], the number of nodes, with what aliases repeat, by `NODES_MAX`.
//! Of several documents the first is read.

use std::collections::BTreeMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::MAX_DEPTH;
use crate::value::{Object, Value};

/// Most nodes of a text. A few lines of aliases of aliases could otherwise fill the memory.
const NODES_MAX: usize = 1 << 20;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins, from 1.
    pub line: usize,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Text, a number, a bool or nothing.
    Scalar(Scalar),
    /// `[a, b]`.
    List(Vec<Node>),
    /// `{a: b}`, in order, no key twice.
    Map(Vec<(Node, Node)>),
}

/// A scalar as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, without quotes.
    pub text: String,
    /// Whether it may be something else than text: it has no quotes and no tag that says so.
    pub is_plain: bool,
}

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "yaml: line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for YamlError {}

/// Reads the first document of a text; an empty one is null.
///
/// # Errors
/// The first fault.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            message: error.info().to_owned(),
        })?;
        builder.line = line_of(span);
        if builder.take(event)? {
            break;
        }
    }
    Ok(builder.root.map_or_else(Node::null, |(node, _)| node))
}

fn line_of(span: Span) -> usize {
    span.start.line()
}

impl Node {
    fn null() -> Self {
        let text = String::new();
        let is_plain = true;
        let kind = NodeKind::Scalar(Scalar { text, is_plain });
        Self { line: 1, kind }
    }

    /// Whether it says nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar(scalar) if scalar.value() == Value::Null)
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value an expression sees.
    pub fn value(&self) -> Value {
        match &self.kind {
            NodeKind::Scalar(scalar) => scalar.value(),
            NodeKind::List(items) => Value::from(items.iter().map(Self::value).collect::<Vec<_>>()),
            NodeKind::Map(fields) => {
                let mut object = Object::new();
                for (name, value) in fields {
                    object.insert(name.text().unwrap_or_default().to_owned(), value.value());
                }
                Value::from(object)
            }
        }
    }
}

impl Scalar {
    /// What it stands for.
    pub fn value(&self) -> Value {
        let text = self.text.as_str();
        if !self.is_plain {
            return Value::from(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
            ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
            _ => whole(text)
                .or_else(|| fraction(text))
                .unwrap_or_else(|| Value::from(text)),
        }
    }
}

fn whole(text: &str) -> Option<Value> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, digits.get(2..)?),
        Some("0o" | "0O") => (8, digits.get(2..)?),
        Some("0b" | "0B") => (2, digits.get(2..)?),
        Some(_) if digits.starts_with('0') => (8, digits),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) || digits.ends_with('_') {
        return None;
    }
    let digits: String = digits.chars().filter(|&c| c != '_').collect();
    let n = sign * i128::from_str_radix(&digits, radix).ok()?;
    match (i64::try_from(n), u64::try_from(n)) {
        (Ok(n), _) => Some(Value::Int(n)),
        (_, Ok(n)) => Some(Value::Uint(n)),
        _ => None,
    }
}

fn fraction(text: &str) -> Option<Value> {
    let is_number = text.chars().any(|c| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'))
        && !text.starts_with(['e', 'E']);
    let n: f64 = is_number.then(|| text.parse().ok()).flatten()?;
    n.is_finite().then_some(Value::Float(n))
}

/// A list or a map whose end has not come.
#[derive(Debug)]
struct Open {
    line: usize,
    anchor: usize,
    is_map: bool,
    items: Vec<Node>,
    /// Most levels below one of the items.
    height: u32,
    first_node: usize,
}

#[derive(Debug, Default)]
struct Builder {
    line: usize,
    open: Vec<Open>,
    root: Option<(Node, u32)>,
    /// Nodes that aliases may repeat: how many nodes they are, how many levels.
    anchors: BTreeMap<usize, (Node, usize, u32)>,
    nodes: usize,
}

impl Builder {
    /// Takes an event; `true` is the end of the document.
    fn take(&mut self, event: Event<'_>) -> Result<bool, YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_deref().is_some_and(|tag| !is_number_tag(tag));
                let scalar = Scalar {
                    text: text.into_owned(),
                    is_plain: style == ScalarStyle::Plain && !is_text,
                };
                self.count(1)?;
                let kind = NodeKind::Scalar(scalar);
                let line = self.line;
                self.add(Node { line, kind }, anchor, 1, 0)?;
            }
            Event::SequenceStart(anchor, _) => self.start(anchor, false)?,
            Event::MappingStart(anchor, _) => self.start(anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => {
                let Some((node, size, height)) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.error("an alias stands inside of what it names"));
                };
                self.count(size)?;
                self.add(node, 0, size, height)?;
            }
            Event::DocumentEnd => return Ok(true),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
        Ok(false)
    }

    fn start(&mut self, anchor: usize, is_map: bool) -> Result<(), YamlError> {
        self.count(1)?;
        self.open.push(Open {
            line: self.line,
            anchor,
            is_map,
            items: Vec::new(),
            height: 0,
            first_node: self.nodes,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let kind = if open.is_map {
            NodeKind::Map(self.fields(open.items)?)
        } else {
            NodeKind::List(open.items)
        };
        let line = open.line;
        let size = self.nodes - open.first_node + 1;
        self.add(Node { line, kind }, open.anchor, size, open.height + 1)
    }

    /// Names and values in turn, with what merge keys bring where no name is given.
    fn fields(&self, items: Vec<Node>) -> Result<Vec<(Node, Node)>, YamlError> {
        let mut fields: Vec<(Node, Node)> = Vec::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged = Vec::new();
        let mut items = items.into_iter();
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            let Some(text) = name.text() else {
                return Err(self.error("a key is not a scalar"));
            };
            if text == "<<" {
                merged.push(value);
                continue;
            }
            if let Some(line) = lines.insert(text.to_owned(), name.line) {
                return Err(YamlError {
                    line: name.line,
                    message: format!("mapping key {text:?} already defined at line {line}"),
                });
            }
            fields.push((name, value));
        }
        for value in merged {
            let maps = match value.kind {
                NodeKind::List(maps) => maps,
                _ => vec![value],
            };
            for map in maps {
                let NodeKind::Map(inner) = map.kind else {
                    return Err(
                        self.error("map merge requires map or sequence of maps as the value")
                    );
                };
                for (name, value) in inner {
                    let text = name.text().unwrap_or_default();
                    if lines.insert(text.to_owned(), name.line).is_none() {
                        fields.push((name, value));
                    }
                }
            }
        }
        Ok(fields)
    }

    fn add(
        &mut self,
        node: Node,
        anchor: usize,
        size: usize,
        height: u32,
    ) -> Result<(), YamlError> {
        let depth = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        if depth.saturating_add(height) > MAX_DEPTH {
            return Err(self.error(&format!("nesting is deeper than {MAX_DEPTH} levels")));
        }
        if anchor != 0 {
            // What is kept for aliases is a copy.
            self.count(size)?;
            self.anchors.insert(anchor, (node.clone(), size, height));
        }
        match self.open.last_mut() {
            Some(open) => {
                open.height = open.height.max(height);
                open.items.push(node);
            }
            None => self.root = Some((node, height)),
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(self.error("document is too large, or aliases repeat too much"));
        }
        Ok(())
    }

    fn error(&self, message: &str) -> YamlError {
        YamlError {
            line: self.line,
            message: message.to_owned(),
        }
    }
}

/// Whether the text of a scalar with this tag still says what it is.
fn is_number_tag(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && matches!(&*tag.suffix, "int" | "float" | "bool" | "null")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(node) => node.value().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        let table = [
            ("", "null"),
            ("~", "null"),
            ("yes", "\"yes\""),
            ("True", "true"),
            ("'true'", "\"true\""),
            ("12", "12"),
            ("-0x1f", "-31"),
            ("010", "8"),
            ("0o17", "15"),
            ("1_000", "1000"),
            ("08", "8"),
            ("1.5e3", "1500"),
            ("18446744073709551615", "18446744073709551615"),
            ("!!str 12", "\"12\""),
            ("5m", "\"5m\""),
            ("1.2.3.4", "\"1.2.3.4\""),
            ("+", "\"+\""),
            (".inf", "+Inf"),
            ("|\n  a\n  b\n", "\"a\\nb\\n\""),
        ];
        for (text, want) in table {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn lists_maps_aliases_and_merge_keys() {
        let table = [
            ("- a\n- [1, {b: c}]\n", "[\"a\", [1, {b = \"c\"}]]"),
            ("a: 1\nb c:\n  - x\n", "{a = 1, \"b c\" = [\"x\"]}"),
            (
                "a: &x {k: 1, l: 2}\nb: *x\n",
                "{a = {k = 1, l = 2}, b = {k = 1, l = 2}}",
            ),
            (
                "a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3\n",
                "{a = {k = 1, l = 2}, b = {k = 3, l = 2}}",
            ),
            ("a: 1\n---\nb: 2\n", "{a = 1}"),
            ("1: x\n", "{\"1\" = \"x\"}"),
        ];
        for (text, want) in table {
            assert_eq!(shown(text), want, "{text}");
        }
        assert_eq!(parse("\n\na:\n  b: c").unwrap().line, 3);
    }

    #[test]
    fn faults_have_their_line() {
        assert_eq!(shown("a: 1\nb: 2\na: 3\n"), {
            "yaml: line 3: mapping key \"a\" already defined at line 1"
        });
        assert!(shown("a: [1\nb: 2").starts_with("yaml: line "));
        assert!(shown("a: &x [*x]").starts_with("yaml: line 1: "));
    }

    #[test]
    fn hostile_text_is_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for at in 1..20 {
            let items = vec![format!("*a{}", at - 1); 9].join(", ");
            bomb += &format!("a{at}: &a{at} [{items}]\n");
        }
        assert!(shown(&bomb).contains("aliases repeat too much"));
        assert!(shown(&"[".repeat(100_000)).starts_with("yaml: "));
        assert!(shown(&"- ".repeat(1000)).contains("nesting is deeper than 100 levels"));
        let mut deep = String::from("a0: &a0 [x]\n");
        for at in 1..200 {
            deep += &format!("a{at}: &a{at} [*a{}]\n", at - 1);
        }
        assert!(shown(&deep).contains("nesting is deeper than 100 levels"));
    }
}
