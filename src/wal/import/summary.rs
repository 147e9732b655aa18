//! Turns what an import did into text for a person or JSON for a program.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use ingest::prometheus_wal::Lost;
use serde_json::{Value, json};

use super::Options;
use crate::wal::time;

/// Places of damage that are listed; further ones are only counted.
const LOSSES_LISTED: usize = 100;
/// Skipped on purpose, or not data.
const HARMLESS: [&str; 2] = ["out_of_range", "tombstones"];

/// What was imported and what was not.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Refs of the Prometheus.
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) histograms: u64,
    pub(super) exemplars: u64,
    pub(super) metadata: u64,
    /// First and last time of what was imported.
    times: Option<(i64, i64)>,
    skipped: BTreeMap<&'static str, u64>,
    losses: Vec<Lost>,
    losses_count: u64,
    lost_bytes: u64,
    torn_bytes: u64,
}

impl Summary {
    pub(super) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// What was not imported, by reason.
    #[cfg(test)]
    pub(super) const fn skipped(&self) -> &BTreeMap<&'static str, u64> {
        &self.skipped
    }

    pub(super) fn time(&mut self, at_ms: i64) {
        let (first, last) = self.times.unwrap_or((at_ms, at_ms));
        self.times = Some((first.min(at_ms), last.max(at_ms)));
    }

    pub(super) fn lost(&mut self, lost: Lost) {
        if lost.why.is_usual() {
            self.torn_bytes += lost.bytes;
            return;
        }
        self.losses_count += 1;
        self.lost_bytes += lost.bytes;
        if self.losses.len() < LOSSES_LISTED {
            self.losses.push(lost);
        }
    }

    /// Whether nothing is missing that was asked for.
    pub(super) fn is_complete(&self) -> bool {
        let is_harmless = |reason: &&str| HARMLESS.contains(reason);
        self.losses_count == 0 && self.skipped.keys().all(is_harmless)
    }

    /// Writes it to stdout.
    pub(super) fn print(&self, from: &Path, options: &Options) -> std::io::Result<()> {
        let text = if options.json {
            format!("{}\n", self.json(from, options))
        } else {
            self.text(from, options)
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn json(&self, from: &Path, options: &Options) -> Value {
        let losses = self.losses.iter().map(|lost| {
            json!({
                "file": lost.file.display().to_string(),
                "offset": lost.offset,
                "bytes": lost.bytes,
                "why": lost.why.to_string(),
            })
        });
        json!({
            "wal": from.display().to_string(),
            "store": options.store_dir.display().to_string(),
            "dry_run": options.dry_run,
            "series": self.series,
            "samples": self.samples,
            "histograms": self.histograms,
            "exemplars": self.exemplars,
            "metadata": self.metadata,
            "first_ms": self.times.map(|(first, _)| first),
            "last_ms": self.times.map(|(_, last)| last),
            "skipped": self.skipped,
            "corrupt": losses.collect::<Vec<_>>(),
            "corrupt_count": self.losses_count,
            "corrupt_bytes": self.lost_bytes,
            "torn_tail_bytes": self.torn_bytes,
            "complete": self.is_complete(),
        })
    }

    fn text(&self, from: &Path, options: &Options) -> String {
        let did = if options.dry_run {
            "would import"
        } else {
            "imported"
        };
        let mut lines = vec![
            format!(
                "{did} {} into {}",
                from.display(),
                options.store_dir.display()
            ),
            format!("  series      {}", self.series),
            format!("  samples     {}", self.samples),
            format!("  histograms  {}", self.histograms),
            format!("  exemplars   {}", self.exemplars),
            format!("  metadata    {}", self.metadata),
        ];
        if let Some((first, last)) = self.times {
            lines.push(format!("  from        {}", time::format(first)));
            lines.push(format!("  to          {}", time::format(last)));
        }
        for (reason, count) in &self.skipped {
            lines.push(format!("  skipped     {count} {reason}"));
        }
        for lost in &self.losses {
            let (file, offset, bytes) = (lost.file.display(), lost.offset, lost.bytes);
            lines.push(format!(
                "  corrupt     {file} at {offset}, {bytes} bytes: {}",
                lost.why
            ));
        }
        if self.losses_count > count(self.losses.len()) {
            let (all, bytes) = (self.losses_count, self.lost_bytes);
            lines.push(format!(
                "  corrupt     {all} places with {bytes} bytes in all"
            ));
        }
        if self.torn_bytes > 0 {
            lines.push(format!(
                "  torn tail   {} bytes, as after a crash",
                self.torn_bytes
            ));
        }
        lines.join("\n") + "\n"
    }
}

pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
