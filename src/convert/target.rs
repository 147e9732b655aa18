//! Turns names and expressions into the text of a configuration.
//!
//! What it writes has no layout yet: that is the formatter's.

use super::source::{Findings, Kind, Section, quoted};

/// A field of a source section that becomes an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    source: &'static str,
    target: &'static str,
    kind: Kind,
    /// What it is in the source where it is not given.
    source_default: &'static str,
    /// What it is in the target where it is not given.
    target_default: &'static str,
}

/// A field of the same name whose default is nothing.
pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    let default = match kind {
        Kind::Number => "0",
        Kind::Bool => "false",
        Kind::Duration => "0s",
        _ => "",
    };
    Field {
        source: name,
        target: name,
        kind,
        source_default: default,
        target_default: default,
    }
}

pub(super) const fn text(name: &'static str) -> Field {
    field(name, Kind::Text)
}

impl Field {
    /// Both have this default, in the form the language prints it.
    pub(super) const fn or(mut self, default: &'static str) -> Self {
        self.source_default = default;
        self.target_default = default;
        self
    }

    /// The two have different defaults.
    pub(super) const fn differs(mut self, source: &'static str, target: &'static str) -> Self {
        self.source_default = source;
        self.target_default = target;
        self
    }

    /// It has another name in the target.
    pub(super) const fn becomes(mut self, name: &'static str) -> Self {
        self.target = name;
        self
    }
}

/// A body being written.
#[derive(Debug, Default)]
pub(super) struct Body {
    text: String,
}

impl Body {
    pub(super) fn attribute(&mut self, name: &str, expression: &str) {
        self.text.push_str(&format!("{name} = {expression}\n"));
    }

    pub(super) fn block(&mut self, name: &str, body: &Self) {
        self.text.push_str(&format!("{name} {{\n{}}}\n", body.text));
    }

    /// Writes what `fields` of a section say, where that is not the default.
    pub(super) fn fields(
        &mut self,
        section: &mut Section<'_>,
        fields: &[Field],
        findings: &mut Findings,
    ) {
        for field in fields {
            let given = section.scalar(field.source, field.kind, findings);
            let value = given.unwrap_or_else(|| field.source_default.to_owned());
            if value != field.target_default {
                self.value(field.target, field.kind, &value);
            }
        }
    }

    /// Writes an attribute of a kind.
    pub(super) fn value(&mut self, name: &str, kind: Kind, value: &str) {
        match kind {
            Kind::Text | Kind::Duration | Kind::Size => self.attribute(name, &quoted(value)),
            _ => self.attribute(name, value),
        }
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}
