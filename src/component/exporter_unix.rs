//! Turns a `prometheus.exporter.unix` block into what of the machine is collected, and the target that it is.

mod texts;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use config::{BodyReader, Value};

use crate::exporter::unix::{
    self, Chosen, CpuOptions, FilesystemOptions, Named, NetclassOptions, Options, Pattern,
};

pub(crate) use texts::DOCUMENT;

pub(crate) const NAME: &str = "prometheus.exporter.unix";

/// The `job` of its target.
pub(crate) const JOB: &str = "integrations/unix";

const DISKS_EXCLUDE: &str = r"^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
const MOUNT_POINTS_EXCLUDE: &str = "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+)($|/)";
const FS_TYPES_EXCLUDE: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|\
     iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$";
const NETSTAT_FIELDS: &str = "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|\
     Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts)|\
     Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|\
     Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";
const VMSTAT_FIELDS: &str = "^(oom_kill|pgpg|pswp|pg.*fault).*";

/// Blocks of collectors that are not here, and what they may hold: so only the refusal is reported.
const OTHER_BLOCKS: [(&str, &[&str]); 11] = [
    ("bcache", &["priority_stats"]),
    (
        "ethtool",
        &["device_exclude", "device_include", "metrics_include"],
    ),
    ("ipvs", &["backend_labels"]),
    (
        "ntp",
        &[
            "ip_ttl",
            "local_offset_tolerance",
            "max_distance",
            "protocol_version",
            "server_is_local",
            "server",
        ],
    ),
    (
        "perf",
        &[
            "cache_profilers",
            "cpus",
            "disable_cache_profilers",
            "disable_hardware_profilers",
            "disable_software_profilers",
            "hardware_profilers",
            "software_profilers",
            "tracepoint",
        ],
    ),
    ("powersupply", &["ignored_supplies"]),
    ("runit", &["service_dir"]),
    ("supervisord", &["url"]),
    ("sysctl", &["include", "include_info"]),
    (
        "systemd",
        &[
            "enable_restarts",
            "start_time",
            "task_metrics",
            "unit_exclude",
            "unit_include",
        ],
    ),
    ("tapestats", &["ignored_devices"]),
];

pub(crate) fn read(r: &mut BodyReader<'_>) -> Options {
    let collectors = collectors(r);
    let includes_own = r.or("include_exporter_metrics", false);
    let mut path = |name, default: &str| PathBuf::from(r.or(name, default.to_owned()));
    let (procfs, rootfs) = (path("procfs_path", "/proc"), path("rootfs_path", "/"));
    let (sysfs, udev_data) = (
        path("sysfs_path", "/sys"),
        path("udev_data_path", "/run/udev/data"),
    );
    refuse_blocks(r);
    let (netdev, netdev_address_info) = block(r, "netdev", |mut b| {
        let devices = b.chosen("device_include", "device_exclude");
        (devices, b.or("address_info", false))
    });
    Options {
        collectors,
        includes_own,
        procfs,
        rootfs,
        sysfs,
        udev_data,
        arp: block(r, "arp", arp),
        cpu: block(r, "cpu", cpu),
        disk: block(r, "disk", disk),
        filesystem: block(r, "filesystem", |mut b| FilesystemOptions {
            fs_types_exclude: b.pattern("fs_types_exclude", FS_TYPES_EXCLUDE),
            mount_points_exclude: b.pattern("mount_points_exclude", MOUNT_POINTS_EXCLUDE),
            mount_timeout: b.or("mount_timeout", Duration::from_secs(5)),
        }),
        hwmon: block(r, "hwmon", |mut b| b.chosen("chip_include", "chip_exclude")),
        netclass: block(r, "netclass", |mut b| NetclassOptions {
            ignores_invalid_speed: b.or("ignore_invalid_speed_device", false),
            ignored_devices: b.pattern("ignored_devices", "^$"),
        }),
        netdev,
        netdev_address_info,
        netstat_fields: block(r, "netstat", |mut b| b.pattern("fields", NETSTAT_FIELDS)),
        textfile_directories: block(r, "textfile", |mut b| {
            let directory: String = b.or("directory", String::new());
            let is_given = !directory.is_empty();
            is_given.then(|| directory.into()).into_iter().collect()
        }),
        vmstat_fields: block(r, "vmstat", |mut b| b.pattern("fields", VMSTAT_FIELDS)),
    }
}

/// The names of the collectors that are wanted.
fn collectors(r: &mut BodyReader<'_>) -> BTreeSet<&'static str> {
    let mut set = named(r, "set_collectors", true);
    if set.is_empty() {
        set = unix::defaults();
    }
    set.extend(named(r, "enable_collectors", true));
    for name in named(r, "disable_collectors", false) {
        set.remove(name);
    }
    set
}

/// The collectors of a list. One that exists elsewhere only may be told to be off: it is.
fn named(r: &mut BodyReader<'_>, list: &'static str, is_wanted: bool) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for name in r.or(list, Vec::<String>::new()) {
        let here = || unix::names().collect::<Vec<_>>().join(", ");
        match Named::of(&name) {
            Named::Here(name) => drop(found.insert(name)),
            Named::Elsewhere if is_wanted => r.refuse(
                list,
                format!("collector {name:?} is not built yet; there are {}", here()),
            ),
            Named::Elsewhere => {}
            Named::Unknown => r.refuse(
                list,
                format!("{name:?} is no collector; there are {}", here()),
            ),
        }
    }
    found
}

fn refuse_blocks(r: &mut BodyReader<'_>) {
    for (name, attributes) in OTHER_BLOCKS {
        r.block(name, |r| {
            let here: Vec<&str> = unix::names().collect();
            r.refuse_block(format!(
                "the collector of block {name:?} is not built yet; there are {}",
                here.join(", ")
            ));
            for attribute in attributes {
                r.optional::<Value>(attribute);
            }
        });
    }
}

/// A block that may not be there: then everything in it is as it is unless something is said.
struct Block<'r, 'a>(Option<&'r mut BodyReader<'a>>);

fn block<T>(r: &mut BodyReader<'_>, name: &'static str, read: impl Fn(Block<'_, '_>) -> T) -> T {
    let found = r.block(name, |r| read(Block(Some(r))));
    found.unwrap_or_else(|| read(Block(None)))
}

impl Block<'_, '_> {
    fn or<T: config::FromValue>(&mut self, name: &'static str, default: T) -> T {
        match &mut self.0 {
            Some(r) => r.or(name, default),
            None => default,
        }
    }

    /// A regular expression. An empty one matches everything, as it does in the reference.
    fn pattern(&mut self, name: &'static str, default: &str) -> Pattern {
        let text = self.or(name, default.to_owned());
        self.compiled(name, &text)
    }

    /// One that is none where it is empty.
    fn some(&mut self, name: &'static str, default: &str) -> Option<Pattern> {
        let text = self.or(name, default.to_owned());
        (!text.is_empty()).then(|| self.compiled(name, &text))
    }

    fn compiled(&mut self, name: &'static str, text: &str) -> Pattern {
        let compiled = Pattern::new(text);
        if let (Err(error), Some(r)) = (&compiled, &mut self.0) {
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default();
            let why = why.trim_start_matches("error: ");
            r.refuse(name, format!("is no regular expression: {why}"));
        }
        compiled.unwrap_or_default()
    }

    /// Either what is looked at or what is not.
    fn chosen(&mut self, include: &'static str, exclude: &'static str) -> Chosen {
        let (included, excluded) = (self.some(include, ""), self.some(exclude, ""));
        if let (Some(_), Some(_), Some(r)) = (&included, &excluded, &mut self.0) {
            r.refuse_block(format!("{include} and {exclude} exclude each other"));
        }
        Chosen {
            include: included,
            exclude: excluded.unwrap_or_default(),
        }
    }
}

fn arp(mut b: Block<'_, '_>) -> Chosen {
    // Entries are counted in the same table either way.
    b.or("netlink", true);
    b.chosen("device_include", "device_exclude")
}

fn cpu(mut b: Block<'_, '_>) -> CpuOptions {
    let (guest, info) = (b.or("guest", false), b.or("info", false));
    let flags_include = b.some("flags_include", "");
    let bugs_include = b.some("bugs_include", "");
    CpuOptions {
        guest,
        info: info || flags_include.is_some() || bugs_include.is_some(),
        flags_include: flags_include.unwrap_or_default(),
        bugs_include: bugs_include.unwrap_or_default(),
    }
}

fn disk(mut b: Block<'_, '_>) -> Chosen {
    let exclude = b.pattern("device_exclude", DISKS_EXCLUDE);
    let include = b.some("device_include", "");
    Chosen {
        exclude: match include {
            Some(_) => Pattern::default(),
            None => exclude,
        },
        include,
    }
}

#[cfg(test)]
mod tests;
