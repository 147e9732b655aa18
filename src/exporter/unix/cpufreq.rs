//! Turns what `/sys` says of frequencies into those of each CPU.

use super::Options;
use super::read::{self, Problem};
use crate::exporter::page::Page;

/// Files in kHz, and what they are.
const FREQUENCIES: [(&str, &str, &str); 6] = [
    (
        "cpuinfo_cur_freq",
        "node_cpu_frequency_hertz",
        "Current cpu thread frequency in hertz.",
    ),
    (
        "cpuinfo_min_freq",
        "node_cpu_frequency_min_hertz",
        "Minimum cpu thread frequency in hertz.",
    ),
    (
        "cpuinfo_max_freq",
        "node_cpu_frequency_max_hertz",
        "Maximum cpu thread frequency in hertz.",
    ),
    (
        "scaling_cur_freq",
        "node_cpu_scaling_frequency_hertz",
        "Current scaled CPU thread frequency in hertz.",
    ),
    (
        "scaling_min_freq",
        "node_cpu_scaling_frequency_min_hertz",
        "Minimum scaled CPU thread frequency in hertz.",
    ),
    (
        "scaling_max_freq",
        "node_cpu_scaling_frequency_max_hertz",
        "Maximum scaled CPU thread frequency in hertz.",
    ),
];

pub(super) fn collect(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let cpus = options.sysfs.join("devices/system/cpu");
    for (cpu, dir) in read::numbered(&cpus, "cpu")? {
        for (file, name, help) in FREQUENCIES {
            if let Some(kilohertz) = read::number(dir.join("cpufreq").join(file)) {
                page.gauge(name, help, &[("cpu", &cpu)], kilohertz * 1000.0);
            }
        }
    }
    Ok(())
}
