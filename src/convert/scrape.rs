//! Turns scrape configurations into scrapes, the discovery in front of them and the relabeling around them.

use config::yaml::{Node, NodeKind};

use super::discovery::{KINDS, WITHOUT};
use super::http::{CLIENT, client};
use super::relabel::rules;
use super::source::{Findings, Kind, Section, key, quoted};
use super::target::{Body, Field, field, text};

/// Components by the order they are written in: kind by kind.
#[derive(Debug, Default)]
pub(super) struct Components {
    pub(super) discoveries: Vec<(String, Body)>,
    pub(super) target_relabels: Vec<(String, Body)>,
    pub(super) scrapes: Vec<(String, Body)>,
    pub(super) relabels: Vec<(String, Body)>,
    jobs: Vec<String>,
}

/// What jobs that do not say otherwise do.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) scrape_interval: String,
    pub(super) scrape_timeout: Option<String>,
    /// Where everything goes: an expression.
    pub(super) receivers: String,
}

const BEFORE_TIMES: &[Field] = &[
    field("honor_labels", Kind::Bool),
    field("honor_timestamps", Kind::Bool).or("true"),
    field("track_timestamps_staleness", Kind::Bool),
    field("params", Kind::ListMap),
    field("always_scrape_classic_histograms", Kind::Bool).becomes("scrape_classic_histograms"),
    field("scrape_native_histograms", Kind::Bool),
    field("convert_classic_histograms_to_nhcb", Kind::Bool),
];
const AFTER_TIMES: &[Field] = &[
    text("scrape_failure_log_file"),
    text("metrics_path").or("/metrics"),
    text("scheme").or("http"),
    field("body_size_limit", Kind::Size),
    field("sample_limit", Kind::Number),
    field("target_limit", Kind::Number),
    field("label_limit", Kind::Number),
    field("label_name_length_limit", Kind::Number),
    field("label_value_length_limit", Kind::Number),
    field("scrape_protocols", Kind::Texts),
    text("fallback_scrape_protocol").becomes("scrape_fallback_protocol"),
    field("native_histogram_bucket_limit", Kind::Number),
    field("native_histogram_min_bucket_factor", Kind::Number),
    text("metric_name_validation_scheme"),
    text("metric_name_escaping_scheme"),
    field("enable_compression", Kind::Bool).or("true"),
];
/// Converted, and still said not to be: as the reference does.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "track_timestamps_staleness",
        "scrape_configs track_timestamps_staleness config",
    ),
    (
        "native_histogram_bucket_limit",
        "scrape_configs native_histogram_bucket_limit config",
    ),
    (
        "keep_dropped_targets",
        "scrape_configs keep_dropped_targets config",
    ),
];

impl Components {
    /// Takes one job.
    pub(super) fn add(
        &mut self,
        mut section: Section<'_>,
        defaults: &Defaults,
        findings: &mut Findings,
    ) {
        let job = section.text("job_name", findings);
        if job.is_empty() {
            findings.fault(section.line, "job_name is empty");
        } else if self.jobs.contains(&job) {
            let message = format!("found multiple scrape configs with job name {job:?}");
            findings.fault(section.line, message);
        }
        let label = label(&job);
        let mut targets = self.discover(&mut section, &label, findings);
        unsupported(&mut section, findings);
        targets.extend(static_targets(&mut section, findings));
        let mut targets = joined(&targets);
        let rule_blocks = rules(&mut section, "relabel_configs", "rule", findings);
        if !rule_blocks.is_empty() {
            let mut body = Body::default();
            body.attribute("targets", &targets);
            body.append(&rule_blocks);
            self.target_relabels
                .push((format!("discovery.relabel {}", quoted(&label)), body));
            targets = format!("discovery.relabel.{label}.output");
        }
        let mut receivers = defaults.receivers.clone();
        let rule_blocks = rules(&mut section, "metric_relabel_configs", "rule", findings);
        if !rule_blocks.is_empty() {
            let mut body = Body::default();
            body.attribute("forward_to", &receivers);
            body.append(&rule_blocks);
            self.relabels
                .push((format!("prometheus.relabel {}", quoted(&label)), body));
            receivers = format!("[prometheus.relabel.{label}.receiver]");
        }
        let mut body = Body::default();
        body.attribute("targets", &targets);
        body.attribute("forward_to", &receivers);
        body.value("job_name", Kind::Text, &job);
        body.fields(&mut section, BEFORE_TIMES, findings);
        times(&mut section, defaults, &mut body, findings);
        body.fields(&mut section, AFTER_TIMES, findings);
        client(&mut section, CLIENT, &mut body, findings);
        section.finish(findings);
        self.scrapes
            .push((format!("prometheus.scrape {}", quoted(&label)), body));
        self.jobs.push(job);
    }

    /// Takes the discovery of one job; gives the expressions of what it finds.
    fn discover(
        &mut self,
        section: &mut Section<'_>,
        label: &str,
        findings: &mut Findings,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for kind in KINDS {
            for (at, entry) in section
                .sections(kind.source, findings)
                .into_iter()
                .enumerate()
            {
                let label = match at {
                    0 => label.to_owned(),
                    _ => format!("{label}_{}", at + 1),
                };
                let body = kind.body(entry, findings);
                found.push(format!("{}.{label}.targets", kind.component));
                let head = format!("{} {}", kind.component, quoted(&label));
                self.discoveries.push((head, body));
            }
        }
        for &kind in WITHOUT {
            if section.take(kind).is_some() {
                let kind = kind.strip_suffix("_sd_configs").unwrap_or(kind);
                findings.unsupported(&format!("{kind} service discovery"));
            }
        }
        found
    }

    /// Everything, kind by kind.
    pub(super) fn into_blocks(self) -> impl Iterator<Item = (String, Body)> {
        let before = self.discoveries.into_iter().chain(self.target_relabels);
        before.chain(self.scrapes).chain(self.relabels)
    }
}

fn unsupported(section: &mut Section<'_>, findings: &mut Findings) {
    for &(name, what) in UNSUPPORTED {
        let given = section.take(name).and_then(|node| node.text());
        if !matches!(given, None | Some("false" | "0")) {
            findings.unsupported(what);
        }
    }
}

/// The interval of a job is its own or everybody's; the timeout too, but never longer than the interval.
fn times(section: &mut Section<'_>, defaults: &Defaults, body: &mut Body, findings: &mut Findings) {
    let interval = section.scalar("scrape_interval", Kind::Duration, findings);
    let timeout = section.scalar("scrape_timeout", Kind::Duration, findings);
    let interval = interval.unwrap_or_else(|| defaults.scrape_interval.clone());
    let longer = |a: &str, b: &str| parsed(a) > parsed(b);
    let timeout = match timeout {
        Some(timeout) => {
            if longer(&timeout, &interval) {
                let message = "scrape timeout greater than scrape interval for scrape config";
                findings.fault(section.line, message);
            }
            timeout
        }
        None => {
            let timeout = defaults.scrape_timeout.clone();
            let timeout = timeout.unwrap_or_else(|| "10s".to_owned());
            if longer(&timeout, &interval) {
                interval.clone()
            } else {
                timeout
            }
        }
    };
    if interval != "1m0s" {
        body.value("scrape_interval", Kind::Duration, &interval);
    }
    if timeout != "10s" {
        body.value("scrape_timeout", Kind::Duration, &timeout);
    }
}

fn parsed(duration: &str) -> Option<config::SignedDuration> {
    duration.parse().ok()
}

/// A list of one target each, with its labels.
fn static_targets(section: &mut Section<'_>, findings: &mut Findings) -> Vec<String> {
    let mut found = Vec::new();
    for mut group in section.sections("static_configs", findings) {
        let mut labels = Vec::new();
        if let Some(node) = group.take("labels") {
            let NodeKind::Map(fields) = &node.kind else {
                findings.fault(node.line, "cannot unmarshal labels into a map");
                continue;
            };
            let text = |node: &Node| node.text().unwrap_or_default().to_owned();
            labels.extend(fields.iter().map(|(name, value)| (text(name), text(value))));
        }
        if let Some(node) = group.take("targets") {
            match &node.kind {
                NodeKind::List(items) => {
                    for item in items {
                        let address = item.text().unwrap_or_default().to_owned();
                        found.push(target(&address, &labels));
                    }
                }
                _ => findings.fault(node.line, "cannot unmarshal targets into []string"),
            }
        }
        group.finish(findings);
    }
    found
}

fn target(address: &str, labels: &[(String, String)]) -> String {
    let mut all = labels.to_vec();
    all.push(("__address__".to_owned(), address.to_owned()));
    all.sort();
    let lines = all
        .iter()
        .map(|(name, value)| format!("{} = {},\n", key(name), quoted(value)));
    format!("[{{\n{}}}]", lines.collect::<String>())
}

fn joined(targets: &[String]) -> String {
    match targets {
        [] => "[]".to_owned(),
        [one] => one.clone(),
        many => {
            let lines = many.iter().map(|one| format!("{one},\n"));
            format!("array.concat(\n{})", lines.collect::<String>())
        }
    }
}

/// The name of a job as a label of the language.
pub(super) fn label(job: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut label: String = job.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        label.insert(0, '_');
    }
    label
}
