//! Reads what the kernel knows about this process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::families::{Families, float};

/// Adds the usual `process_*` metrics; what cannot be read is left out.
pub(crate) fn collect(families: &mut Families) {
    let mut process = families.plain();
    if let Some(seconds) = cpu_seconds("/proc/self/stat") {
        process.counter_f64("process_cpu_seconds", "User and system CPU time", seconds);
    }
    for (thread, seconds) in cpu_by_thread() {
        process.with("thread", thread).gauge(
            "penstock_thread_cpu_seconds",
            "User and system CPU time of the living threads of a name",
            seconds,
        );
    }
    let page = float(rustix::param::page_size() as u64);
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm
        .split(' ')
        .filter_map(|field| field.parse::<u64>().ok());
    if let (Some(virtual_pages), Some(resident)) = (pages.next(), pages.next()) {
        let bytes = float(virtual_pages) * page;
        process.gauge("process_virtual_memory_bytes", "Virtual memory", bytes);
        let help = "Resident memory, mapped files included";
        process.gauge(
            "process_resident_memory_bytes",
            help,
            float(resident) * page,
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    if let Some(kib) = kib {
        let help = "Resident memory that is not backed by files";
        process.gauge("process_resident_anonymous_bytes", help, float(kib * 1024));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        process.gauge(
            "process_open_fds",
            "Open files",
            float(entries.count() as u64),
        );
    }
}

/// CPU time by the names of threads: `ingest-N` (and, with io_uring, the committer of some store on
/// it), `ship`, the keeper and cleaner of the stores, and so on; `iou-wrk` is what the kernel writes and
/// syncs for io_uring. Of threads that live now: with one that ends its time goes, so these are gauges.
fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, f64> = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = task.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let name = match name.trim() {
            worker if worker.starts_with("iou-wrk") => "iou-wrk",
            name => name,
        };
        // One that has ended meanwhile is not there.
        if let Some(seconds) = cpu_seconds(path.join("stat"))
            && !name.is_empty()
        {
            *all.entry(name.to_owned()).or_default() += seconds;
        }
    }
    all
}

pub(crate) fn cpu_seconds(stat: impl AsRef<Path>) -> Option<f64> {
    let stat = fs::read_to_string(stat).ok()?;
    // The name in parentheses may hold anything; the fields behind it are counted from the state.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(float(user + system) / float(rustix::param::clock_ticks_per_second()))
}
