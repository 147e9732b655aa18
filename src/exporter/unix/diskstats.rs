//! Turns `/proc/diskstats` and what udev knows into what block devices did and are.

use std::collections::BTreeMap;
use std::path::Path;

use super::Options;
use super::read::{self, Problem, float};
use crate::exporter::page::{Kind, Page};

const SECTOR_BYTES: f64 = 512.0;
const SECONDS_PER_MS: f64 = 1.0 / 1000.0;

use Kind::{Counter, Gauge};

/// The columns behind the name of a device: series, type, what one of it is, help.
const COLUMNS: [(&str, Kind, f64, &str); 17] = [
    (
        "node_disk_reads_completed_total",
        Counter,
        1.0,
        "The total number of reads completed successfully.",
    ),
    (
        "node_disk_reads_merged_total",
        Counter,
        1.0,
        "The total number of reads merged.",
    ),
    (
        "node_disk_read_bytes_total",
        Counter,
        SECTOR_BYTES,
        "The total number of bytes read successfully.",
    ),
    (
        "node_disk_read_time_seconds_total",
        Counter,
        SECONDS_PER_MS,
        "The total number of seconds spent by all reads.",
    ),
    (
        "node_disk_writes_completed_total",
        Counter,
        1.0,
        "The total number of writes completed successfully.",
    ),
    (
        "node_disk_writes_merged_total",
        Counter,
        1.0,
        "The number of writes merged.",
    ),
    (
        "node_disk_written_bytes_total",
        Counter,
        SECTOR_BYTES,
        "The total number of bytes written successfully.",
    ),
    (
        "node_disk_write_time_seconds_total",
        Counter,
        SECONDS_PER_MS,
        "This is the total number of seconds spent by all writes.",
    ),
    (
        "node_disk_io_now",
        Gauge,
        1.0,
        "The number of I/Os currently in progress.",
    ),
    (
        "node_disk_io_time_seconds_total",
        Counter,
        SECONDS_PER_MS,
        "Total seconds spent doing I/Os.",
    ),
    (
        "node_disk_io_time_weighted_seconds_total",
        Counter,
        SECONDS_PER_MS,
        "The weighted # of seconds spent doing I/Os.",
    ),
    (
        "node_disk_discards_completed_total",
        Counter,
        1.0,
        "The total number of discards completed successfully.",
    ),
    (
        "node_disk_discards_merged_total",
        Counter,
        1.0,
        "The total number of discards merged.",
    ),
    (
        "node_disk_discarded_sectors_total",
        Counter,
        1.0,
        "The total number of sectors discarded successfully.",
    ),
    (
        "node_disk_discard_time_seconds_total",
        Counter,
        SECONDS_PER_MS,
        "This is the total number of seconds spent by all discards.",
    ),
    (
        "node_disk_flush_requests_total",
        Counter,
        1.0,
        "The total number of flush requests completed successfully",
    ),
    (
        "node_disk_flush_requests_time_seconds_total",
        Counter,
        SECONDS_PER_MS,
        "This is the total number of seconds spent by all flush requests.",
    ),
];

pub(super) fn collect(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let path = options.procfs.join("diskstats");
    let text = read::text(&path)?;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some(major), Some(minor), Some(device)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if !options.disk.takes(device) {
            continue;
        }
        udev(
            page,
            (device, major, minor),
            &options.udev_data.join(format!("b{major}:{minor}")),
        );
        for ((name, kind, unit, help), field) in COLUMNS.iter().zip(fields) {
            let value = float(field).ok_or_else(|| read::odd(&path, line))?;
            page.add((name, *kind, help), &[("device", device)], value * unit);
        }
    }
    Ok(())
}

/// What udev noted of a device: everything is empty where it noted nothing.
fn udev(page: &mut Page, (device, major, minor): (&str, &str, &str), path: &Path) {
    let text = read::text(path).unwrap_or_default();
    let properties: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .collect();
    let property = |name: &str| properties.get(name).copied().unwrap_or_default();
    let serial = match property("SCSI_IDENT_SERIAL") {
        "" => property("ID_SERIAL_SHORT"),
        serial => serial,
    };
    let labels = [
        ("device", device),
        ("major", major),
        ("minor", minor),
        ("model", property("ID_MODEL")),
        ("path", property("ID_PATH")),
        ("revision", property("ID_REVISION")),
        ("serial", serial),
        ("wwn", property("ID_WWN")),
    ];
    let help = "Info of /sys/block/<block_device>.";
    page.gauge("node_disk_info", help, &labels, 1.0);
    if properties.contains_key("ID_FS_TYPE") {
        let labels = [
            ("device", device),
            ("type", property("ID_FS_TYPE")),
            ("usage", property("ID_FS_USAGE")),
            ("uuid", property("ID_FS_UUID")),
            ("version", property("ID_FS_VERSION")),
        ];
        let help = "Info about disk filesystem.";
        page.gauge("node_disk_filesystem_info", help, &labels, 1.0);
    }
    if properties.contains_key("DM_NAME") {
        let labels = [
            ("device", device),
            ("lv_layer", property("DM_LV_LAYER")),
            ("lv_name", property("DM_LV_NAME")),
            ("name", property("DM_NAME")),
            ("uuid", property("DM_UUID")),
            ("vg_name", property("DM_VG_NAME")),
        ];
        let help = "Info about disk device mapper.";
        page.gauge("node_disk_device_mapper_info", help, &labels, 1.0);
    }
    if properties.contains_key("ID_ATA") {
        for (name, of, help) in ATA {
            if let Some(value) = float(property(of)) {
                page.gauge(name, help, &[("device", device)], value);
            }
        }
    }
}

const ATA: [(&str, &str, &str); 3] = [
    (
        "node_disk_ata_write_cache",
        "ID_ATA_WRITE_CACHE",
        "ATA disk has a write cache.",
    ),
    (
        "node_disk_ata_write_cache_enabled",
        "ID_ATA_WRITE_CACHE_ENABLED",
        "ATA disk has its write cache enabled.",
    ),
    (
        "node_disk_ata_rotation_rate_rpm",
        "ID_ATA_ROTATION_RATE_RPM",
        "ATA disk rotation rate in RPMs (0 for SSDs).",
    ),
];
