//! Turns a `prometheus.relabel` block into a stage that series pass on their way to writers.
//!
//! What the rules make of a label set is kept: by default of 100,000 label sets, as in the reference,
//! here for each ingest thread. With more series than that the rules run again for most samples, which is
//! correct and slow: `max_cache_size` should be the number of series.

use std::collections::BTreeMap;
use std::time::Duration;

use config::{BodyReader, Value};
use labels::relabel::{Rule, RuleOptions};

use super::document::Document;
use super::{Receivers, forward_to, relabel_rule};

pub(crate) const NAME: &str = "prometheus.relabel";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.relabel "trim" {
  forward_to = [prometheus.remote_write.out.receiver]
  rule {
    source_labels = ["__name__"]
    regex         = "debug_.*"
    action        = "drop"
  }
}

prometheus.remote_write "out" {
  endpoint {
    url = "http://backend:9090/api/v1/write"
  }
}
"#,
    texts: &[
        (
            "",
            &[
                (
                    "cache_ttl",
                    "Results are kept that were used within this time, at least 1m; only with `max_cache_size = 0`.",
                ),
                (
                    "forward_to",
                    "Where series go on to. Entries that are `null` are left out.",
                ),
                (
                    "max_cache_size",
                    "Label sets whose result is kept, for each ingest thread; it should be the number of series. 0: see `cache_ttl`.",
                ),
                ("rule", "A rule; rules are applied in order."),
            ],
        ),
        ("rule", relabel_rule::TEXTS),
    ],
    metrics: &["prometheus_relabel_"],
    failure: "- A series that rules leave without a name is refused (400, reason `missing_metric_name`); the \
              others of the request are stored.\n\
              - Series that rules drop are counted: `prometheus_relabel_metrics_processed_total` less \
              `_written_total`.\n",
};

const MAX_CACHE_SIZE: u32 = 100_000;
const CACHE_TTL_LEAST: Duration = Duration::from_secs(60);

/// A `prometheus.relabel` component.
#[derive(Debug)]
pub(crate) struct Relabel {
    pub(crate) forward_to: Receivers,
    pub(crate) rules: Vec<Rule>,
    /// Results kept for each ingest thread; 0: those used within `ttl`.
    pub(crate) entries_max: usize,
    pub(crate) ttl: Duration,
    /// Its rules as others see them.
    pub(crate) exported: Value,
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> Relabel {
    let forward_to = forward_to(r);
    let (entries_max, ttl) = read_cache(r);
    let rules = r.blocks("rule", relabel_rule::read);
    Relabel {
        forward_to,
        exported: rules.iter().map(exported).collect::<Vec<Value>>().into(),
        // What cannot be built was refused where it stands.
        rules: rules.iter().filter_map(|rule| rule.build().ok()).collect(),
        entries_max,
        ttl,
    }
}

/// How many results are kept, or, where that is 0, how long one that nobody asks for.
fn read_cache(r: &mut BodyReader<'_>) -> (usize, Duration) {
    let entries = r.or("max_cache_size", MAX_CACHE_SIZE);
    let ttl = r.or("cache_ttl", Duration::ZERO);
    match (entries, ttl.is_zero()) {
        (0, true) => r.refuse(
            "max_cache_size",
            "must be greater than 0, or cache_ttl must be set",
        ),
        (1.., false) => r.refuse(
            "cache_ttl",
            "max_cache_size and cache_ttl are mutually exclusive, set max_cache_size = 0",
        ),
        (0, false) if ttl < CACHE_TTL_LEAST => r.refuse("cache_ttl", "must be at least 1m"),
        _ => {}
    }
    (usize::try_from(entries).unwrap_or(usize::MAX), ttl)
}

/// A rule as an object of the language.
pub(super) fn exported(rule: &RuleOptions) -> Value {
    let list = |names: &[String]| -> Value {
        let names: Vec<Value> = names.iter().map(|name| name.as_str().into()).collect();
        names.into()
    };
    let modulus = i64::try_from(rule.modulus).unwrap_or(i64::MAX);
    let fields: [(&str, Value); 7] = [
        ("action", rule.action.as_str().into()),
        ("modulus", modulus.into()),
        ("regex", rule.regex.as_str().into()),
        ("replacement", rule.replacement.as_str().into()),
        ("separator", rule.separator.as_str().into()),
        ("source_labels", list(&rule.source_labels)),
        ("target_label", rule.target_label.as_str().into()),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    BTreeMap::from(fields).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<Relabel, String> {
        let text = format!("prometheus.relabel \"x\" {{\n  forward_to = []\n{body}}}\n");
        decoded(&text, read)
    }

    #[test]
    fn one_of_the_two_limits_of_the_cache_is_used() {
        assert!(load("").is_ok());
        assert!(load("  max_cache_size = 0\n  cache_ttl = \"1m\"\n").is_ok());
        for (body, want) in [
            ("  max_cache_size = 0\n", "must be greater than 0"),
            ("  cache_ttl = \"5m\"\n", "mutually exclusive"),
            (
                "  max_cache_size = 0\n  cache_ttl = \"59s\"\n",
                "a:4:15: \"59s\" must be at least 1m",
            ),
            ("  max_cache_size = -1\n", "a:3:20: -1"),
        ] {
            let message = load(body).unwrap_err();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_where_it_stands() {
        let message =
            load("  rule {\n    regex = \"(\"\n    action = \"drop\"\n  }\n").unwrap_err();
        assert!(message.starts_with("a:4:13: "), "{message}");
    }

    #[test]
    fn its_rules_are_seen_by_others() {
        let relabel =
            load("  rule {\n    action = \"labeldrop\"\n    regex = \"pod\"\n  }\n").unwrap();
        let Value::Array(rules) = &relabel.exported else {
            panic!("a list: {:?}", relabel.exported);
        };
        let Some(Value::Object(rule)) = rules.first() else {
            panic!("of objects: {rules:?}");
        };
        let text = |name: &str| format!("{:?}", rule.get(name));
        assert!(text("action").contains("labeldrop") && text("regex").contains("pod"));
    }
}
