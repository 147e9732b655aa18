//! Turns `/proc/stat`, `/proc/cpuinfo` and what `/sys` says of cores into what CPUs did and are.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{self, Problem, float};
use super::{Options, Pattern};
use crate::exporter::page::Page;

/// Ticks of `/proc/stat`: the same on every architecture there is, whatever the kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;

const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];

pub(super) fn collect(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let path = options.procfs.join("stat");
    let text = read::text(&path)?;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap_or_default();
        let Some(cpu) = name.strip_prefix("cpu").filter(|cpu| !cpu.is_empty()) else {
            continue;
        };
        let seconds: Vec<f64> = fields
            .map(|field| float(field).map(|ticks| ticks / TICKS_PER_SECOND))
            .collect::<Option<_>>()
            .ok_or_else(|| read::odd(&path, line))?;
        for (mode, seconds) in MODES.iter().zip(&seconds) {
            page.counter(
                "node_cpu_seconds_total",
                "Seconds the CPUs spent in each mode.",
                &[("cpu", cpu), ("mode", mode)],
                *seconds,
            );
        }
        let guests = seconds.iter().skip(MODES.len());
        for (mode, seconds) in ["user", "nice"].iter().zip(guests) {
            if options.cpu.guest {
                page.counter(
                    "node_cpu_guest_seconds_total",
                    "Seconds the CPUs spent in guests (VMs) for each mode.",
                    &[("cpu", cpu), ("mode", mode)],
                    *seconds,
                );
            }
        }
    }
    if options.cpu.info {
        info(options, page)?;
    }
    throttles(options, page)
}

/// What `/proc/cpuinfo` says, core by core.
fn info(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const FIELDS: [(&str, &str); 10] = [
        ("cachesize", "cache size"),
        ("core", "core id"),
        ("cpu", "processor"),
        ("family", "cpu family"),
        ("microcode", "microcode"),
        ("model", "model"),
        ("model_name", "model name"),
        ("package", "physical id"),
        ("stepping", "stepping"),
        ("vendor", "vendor_id"),
    ];
    let text = read::text(options.procfs.join("cpuinfo"))?;
    for (at, core) in text.split("\n\n").enumerate() {
        let pairs = core.lines().filter_map(|line| line.split_once(':'));
        let fields: BTreeMap<&str, &str> = pairs
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or_default();
        if !fields.contains_key("processor") {
            continue;
        }
        let labels = FIELDS.map(|(label, name)| (label, field(name)));
        page.gauge(
            "node_cpu_info",
            "CPU information from /proc/cpuinfo.",
            &labels,
            1.0,
        );
        if at == 0 {
            words(
                page,
                ("node_cpu_flag_info", "flag", "flags"),
                field("flags"),
                &options.cpu.flags_include,
            );
            words(
                page,
                ("node_cpu_bug_info", "bug", "bugs"),
                field("bugs"),
                &options.cpu.bugs_include,
            );
        }
    }
    Ok(())
}

fn words(page: &mut Page, of: (&str, &str, &str), words: &str, include: &Pattern) {
    let (name, label, field) = of;
    let help = format!(
        "The `{field}` field of CPU information from /proc/cpuinfo taken from the first core."
    );
    for word in words.split_whitespace() {
        if include.is_match(word) {
            page.gauge(name, &help, &[(label, word)], 1.0);
        }
    }
}

/// How often cores, and the packages they are in, were too hot.
fn throttles(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let cpus = options.sysfs.join("devices/system/cpu");
    let cpus = match read::numbered(&cpus, "cpu") {
        Err(Problem::NoData) => return Ok(()),
        cpus => cpus?,
    };
    let (mut cores, mut packages) = (BTreeSet::new(), BTreeSet::new());
    for (_, dir) in cpus {
        let (package, core) = (
            read::line(dir.join("topology/physical_package_id")),
            read::line(dir.join("topology/core_id")),
        );
        let (Some(package), Some(core)) = (package, core) else {
            continue;
        };
        let count = |name: &str| read::number(dir.join("thermal_throttle").join(name));
        if cores.insert((package.clone(), core.clone()))
            && let Some(count) = count("core_throttle_count")
        {
            page.counter(
                "node_cpu_core_throttles_total",
                "Number of times this CPU core has been throttled.",
                &[("core", &core), ("package", &package)],
                count,
            );
        }
        if packages.insert(package.clone())
            && let Some(count) = count("package_throttle_count")
        {
            page.counter(
                "node_cpu_package_throttles_total",
                "Number of times this CPU package has been throttled.",
                &[("package", &package)],
                count,
            );
        }
    }
    Ok(())
}
