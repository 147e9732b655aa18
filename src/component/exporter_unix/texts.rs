//! Turns the arguments of a `prometheus.exporter.unix` block into what they mean.

use crate::component::document::Document;

pub(crate) const DOCUMENT: Document = Document {
    example: r#"prometheus.exporter.unix "machine" {
  disable_collectors = ["arp"]
  filesystem {
    mount_points_exclude = "^/(dev|proc|run|sys|var/lib/docker/.+)($|/)"
  }
}

prometheus.scrape "machine" {
  targets    = prometheus.exporter.unix.machine.targets
  forward_to = [prometheus.remote_write.central.receiver]
}

prometheus.remote_write "central" {
  endpoint {
    url = "https://metrics.example.org/api/v1/write"
  }
}
"#,
    texts: &[
        (
            "",
            &[
                ("arp", "The `arp` collector."),
                ("bcache", NOT_SUPPORTED),
                ("cpu", "The `cpu` collector."),
                (
                    "disable_collectors",
                    "Collectors that are off, whatever the other lists say. Those of node_exporter that do not exist here \
                     may stand in it.",
                ),
                ("disk", "The `diskstats` collector."),
                (
                    "enable_collectors",
                    "Collectors that are on, beside the others.",
                ),
                ("ethtool", NOT_SUPPORTED),
                ("filesystem", "The `filesystem` collector."),
                ("hwmon", "The `hwmon` collector."),
                (
                    "include_exporter_metrics",
                    "Whether there are metrics of this process: `process_*`.",
                ),
                ("ipvs", NOT_SUPPORTED),
                ("netclass", "The `netclass` collector."),
                ("netdev", "The `netdev` collector."),
                ("netstat", "The `netstat` collector."),
                ("ntp", NOT_SUPPORTED),
                ("perf", NOT_SUPPORTED),
                ("powersupply", NOT_SUPPORTED),
                ("procfs_path", "Where `/proc` of the machine is."),
                (
                    "rootfs_path",
                    "Where `/` of the machine is: mount points are looked for below it, and shown without it.",
                ),
                ("runit", NOT_SUPPORTED),
                (
                    "set_collectors",
                    "Collectors that are on, instead of those that are unless something is said: \
                     [all there are](../exporters.md).",
                ),
                ("supervisord", NOT_SUPPORTED),
                ("sysctl", NOT_SUPPORTED),
                ("sysfs_path", "Where `/sys` of the machine is."),
                ("systemd", NOT_SUPPORTED),
                ("tapestats", NOT_SUPPORTED),
                ("textfile", "The `textfile` collector."),
                (
                    "udev_data_path",
                    "Where udev keeps what it knows of devices, for the labels of `node_disk_*_info`.",
                ),
                ("vmstat", "The `vmstat` collector."),
            ],
        ),
        (
            "arp",
            &[
                ("device_exclude", "Devices that are left out."),
                ("device_include", "The only devices that are not."),
                (
                    "netlink",
                    "Accepted and without effect: entries are counted in `/proc/net/arp`.",
                ),
            ],
        ),
        (
            "cpu",
            &[
                (
                    "bugs_include",
                    "Which bugs of the first CPU `node_cpu_bug_info` tells; `info` is on then.",
                ),
                (
                    "flags_include",
                    "Which flags of the first CPU `node_cpu_flag_info` tells; `info` is on then.",
                ),
                ("guest", "Whether there is `node_cpu_guest_seconds_total`."),
                ("info", "Whether there is `node_cpu_info`."),
            ],
        ),
        (
            "disk",
            &[
                (
                    "device_exclude",
                    "Devices that are left out, unless there is a `device_include`.",
                ),
                ("device_include", "The only devices that are not."),
            ],
        ),
        (
            "filesystem",
            &[
                (
                    "fs_types_exclude",
                    "Types of file systems that are left out.",
                ),
                ("mount_points_exclude", "Mount points that are left out."),
                (
                    "mount_timeout",
                    "How long one is waited for; it is not asked again before it has answered.",
                ),
            ],
        ),
        (
            "hwmon",
            &[
                ("chip_exclude", "Chips that are left out."),
                ("chip_include", "The only chips that are not."),
            ],
        ),
        (
            "netclass",
            &[
                (
                    "ignore_invalid_speed_device",
                    "Whether there is no speed of a device where it is negative.",
                ),
                ("ignored_devices", "Devices that are left out."),
            ],
        ),
        (
            "netdev",
            &[
                (
                    "address_info",
                    "Whether there is `node_network_address_info`: the addresses of the devices this process sees.",
                ),
                ("device_exclude", "Devices that are left out."),
                ("device_include", "The only devices that are not."),
            ],
        ),
        ("netstat", &[("fields", "Which fields are told.")]),
        (
            "textfile",
            &[(
                "directory",
                "Where `*.prom` files of other programs are: at most 1,000 of 4 MiB.",
            )],
        ),
        ("vmstat", &[("fields", "Which fields are told.")]),
    ],
    metrics: &[],
    failure: "- A collector that fails has `node_scrape_collector_success` 0 and leaves the others alone; why is logged \
              when it begins and when it ends.\n\
              - A mount that does not answer has `node_filesystem_device_error` 1, and is not asked again before it does.\n\
              - A collection that takes longer than 30 s is an error of the scrapes that wait for it. There is one at a \
              time: scrapes that come meanwhile get its page.\n",
};

const NOT_SUPPORTED: &str = "Not supported: refused, as long as there is no such collector.";
