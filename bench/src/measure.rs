//! Turns clocks and `/proc` into CPU time, memory and device writes; and pins threads to cores.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The core of what is measured.
pub(crate) const SUBJECT_CORE: usize = 0;
/// The core of the load and the sink.
pub(crate) const LOAD_CORE: usize = 1;

/// What a process has used so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Used {
    /// User and system time in seconds.
    pub(crate) cpu_seconds: f64,
    /// Resident bytes, with mapped files.
    pub(crate) resident_bytes: f64,
    /// Resident bytes no file stands behind.
    pub(crate) anonymous_bytes: f64,
    /// Bytes the process made the kernel write to a device, or will have to.
    pub(crate) device_bytes: f64,
}

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

/// CPU time of this process.
pub(crate) fn process_cpu() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

fn duration(time: rustix::time::Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

/// Runs this thread, and those it starts from now on, on one core.
pub(crate) fn pin_to(core: usize) -> Result<()> {
    pin_to_all(core..core + 1)
}

/// The same on some cores.
pub(crate) fn pin_to_all(cores: Range<usize>) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores.clone() {
        set.set(core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("pin to the cores {cores:?}"))
}

/// CPU seconds of the threads of a process whose names begin so, in the order of their names.
pub(crate) fn thread_seconds(process: u32, prefix: &str) -> Result<Vec<f64>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        // Threads end meanwhile.
        let (Ok(name), Ok(times)) = (
            fs::read_to_string(task.join("comm")),
            fs::read_to_string(task.join("schedstat")),
        ) else {
            continue;
        };
        if name.starts_with(prefix) {
            found.push((name, number_behind(&times, "") / 1e9));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(_, seconds)| seconds).collect())
}

/// Bytes of memory of the machine.
pub(crate) fn machine_memory() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    Ok(number_behind(&text, "MemTotal:") * 1024.0)
}

/// What a process has used so far.
pub(crate) fn used(process: u32) -> Result<Used> {
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let (stat, status, io) = (read("stat")?, read("status")?, read("io")?);
    let mut used = Used {
        cpu_seconds: cpu_seconds_in(&stat).context("understand /proc/PID/stat")?,
        ..Used::default()
    };
    used.resident_bytes = number_behind(&status, "VmRSS:") * 1024.0;
    used.anonymous_bytes = number_behind(&status, "RssAnon:") * 1024.0;
    used.device_bytes = number_behind(&io, "write_bytes:");
    Ok(used)
}

fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // The name, in parentheses, may hold anything; the fields are counted from behind it.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    let ticks_per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(f64::from(user + system) / f64::from(ticks_per_second))
}

/// The first number behind a name at the start of a line; 0 without.
fn number_behind(text: &str, name: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// The value that so many percent of the sorted values do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    per_mille(sorted, percent * 10)
}

/// The value that so many of a thousand of the sorted values do not exceed.
pub(crate) fn per_mille(sorted: &[Duration], share: usize) -> Duration {
    let at = (sorted.len() * share / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// A count as a float, for ratios.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_measured() {
        let used = used(std::process::id()).unwrap();
        assert!(used.resident_bytes > used.anonymous_bytes);
        assert!(process_cpu() >= thread_cpu());
    }

    #[test]
    fn threads_are_found_by_name() {
        let busy = || (0..3_000_000_u64).fold(0, |a, b| a ^ b.wrapping_mul(31));
        let thread = std::thread::Builder::new().name("busy-7".to_owned());
        let (done, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let thread = thread
            .spawn(move || (busy(), wait.recv().is_err()))
            .unwrap();
        let process = std::process::id();
        while thread_seconds(process, "busy-").unwrap().is_empty() {
            std::thread::yield_now();
        }
        assert!(thread_seconds(process, "no such").unwrap().is_empty());
        drop(done);
        assert!(thread.join().unwrap().1);
    }

    #[test]
    fn percentiles_are_taken_from_sorted_values() {
        let values: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(51));
        assert_eq!(percentile(&values, 99), Duration::from_millis(100));
        assert_eq!(per_mille(&values, 999), Duration::from_millis(100));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
