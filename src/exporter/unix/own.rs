//! Turns what the kernel knows of this process into the series that exporters have of themselves.

use super::read::{self, float};
use crate::exporter::page::Page;
use crate::telemetry::{families, process};

/// Adds what can be read; the rest is left out.
pub(super) fn collect(page: &mut Page) {
    if let Some(seconds) = process::cpu_seconds("/proc/self/stat") {
        let help = "Total user and system CPU time spent in seconds.";
        page.counter("process_cpu_seconds_total", help, &[], seconds);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        let count = families::float(entries.count() as u64);
        page.gauge("process_open_fds", help, &[], count);
    }
    let statm = read::text("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').map_while(float);
    let page_bytes = families::float(rustix::param::page_size() as u64);
    if let (Some(size), Some(resident)) = (pages.next(), pages.next()) {
        let help = "Virtual memory size in bytes.";
        page.gauge("process_virtual_memory_bytes", help, &[], size * page_bytes);
        let help = "Resident memory size in bytes.";
        let bytes = resident * page_bytes;
        page.gauge("process_resident_memory_bytes", help, &[], bytes);
    }
    let limits = read::text("/proc/self/limits").unwrap_or_default();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        // No limit is written as a word, and told as the largest number there is.
        let soft = line.split_whitespace().next()?;
        Some(float(soft).unwrap_or(families::float(u64::MAX)))
    };
    if let Some(limit) = limit("Max open files") {
        let help = "Maximum number of open file descriptors.";
        page.gauge("process_max_fds", help, &[], limit);
    }
    if let Some(limit) = limit("Max address space") {
        let help = "Maximum amount of virtual memory available in bytes.";
        page.gauge("process_virtual_memory_max_bytes", help, &[], limit);
    }
}
