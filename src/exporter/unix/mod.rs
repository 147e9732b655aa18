//! Turns what the kernel tells of this machine into the series that node_exporter makes of it.
//!
//! | file | collectors |
//! |---|---|
//! | `cpu`, `cpufreq`, `diskstats`, `filesystem`, `textfile` | those of their names |
//! | `kernel` | `loadavg`, `stat`, `entropy`, `filefd`, `pressure`, `conntrack`, `schedstat` |
//! | `lists` | `meminfo`, `vmstat`, `netstat`, `sockstat` |
//! | `network` | `arp`, `netdev`, `netclass`, `softnet`, `udp_queues` |
//! | `system` | `uname`, `os`, `time` |
//! | `heat` | `hwmon`, `thermal_zone` |
//! | `mounts` | paths -> how full they are, whatever hangs |
//! | `own` | this process |
//! | `read` | small files -> texts and numbers |
//!
//! # Invariants
//! - Names, labels, types and helps are those of node_exporter, and values are computed as it does.
//!
//! # Failure
//! - A collector that fails keeps what it has found, has `node_scrape_collector_success` 0, and leaves the others
//!   alone. Why is logged when it begins, and when it ends.
//!
//! # Threads
//! - All of a collection happens on the one thread of its `Flight`, but asking mounts.

mod cpu;
mod cpufreq;
mod diskstats;
mod filesystem;
mod heat;
mod kernel;
mod lists;
mod mounts;
mod network;
mod own;
mod read;
mod system;
mod textfile;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use regex::Regex;
use wal::{SharedClock, SystemClock};

use super::flight::Flight;
use super::page::Page;
use read::Problem;

type Collect = fn(&Options, &mut Page) -> Result<(), Problem>;

/// What is collected under one name.
#[derive(Debug)]
struct Collector {
    name: &'static str,
    is_default: bool,
    collect: Collect,
}

const fn on(name: &'static str, collect: Collect) -> Collector {
    Collector {
        name,
        is_default: true,
        collect,
    }
}

/// Everything there is, by name.
static COLLECTORS: [Collector; 26] = [
    on("arp", network::arp),
    on("conntrack", kernel::conntrack),
    on("cpu", cpu::collect),
    on("cpufreq", cpufreq::collect),
    on("diskstats", diskstats::collect),
    on("entropy", kernel::entropy),
    on("filefd", kernel::filefd),
    on("filesystem", filesystem::collect),
    on("hwmon", heat::hwmon),
    on("loadavg", kernel::loadavg),
    on("meminfo", lists::meminfo),
    on("netclass", network::netclass),
    on("netdev", network::netdev),
    on("netstat", lists::netstat),
    on("os", system::os),
    on("pressure", kernel::pressure),
    on("schedstat", kernel::schedstat),
    on("sockstat", lists::sockstat),
    on("softnet", network::softnet),
    on("stat", kernel::stat),
    on("textfile", textfile::collect),
    on("thermal_zone", heat::thermal_zone),
    on("time", system::time),
    on("udp_queues", network::udp_queues),
    on("uname", system::uname),
    on("vmstat", lists::vmstat),
];

/// Those of node_exporter that are not here.
const OTHERS: [&str; 49] = [
    "bcache",
    "bonding",
    "boottime",
    "btrfs",
    "buddyinfo",
    "cgroups",
    "cpu_vulnerabilities",
    "devstat",
    "dmi",
    "drbd",
    "drm",
    "edac",
    "ethtool",
    "exec",
    "fibrechannel",
    "infiniband",
    "interrupts",
    "ipvs",
    "ksmd",
    "lnstat",
    "logind",
    "mdadm",
    "meminfo_numa",
    "mountstats",
    "netisr",
    "network_route",
    "nfs",
    "nfsd",
    "ntp",
    "nvme",
    "perf",
    "powersupplyclass",
    "processes",
    "qdisc",
    "rapl",
    "runit",
    "selinux",
    "slabinfo",
    "softirqs",
    "supervisord",
    "sysctl",
    "systemd",
    "tapestats",
    "tcpstat",
    "timex",
    "wifi",
    "xfs",
    "zfs",
    "zoneinfo",
];

/// Whether a name is that of a collector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    Here(&'static str),
    /// Of node_exporter, not here.
    Elsewhere,
    Unknown,
}

impl Named {
    pub(crate) fn of(name: &str) -> Self {
        match COLLECTORS.iter().find(|one| one.name == name) {
            Some(found) => Self::Here(found.name),
            None if OTHERS.contains(&name) => Self::Elsewhere,
            None => Self::Unknown,
        }
    }
}

/// The names of all collectors that are here.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    COLLECTORS.iter().map(|one| one.name)
}

/// The names of those that are on unless others are asked for.
pub(crate) fn defaults() -> BTreeSet<&'static str> {
    let on = COLLECTORS.iter().filter(|one| one.is_default);
    on.map(|one| one.name).collect()
}

/// A regular expression; nothing matches what is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pattern(Option<Regex>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, regex::Error> {
        Regex::new(text).map(|regex| Self(Some(regex)))
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// Which of several things of a kind are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    /// If there is one, only what it matches.
    pub(crate) include: Option<Pattern>,
    pub(crate) exclude: Pattern,
}

impl Chosen {
    pub(crate) fn takes(&self, name: &str) -> bool {
        let is_in = self.include.as_ref().is_none_or(|one| one.is_match(name));
        is_in && !self.exclude.is_match(name)
    }
}

/// What of CPUs is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuOptions {
    pub(crate) guest: bool,
    pub(crate) info: bool,
    pub(crate) flags_include: Pattern,
    pub(crate) bugs_include: Pattern,
}

/// Which mounts are asked, and how long.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilesystemOptions {
    pub(crate) fs_types_exclude: Pattern,
    pub(crate) mount_points_exclude: Pattern,
    pub(crate) mount_timeout: Duration,
}

/// Which network devices are described.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetclassOptions {
    pub(crate) ignored_devices: Pattern,
    pub(crate) ignores_invalid_speed: bool,
}

/// What is collected, and where it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// By name.
    pub(crate) collectors: BTreeSet<&'static str>,
    /// Whether this process is among what is collected.
    pub(crate) includes_own: bool,
    pub(crate) procfs: PathBuf,
    pub(crate) sysfs: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) udev_data: PathBuf,
    pub(crate) arp: Chosen,
    pub(crate) cpu: CpuOptions,
    pub(crate) disk: Chosen,
    pub(crate) filesystem: FilesystemOptions,
    pub(crate) hwmon: Chosen,
    pub(crate) netclass: NetclassOptions,
    pub(crate) netdev: Chosen,
    pub(crate) netdev_address_info: bool,
    pub(crate) netstat_fields: Pattern,
    pub(crate) textfile_directories: Vec<PathBuf>,
    pub(crate) vmstat_fields: Pattern,
}

/// What collects.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// The component it is for.
    id: String,
    options: Options,
    clock: SharedClock,
    flight: Flight,
    /// Collectors that do not do well, and why.
    told: Mutex<BTreeMap<&'static str, String>>,
}

impl Exporter {
    pub(crate) fn new(id: &str, options: Options) -> Self {
        Self {
            id: id.to_owned(),
            options,
            clock: SystemClock::shared(),
            flight: Flight::default(),
            told: Mutex::default(),
        }
    }

    /// Everything as it is now, in the text format.
    ///
    /// # Errors
    /// It takes too long.
    pub(crate) async fn page(self: &Arc<Self>) -> Result<Arc<str>, String> {
        let exporter = Arc::clone(self);
        self.flight.page(move || exporter.collect()).await
    }

    fn collect(&self) -> String {
        let mut page = Page::default();
        let wanted = COLLECTORS.iter();
        for collector in wanted.filter(|one| self.options.collectors.contains(one.name)) {
            let since = self.clock.monotonic();
            let went = (collector.collect)(&self.options, &mut page);
            let labels = [("collector", collector.name)];
            page.gauge(
                "node_scrape_collector_duration_seconds",
                "node_exporter: Duration of a collector scrape.",
                &labels,
                self.clock.monotonic().saturating_sub(since).as_secs_f64(),
            );
            let is_good = matches!(went, Ok(()) | Err(Problem::Partial(_)));
            page.gauge(
                "node_scrape_collector_success",
                "node_exporter: Whether a collector succeeded.",
                &labels,
                f64::from(u8::from(is_good)),
            );
            self.tell(collector.name, went);
        }
        if self.options.includes_own {
            own::collect(&mut page);
        }
        page.encode()
    }

    /// Logs what went wrong where it did not before, and what goes well again.
    fn tell(&self, collector: &'static str, went: Result<(), Problem>) {
        let mut told = self.told.lock();
        match went {
            Err(Problem::Failed(why) | Problem::Partial(why)) => {
                if told.get(collector) != Some(&why) {
                    tracing::warn!(component = self.id, collector, why, "a collector failed");
                    told.insert(collector, why);
                }
            }
            Ok(()) | Err(Problem::NoData) => {
                if told.remove(collector).is_some() {
                    tracing::info!(
                        component = self.id,
                        collector,
                        "a collector does well again"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
