//! Turns `rule` and `write_relabel_config` blocks into relabel rules that are known to be good.
//!
//! # Failure
//! - What the rule would refuse is refused here, at the argument that is at fault.

use config::BodyReader;
use labels::relabel::{Action, RuleOptions};

use super::document::Texts;

/// What the arguments mean.
pub(crate) const TEXTS: Texts = &[
    (
        "action",
        "`replace`, `lowercase`, `uppercase`, `hashmod`, `keep`, `drop`, `keepequal`, `dropequal`, `labelmap`, `labelkeep` or `labeldrop`.",
    ),
    (
        "modulus",
        "What the hash of the value is taken by, for `hashmod`.",
    ),
    ("regex", "What the whole value is compared with."),
    (
        "replacement",
        "The new value; `$1` is the first group of `regex`.",
    ),
    (
        "separator",
        "What is put between the values of `source_labels`.",
    ),
    ("source_labels", "The labels whose values make the value."),
    ("target_label", "The label that is set."),
];

/// Reads one block.
pub(crate) fn read(r: &mut BodyReader<'_>) -> RuleOptions {
    let defaults = RuleOptions::default();
    let name: String = r.or("action", defaults.action.as_str().to_owned());
    let action = Action::from_name(&name);
    let rule = RuleOptions {
        source_labels: r.or("source_labels", Vec::new()),
        separator: r.or("separator", defaults.separator),
        regex: r.or("regex", defaults.regex),
        modulus: r.or("modulus", 0),
        target_label: r.or("target_label", String::new()),
        replacement: r.or("replacement", defaults.replacement),
        action: action.unwrap_or(defaults.action),
        names: defaults.names,
    };
    if name.is_empty() {
        r.refuse("action", "relabel action cannot be empty");
    } else if action.is_none() {
        r.refuse("action", format!("unknown relabel action {name:?}"));
    } else if let Err(error) = rule.build() {
        r.refuse(error.argument, error.message);
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<Vec<RuleOptions>, String> {
        decoded(&format!("c \"x\" {{\n{body}}}\n"), |r| {
            r.blocks("rule", read)
        })
    }

    #[test]
    fn every_argument_reaches_the_rule_and_the_rest_is_as_in_prometheus() {
        let rules = load(
            "rule {\n source_labels = [\"a\", \"b\"]\n separator = \"-\"\n regex = \"x(.*)\"\n \
             modulus = 7\n target_label = \"t\"\n replacement = \"$1$1\"\n action = \"hashmod\"\n }\n\
             rule {\n target_label = \"t\"\n }\n",
        )
        .unwrap();
        assert_eq!(
            rules[0],
            RuleOptions {
                source_labels: vec!["a".into(), "b".into()],
                separator: "-".into(),
                regex: "x(.*)".into(),
                modulus: 7,
                target_label: "t".into(),
                replacement: "$1$1".into(),
                action: Action::HashMod,
                names: RuleOptions::default().names,
            }
        );
        let plain = &rules[1];
        assert_eq!(
            (
                &*plain.separator,
                &*plain.regex,
                &*plain.replacement,
                plain.action
            ),
            (";", "(.*)", "$1", Action::Replace)
        );
    }

    #[test]
    fn mistakes_are_reported_where_they_stand() {
        for (body, want) in [
            (
                "rule {\n action = \"drip\"\n}\n",
                "a:3:11: \"drip\" unknown relabel action \"drip\"",
            ),
            (
                "rule {\n action = \"\"\n}\n",
                "a:3:11: \"\" relabel action cannot be empty",
            ),
            (
                "rule {\n action = \"drop\"\n regex = \"(\"\n}\n",
                "a:4:10: \"(\" error parsing regexp: unclosed group: `(`",
            ),
            (
                "rule {\n action = \"hashmod\"\n target_label = \"t\"\n}\n",
                "a:2:1: relabel configuration for hashmod requires non-zero modulus",
            ),
            (
                "rule {}\n",
                "a:2:1: relabel configuration for replace action requires 'target_label' value",
            ),
            (
                "rule {\n action = \"labeldrop\"\n source_labels = [\"a\"]\n}\n",
                "a:4:18: [\"a\"] labeldrop action requires only 'regex', and no other fields",
            ),
            (
                "rule {\n action = \"keepequal\"\n target_label = \"a\"\n regex = \"b\"\n}\n",
                "a:5:10: \"b\" keepequal action requires only 'source_labels' and 'target_label', \
                 and no other fields",
            ),
            (
                "rule {\n target_label = \"t\"\n modulus = -1\n}\n",
                "a:4:12: -1 is out of range",
            ),
        ] {
            let message = load(body).unwrap_err();
            assert!(message.starts_with(want), "{message}");
        }
    }
}
