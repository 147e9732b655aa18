//! Turns relabel configurations into rules.

use super::source::{Findings, Kind, Section};
use super::target::{Body, Field, field, text};

const RULE: &[Field] = &[
    field("source_labels", Kind::Texts),
    text("separator").or(";"),
    text("regex").or("(.*)"),
    field("modulus", Kind::Number),
    text("target_label"),
    text("replacement").or("$1"),
];

/// Writes one block called `block` for each entry of the list `name`.
pub(super) fn rules(
    section: &mut Section<'_>,
    name: &'static str,
    block: &str,
    findings: &mut Findings,
) -> Body {
    let mut body = Body::default();
    for mut rule in section.sections(name, findings) {
        let mut inner = Body::default();
        inner.fields(&mut rule, RULE, findings);
        let action = rule.text("action", findings).to_ascii_lowercase();
        if !matches!(&*action, "" | "replace") {
            inner.value("action", Kind::Text, &action);
        }
        rule.finish(findings);
        body.block(block, &inner);
    }
    body
}
