//! Turns a `discovery.relabel` block, targets and rules, into other targets.
//!
//! Targets keep labels that begin with `__`; whoever uses them removes those.
//!
//! # Failure
//! - What cannot be a rule is refused where it stands. A target that rules leave without any label is dropped
//!   like one they drop.

use config::{BodyReader, Object, Value};
use labels::relabel::{Relabeled, Relabeler, RuleOptions};

use super::document::Document;
use super::relabel::exported;
use super::relabel_rule;
use crate::discovery::{Targets, target};

pub(crate) const NAME: &str = "discovery.relabel";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"discovery.relabel "running" {
  targets = discovery.docker.here.targets
  rule {
    source_labels = ["__meta_docker_container_name"]
    regex         = "/(.*)"
    target_label  = "container"
  }
}

discovery.docker "here" {
  host = "unix:///var/run/docker.sock"
}
"#,
    texts: &[
        (
            "",
            &[
                ("rule", "A rule; rules are applied in order."),
                ("targets", "The targets to relabel."),
            ],
        ),
        ("rule", relabel_rule::TEXTS),
    ],
    metrics: &[],
    failure: "",
};

/// A `discovery.relabel` component.
#[derive(Debug)]
pub(crate) struct RelabelTargets {
    pub(crate) output: Value,
    pub(crate) rules: Value,
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> RelabelTargets {
    let targets: Targets = r.required("targets");
    let rules = r.blocks("rule", relabel_rule::read);
    RelabelTargets {
        output: Value::Array(relabeled(&targets, &rules).into()),
        rules: rules.iter().map(exported).collect::<Vec<Value>>().into(),
    }
}

/// What becomes of targets. One that stays as it is is the same.
fn relabeled(targets: &Targets, rules: &[RuleOptions]) -> Vec<Value> {
    // What cannot be built was refused where it stands.
    let rules: Vec<_> = rules.iter().filter_map(|rule| rule.build().ok()).collect();
    let mut relabeler = Relabeler::new(rules.into());
    let mut all = Vec::new();
    for (value, labels) in targets.iter() {
        match relabeler.apply(&canonical(labels)) {
            Some(Relabeled::AsItIs) => all.push(value.clone()),
            Some(Relabeled::Changed(bytes)) => all.push(target(labels_of(bytes))),
            Some(Relabeled::Dropped) | None => {}
        }
    }
    all
}

/// The labels as bytes, in which one without a text is not there.
fn canonical(labels: &Object) -> Vec<u8> {
    let pairs = labels.iter().filter_map(|(name, text)| match text {
        Value::String(text) if !text.is_empty() && !name.is_empty() => {
            Some((name.as_str(), text.as_str()))
        }
        _ => None,
    });
    labels::canonical(&pairs.collect::<Vec<_>>())
}

fn labels_of(bytes: &[u8]) -> std::collections::BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = std::collections::BTreeMap::new();
    labels::for_each(bytes, |name, value| {
        all.insert(text(name), text(value));
    });
    all
}

#[cfg(test)]
mod tests;
