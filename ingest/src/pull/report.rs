//! Turns how a scrape went into the series that tell it: `up` and those beside it.

use std::time::Duration;

use super::merge::Merge;

/// Names of the series, in the order they are written; the first [`ALWAYS`] of every scrape, the others where
/// `extra_metrics` is set.
pub(crate) const NAMES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// How many are always written.
pub(crate) const ALWAYS: usize = 5;

/// How a scrape went.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Report {
    pub(crate) is_up: bool,
    pub(crate) took: Duration,
    pub(crate) samples: usize,
    pub(crate) series_added: usize,
    pub(crate) timeout: Duration,
    pub(crate) sample_limit: usize,
    /// None: more than allowed.
    pub(crate) body_bytes: Option<usize>,
}

impl Report {
    /// The values, in the order of [`NAMES`].
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub(crate) fn values(&self) -> [f64; NAMES.len()] {
        [
            f64::from(u8::from(self.is_up)),
            self.took.as_secs_f64(),
            self.samples as f64,
            self.samples as f64,
            self.series_added as f64,
            self.timeout.as_secs_f64(),
            self.sample_limit as f64,
            self.body_bytes.map_or(-1.0, |bytes| bytes as f64),
        ]
    }
}

/// The canonical labels of one of these series.
pub(crate) fn labels<'m>(
    merge: &'m mut Merge,
    name: &str,
    target: &[(String, String)],
) -> &'m [u8] {
    let own = [(&b"__name__"[..], name.as_bytes())];
    merge.merge(own.into_iter(), target, false)
}
