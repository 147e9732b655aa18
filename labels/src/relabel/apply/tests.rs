//! Turns the cases of Prometheus into verdicts, and then what no case shows.
//!
//! The corpus is at `PENSTOCK_CORPUS`, else beside the workspace; where there is none, the tests that
//! want it say so and pass.

use proptest::prelude::*;
use serde_json::Value;

use super::super::{Names, RuleOptions};
use super::*;
use crate::{canonical, for_each};

type Pairs = Vec<(String, String)>;

fn pairs(labels: &[(&str, &str)]) -> Pairs {
    labels
        .iter()
        .map(|(n, v)| ((*n).into(), (*v).into()))
        .collect()
}

fn bytes_of(labels: &Pairs) -> Vec<u8> {
    canonical(
        &labels
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect::<Vec<_>>(),
    )
}

/// What becomes of labels; `None` if they are dropped.
fn relabel(labels: &Pairs, rules: &[RuleOptions]) -> Option<Pairs> {
    let rules: Vec<Rule> = rules.iter().map(|rule| rule.build().unwrap()).collect();
    let input = bytes_of(labels);
    let mut relabeler = Relabeler::new(rules.into());
    let first = relabeler.apply(&input).unwrap();
    let output = match first {
        Relabeled::AsItIs => Some(input.clone()),
        Relabeled::Dropped => None,
        Relabeled::Changed(bytes) => Some(bytes.to_vec()),
    };
    output.map(|bytes| {
        let mut pairs = Pairs::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(for_each(&bytes, |name, value| pairs.push((text(name), text(value)))));
        assert_eq!(bytes_of(&pairs), bytes, "canonical");
        pairs
    })
}

fn corpus(file: &str) -> Option<Value> {
    let dir = std::env::var_os("PENSTOCK_CORPUS");
    let dir =
        dir.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus").into());
    let path = std::path::Path::new(&dir).join(file);
    if !path.try_exists().unwrap() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The arguments of a rule of the corpus; `None` if its action has no name.
fn options(config: &Value) -> Option<RuleOptions> {
    let mut options = RuleOptions::default();
    for (key, value) in config.as_object().unwrap() {
        match key.as_str() {
            "source_labels" => {
                options.source_labels = value.as_array().unwrap().iter().map(text).collect();
            }
            "separator" => options.separator = text(value),
            "regex" => options.regex = text(value),
            "modulus" => options.modulus = value.as_u64().unwrap(),
            "target_label" => options.target_label = text(value),
            "replacement" => options.replacement = text(value),
            "action" => options.action = Action::from_name(&text(value))?,
            key => panic!("unknown key {key}"),
        }
    }
    Some(options)
}

fn labels(map: &Value) -> Pairs {
    let map = map.as_object().unwrap();
    let mut pairs: Pairs = map.iter().map(|(n, v)| (n.clone(), text(v))).collect();
    pairs.retain(|(_, value)| !value.is_empty());
    pairs.sort();
    pairs
}

#[test]
fn the_corpus_is_relabeled_as_by_prometheus() {
    let Some(corpus) = corpus("relabel/cases.json") else {
        return;
    };
    let cases = corpus["cases"].as_array().unwrap();
    assert!(cases.len() >= 92);
    for case in cases {
        let configs = case["relabel_configs"].as_array().unwrap();
        let rules: Vec<_> = configs
            .iter()
            .map(|config| options(config).unwrap())
            .collect();
        let got = relabel(&labels(&case["input"]), &rules);
        let want = (!case["drop"].as_bool().unwrap()).then(|| labels(&case["output"]));
        assert_eq!(got, want, "{}", case["name"]);
    }
}

#[test]
fn hashmod_is_that_of_the_corpus() {
    let Some(corpus) = corpus("hashmod/hashmod.json") else {
        return;
    };
    let rows = corpus["rows"].as_array().unwrap();
    assert!(rows.len() >= 564);
    for row in rows {
        let values = row["values"].as_array().unwrap();
        let name = |at: usize| format!("l{at:03}");
        let input = values
            .iter()
            .enumerate()
            .map(|(at, value)| (name(at), text(value)));
        let mut input: Pairs = input.filter(|(_, value)| !value.is_empty()).collect();
        input.insert(0, ("a".into(), "a".into()));
        let rule = RuleOptions {
            action: Action::HashMod,
            source_labels: (0..values.len()).map(name).collect(),
            separator: text(&row["separator"]),
            modulus: row["modulus"].as_u64().unwrap(),
            target_label: "z".into(),
            ..RuleOptions::default()
        };
        let got = relabel(&input, &[rule]).unwrap();
        assert_eq!(
            got.last().unwrap(),
            &("z".to_owned(), row["result"].to_string()),
            "{row}"
        );
    }
}

#[test]
fn rules_are_valid_where_those_of_prometheus_are() {
    let Some(corpus) = corpus("relabel/validate.json") else {
        return;
    };
    for row in corpus["validate"].as_array().unwrap() {
        // an empty action has no form here: reading the configuration refuses it
        if row["config"].get("action").is_none() {
            continue;
        }
        let mut rule = options(&row["config"]).unwrap();
        if row["name_validation_scheme"] == "legacy" {
            rule.names = Names::Legacy;
        }
        match (rule.build(), row["error_contains"].as_str()) {
            (Ok(_), None) => {}
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{error}"),
            (result, _) => panic!("{row}: {result:?}"),
        }
    }
    for row in corpus["target_label_legacy_validity"].as_array().unwrap() {
        let rule = RuleOptions {
            target_label: text(&row["target_label"]),
            names: Names::Legacy,
            ..RuleOptions::default()
        };
        assert_eq!(
            rule.build().is_ok(),
            row["valid_legacy"].as_bool().unwrap(),
            "{row}"
        );
    }
}

fn rule(action: Action, sources: &[&str], regex: &str) -> RuleOptions {
    RuleOptions {
        action,
        source_labels: sources.iter().map(|name| (*name).to_owned()).collect(),
        regex: regex.to_owned(),
        ..RuleOptions::default()
    }
}

fn to(target: &str, replacement: &str, rule: RuleOptions) -> RuleOptions {
    RuleOptions {
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        ..rule
    }
}

#[test]
fn a_replacement_with_nothing_removes_and_a_series_without_labels_is_dropped() {
    let empty = to("a", "", rule(Action::Replace, &[], "(.*)"));
    let both = pairs(&[("a", "1"), ("b", "2")]);
    assert_eq!(
        relabel(&both, std::slice::from_ref(&empty)),
        Some(pairs(&[("b", "2")]))
    );
    assert_eq!(relabel(&pairs(&[("a", "1")]), &[empty]), None);
    assert_eq!(relabel(&both, &[rule(Action::LabelDrop, &[], "a|b")]), None);
}

#[test]
fn a_name_that_is_none_changes_nothing() {
    let input = pairs(&[("a", "1"), ("b", "x-y")]);
    let mut named = to("${1}", "new", rule(Action::Replace, &["b"], "(.*)"));
    named.names = Names::Legacy;
    assert_eq!(relabel(&input, &[named.clone()]), Some(input.clone()));
    named.source_labels = vec!["missing".into()];
    named.names = Names::Utf8;
    assert_eq!(relabel(&input, &[named]), Some(input));
}

#[test]
fn a_name_may_have_a_dollar() {
    let input = pairs(&[("a", "1")]);
    let named = to("x$$y", "new", rule(Action::Replace, &[], "(.*)"));
    let want = pairs(&[("a", "1"), ("x$y", "new")]);
    assert_eq!(relabel(&input, &[named]), Some(want));
}

#[test]
fn mapped_names_are_those_there_were_and_the_last_wins() {
    let input = pairs(&[("a_x", "1"), ("b_x", "2"), ("x", "0")]);
    let mapped = to("", "$1", rule(Action::LabelMap, &[], "._(.)"));
    let want = pairs(&[("a_x", "1"), ("b_x", "2"), ("x", "2")]);
    assert_eq!(relabel(&input, &[mapped]), Some(want));
    let longer = to("", "a$0", rule(Action::LabelMap, &[], "x+|ax*"));
    let want = pairs(&[("ax", "1"), ("x", "1")]);
    assert_eq!(relabel(&pairs(&[("x", "1")]), &[longer]), Some(want));
}

#[test]
fn a_long_label_keeps_its_bytes_beside_a_changed_one() {
    let long = "v".repeat(300);
    let input = pairs(&[("a", "1"), ("long", &long)]);
    let upper = to("b", "$1", rule(Action::Uppercase, &["long"], "(.*)"));
    let want = pairs(&[("a", "1"), ("b", &long.to_uppercase()), ("long", &long)]);
    assert_eq!(relabel(&input, &[upper]), Some(want));
}

#[test]
fn case_is_changed_by_character() {
    for (text, upper, lower) in [
        ("Stra\u{df}e", "STRA\u{df}E", "stra\u{df}e"),
        ("\u{130}\u{3a3}", "\u{130}\u{3a3}", "i\u{3c3}"),
        ("\u{e4}\u{c9}", "\u{c4}\u{c9}", "\u{e4}\u{e9}"),
    ] {
        let changed = [uppercase(text.as_bytes()), lowercase(text.as_bytes())];
        assert_eq!(changed, [upper, lower]);
    }
}

#[test]
fn bytes_that_are_no_labels_give_nothing() {
    let mut relabeler = Relabeler::new([].into());
    assert_eq!(relabeler.apply(&[0x0a, 9, 1]), None);
    assert_eq!(relabeler.apply(&[]), Some(Relabeled::Dropped));
}

fn any_rule() -> impl Strategy<Value = RuleOptions> {
    let name = || prop::sample::select(vec!["a", "b", "c", "ab", "${1}", "x$1"]);
    let regex = prop::sample::select(vec![
        "(.*)", "a", "(a|b).*", "(.)(.?)", "[^a](.*)", "x?(.*)", "()",
    ]);
    let replacement = prop::sample::select(vec!["$1", "", "v", "$2$1", "${1}_x", "$$"]);
    let sources = prop::collection::vec(name(), 0..3);
    (
        0..Action::ALL.len(),
        sources,
        name(),
        regex,
        replacement,
        1..5_u64,
    )
        .prop_map(|(action, sources, target, regex, replacement, modulus)| {
            let plain = RuleOptions::default();
            let mut rule = rule(Action::ALL[action], &sources, regex);
            rule.modulus = modulus;
            rule = to(target, replacement, rule);
            match rule.action {
                Action::KeepEqual | Action::DropEqual => RuleOptions {
                    source_labels: rule.source_labels,
                    target_label: rule.target_label,
                    action: rule.action,
                    ..plain
                },
                Action::LabelDrop | Action::LabelKeep => RuleOptions {
                    regex: rule.regex,
                    action: rule.action,
                    ..plain
                },
                Action::Lowercase | Action::Uppercase => to(target, "$1", rule),
                Action::LabelMap if replacement.is_empty() => to(target, "$1", rule),
                _ => rule,
            }
        })
}

proptest! {
    #[test]
    fn what_comes_out_is_sorted_unique_and_not_empty(
        input in prop::collection::btree_map("[abcx]{1,3}", "[abx\u{e4}]{1,150}", 0..6),
        rules in prop::collection::vec(any_rule(), 0..6),
    ) {
        let input: Pairs = input.into_iter().collect();
        if let Some(got) = relabel(&input, &rules) {
            prop_assert!(got.is_sorted_by(|a, b| a.0 < b.0), "{:?}", got);
            prop_assert!(got.iter().all(|(n, v)| !n.is_empty() && !v.is_empty()), "{:?}", got);
            prop_assert!(!got.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_labels_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let every = RuleOptions { target_label: "z".into(), ..RuleOptions::default() };
        let mut relabeler = Relabeler::new([every.build().unwrap()].into());
        if let Some(Relabeled::Changed(out)) = relabeler.apply(&bytes) {
            let readable = for_each(out, |_, _| {});
            prop_assert!(readable);
        }
    }
}
