//! Turns the numbers of a `prometheus.scrape` component into metric families.

use ingest::pull::{ScrapeFailure, ScraperSnapshot, ScraperStats};

use crate::telemetry::families::{Families, Group, float};

pub(super) fn collect(families: &mut Families, stats: &ScraperStats) {
    let mut group = families.component(stats.name());
    collect_targets(&mut group, stats);
    collect_counters(&mut group, stats.snapshot());
}

fn collect_targets(group: &mut Group<'_>, stats: &ScraperStats) {
    let targets = stats.targets();
    let help = "Targets scraped by this process";
    let count = float(targets.len() as u64);
    group.gauge("prometheus_scrape_targets_gauge", help, count);
    (group.with("scrape_job", stats.name())).gauge(
        "prometheus_target_scrape_pool_targets",
        help,
        count,
    );
    for health in ["up", "down", "unknown"] {
        let count = targets.iter().filter(|one| one.health() == health).count();
        let name = "penstock_scrape_targets";
        let help = "Targets by how their last scrape went";
        (group.with("health", health)).gauge(name, help, float(count as u64));
    }
}

fn collect_counters(group: &mut Group<'_>, now: ScraperSnapshot) {
    let failed = |failure: ScrapeFailure| now.failures[failure as usize];
    for failure in ScrapeFailure::ALL {
        let name = "penstock_scrape_failures";
        let help = "Scrapes that failed, by why";
        (group.with("reason", failure.as_str())).counter(name, help, failed(failure));
    }
    collect_known(group, now);
    for (name, help, value) in [
        ("penstock_scrape_scrapes", "Scrapes that ended", now.scrapes),
        (
            "penstock_scrape_late",
            "Scrapes left out as the one before was not over",
            now.late,
        ),
        (
            "penstock_scrape_body_bytes",
            "Bytes of bodies, decompressed",
            now.body_bytes,
        ),
        (
            "penstock_scrape_stale_markers",
            "Stale markers written",
            now.stale_markers,
        ),
        (
            "penstock_scrape_start_samples",
            "Samples of 0 written where a metric began to count",
            now.start_samples,
        ),
        (
            "penstock_scrape_dropped_samples",
            "Samples that the log did not take",
            now.dropped,
        ),
    ] {
        group.counter(name, help, value);
    }
    for (how, value) in [
        ("followed", now.samples_followed),
        ("parsed", now.samples_parsed),
    ] {
        let name = "penstock_scrape_samples";
        let help = "Samples exposed, by whether the body was as the one before or had to be parsed";
        (group.with("how", how)).counter(name, help, value);
    }
}

/// What Prometheus counts, by its names.
fn collect_known(group: &mut Group<'_>, now: ScraperSnapshot) {
    let failed = |failure: ScrapeFailure| now.failures[failure as usize];
    for (name, help, value) in [
        (
            "prometheus_scrape_targets_moved",
            "Targets that came from, or went to, another node of the cluster",
            now.moved,
        ),
        (
            "prometheus_target_scrapes_exceeded_body_size_limit",
            "Scrapes whose body was too large",
            failed(ScrapeFailure::BodySizeLimit),
        ),
        (
            "prometheus_target_scrapes_exceeded_sample_limit",
            "Scrapes that had too many samples",
            failed(ScrapeFailure::SampleLimit),
        ),
        (
            "prometheus_target_scrape_pool_exceeded_label_limits",
            "Scrapes with a series beyond a limit on labels",
            failed(ScrapeFailure::LabelLimit),
        ),
        (
            "prometheus_target_scrape_pool_exceeded_target_limit",
            "Scrapes left out because there are too many targets",
            failed(ScrapeFailure::TargetLimit),
        ),
        (
            "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit",
            "Scrapes with a native histogram of too many buckets",
            failed(ScrapeFailure::BucketLimit),
        ),
        (
            "prometheus_target_scrapes_sample_duplicate_timestamp",
            "Samples left out beside another of their series and time",
            now.duplicates,
        ),
    ] {
        group.counter(name, help, value);
    }
}
