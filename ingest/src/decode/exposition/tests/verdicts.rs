//! Turns bodies with a known verdict into comparisons with ours.

use super::*;

const AS_PROMETHEUS: ParseOptions = ParseOptions {
    strict: false,
    skip_created: true,
    classic_histograms: false,
    native_histograms: true,
};
const STRICT: ParseOptions = ParseOptions {
    strict: true,
    ..AS_PROMETHEUS
};

#[test]
fn conformance_cases_of_openmetrics_have_their_verdicts() {
    if corpus().is_none() {
        return;
    }
    let mut wrong = Vec::new();
    let cases = json_of("openmetrics-tests/cases.json");
    let cases = cases.as_array().unwrap();
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let body = bytes_of(file);
        for (options, expected) in [
            (AS_PROMETHEUS, &case["prometheus_textparse"]["ok"]),
            (STRICT, &case["should_parse"]),
        ] {
            let verdict = read(&body, Format::OpenMetrics, options);
            if Some(verdict.is_ok()) != expected.as_bool() {
                wrong.push(format!("{file}: strict {}: {verdict:?}", options.strict));
            }
            let samples = case["prometheus_textparse"]["samples"]
                .as_u64()
                .unwrap_or(0);
            let read =
                verdict.map(|entries| entries.iter().filter(|line| line.starts_with('{')).count());
            if !options.strict && read.is_ok_and(|read| read as u64 != samples) {
                wrong.push(format!("{file}: other than {samples} samples"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() > 100, "only {} cases", cases.len());
}

/// Words of an error of Prometheus, and what ours says of the same.
const MEANINGS: [(&str, &str); 20] = [
    ("expected value after metric", "value"),
    (
        "expected value after exemplar labels",
        "value of the exemplar",
    ),
    ("expected label value", "label value|closing quote|UTF-8"),
    ("expected label name", "label name"),
    ("expected equal", "equals sign|closing quote"),
    ("expected metric name", "metric name"),
    ("expected text", "text behind"),
    ("expected comma or brace close", "comma"),
    ("invalid UTF-8", "UTF-8"),
    ("invalid metric type", "type|expected counter"),
    ("metric name not set", "expected a metric name"),
    ("unsupported character in float", "decimal number"),
    ("strconv.ParseFloat", "decimal number"),
    ("invalid timestamp", "not finite"),
    ("invalid exemplar timestamp", "not finite"),
    ("unit ", "no suffix"),
    ("unexpected data after # EOF", "behind # EOF"),
    (
        "data does not end with # EOF",
        "# EOF|newline|end of the line",
    ),
    (
        "expected next entry after",
        "end of the line|exemplar|timestamp",
    ),
    ("expected a valid start token", "metric name|# EOF"),
];

#[test]
fn bad_bodies_are_refused_for_the_same_reason() {
    if corpus().is_none() {
        return;
    }
    let mut wrong = Vec::new();
    let cases = json_of("textparse-errors/cases.json");
    for case in cases.as_array().unwrap() {
        let base64 = case["input_base64"].as_str().unwrap();
        let body = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64);
        let format = match case["format"].as_str().unwrap() {
            "text" => Format::Text,
            _ => Format::OpenMetrics,
        };
        let verdict = read(&body.unwrap(), format, AS_PROMETHEUS);
        let expected = case["upstream_error"].as_str();
        let is_right = match (&verdict, expected) {
            (Ok(_), None) => case["valid"] == true,
            (Err(ours), Some(theirs)) => {
                let meaning = MEANINGS.iter().find(|(words, _)| theirs.starts_with(words));
                let meant = meaning.unwrap_or_else(|| panic!("{theirs}")).1;
                meant.split('|').any(|words| ours.contains(words))
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!(
                "{}: {verdict:?}, expected {expected:?}",
                case["input"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn seeds_of_the_fuzzer_of_prometheus_have_their_verdicts() {
    if corpus().is_none() {
        return;
    }
    let cases = listed("exposition-fuzz");
    for case in &cases {
        let file = case["file"].as_str().unwrap();
        let verdict = read(&bytes_of(file), Format::Text, AS_PROMETHEUS);
        let expected = &case["prometheus_textparse"];
        assert_eq!(
            Some(verdict.is_ok()),
            expected["ok"].as_bool(),
            "{file}: {verdict:?}"
        );
        if let Ok(entries) = verdict {
            let samples = entries.iter().filter(|line| line.starts_with('{')).count();
            assert_eq!(
                expected["samples"].as_u64().unwrap_or(0),
                samples as u64,
                "{file}"
            );
        }
    }
    assert!(cases.len() > 10, "only {} seeds", cases.len());
}
