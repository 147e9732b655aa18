//! Turns files that are lists of names and numbers into series that are called so: memory, virtual memory, network
//! protocols, sockets.

use super::Options;
use super::read::{self, Problem, float};
use crate::exporter::page::Page;

/// `/proc/meminfo`: `Active(anon):   1234 kB`.
pub(super) fn meminfo(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let path = options.procfs.join("meminfo");
    let text = read::text(&path)?;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some(key), Some(value)) = (fields.next(), fields.next()) else {
            continue;
        };
        let mut value = float(value).ok_or_else(|| read::odd(&path, line))?;
        let mut field = key.trim_end_matches(':').replace('(', "_").replace(')', "");
        if fields.next() == Some("kB") {
            field.push_str("_bytes");
            value *= 1024.0;
        }
        let name = format!("node_memory_{field}");
        let help = format!("Memory information field {field}.");
        page.gauge(&name, &help, &[], value);
    }
    Ok(())
}

/// `/proc/vmstat`: `pgfault 1234`.
pub(super) fn vmstat(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let path = options.procfs.join("vmstat");
    let text = read::text(&path)?;
    for line in text.lines() {
        let Some((field, value)) = line.split_once(' ') else {
            continue;
        };
        if options.vmstat_fields.is_match(field) {
            let value = float(value.trim()).ok_or_else(|| read::odd(&path, line))?;
            let help = format!("/proc/vmstat information field {field}.");
            page.untyped(&format!("node_vmstat_{field}"), &help, &[], value);
        }
    }
    Ok(())
}

/// `/proc/net/netstat` and `snmp` (a line of names, a line of numbers) and `snmp6` (a line for each).
pub(super) fn netstat(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let dir = options.procfs.join("net");
    let mut show = |protocol: &str, field: &str, value: f64| {
        let key = format!("{protocol}_{field}");
        if options.netstat_fields.is_match(&key) {
            let help = format!("Statistic {protocol}{field}.");
            page.untyped(&format!("node_netstat_{key}"), &help, &[], value);
        }
    };
    for file in ["netstat", "snmp"] {
        let path = dir.join(file);
        let text = read::text(&path)?;
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let (mut names, mut values) = (names.split(' '), values.split(' '));
            let (protocol, again) = (names.next(), values.next());
            let Some(protocol) = protocol.filter(|_| protocol == again) else {
                return Err(read::odd(&path, &text));
            };
            let protocol = protocol.trim_end_matches(':');
            for (name, value) in names.zip(values) {
                show(
                    protocol,
                    name,
                    float(value).ok_or_else(|| read::odd(&path, value))?,
                );
            }
        }
    }
    let path = dir.join("snmp6");
    let text = match read::text(&path) {
        // Without IPv6.
        Err(Problem::NoData) => return Ok(()),
        text => text?,
    };
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some(name), Some(value)) = (fields.next(), fields.next()) else {
            continue;
        };
        if let Some((protocol, name)) = name.split_once('6').filter(|(_, name)| !name.is_empty()) {
            let value = float(value).ok_or_else(|| read::odd(&path, line))?;
            show(&format!("{protocol}6"), name, value);
        }
    }
    Ok(())
}

/// `/proc/net/sockstat` and `sockstat6`: `TCP: inuse 3 mem 1`.
pub(super) fn sockstat(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let dir = options.procfs.join("net");
    for file in ["sockstat", "sockstat6"] {
        let path = dir.join(file);
        let text = match read::text(&path) {
            // Without IPv4, or IPv6.
            Err(Problem::NoData) => continue,
            text => text?,
        };
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let protocol = fields.next().unwrap_or_default().trim_end_matches(':');
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                let value = float(value).ok_or_else(|| read::odd(&path, line))?;
                socket(page, protocol, field, value);
            }
        }
    }
    Ok(())
}

fn socket(page: &mut Page, protocol: &str, field: &str, value: f64) {
    let mut show = |field: &str, value: f64| {
        let name = format!("node_sockstat_{protocol}_{field}");
        let help = format!("Number of {protocol} sockets in state {field}.");
        page.gauge(&name, &help, &[], value);
    };
    if field == "mem" {
        let page_bytes = crate::telemetry::families::float(rustix::param::page_size() as u64);
        show("mem_bytes", value * page_bytes);
    }
    if (protocol, field) == ("sockets", "used") {
        let help = "Number of IPv4 sockets in use.";
        page.gauge("node_sockstat_sockets_used", help, &[], value);
    } else {
        show(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::*;

    #[test]
    fn a_number_that_is_none_is_told_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            procfs: dir.path().to_owned(),
            vmstat_fields: Pattern::new("").unwrap(),
            ..Options::default()
        };
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("meminfo", "MemTotal:   1 kB\nHugePages_Total:  x\n\nodd\n");
        write("vmstat", "pgfault\npgfault many\n");
        write("net/netstat", "TcpExt: A B\nIpExt: 1 2\n");
        write("net/sockstat", "TCP: inuse many\n");
        let mut page = Page::default();
        let mut why = |collect: super::super::Collect| {
            let Err(Problem::Failed(why)) = collect(&options, &mut page) else {
                panic!("it is broken");
            };
            why
        };
        assert!(why(meminfo).contains("meminfo holds \"HugePages_Total:  x\""));
        assert!(why(vmstat).contains("vmstat holds \"pgfault many\""));
        assert!(why(netstat).contains("netstat holds \"TcpExt: A B"));
        assert!(why(sockstat).contains("sockstat holds \"TCP: inuse many\""));
        // What came before stays.
        assert!(page.encode().ends_with("node_memory_MemTotal_bytes 1024\n"));
    }
}
