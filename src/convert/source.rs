//! Turns the maps of a YAML configuration into fields that are asked for one by one.
//!
//! # Failure
//! What is of the wrong type, and what nobody asked for, is a fault with its line. Faults are collected: all
//! of them are reported, and nothing is converted.

use config::yaml::{Node, NodeKind};
use config::{SignedDuration, Value};

/// How bad a finding about a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Something has no counterpart; without it the rest works.
    Error,
    /// Nothing can be converted.
    Critical,
}

/// A finding about a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({:?}) {}", self.level, self.message)
    }
}

/// What is found on the way.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    faults: Vec<(usize, String)>,
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    /// Something that has no counterpart.
    pub(crate) fn unsupported(&mut self, what: &str) {
        let message = format!("The converter does not support converting the provided {what}.");
        self.list.push(Finding {
            level: Level::Error,
            message,
        });
    }

    /// The text is no configuration of its kind.
    pub(crate) fn fault(&mut self, line: usize, message: impl Into<String>) {
        self.faults.push((line, message.into()));
    }

    /// All faults as one finding.
    pub(crate) fn critical(&mut self) -> Option<Finding> {
        if self.faults.is_empty() {
            return None;
        }
        self.faults.sort();
        let mut message = "failed to parse Prometheus config: yaml: unmarshal errors:".to_owned();
        for (line, fault) in &self.faults {
            message.push_str(&format!("\n  line {line}: {fault}"));
        }
        Some(Finding {
            level: Level::Critical,
            message,
        })
    }
}

/// A map while its fields are asked for.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) line: usize,
    fields: &'a [(Node, Node)],
    known: Vec<&'static str>,
    forgotten: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The fields of a node, which is a map or nothing.
    pub(crate) fn new(node: &'a Node, findings: &mut Findings) -> Self {
        let fields = match &node.kind {
            NodeKind::Map(fields) => fields.as_slice(),
            _ => {
                if !node.is_null() {
                    findings.fault(node.line, "cannot unmarshal this into config.plain");
                }
                &[]
            }
        };
        Self {
            line: node.line,
            fields,
            known: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// The field of that name, unless it says nothing.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        if self.forgotten.contains(&name) {
            return None;
        }
        let field = self.fields.iter().find(|(key, _)| key.text() == Some(name));
        field
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    /// Leaves a field out of what follows.
    pub(crate) fn forget(&mut self, name: &'static str) {
        self.forgotten.push(name);
    }

    /// The field as a section, if it is there, even when nothing is in it.
    pub(crate) fn section(&mut self, name: &'static str, findings: &mut Findings) -> Option<Self> {
        self.take(name).map(|node| Section::new(node, findings))
    }

    /// The field as a list of sections.
    pub(crate) fn sections(&mut self, name: &'static str, findings: &mut Findings) -> Vec<Self> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let NodeKind::List(items) = &node.kind else {
            findings.fault(node.line, format!("cannot unmarshal {name} into a list"));
            return Vec::new();
        };
        items
            .iter()
            .map(|item| Section::new(item, findings))
            .collect()
    }

    /// The field as text of a kind, in the one form of that kind.
    pub(crate) fn scalar(
        &mut self,
        name: &'static str,
        kind: Kind,
        findings: &mut Findings,
    ) -> Option<String> {
        let node = self.take(name)?;
        match canonical(node, kind) {
            Ok(text) => Some(text),
            Err(message) => {
                findings.fault(node.line, message);
                None
            }
        }
    }

    pub(crate) fn text(&mut self, name: &'static str, findings: &mut Findings) -> String {
        self.scalar(name, Kind::Text, findings).unwrap_or_default()
    }

    /// Ends it: what was not asked for is a fault.
    pub(crate) fn finish(self, findings: &mut Findings) {
        for (key, _) in self.fields {
            let name = key.text().unwrap_or_default();
            if !self.known.contains(&name) {
                let message = format!("field {name} not found in type config.plain");
                findings.fault(key.line, message);
            }
        }
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Bool,
    Duration,
    Size,
    /// A list of texts.
    Texts,
    /// Texts by name.
    TextMap,
    /// Lists of texts by name.
    ListMap,
}

/// The field in the one form of its kind: of a list or a map that is the expression itself.
fn canonical(node: &Node, kind: Kind) -> Result<String, String> {
    match (&node.kind, kind) {
        (NodeKind::List(_), Kind::Texts) => texts(node),
        // A single text counts as a list of one in the lists of headers and the like.
        (NodeKind::Scalar(_), Kind::Texts) => Ok(format!("[{}]", quoted(&plain_text(node)?))),
        (NodeKind::Map(fields), Kind::TextMap | Kind::ListMap) => {
            let mut lines = Vec::new();
            for (name, value) in fields {
                let value = match kind {
                    Kind::TextMap => quoted(&plain_text(value)?),
                    _ => canonical(value, Kind::Texts)?,
                };
                lines.push((key(name.text().unwrap_or_default()), value));
            }
            lines.sort();
            let lines = lines
                .iter()
                .map(|(name, value)| format!("{name} = {value},\n"));
            Ok(format!("{{\n{}}}", lines.collect::<String>()))
        }
        (NodeKind::Scalar(_), Kind::Text | Kind::Size) => plain_text(node),
        (NodeKind::Scalar(scalar), Kind::Bool) => match scalar.value() {
            Value::Bool(value) => Ok(value.to_string()),
            // The old words still count where a bool is expected.
            _ => match scalar.text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => Ok("true".to_owned()),
                "no" | "off" | "n" => Ok("false".to_owned()),
                _ => Err(format!("cannot unmarshal `{}` into bool", scalar.text)),
            },
        },
        (NodeKind::Scalar(scalar), Kind::Number) => match scalar.value() {
            value @ (Value::Int(_) | Value::Uint(_) | Value::Float(_)) => Ok(value.to_string()),
            _ => Err(format!("cannot unmarshal `{}` into int", scalar.text)),
        },
        (NodeKind::Scalar(scalar), Kind::Duration) => duration(&scalar.text),
        _ => Err("cannot unmarshal this into what is expected here".to_owned()),
    }
}

fn plain_text(node: &Node) -> Result<String, String> {
    match node.text() {
        Some(text) => Ok(text.to_owned()),
        None => Err("cannot unmarshal this into string".to_owned()),
    }
}

fn texts(node: &Node) -> Result<String, String> {
    let NodeKind::List(items) = &node.kind else {
        return Err("cannot unmarshal this into []string".to_owned());
    };
    let mut all = Vec::new();
    for item in items {
        all.push(quoted(&plain_text(item)?));
    }
    Ok(format!("[{}]", all.join(", ")))
}

/// Text as a string of the language.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The key of an object.
pub(crate) fn key(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !matches!(name, "" | "true" | "false" | "null");
    if is_plain {
        return name.to_owned();
    }
    format!("\"{name}\"")
}

/// A duration of Prometheus (`1w2d`, units from the largest on) as the language writes it.
pub(crate) fn duration(text: &str) -> Result<String, String> {
    let invalid = || format!("not a valid duration string: {text:?}");
    let mut units = ["y", "w", "d", "h", "m", "s", "ms"].iter().zip([
        365 * 86_400_000,
        7 * 86_400_000,
        86_400_000,
        3_600_000,
        60_000,
        1_000,
        1_i64,
    ]);
    if text == "0" {
        return Ok("0s".to_owned());
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let (mut rest, mut total) = (text, 0_i64);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(invalid)?;
        let (count, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let (_, millis) = units.find(|(unit, _)| **unit == name).ok_or_else(invalid)?;
        let count: i64 = count.parse().map_err(|_| invalid())?;
        let part = count.checked_mul(millis).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = after;
    }
    let nanos = total.checked_mul(1_000_000).ok_or_else(invalid)?;
    Ok(SignedDuration::from_nanos(nanos).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_longer_units_than_the_language() {
        let table = [
            ("1d", Ok("24h0m0s")),
            ("1h30m", Ok("1h30m0s")),
            ("90s", Ok("1m30s")),
            ("1w2d3ms", Ok("216h0m0.003s")),
            ("0", Ok("0s")),
            ("30m1h", Err("not a valid duration string: \"30m1h\"")),
            ("5", Err("not a valid duration string: \"5\"")),
            ("1.5h", Err("not a valid duration string: \"1.5h\"")),
            ("", Err("empty duration string")),
        ];
        for (text, want) in table {
            let got = duration(text);
            assert_eq!(got.as_deref().map_err(|e| e.as_str()), want, "{text}");
        }
        assert!(duration("999999999999y").is_err());
    }

    #[test]
    fn every_fault_is_reported_with_its_line() {
        let node = config::yaml::parse("a: [1]\nb: x\nc: 1\nd: {}\n").unwrap();
        let mut findings = Findings::default();
        let mut section = Section::new(&node, &mut findings);
        assert_eq!(section.scalar("a", Kind::Bool, &mut findings), None);
        assert_eq!(section.scalar("b", Kind::Number, &mut findings), None);
        assert_eq!(
            section.scalar("c", Kind::Text, &mut findings).as_deref(),
            Some("1")
        );
        section.finish(&mut findings);
        let critical = findings.critical().unwrap().to_string();
        assert_eq!(
            critical,
            "(Critical) failed to parse Prometheus config: yaml: unmarshal errors:\n  \
             line 1: cannot unmarshal this into what is expected here\n  \
             line 2: cannot unmarshal `x` into int\n  \
             line 4: field d not found in type config.plain"
        );
    }
}
