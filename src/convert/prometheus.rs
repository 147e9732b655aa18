//! Turns a Prometheus configuration into one of this agent.
//!
//! A scrape for each job, discovery and relabeling around it, and one `prometheus.remote_write` behind
//! them all. What is the target's default is left out; where the source's differs it is written.
//!
//! # Failure
//! What has no counterpart is a finding each, and the rest is converted. A text that is no Prometheus
//! configuration is one finding with every fault in it, and nothing is converted.

use super::scrape::{Components, Defaults};
use super::source::{Finding, Findings, Kind, Level, Section, quoted};
use super::target::Body;
use super::write::endpoint;

/// Converts a text: the result, if there is any, and what was found.
pub(crate) fn prometheus(text: &str) -> (String, Vec<Finding>) {
    let mut findings = Findings::default();
    let critical = |message: String| {
        let level = Level::Critical;
        (String::new(), vec![Finding { level, message }])
    };
    let root = match config::yaml::parse(text) {
        Ok(root) => root,
        Err(error) => return critical(format!("failed to parse Prometheus config: {error}")),
    };
    let blocks = convert(Section::new(&root, &mut findings), &mut findings);
    if let Some(fault) = findings.critical() {
        return (String::new(), vec![fault]);
    }
    let mut out = String::new();
    for (head, body) in blocks {
        out.push_str(&format!("{head} {{\n{}}}\n\n", body.into_text()));
    }
    match config::format("converted", &out) {
        Ok(out) => (out, findings.list),
        Err(all) => critical(format!("the converted configuration does not parse: {all}")),
    }
}

fn convert(mut root: Section<'_>, findings: &mut Findings) -> Vec<(String, Body)> {
    let mut external_labels = None;
    let mut defaults = Defaults {
        scrape_interval: "1m0s".to_owned(),
        scrape_timeout: None,
        receivers: "[]".to_owned(),
    };
    if let Some(global) = root.section("global", findings) {
        external_labels = take_global(global, &mut defaults, findings);
    }
    for (name, what) in [
        ("alerting", "alerting config"),
        ("rule_files", "rule_files config"),
    ] {
        if root.take(name).is_some() {
            findings.unsupported(what);
        }
    }
    let has_writer = root.take("remote_write").is_some();
    if has_writer {
        defaults.receivers = "[prometheus.remote_write.default.receiver]".to_owned();
    }
    let mut components = Components::default();
    for job in root.sections("scrape_configs", findings) {
        components.add(job, &defaults, findings);
    }
    for (name, what) in [
        ("scrape_config_files", "scrape_config_files config"),
        ("storage", "storage config"),
        ("tracing", "tracing config"),
        ("otlp", "otlp config"),
        ("runtime", "runtime config"),
    ] {
        if root.take(name).is_some() {
            findings.unsupported(what);
        }
    }
    let mut blocks: Vec<_> = components.into_blocks().collect();
    if has_writer {
        let mut body = Body::default();
        if let Some(labels) = external_labels {
            body.attribute("external_labels", &labels);
        }
        for entry in root.sections("remote_write", findings) {
            let inner = endpoint(entry, findings);
            body.block("endpoint", &inner);
        }
        blocks.push((
            format!("prometheus.remote_write {}", quoted("default")),
            body,
        ));
    }
    if root.take("remote_read").is_some() {
        findings.unsupported("remote_read config");
    }
    root.finish(findings);
    blocks
}

/// Takes what holds for all jobs; gives the labels that go to the writer.
fn take_global(
    mut global: Section<'_>,
    defaults: &mut Defaults,
    findings: &mut Findings,
) -> Option<String> {
    if let Some(interval) = global.scalar("scrape_interval", Kind::Duration, findings) {
        defaults.scrape_interval = interval;
    }
    defaults.scrape_timeout = global.scalar("scrape_timeout", Kind::Duration, findings);
    let evaluation = global.scalar("evaluation_interval", Kind::Duration, findings);
    if evaluation.is_some_and(|interval| interval != "1m0s") {
        findings.unsupported("global evaluation_interval config");
    }
    for (name, what) in [
        ("query_log_file", "global query_log_file config"),
        ("rule_query_offset", "global rule_query_offset config"),
        ("body_size_limit", "global body_size_limit config"),
        ("sample_limit", "global sample_limit config"),
        ("target_limit", "global target_limit config"),
        ("label_limit", "global label_limit config"),
        (
            "label_name_length_limit",
            "global label_name_length_limit config",
        ),
        (
            "label_value_length_limit",
            "global label_value_length_limit config",
        ),
        ("keep_dropped_targets", "global keep_dropped_targets config"),
        ("scrape_protocols", "global scrape_protocols config"),
        (
            "scrape_native_histograms",
            "global scrape_native_histograms config",
        ),
        (
            "scrape_failure_log_file",
            "global scrape_failure_log_file config",
        ),
        (
            "metric_name_validation_scheme",
            "global metric_name_validation_scheme config",
        ),
        (
            "metric_name_escaping_scheme",
            "global metric_name_escaping_scheme config",
        ),
        (
            "convert_classic_histograms_to_nhcb",
            "global convert_classic_histograms_to_nhcb config",
        ),
        (
            "always_scrape_classic_histograms",
            "global always_scrape_classic_histograms config",
        ),
        ("scrape_on_shutdown", "global scrape_on_shutdown config"),
        ("extra_scrape_metrics", "global extra_scrape_metrics config"),
    ] {
        if global.take(name).is_some() {
            findings.unsupported(what);
        }
    }
    let labels = global.scalar("external_labels", Kind::TextMap, findings);
    global.finish(findings);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Option<std::path::PathBuf> {
        let path = match std::env::var_os("PENSTOCK_CORPUS") {
            Some(path) => std::path::PathBuf::from(path),
            None => std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"),
        };
        let path = path.join("alloy/convert/prometheus");
        if path.try_exists().unwrap() {
            return Some(path);
        }
        println!("skipped: no corpus at {}", path.display());
        None
    }

    /// All pairs pass: the two that have no text are what they are refused with.
    #[test]
    fn every_pair_of_the_corpus_comes_out_byte_for_byte() {
        let Some(dir) = corpus() else { return };
        let mut failures = Vec::new();
        let mut total = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            total += 1;
            let read = |extension: &str| {
                std::fs::read_to_string(path.with_extension(extension)).unwrap_or_default()
            };
            let (text, findings) = prometheus(&read("yaml"));
            let findings: Vec<String> = findings.iter().map(|one| format!("{one}\n")).collect();
            let name = path.file_stem().unwrap().to_string_lossy();
            if findings.concat() != read("diags") {
                failures.push(format!("{name}: found\n{}", findings.concat()));
            }
            if text != read("alloy") {
                let want = read("alloy");
                let at = text
                    .lines()
                    .zip(want.lines())
                    .position(|(got, want)| got != want);
                failures.push(format!("{name}: line {at:?} of\n{text}"));
            }
        }
        println!("convert prometheus: {total} pairs");
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn no_part_of_a_configuration_makes_it_panic() {
        let mut texts = vec!["a: [1, {b: &c d}]\nscrape_configs: [{job_name: {}}]\n".to_owned()];
        for entry in corpus()
            .into_iter()
            .flat_map(|dir| std::fs::read_dir(dir).unwrap())
        {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml") {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
        for text in texts {
            let lines: Vec<&str> = text.lines().collect();
            for at in 0..lines.len() {
                let without = [&lines[..at], &lines[at + 1..]].concat().join("\n");
                let deeper = text.replacen(lines[at], &format!("  {}", lines[at]), 1);
                let emptied = text.replacen(lines[at], lines[at].split(':').next().unwrap(), 1);
                for text in [without, deeper, emptied, lines[..at].join("\n")] {
                    let (converted, findings) = prometheus(&text);
                    let is_critical = findings.iter().any(|one| one.level == Level::Critical);
                    assert_eq!(converted.is_empty(), is_critical, "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_configuration_is_critical() {
        for (text, want) in [
            (
                "scrape_configs: 5\n",
                "line 1: cannot unmarshal scrape_configs into a list",
            ),
            ("scrape_configs:\n- {}\n", "line 2: job_name is empty"),
            (
                "scrape_configs:\n- job_name: a\n- job_name: a\n",
                "found multiple scrape configs",
            ),
            (
                "global:\n  scrape_interval: 5\n",
                "not a valid duration string",
            ),
            ("a: [\n", "yaml: line "),
            (
                "scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n  scrape_timeout: 6s\n",
                "greater",
            ),
        ] {
            let (converted, findings) = prometheus(text);
            assert_eq!((converted.as_str(), findings.len()), ("", 1), "{text}");
            assert_eq!(findings[0].level, Level::Critical);
            assert!(
                findings[0].message.contains(want),
                "{}",
                findings[0].message
            );
        }
    }

    #[test]
    fn times_of_a_job_are_its_own_or_everybodys() {
        let job = "scrape_configs:\n- job_name: 1-a\n";
        let times = |text: &str| {
            let (text, findings) = prometheus(text);
            assert!(findings.is_empty(), "{findings:?}");
            let lines = text.lines().filter(|line| line.contains("scrape_"));
            let lines = lines.map(|line| line.split('=').next_back().unwrap_or_default().trim());
            lines.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(times(job), "");
        assert_eq!(
            times(&format!("global: {{scrape_interval: 5s}}\n{job}")),
            "\"5s\" \"5s\""
        );
        assert_eq!(
            times(&format!("{job}  scrape_interval: 1d\n")),
            "\"24h0m0s\""
        );
        let (text, _) = prometheus(job);
        assert!(
            text.starts_with(
                "prometheus.scrape \"_1_a\" {\n\ttargets    = []\n\tforward_to = []\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn relabeling_behind_a_scrape_is_a_component() {
        let text = "scrape_configs:\n- job_name: a\n  metric_relabel_configs:\n  - action: LabelDrop\n    regex: x\nremote_write:\n- url: http://h\n";
        let (text, findings) = prometheus(text);
        assert!(findings.is_empty());
        for want in [
            "forward_to = [prometheus.relabel.a.receiver]",
            "prometheus.relabel \"a\" {\n\tforward_to = [prometheus.remote_write.default.receiver]\n\n\trule {\n\t\tregex  = \"x\"\n\t\taction = \"labeldrop\"\n\t}\n}\n",
        ] {
            assert!(text.contains(want), "{text}");
        }
    }
}
