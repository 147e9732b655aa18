//! Turns a `prometheus.relabel` block into a stage that series pass on their way to writers.
//!
//! What the rules make of a label set is kept: by default of 100,000 label sets, as in the reference,
//! here for each ingest thread. With more series than that the rules run again for most samples, which is
//! correct and slow: `max_cache_size` should be the number of series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::{Block, BodyReader, Diagnostics, Handle, Scope, Value};
use ingest::{Path, STAGES_MAX, Stage};
use labels::relabel::RuleOptions;

use super::{MetricsReceiver, PATHS_MAX, paths_of, relabel_rule};

pub(crate) const NAME: &str = "prometheus.relabel";

const MAX_CACHE_SIZE: u32 = 100_000;
const CACHE_TTL_LEAST: Duration = Duration::from_secs(60);

/// A `prometheus.relabel` component.
#[derive(Debug)]
pub(crate) struct Relabel {
    pub(crate) stage: Arc<Stage>,
    /// Where what goes through it ends.
    pub(crate) paths: Vec<Path>,
    /// Its rules as others see them.
    pub(crate) rules: Value,
}

pub(crate) fn read(block: &Block, scope: &Scope) -> Result<Relabel, Diagnostics> {
    config::decode(block, scope, |r| {
        let forward_to = r.required::<Vec<Handle<MetricsReceiver>>>("forward_to");
        let (entries_max, ttl) = read_cache(r);
        let rules = r.blocks("rule", relabel_rule::read);
        let exported: Vec<Value> = rules.iter().map(exported).collect();
        // What cannot be built was refused where it stands.
        let built = rules.iter().filter_map(|rule| rule.build().ok()).collect();
        let stage = Arc::new(Stage::new(block.id(), built, entries_max, ttl));
        let mut paths = paths_of(forward_to);
        for path in &mut paths {
            path.stages.insert(0, stage.clone());
        }
        if paths.len() > PATHS_MAX {
            let problem = format!("leads to more than {PATHS_MAX} writers");
            r.refuse("forward_to", problem);
        }
        if paths.iter().any(|path| path.stages.len() > STAGES_MAX) {
            let problem = format!("leads through more than {STAGES_MAX} components in a row");
            r.refuse("forward_to", problem);
        }
        Relabel {
            stage,
            paths,
            rules: exported.into(),
        }
    })
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
fn exported(rule: &RuleOptions) -> Value {
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

    fn load(body: &str) -> Result<Relabel, String> {
        let text = format!("prometheus.relabel \"x\" {{\n  forward_to = []\n{body}}}\n");
        let file = config::parse("a", &text).map_err(|e| e.to_string())?;
        read(&file.blocks[0], &Scope::new()).map_err(|e| e.to_string())
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
        let Value::Array(rules) = &relabel.rules else {
            panic!("a list: {:?}", relabel.rules);
        };
        let Some(Value::Object(rule)) = rules.first() else {
            panic!("of objects: {rules:?}");
        };
        let text = |name: &str| format!("{:?}", rule.get(name));
        assert!(text("action").contains("labeldrop") && text("regex").contains("pod"));
    }
}
