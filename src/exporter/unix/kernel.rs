//! Turns what the kernel counts as a whole into series: load, interrupts, files, entropy, pressure, connections.

use super::Options;
use super::read::{self, Problem, float, hex};
use crate::exporter::page::{Kind, Page};

pub(super) fn loadavg(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const LOADS: [(&str, &str); 3] = [
        ("node_load1", "1m load average."),
        ("node_load5", "5m load average."),
        ("node_load15", "15m load average."),
    ];
    let path = options.procfs.join("loadavg");
    let text = read::text(&path)?;
    for ((name, help), field) in LOADS.iter().zip(text.split(' ')) {
        let load = float(field).ok_or_else(|| read::odd(&path, &text))?;
        page.gauge(name, help, &[], load);
    }
    Ok(())
}

pub(super) fn stat(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const FIELDS: [(&str, &str, Kind, &str); 6] = [
        (
            "intr",
            "node_intr_total",
            Kind::Counter,
            "Total number of interrupts serviced.",
        ),
        (
            "ctxt",
            "node_context_switches_total",
            Kind::Counter,
            "Total number of context switches.",
        ),
        (
            "processes",
            "node_forks_total",
            Kind::Counter,
            "Total number of forks.",
        ),
        (
            "btime",
            "node_boot_time_seconds",
            Kind::Gauge,
            "Node boot time, in unixtime.",
        ),
        (
            "procs_running",
            "node_procs_running",
            Kind::Gauge,
            "Number of processes in runnable state.",
        ),
        (
            "procs_blocked",
            "node_procs_blocked",
            Kind::Gauge,
            "Number of processes blocked waiting for I/O to complete.",
        ),
    ];
    let path = options.procfs.join("stat");
    let text = read::text(&path)?;
    for line in text.lines() {
        let mut fields = line.split(' ');
        let field = fields.next().unwrap_or_default();
        if let Some((_, name, kind, help)) = FIELDS.iter().find(|(of, ..)| *of == field) {
            let value = fields.next().and_then(float);
            let value = value.ok_or_else(|| read::odd(&path, line))?;
            page.add((name, *kind, help), &[], value);
        }
    }
    Ok(())
}

pub(super) fn entropy(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let dir = options.procfs.join("sys/kernel/random");
    let available = read::required(dir.join("entropy_avail"))?;
    let help = "Bits of available entropy.";
    page.gauge("node_entropy_available_bits", help, &[], available);
    let size = read::required(dir.join("poolsize"))?;
    let help = "Bits of entropy pool.";
    page.gauge("node_entropy_pool_size_bits", help, &[], size);
    Ok(())
}

pub(super) fn filefd(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let path = options.procfs.join("sys/fs/file-nr");
    let text = read::text(&path)?;
    let mut fields = text.split_whitespace().map(float);
    let (Some(Some(allocated)), Some(_), Some(Some(maximum))) =
        (fields.next(), fields.next(), fields.next())
    else {
        return Err(read::odd(&path, &text));
    };
    let help = "File descriptor statistics: allocated.";
    page.gauge("node_filefd_allocated", help, &[], allocated);
    let help = "File descriptor statistics: maximum.";
    page.gauge("node_filefd_maximum", help, &[], maximum);
    Ok(())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`, in microseconds.
pub(super) fn pressure(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const LINES: [(&str, &str, &str, &str); 6] = [
        (
            "cpu",
            "some",
            "node_pressure_cpu_waiting_seconds_total",
            "Total time in seconds that processes have waited for CPU time",
        ),
        (
            "io",
            "some",
            "node_pressure_io_waiting_seconds_total",
            "Total time in seconds that processes have waited due to IO congestion",
        ),
        (
            "io",
            "full",
            "node_pressure_io_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IO congestion",
        ),
        (
            "memory",
            "some",
            "node_pressure_memory_waiting_seconds_total",
            "Total time in seconds that processes have waited for memory",
        ),
        (
            "memory",
            "full",
            "node_pressure_memory_stalled_seconds_total",
            "Total time in seconds no process could make progress due to memory congestion",
        ),
        (
            "irq",
            "full",
            "node_pressure_irq_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IRQ congestion",
        ),
    ];
    let mut is_any = false;
    for (file, of, name, help) in LINES {
        let path = options.procfs.join("pressure").join(file);
        let text = match read::text(&path) {
            Err(Problem::NoData) => continue,
            text => text?,
        };
        let line = text.lines().find_map(|line| line.strip_prefix(of));
        let Some(line) = line else { continue };
        let total = line.rsplit_once("total=");
        let total = total.and_then(|(_, micros)| float(micros.trim()));
        let micros = total.ok_or_else(|| read::odd(&path, line))?;
        page.counter(name, help, &[], micros / 1000.0 / 1000.0);
        is_any = true;
    }
    if is_any { Ok(()) } else { Err(Problem::NoData) }
}

pub(super) fn conntrack(options: &Options, page: &mut Page) -> Result<(), Problem> {
    /// Columns of `nf_conntrack`, by their places.
    const COLUMNS: [(usize, &str, &str); 8] = [
        (
            2,
            "node_nf_conntrack_stat_found",
            "Number of searched entries which were successful.",
        ),
        (
            4,
            "node_nf_conntrack_stat_invalid",
            "Number of packets seen which can not be tracked.",
        ),
        (
            5,
            "node_nf_conntrack_stat_ignore",
            "Number of packets seen which are already connected to a conntrack entry.",
        ),
        (
            8,
            "node_nf_conntrack_stat_insert",
            "Number of entries inserted into the list.",
        ),
        (
            9,
            "node_nf_conntrack_stat_insert_failed",
            "Number of entries for which list insertion was attempted but failed.",
        ),
        (
            10,
            "node_nf_conntrack_stat_drop",
            "Number of packets dropped due to conntrack failure.",
        ),
        (
            11,
            "node_nf_conntrack_stat_early_drop",
            "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
        ),
        (
            16,
            "node_nf_conntrack_stat_search_restart",
            "Number of conntrack table lookups which had to be restarted due to hashtable resizes.",
        ),
    ];
    let dir = options.procfs.join("sys/net/netfilter");
    let entries = read::required(dir.join("nf_conntrack_count"))?;
    let help = "Number of currently allocated flow entries for connection tracking.";
    page.gauge("node_nf_conntrack_entries", help, &[], entries);
    let limit = read::required(dir.join("nf_conntrack_max"))?;
    let help = "Maximum size of connection tracking table.";
    page.gauge("node_nf_conntrack_entries_limit", help, &[], limit);
    let path = options.procfs.join("net/stat/nf_conntrack");
    let text = read::text(&path)?;
    let mut sums = [0.0; COLUMNS.len()];
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        for (sum, (at, ..)) in sums.iter_mut().zip(COLUMNS) {
            let field = fields.get(at).and_then(|field| hex(field));
            *sum += field.ok_or_else(|| read::odd(&path, line))?;
        }
    }
    for ((_, name, help), sum) in COLUMNS.iter().zip(sums) {
        page.gauge(name, help, &[], sum);
    }
    Ok(())
}

pub(super) fn schedstat(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const COLUMNS: [(&str, f64, &str); 3] = [
        (
            "node_schedstat_running_seconds_total",
            1e9,
            "Number of seconds CPU spent running a process.",
        ),
        (
            "node_schedstat_waiting_seconds_total",
            1e9,
            "Number of seconds spent by processing waiting for this CPU.",
        ),
        (
            "node_schedstat_timeslices_total",
            1.0,
            "Number of timeslices executed by CPU.",
        ),
    ];
    let path = options.procfs.join("schedstat");
    let text = read::text(&path)?;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap_or_default();
        let Some(cpu) = name.strip_prefix("cpu") else {
            continue;
        };
        for ((name, unit, help), field) in COLUMNS.iter().zip(fields.skip(6)) {
            let value = float(field).ok_or_else(|| read::odd(&path, line))?;
            page.counter(name, help, &[("cpu", cpu)], value / unit);
        }
    }
    Ok(())
}
