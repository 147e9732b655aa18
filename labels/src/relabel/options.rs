//! Turns the arguments of a rule into a rule that is known to be good, or says what is wrong.
//!
//! Defaults, checks and messages are those of Prometheus.

use super::pattern::Pattern;
use super::template::{Template, is_legacy_name};

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REGEX: &str = "(.*)";
const DEFAULT_REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Sets the target label to the replacement if `v` matches.
    Replace,
    /// Drops the series unless `v` matches.
    Keep,
    /// Drops the series if `v` matches.
    Drop,
    /// Drops the series unless the target label is `v`.
    KeepEqual,
    /// Drops the series if the target label is `v`.
    DropEqual,
    /// Sets the target label to a hash of `v`, modulo `modulus`.
    HashMod,
    /// Copies labels whose name matches to the name the replacement gives.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target label to `v` in lower case.
    Lowercase,
    /// Sets the target label to `v` in upper case.
    Uppercase,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// As in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// The action of this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(name))
    }

    const fn needs_target(self) -> bool {
        matches!(
            self,
            Self::Replace
                | Self::KeepEqual
                | Self::DropEqual
                | Self::HashMod
                | Self::Lowercase
                | Self::Uppercase
        )
    }
}

/// Which label names there can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Names {
    /// Any text.
    #[default]
    Utf8,
    /// ASCII letters, digits and `_`, no digit first.
    Legacy,
}

impl Names {
    /// Whether this is a name. A text of ours is UTF-8, as what it is made of is.
    pub(super) fn allow(self, name: &[u8]) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => std::str::from_utf8(name)
                .is_ok_and(|name| !name.contains('$') && is_legacy_name(name)),
        }
    }
}

/// The arguments of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleOptions {
    /// Labels whose values are looked at.
    pub source_labels: Vec<String>,
    /// What stands between their values.
    pub separator: String,
    /// What the joined values, or the names of labels, must match from end to end.
    pub regex: String,
    /// How many different hashes there are.
    pub modulus: u64,
    /// The label to set or to compare with.
    pub target_label: String,
    /// What it is set to.
    pub replacement: String,
    /// What to do.
    pub action: Action,
    /// Which names labels may have.
    pub names: Names,
}

impl Default for RuleOptions {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: DEFAULT_REGEX.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Action::Replace,
            names: Names::default(),
        }
    }
}

/// What is wrong with a rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRule {
    /// The argument that is at fault.
    pub argument: &'static str,
    /// What is wrong with it.
    pub message: String,
}

fn invalid(argument: &'static str, message: String) -> Result<(), InvalidRule> {
    Err(InvalidRule { argument, message })
}

impl RuleOptions {
    /// Checks them and compiles what is to be compiled.
    ///
    /// # Errors
    /// The first argument that is at fault.
    pub fn build(&self) -> Result<Rule, InvalidRule> {
        self.check_target()?;
        self.check_others()?;
        let pattern = Pattern::new(&self.regex).map_err(|message| InvalidRule {
            argument: "regex",
            message,
        })?;
        Ok(Rule {
            action: self.action,
            names: self.names,
            sources: self
                .source_labels
                .iter()
                .map(|s| s.as_bytes().into())
                .collect(),
            separator: self.separator.as_bytes().into(),
            modulus: self.modulus,
            target: self.target_label.as_bytes().into(),
            target_template: Template::new(&self.target_label, &pattern),
            replacement: Template::new(&self.replacement, &pattern),
            pattern,
        })
    }

    fn check_target(&self) -> Result<(), InvalidRule> {
        let (action, target) = (self.action, &*self.target_label);
        let name = action.as_str();
        if action == Action::HashMod && self.modulus == 0 {
            let message = "relabel configuration for hashmod requires non-zero modulus";
            return invalid("modulus", message.to_owned());
        }
        if action.needs_target() && target.is_empty() {
            let message =
                format!("relabel configuration for {name} action requires 'target_label' value");
            return invalid("target_label", message);
        }
        let is_valid = match (action, self.names) {
            (Action::Replace, Names::Legacy) => is_legacy_name(target),
            _ => self.names.allow(target.as_bytes()),
        };
        if action.needs_target() && !is_valid {
            let message = format!("{target:?} is invalid 'target_label' for {name} action");
            return invalid("target_label", message);
        }
        Ok(())
    }

    fn check_others(&self) -> Result<(), InvalidRule> {
        let name = self.action.as_str();
        let of_values = [
            ("regex", self.regex != DEFAULT_REGEX),
            ("modulus", self.modulus != 0),
            ("separator", self.separator != DEFAULT_SEPARATOR),
            ("replacement", self.replacement != DEFAULT_REPLACEMENT),
        ];
        let of_labels = [
            ("source_labels", !self.source_labels.is_empty()),
            ("target_label", !self.target_label.is_empty()),
        ];
        let first = |given: &[(&'static str, bool)]| given.iter().find(|(_, is)| *is).map(|g| g.0);
        match self.action {
            Action::Lowercase | Action::Uppercase if self.replacement != DEFAULT_REPLACEMENT => {
                let message = format!("'replacement' can not be set for {name} action");
                invalid("replacement", message)
            }
            Action::LabelMap if !self.is_replacement_a_name() => {
                let replacement = &self.replacement;
                let message = format!("{replacement:?} is invalid 'replacement' for {name} action");
                invalid("replacement", message)
            }
            Action::KeepEqual | Action::DropEqual => match first(&of_values) {
                Some(argument) => invalid(
                    argument,
                    format!(
                        "{name} action requires only 'source_labels' and 'target_label', \
                         and no other fields"
                    ),
                ),
                None => Ok(()),
            },
            Action::LabelDrop | Action::LabelKeep => {
                match first(&of_labels).or(first(&of_values[1..])) {
                    Some(argument) => invalid(
                        argument,
                        format!("{name} action requires only 'regex', and no other fields"),
                    ),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn is_replacement_a_name(&self) -> bool {
        match self.names {
            Names::Utf8 => !self.replacement.is_empty(),
            Names::Legacy => is_legacy_name(&self.replacement),
        }
    }
}

/// A rule that is known to be good.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) action: Action,
    pub(super) names: Names,
    pub(super) sources: Vec<Box<[u8]>>,
    pub(super) separator: Box<[u8]>,
    pub(super) pattern: Pattern,
    pub(super) modulus: u64,
    pub(super) target: Box<[u8]>,
    pub(super) target_template: Template,
    pub(super) replacement: Template,
}
