//! Turns which system this is, and what time it has, into series.

use std::collections::BTreeMap;

use super::Options;
use super::read::{self, Problem, float};
use crate::exporter::page::Page;

pub(super) fn uname(_: &Options, page: &mut Page) -> Result<(), Problem> {
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let labels = [
        ("domainname", &*text(name.domainname())),
        ("machine", &*text(name.machine())),
        ("nodename", &*text(name.nodename())),
        ("release", &*text(name.release())),
        ("sysname", &*text(name.sysname())),
        ("version", &*text(name.version())),
    ];
    let help = "Labeled system information as provided by the uname system call.";
    page.gauge("node_uname_info", help, &labels, 1.0);
    Ok(())
}

/// `os-release`.
pub(super) fn os(options: &Options, page: &mut Page) -> Result<(), Problem> {
    const LABELS: [(&str, &str); 12] = [
        ("build_id", "BUILD_ID"),
        ("id", "ID"),
        ("id_like", "ID_LIKE"),
        ("image_id", "IMAGE_ID"),
        ("image_version", "IMAGE_VERSION"),
        ("name", "NAME"),
        ("pretty_name", "PRETTY_NAME"),
        ("variant", "VARIANT"),
        ("variant_id", "VARIANT_ID"),
        ("version", "VERSION"),
        ("version_codename", "VERSION_CODENAME"),
        ("version_id", "VERSION_ID"),
    ];
    let file = |name: &str| read::text(options.rootfs.join(name));
    let text = file("etc/os-release").or_else(|_| file("usr/lib/os-release"))?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs: BTreeMap<&str, String> = pairs
        .map(|(name, value)| (name.trim(), unquoted(value.trim())))
        .collect();
    let value = |name: &str| pairs.get(name).map_or("", String::as_str);
    let labels = LABELS.map(|(label, name)| (label, value(name)));
    let help = "A metric with a constant '1' value labeled by build_id, id, id_like, image_id, image_version, name, \
                pretty_name, variant, variant_id, version, version_codename, version_id.";
    page.gauge("node_os_info", help, &labels, 1.0);
    // Only the first two numbers.
    let mut numbers = value("VERSION_ID").splitn(3, '.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next());
    let version = match minor {
        Some(minor) => float(&format!("{major}.{minor}")),
        None => float(major),
    };
    if let Some(version) = version {
        let labels = [
            ("id", value("ID")),
            ("id_like", value("ID_LIKE")),
            ("name", value("NAME")),
        ];
        let help = "Metric containing the major.minor part of the OS version.";
        page.gauge("node_os_version", help, &labels, version);
    }
    Ok(())
}

/// A value as a shell reads it.
fn unquoted(value: &str) -> String {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(inside) = inside('\'') {
        return inside.to_owned();
    }
    let mut out = String::new();
    let mut chars = inside('"').unwrap_or(value).chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.extend(chars.next()),
            other => out.push(other),
        }
    }
    out
}

pub(super) fn time(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let now = jiff::Zoned::now();
    let seconds = now.timestamp().as_duration().as_secs_f64();
    let help = "System time in seconds since epoch (1970).";
    page.gauge("node_time_seconds", help, &[], seconds);
    let zone = now.time_zone().to_offset_info(now.timestamp());
    page.gauge(
        "node_time_zone_offset_seconds",
        "System time zone offset in seconds.",
        &[("time_zone", zone.abbreviation())],
        f64::from(zone.offset().seconds()),
    );
    let sources = options.sysfs.join("devices/system/clocksource");
    let sources = match read::numbered(&sources, "clocksource") {
        Err(Problem::NoData) => return Ok(()),
        sources => sources?,
    };
    for (device, dir) in sources {
        let words = |name: &str| read::line(dir.join(name)).unwrap_or_default();
        for source in words("available_clocksource").split_whitespace() {
            page.gauge(
                "node_time_clocksource_available_info",
                "Available clocksources read from '/sys/devices/system/clocksource'.",
                &[("clocksource", source), ("device", &device)],
                1.0,
            );
        }
        page.gauge(
            "node_time_clocksource_current_info",
            "Current clocksource read from '/sys/devices/system/clocksource'.",
            &[
                ("clocksource", &words("current_clocksource")),
                ("device", &device),
            ],
            1.0,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_does() {
        assert_eq!(unquoted(r#""a \"b\" \\ \$c""#), r#"a "b" \ $c"#);
        assert_eq!(unquoted(r"'a \b'"), r"a \b");
        assert_eq!(unquoted("debian"), "debian");
        assert_eq!(unquoted("\""), "\"");
    }
}
