//! Turns what the kernel knows of network devices and their queues into series.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::Options;
use super::read::{self, Problem, float, hex};
use crate::exporter::page::{Kind, Page};
use crate::telemetry::families;

/// Entries of the ARP table, by device.
pub(super) fn arp(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let text = read::text(options.procfs.join("net/arp"))?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in text.lines().skip(1) {
        if let Some(device) = line.split_whitespace().nth(5) {
            *counts.entry(device).or_default() += 1;
        }
    }
    for (device, count) in counts {
        if options.arp.takes(device) {
            let (help, count) = ("ARP entries by device", families::float(count));
            page.gauge("node_arp_entries", help, &[("device", device)], count);
        }
    }
    Ok(())
}

/// `/proc/net/dev`, with the packets nobody handled from `/sys`: they are not in it.
pub(super) fn netdev(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const COLUMNS: [&str; 16] = [
        "receive_bytes",
        "receive_packets",
        "receive_errs",
        "receive_drop",
        "receive_fifo",
        "receive_frame",
        "receive_compressed",
        "receive_multicast",
        "transmit_bytes",
        "transmit_packets",
        "transmit_errs",
        "transmit_drop",
        "transmit_fifo",
        "transmit_colls",
        "transmit_carrier",
        "transmit_compressed",
    ];
    let path = options.procfs.join("net/dev");
    let text = read::text(&path)?;
    for line in text.lines().skip(2) {
        // A name may hold colons.
        let Some((device, fields)) = line.rsplit_once(':') else {
            continue;
        };
        let device = device.trim();
        if !options.netdev.takes(device) {
            continue;
        }
        let mut show = |column: &str, value: f64| {
            let name = format!("node_network_{column}_total");
            let help = format!("Network device statistic {column}.");
            page.counter(&name, &help, &[("device", device)], value);
        };
        for (column, field) in COLUMNS.iter().zip(fields.split_whitespace()) {
            show(column, float(field).ok_or_else(|| read::odd(&path, line))?);
        }
        let statistics = options.sysfs.join("class/net").join(device);
        if let Some(count) = read::number(statistics.join("statistics/rx_nohandler")) {
            show("receive_nohandler", count);
        }
    }
    if options.netdev_address_info {
        addresses(options, page)?;
    }
    Ok(())
}

fn addresses(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let found = if_addrs::get_if_addrs();
    let found = found.map_err(|error| Problem::Failed(format!("addresses: {error}")))?;
    for one in found.iter().filter(|one| options.netdev.takes(&one.name)) {
        let bits = match &one.addr {
            if_addrs::IfAddr::V4(address) => address.netmask.to_bits().count_ones(),
            if_addrs::IfAddr::V6(address) => address.netmask.to_bits().count_ones(),
        };
        let labels = [
            ("address", &*one.ip().to_string()),
            ("device", &one.name),
            ("netmask", &*bits.to_string()),
            ("scope", scope(one.ip())),
        ];
        let help = "node network address by device";
        page.gauge("node_network_address_info", help, &labels, 1.0);
    }
    Ok(())
}

fn scope(address: IpAddr) -> &'static str {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_loopback() || is_link_local {
        "link-local"
    } else {
        "global"
    }
}

/// Numbers of `/sys/class/net/DEVICE`: file, name, type.
const PROPERTIES: [(&str, &str, Kind); 17] = [
    ("addr_assign_type", "address_assign_type", Kind::Gauge),
    ("carrier", "carrier", Kind::Gauge),
    ("carrier_changes", "carrier_changes_total", Kind::Counter),
    (
        "carrier_up_count",
        "carrier_up_changes_total",
        Kind::Counter,
    ),
    (
        "carrier_down_count",
        "carrier_down_changes_total",
        Kind::Counter,
    ),
    ("dev_id", "device_id", Kind::Gauge),
    ("dormant", "dormant", Kind::Gauge),
    ("flags", "flags", Kind::Gauge),
    ("ifindex", "iface_id", Kind::Gauge),
    ("iflink", "iface_link", Kind::Gauge),
    ("link_mode", "iface_link_mode", Kind::Gauge),
    ("mtu", "mtu_bytes", Kind::Gauge),
    ("name_assign_type", "name_assign_type", Kind::Gauge),
    ("netdev_group", "net_dev_group", Kind::Gauge),
    ("speed", "speed_bytes", Kind::Gauge),
    ("tx_queue_len", "transmit_queue_length", Kind::Gauge),
    ("type", "protocol_type", Kind::Gauge),
];

pub(super) fn netclass(options: &Options, page: &mut Page) -> Result<(), Problem> {
    for (device, dir) in read::entries(&options.sysfs.join("class/net"))? {
        // Bonding keeps a file there.
        if dir.is_dir() && !options.netclass.ignored_devices.is_match(&device) {
            properties(options, page, (&device, &dir));
        }
    }
    Ok(())
}

fn properties(options: &Options, page: &mut Page, (device, dir): (&str, &Path)) {
    let of = [("device", device)];
    let word = |name: &str| read::line(dir.join(name)).unwrap_or_default();
    let operstate = word("operstate");
    page.gauge(
        "node_network_up",
        "Value is 1 if operstate is 'up', 0 otherwise.",
        &of,
        f64::from(u8::from(operstate == "up")),
    );
    let labels = [
        ("address", &*word("address")),
        ("broadcast", &*word("broadcast")),
        ("device", device),
        ("duplex", &*word("duplex")),
        ("ifalias", &*word("ifalias")),
        ("operstate", &*operstate),
    ];
    page.gauge(
        "node_network_info",
        "Non-numeric data from /sys/class/net/<iface>, value is always 1.",
        &labels,
        1.0,
    );
    for (file, name, kind) in PROPERTIES {
        // Some cannot be read while a device is down.
        let Some(mut value) = read::number(dir.join(file)) else {
            continue;
        };
        if file == "speed" {
            if value < 0.0 && options.netclass.ignores_invalid_speed {
                continue;
            }
            // Of Mbit/s.
            value = value * 1000.0 * 1000.0 / 8.0;
        }
        let help = format!("Network device property: {name}");
        page.add((&format!("node_network_{name}"), kind, &help), &of, value);
    }
}

/// What each CPU did with packets, in hexadecimal.
pub(super) fn softnet(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const COLUMNS: [(usize, &str, &str); 6] = [
        (
            0,
            "node_softnet_processed_total",
            "Number of processed packets",
        ),
        (1, "node_softnet_dropped_total", "Number of dropped packets"),
        (
            2,
            "node_softnet_times_squeezed_total",
            "Number of times processing packets ran out of quota",
        ),
        (
            8,
            "node_softnet_cpu_collision_total",
            "Number of collision occur while obtaining device lock while transmitting",
        ),
        (
            9,
            "node_softnet_received_rps_total",
            "Number of times cpu woken up received_rps",
        ),
        (
            10,
            "node_softnet_flow_limit_count_total",
            "Number of times flow limit has been reached",
        ),
    ];
    let path = options.procfs.join("net/softnet_stat");
    let text = read::text(&path)?;
    for (at, line) in text.lines().enumerate() {
        let fields: Option<Vec<f64>> = line.split_whitespace().map(hex).collect();
        let fields = fields.ok_or_else(|| read::odd(&path, line))?;
        // Newer kernels tell how much waits, and which CPU it is: one that is off has no line.
        let cpu = fields
            .get(12)
            .map_or(families::float(at as u64), |cpu| *cpu);
        let cpu = cpu.to_string();
        let of = [("cpu", &*cpu)];
        for (at, name, help) in COLUMNS {
            if let Some(count) = fields.get(at) {
                page.counter(name, help, &of, *count);
            }
        }
        if let Some(waiting) = fields.get(11) {
            let help = "Softnet backlog status";
            page.gauge("node_softnet_backlog_len", help, &of, *waiting);
        }
    }
    Ok(())
}

/// What waits in the queues of all UDP sockets.
pub(super) fn udp_queues(options: &Options, page: &mut Page) -> Result<(), Problem> {
    for (file, ip) in [("udp", "v4"), ("udp6", "v6")] {
        let path = options.procfs.join("net").join(file);
        let text = match read::text(&path) {
            Err(Problem::NoData) => continue,
            text => text?,
        };
        let (mut sent, mut received) = (0.0, 0.0);
        for line in text.lines().skip(1) {
            let queues = line.split_whitespace().nth(4);
            let queues = queues.and_then(|queues| queues.split_once(':'));
            let queues = queues.and_then(|(tx, rx)| Some((hex(tx)?, hex(rx)?)));
            let (tx, rx) = queues.ok_or_else(|| read::odd(&path, line))?;
            sent += tx;
            received += rx;
        }
        for (queue, bytes) in [("tx", sent), ("rx", received)] {
            page.gauge(
                "node_udp_queues",
                "Number of allocated memory in the kernel for UDP datagrams in bytes.",
                &[("ip", ip), ("queue", queue)],
                bytes,
            );
        }
    }
    Ok(())
}
