//! Turns rules and the labels of a series into its new labels.
//!
//! # Invariants
//! - The rules run in order, each on what the one before left; a drop ends it.
//! - An action on names looks at the labels that are there when it begins.

use std::sync::Arc;

use md5::{Digest, Md5};
use regex::bytes::CaptureLocations;

use super::options::{Action, Rule};
use super::set::LabelSet;

/// What became of the labels of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relabeled<'a> {
    /// They stay.
    AsItIs,
    /// The series is dropped.
    Dropped,
    /// These are its canonical label bytes now.
    Changed(&'a [u8]),
}

/// Applies one list of rules; keeps its memory from series to series.
#[derive(Debug)]
pub struct Relabeler {
    rules: Arc<[Rule]>,
    /// Where the groups of a match are noted, per rule.
    locations: Vec<CaptureLocations>,
    labels: LabelSet,
    joined: Vec<u8>,
    name: Vec<u8>,
    value: Vec<u8>,
    out: Vec<u8>,
}

impl Relabeler {
    /// One for these rules.
    #[must_use]
    pub fn new(rules: Arc<[Rule]>) -> Self {
        Self {
            locations: rules.iter().map(|rule| rule.pattern.locations()).collect(),
            rules,
            labels: LabelSet::default(),
            joined: Vec::new(),
            name: Vec::new(),
            value: Vec::new(),
            out: Vec::new(),
        }
    }

    /// What becomes of canonical label bytes; `None` if they are not.
    pub fn apply(&mut self, labels: &[u8]) -> Option<Relabeled<'_>> {
        self.labels.read(labels).ok()?;
        let rules = Arc::clone(&self.rules);
        let kept = (0..rules.len()).all(|at| self.apply_rule(&rules[at], at));
        if !kept || self.labels.is_empty() {
            return Some(Relabeled::Dropped);
        }
        if !self.labels.is_changed() {
            return Some(Relabeled::AsItIs);
        }
        self.labels.write(&mut self.out);
        Some(Relabeled::Changed(&self.out))
    }

    /// Applies one rule, the one at this place. False if the series is dropped.
    fn apply_rule(&mut self, rule: &Rule, at: usize) -> bool {
        let pattern = &rule.pattern;
        match rule.action {
            Action::Keep => return pattern.is_match(joined(&self.labels, rule, &mut self.joined)),
            Action::Drop => return !pattern.is_match(joined(&self.labels, rule, &mut self.joined)),
            Action::KeepEqual | Action::DropEqual => {
                let is_equal =
                    self.labels.get(&rule.target) == joined(&self.labels, rule, &mut self.joined);
                return is_equal == (rule.action == Action::KeepEqual);
            }
            Action::LabelDrop => self.labels.retain(|name| !pattern.is_match(name)),
            Action::LabelKeep => self.labels.retain(|name| pattern.is_match(name)),
            Action::LabelMap => self.map_names(rule, at),
            Action::Replace => self.replace(rule, at),
            Action::HashMod | Action::Lowercase | Action::Uppercase => {
                let value = joined(&self.labels, rule, &mut self.joined);
                let value = match rule.action {
                    Action::HashMod => (hash(value) % rule.modulus).to_string(),
                    Action::Lowercase => lowercase(value),
                    _ => uppercase(value),
                };
                self.labels.set(&rule.target, value.as_bytes());
            }
        }
        true
    }

    fn replace(&mut self, rule: &Rule, at: usize) {
        let value = joined(&self.labels, rule, &mut self.joined);
        let Some(found) = rule.pattern.find(value, &mut self.locations[at]) else {
            return;
        };
        rule.replacement.expand(&found, &mut self.value);
        rule.target_template.expand(&found, &mut self.name);
        if rule.names.allow(&self.name) {
            self.labels.set(&self.name, &self.value);
        }
    }

    /// Copies labels to other names: first what there is, then what comes of it.
    fn map_names(&mut self, rule: &Rule, at: usize) {
        let mut copies: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for label in 0..self.labels.len() {
            let name = self.labels.name(label);
            if let Some(found) = rule.pattern.find(name, &mut self.locations[at]) {
                rule.replacement.expand(&found, &mut self.name);
                copies.push((self.name.clone(), self.labels.value(label).to_vec()));
            }
        }
        for (name, value) in copies {
            self.labels.set(&name, &value);
        }
    }
}

/// The values of the source labels of a rule, with its separator between them.
fn joined<'a>(labels: &'a LabelSet, rule: &Rule, out: &'a mut Vec<u8>) -> &'a [u8] {
    if let [only] = &*rule.sources {
        return labels.get(only);
    }
    out.clear();
    for (at, name) in rule.sources.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(&rule.separator);
        }
        out.extend_from_slice(labels.get(name));
    }
    out
}

/// The last eight bytes of the MD5 digest as a number.
#[expect(clippy::big_endian_bytes, reason = "the order that Prometheus defines")]
fn hash(value: &[u8]) -> u64 {
    let digest: [u8; 16] = Md5::digest(value).into();
    let [.., a, b, c, d, e, f, g, h] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Lower case, character by character as in Go: no character becomes two.
fn lowercase(value: &[u8]) -> String {
    let lower = |c: char| match c {
        '\u{130}' => 'i',
        c => single(c.to_lowercase(), c),
    };
    String::from_utf8_lossy(value).chars().map(lower).collect()
}

/// Upper case, character by character as in Go: no character becomes two.
fn uppercase(value: &[u8]) -> String {
    let upper = |c: char| single(c.to_uppercase(), c);
    String::from_utf8_lossy(value).chars().map(upper).collect()
}

/// The character a mapping ends in; `c` itself where that would be several.
fn single(mut mapped: impl Iterator<Item = char>, c: char) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

#[cfg(test)]
mod tests;
