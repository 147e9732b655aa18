//! Turns named, labelled values into the text that scrapers read.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// One value of a family.
#[derive(Clone, Debug)]
enum Value {
    Counter(f64),
    Gauge(f64),
    /// Sum, count, and observations per bucket (upper bound; not cumulative).
    Histogram(f64, u64, Vec<(f64, u64)>),
}

#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    points: Vec<(Labels, Value)>,
}

/// Metric families in the order they were first named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Families {
    families: Vec<Family>,
}

/// What the text is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Families seen through the labels that a component's values share.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    families: &'a mut Families,
    labels: Labels,
}

impl Group<'_> {
    /// The same with one more label.
    pub(crate) fn with(&mut self, name: &'static str, value: impl Into<String>) -> Group<'_> {
        let mut labels = self.labels.clone();
        labels.push((name, value.into()));
        Group {
            families: self.families,
            labels,
        }
    }

    /// Adds a counter; `_total` is appended to its name.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counter_f64(name, help, float(value));
    }

    /// Adds a counter of a fraction, such as seconds.
    pub(crate) fn counter_f64(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.families
            .push(name, help, &self.labels, Value::Counter(value));
    }

    /// Adds a gauge.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.families
            .push(name, help, &self.labels, Value::Gauge(value));
    }

    /// Adds a histogram in seconds.
    pub(crate) fn histogram(&mut self, name: &'static str, help: &'static str, value: &Durations) {
        let Durations {
            sum,
            bounds,
            counts,
        } = value;
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets = bounds.zip(counts.iter().copied()).collect();
        let value = Value::Histogram(*sum, counts.iter().sum(), buckets);
        self.families.push(name, help, &self.labels, value);
    }
}

/// Observed durations in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Durations {
    pub(crate) sum: f64,
    /// Upper bounds of the buckets but the last.
    pub(crate) bounds: Vec<f64>,
    /// Observations per bucket, one more than bounds; not cumulative.
    pub(crate) counts: Vec<u64>,
}

impl Families {
    /// Values without labels.
    pub(crate) fn plain(&mut self) -> Group<'_> {
        Group {
            families: self,
            labels: Labels::new(),
        }
    }

    /// Values of a component.
    pub(crate) fn component(&mut self, id: &str) -> Group<'_> {
        // What is in a module is known by the module's path and its own id there.
        let (path, id) = id.rsplit_once('/').unwrap_or(("", id));
        let labels = vec![
            ("component_path", format!("/{path}")),
            ("component_id", id.to_owned()),
        ];
        Group {
            families: self,
            labels,
        }
    }

    fn push(&mut self, name: &'static str, help: &'static str, labels: &Labels, value: Value) {
        let point = (labels.clone(), value);
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.points.push(point),
            None => self.families.push(Family {
                name,
                help,
                points: vec![point],
            }),
        }
    }

    /// The OpenMetrics text of all families.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub(crate) fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.families {
            let Some((_, first)) = family.points.first() else {
                continue;
            };
            let kind = first.metric_type();
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.points {
                if labels.is_empty() {
                    value.encode(metric)?;
                    break;
                }
                value.encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl EncodeMetric for Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Counter(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Histogram(sum, count, buckets) => {
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(..) => MetricType::Histogram,
        }
    }
}

/// A count as a sample value; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "sample values are floats")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_once_with_all_their_points() {
        let mut families = Families::default();
        for (shard, value) in [("a", 3), ("b", 4)] {
            families
                .plain()
                .with("shard", shard)
                .counter("x_requests", "Requests", value);
        }
        families.plain().gauge("x_lag_seconds", "Lag", 1.5);
        let sync = Durations {
            sum: 0.5,
            bounds: vec![0.1, 1.0],
            counts: vec![2, 0, 1],
        };
        families.plain().histogram("x_sync", "Sync", &sync);
        assert_eq!(
            families.encode().unwrap(),
            "# HELP x_requests Requests\n# TYPE x_requests counter\n\
             x_requests_total{shard=\"a\"} 3.0\nx_requests_total{shard=\"b\"} 4.0\n\
             # HELP x_lag_seconds Lag\n# TYPE x_lag_seconds gauge\nx_lag_seconds 1.5\n\
             # HELP x_sync Sync\n# TYPE x_sync histogram\nx_sync_sum 0.5\nx_sync_count 3\n\
             x_sync_bucket{le=\"0.1\"} 2\nx_sync_bucket{le=\"1.0\"} 2\nx_sync_bucket{le=\"+Inf\"} 3\n\
             # EOF\n"
        );
    }
}
