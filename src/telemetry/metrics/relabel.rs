//! Turns the numbers of a `prometheus.relabel` component into metric families.

use std::sync::atomic::Ordering;

use ingest::Stage;

use crate::telemetry::families::{Families, float};

pub(super) fn collect(families: &mut Families, stage: &Stage) {
    let mut group = families.component(stage.name());
    let stats = stage.stats();
    for (name, help, counter) in [
        (
            "prometheus_relabel_metrics_processed",
            "Samples, exemplars and histograms that came",
            &stats.processed,
        ),
        (
            "prometheus_relabel_metrics_written",
            "Samples, exemplars and histograms that went on",
            &stats.written,
        ),
        (
            "prometheus_relabel_cache_hits",
            "Times in which what became of a series was known",
            &stats.hits,
        ),
        (
            "prometheus_relabel_cache_misses",
            "Times in which the rules had to run",
            &stats.misses,
        ),
        (
            "prometheus_relabel_cache_deletes",
            "Label sets given up to make room",
            &stats.deletes,
        ),
        (
            "prometheus_relabel_cache_ttl_evictions",
            "Label sets given up because of their age",
            &stats.ttl_evictions,
        ),
    ] {
        group.counter(name, help, counter.load(Ordering::Relaxed));
    }
    let size = float(stats.size.load(Ordering::Relaxed));
    let name = "prometheus_relabel_cache_size";
    group.gauge(name, "Label sets whose result is kept", size);
}
