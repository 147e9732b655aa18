//! Turns what became of looking for targets into metric families.

use crate::discovery::{KUBERNETES, Stats};
use crate::telemetry::families::{Families, float};

pub(super) fn collect(families: &mut Families, stats: &Stats) {
    let mut group = families.component(&stats.id);
    let mut group = group.with("mechanism", stats.mechanism);
    let now = stats.snapshot();
    for (name, help, count) in [
        (
            "penstock_discovery_looks",
            "Times in which targets were looked for",
            now.looks,
        ),
        (
            "prometheus_sd_refresh_failures",
            "Of those, times in which something could not be had",
            now.failed_looks,
        ),
        (
            "prometheus_sd_updates",
            "Lists of targets that were exported",
            now.updates,
        ),
    ] {
        group.counter(name, help, count);
    }
    let name = "prometheus_sd_discovered_targets";
    group.gauge(name, "Targets of the last of them", float(now.targets));
    let failed = now.sources_failed;
    match stats.mechanism {
        "dns" => {
            let name = "prometheus_sd_dns_lookups";
            group.counter(name, "Names that were looked up", now.sources);
            let name = "prometheus_sd_dns_lookup_failures";
            group.counter(name, "Of those, names that could not be", failed);
        }
        "file" => {
            let name = "prometheus_sd_file_read_errors";
            group.counter(name, "Files that could not be read, at every look", failed);
        }
        "http" => {
            let name = "prometheus_sd_http_failures";
            group.counter(name, "Requests without an answer that can be used", failed);
        }
        KUBERNETES => {
            let (failed, objects, events) = stats.watched();
            let name = "prometheus_sd_kubernetes_failures";
            group.counter(name, "Lists and watches that failed", failed);
            let name = "penstock_discovery_objects";
            group.gauge(name, "Objects that are held", float(objects));
            drop(group);
            for (kind, event, count) in events {
                let mut group = families.component(&stats.id);
                let mut group = group.with("role", kind);
                let mut group = group.with("event", event);
                let name = "prometheus_sd_kubernetes_events";
                group.counter(name, "Objects that came, changed or went", count);
            }
        }
        _ => {}
    }
}
