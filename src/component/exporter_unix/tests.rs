//! What is there unless something is said, what lists and blocks mean, and what is refused.

use super::*;
use crate::component::testing::decoded;

/// What a block of this body asks for, or what is wrong with it.
fn load(body: &str) -> Result<Options, String> {
    decoded(&format!("c \"x\" {{\n{body}\n}}\n"), read)
}

#[test]
fn what_is_not_said_is_as_in_the_reference() {
    for body in [
        "",
        "cpu { }\nfilesystem { }\nnetclass { }\nnetdev { }\ndisk { }\ntextfile { }",
    ] {
        let options = load(body).unwrap();
        assert_eq!(options.collectors, unix::defaults());
        assert!(!options.includes_own && !options.cpu.guest && !options.cpu.info);
        assert_eq!(options.procfs, PathBuf::from("/proc"));
        assert_eq!(options.filesystem.mount_timeout, Duration::from_secs(5));
        let excluded = |point: &str| options.filesystem.mount_points_exclude.is_match(point);
        assert!(excluded("/run/credentials/x") && excluded("/sys") && !excluded("/run"));
        assert!(options.filesystem.fs_types_exclude.is_match("overlay"));
        assert!(!options.filesystem.fs_types_exclude.is_match("tmpfs"));
        assert!(options.disk.takes("sda") && !options.disk.takes("sda1"));
        assert!(options.netdev.takes("lo") && options.arp.takes("lo"));
        assert!(options.netstat_fields.is_match("Udp6_NoPorts"));
        assert!(options.vmstat_fields.is_match("pgmajfault"));
        assert!(options.textfile_directories.is_empty());
    }
}

#[test]
fn lists_of_collectors_go_together() {
    let on = |body: &str| load(body).unwrap().collectors;
    assert_eq!(on("set_collectors = [\"cpu\"]"), BTreeSet::from(["cpu"]));
    let both = "set_collectors = [\"cpu\", \"os\"]\nenable_collectors = [\"stat\", \"arp\"]\n\
                disable_collectors = [\"os\", \"stat\", \"zfs\", \"infiniband\"]";
    assert_eq!(on(both), BTreeSet::from(["arp", "cpu"]));
    assert!(!on("disable_collectors = [\"cpu\"]").contains("cpu"));
}

#[test]
fn blocks_say_what_is_looked_at() {
    let options = load(
        "disk { device_include = \"^sda1$\" }\nnetdev { device_exclude = \"^veth\" }\n\
         cpu { flags_include = \"^aes$\" }\ntextfile { directory = \"/t\" }",
    );
    let options = options.unwrap();
    assert!(options.disk.takes("sda1") && !options.disk.takes("sda"));
    assert!(options.netdev.takes("eth0") && !options.netdev.takes("veth1"));
    assert!(options.cpu.info);
    assert_eq!(options.textfile_directories, [PathBuf::from("/t")]);
}

#[test]
fn what_is_not_here_is_refused_where_it_stands() {
    for (body, at, want) in [
        (
            "enable_collectors = [\"cpu\", \"systemd\"]",
            "a:2:21: ",
            "collector \"systemd\" is not built yet; there are arp, conntrack, cpu, ",
        ),
        (
            "set_collectors = [\"cup\"]",
            "a:2:18: ",
            "\"cup\" is no collector; there are arp, ",
        ),
        (
            "disable_collectors = [\"cup\"]",
            "a:2:22: ",
            "\"cup\" is no collector; there are arp, ",
        ),
        (
            "systemd { unit_include = \".+\" }",
            "a:2:1: ",
            "the collector of block \"systemd\" is not built yet; there are arp, ",
        ),
        (
            "netdev {\n  device_include = \"a\"\n  device_exclude = \"b\"\n}",
            "a:2:1: ",
            "device_include and device_exclude exclude each other",
        ),
        (
            "netclass {\n  ignored_devices = \"(\"\n}",
            "a:3:21: ",
            "is no regular expression: unclosed group",
        ),
    ] {
        let message = load(body).unwrap_err();
        assert!(message.starts_with(at), "{message}");
        assert!(message.contains(want), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}
