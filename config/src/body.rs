//! Turns what a component asked of its block into a record of it: names, types, defaults, values.
//!
//! Made by [`crate::decode_recorded`] while the arguments are read, so that no list of them is kept
//! beside the code that reads them. A display shows it, a reload compares it with the one before.
//!
//! # Invariants
//! Values have been converted to the type asked for, so `"60s"` and `"1m"` are the same, and text given
//! for a secret is hidden. Arguments and blocks are in the order they were asked for.

use crate::value::Value;

/// What was asked of a block's body.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// Every attribute asked for, given or not.
    pub attributes: Vec<Argument>,
    /// The blocks that are there.
    pub blocks: Vec<Nested>,
}

/// What a kind of block may hold: nothing in it is given, and of each block it may hold there is one.
pub type Schema = Body;

/// An attribute that was asked for.
#[derive(Debug, Clone)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What the language calls its type.
    pub type_name: String,
    /// Whether it must be given.
    pub is_required: bool,
    /// What it is where it is not given; nothing where that is not one value.
    pub default: Option<Value>,
    /// What it was given.
    pub given: Option<Value>,
}

impl Argument {
    /// What it is: what it was given, else its default.
    pub fn value(&self) -> Option<&Value> {
        self.given.as_ref().or(self.default.as_ref())
    }

    fn shown(&self) -> Option<Shown<'_>> {
        Some(Shown::Attribute {
            name: &self.name,
            value: self.value()?,
            is_default: self.given.is_none(),
        })
    }

    fn name_given(&self) -> Option<(&str, &Value)> {
        Some((&self.name, self.given.as_ref()?))
    }
}

/// A block that was asked for.
#[derive(Debug, Clone)]
pub struct Nested {
    /// Its name.
    pub name: String,
    /// Its label.
    pub label: Option<String>,
    /// Whether it has to have a label.
    pub takes_label: bool,
    /// Whether it must be there.
    pub is_required: bool,
    /// Whether it may be there more than once.
    pub is_repeated: bool,
    /// What it holds.
    pub body: Body,
}

/// One line of a body as it is shown to people. A value prints in the language, secrets as `(secret)`.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// An attribute that has a value.
    Attribute {
        /// Its name.
        name: &'a str,
        /// What it was given, else its default.
        value: &'a Value,
        /// Whether it was not given.
        is_default: bool,
    },
    /// A block that is there.
    Block(&'a Nested),
}

impl Body {
    /// The attributes that have a value and the blocks that are there.
    pub fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        let attributes = self.attributes.iter().filter_map(Argument::shown);
        attributes.chain(self.blocks.iter().map(Shown::Block))
    }

    /// The attribute of that name, if it was asked for.
    pub fn attribute(&self, name: &str) -> Option<&Argument> {
        self.attributes.iter().find(|one| one.name == name)
    }

    /// The blocks of that name.
    pub fn blocks_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Nested> {
        self.blocks.iter().filter(move |one| one.name == name)
    }

    fn given(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.attributes.iter().filter_map(Argument::name_given)
    }
}

/// By what was given: capsules by identity, secrets by content.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.given().eq(other.given()) && self.blocks == other.blocks
    }
}

/// As its body, its name and its label.
impl PartialEq for Nested {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.label, &self.body) == (&other.name, &other.label, &other.body)
    }
}
