//! Turns `$1` and `${name}` and the groups of a match into text, as Go's `Regexp.Expand` does.
//!
//! `$$` is a dollar. `$name` takes the longest name there is, so `$1x` is the group named `1x`. A
//! group that is not there is empty; a dollar that begins nothing is a dollar.

use super::pattern::{Match, Pattern};

/// A text with places for groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(Box<[u8]>),
    Group(usize),
}

impl Template {
    /// Reads `text`; its groups are those of `pattern`.
    pub(super) fn new(text: &str, pattern: &Pattern) -> Self {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            plain.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
            } else if let Some((name, after)) = group_name(rest) {
                rest = after;
                if let Some(group) = pattern.group(name) {
                    take_text(&mut plain, &mut parts);
                    parts.push(Part::Group(group));
                }
            } else {
                plain.push('$');
            }
        }
        plain.push_str(rest);
        take_text(&mut plain, &mut parts);
        Self { parts }
    }

    /// Puts the text into `out`, replacing what it holds.
    pub(super) fn expand(&self, found: &Match<'_>, out: &mut Vec<u8>) {
        out.clear();
        for part in &self.parts {
            out.extend_from_slice(match part {
                Part::Text(text) => text,
                Part::Group(group) => found.group(*group),
            });
        }
    }
}

fn take_text(plain: &mut String, parts: &mut Vec<Part>) {
    if !plain.is_empty() {
        parts.push(Part::Text(std::mem::take(plain).into_bytes().into()));
    }
}

/// The name at the start of what follows a dollar, and what comes behind it.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let (braced, text) = match text.strip_prefix('{') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let end = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    match braced {
        true => rest.strip_prefix('}').map(|rest| (name, rest)),
        false => Some((name, rest)),
    }
}

/// Whether every dollar of `text` begins a group and all else may stand in a label name of the old
/// form: letters, digits and `_`, no digit first.
pub(super) fn is_legacy_name(text: &str) -> bool {
    let mut rest = text;
    let mut first = true;
    while let Some(c) = rest.chars().next() {
        let allowed = c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit());
        rest = if c == '$' {
            match rest.strip_prefix('$').and_then(group_name) {
                Some((_, after)) => after,
                None => return false,
            }
        } else if allowed {
            rest.get(1..).unwrap_or_default()
        } else {
            return false;
        };
        first = false;
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> String {
        let pattern = Pattern::new("(a+)(?P<name>b+)(c)?").unwrap();
        let mut locations = pattern.locations();
        let found = pattern.find(b"aabbb", &mut locations).unwrap();
        let mut out = b"before".to_vec();
        Template::new(text, &pattern).expand(&found, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn groups_are_found_as_in_go() {
        for (text, want) in [
            ("", ""),
            ("x", "x"),
            ("$1", "aa"),
            ("${1}x", "aax"),
            ("$1x", ""),
            ("$1-x", "aa-x"),
            ("$0", "aabbb"),
            ("$2$1", "bbbaa"),
            ("$name", "bbb"),
            ("${name}", "bbb"),
            ("<$3>", "<>"),
            ("<$4>", "<>"),
            ("$01", ""),
            ("$99999999999", ""),
            ("$$1", "$1"),
            ("$$$1", "$aa"),
            ("$", "$"),
            ("a$", "a$"),
            ("${", "${"),
            ("${}", "${}"),
            ("${1", "${1"),
            ("${1-}", "${1-}"),
            ("$-1", "$-1"),
            ("-$1\u{e4}-", "--"),
        ] {
            assert_eq!(expanded(text), want, "{text}");
        }
    }
}
