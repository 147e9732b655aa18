//! Turns a real Prometheus agent and relabel rules, its own and ours, into the same samples at a real
//! backend: Prometheus relabels on its way to one, `prometheus.relabel` on the way to the other.

use crate::common::agent::Agent;
use crate::common::backend::{Backend, Kind, assert_same, count};
use crate::common::scraper::Scraper;
use crate::common::{PATIENCE, eventually};

const SAMPLES_MIN: f64 = 10_000.0;

/// What Prometheus does on its way to the reference.
const THEIRS: &str = "    write_relabel_configs:
      - {source_labels: [__name__], regex: 'go_.*|scrape_.*', action: drop}
      - {source_labels: [mode, cpu], separator: '@', regex: '(idle|user)@(.+)', target_label: core, replacement: 'c$2-$1'}
      - {regex: 'mode|cpu', action: labeldrop}
      - {regex: '(device)', action: labelmap, replacement: 'dev_$1'}
      - {source_labels: [__name__, instance], modulus: 7, target_label: bucket, action: hashmod}
";

/// The same on the way through Penstock, in two components, beside a way without rules.
fn config(port: u16, ruled: &str, plain: &str) -> String {
    format!(
        r#"
prometheus.receive_http "in" {{
  http {{
    listen_address = "127.0.0.1"
    listen_port    = {port}
  }}
  forward_to = [prometheus.relabel.drop.receiver, prometheus.remote_write.plain.receiver]
}}
prometheus.relabel "drop" {{
  forward_to = [prometheus.relabel.change.receiver]
  rule {{
    source_labels = ["__name__"]
    regex         = "go_.*|scrape_.*"
    action        = "drop"
  }}
}}
prometheus.relabel "change" {{
  forward_to = [prometheus.remote_write.ruled.receiver]
  rule {{
    source_labels = ["mode", "cpu"]
    separator     = "@"
    regex         = "(idle|user)@(.+)"
    target_label  = "core"
    replacement   = "c$2-$1"
  }}
  rule {{
    regex  = "mode|cpu"
    action = "labeldrop"
  }}
  rule {{
    regex       = "(device)"
    action      = "labelmap"
    replacement = "dev_$1"
  }}
  rule {{
    source_labels = ["__name__", "instance"]
    modulus       = 7
    target_label  = "bucket"
    action        = "hashmod"
  }}
}}
prometheus.remote_write "ruled" {{
  endpoint {{ url = "{ruled}" }}
}}
prometheus.remote_write "plain" {{
  endpoint {{ url = "{plain}" }}
}}
"#
    )
}

#[test]
fn what_is_relabeled_here_is_what_prometheus_makes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let start = |name| Backend::start(Kind::VictoriaMetrics, dir.path(), name);
    let (reference, ruled, plain) = (start("reference"), start("ruled"), start("plain"));
    let agent = Agent::start_with(dir.path(), &[], |port| {
        config(port, &ruled.url(), &plain.url())
    });
    let urls = [(agent.url(), ""), (reference.url(), THEIRS)];
    let scraper = Scraper::start_with(dir.path(), &urls);
    eventually(PATIENCE, || match scraper.scraped() {
        SAMPLES_MIN.. => Ok(()),
        scraped => Err(format!("{SAMPLES_MIN} samples are scraped, now {scraped}")),
    });
    let scraped = scraper.finish();
    let of = |id: &'static str| [("component_id", id)];
    let counted = |name: &str, id| agent.metric(name, &of(id));
    let processed = counted(
        "prometheus_relabel_metrics_processed_total",
        "prometheus.relabel.drop",
    );
    let written = counted(
        "prometheus_relabel_metrics_written_total",
        "prometheus.relabel.change",
    );
    assert_eq!(processed, scraped, "every sample comes by");
    let appended = |id| counted("penstock_wal_samples_total", id);
    assert_eq!(appended("prometheus.remote_write.plain"), scraped);
    assert_eq!(appended("prometheus.remote_write.ruled"), written);
    assert!(written < scraped, "some are dropped");
    agent.until_delivered(&ruled.url());
    agent.until_delivered(&plain.url());

    // What Prometheus sent last may not be searched yet.
    let (expected, found) = eventually(PATIENCE, || {
        let (expected, found) = (reference.samples(), ruled.samples());
        match (count(&expected), count(&found)) {
            (theirs, ours) if theirs >= ours => Ok((expected, found)),
            (theirs, ours) => Err(format!("they hold {theirs}, we {ours}")),
        }
    });
    assert!(count(&expected) > 3_000, "only {}", count(&expected));
    assert_same(&expected, &found);
    assert!(count(&plain.samples()) > count(&found));
}
