//! `prometheus.exporter.unix` beside a real node_exporter: of the same files the same series, bit for bit; of the
//! same machine the same series.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::agent::Agent;
use crate::common::http::{get, is_ok};
use crate::common::process::{Process, debian};
use crate::common::recorder::Recorder;
use crate::common::{PATIENCE, eventually, on_free_port};

/// Every collector there is.
const COLLECTORS: [&str; 26] = [
    "arp",
    "conntrack",
    "cpu",
    "cpufreq",
    "diskstats",
    "entropy",
    "filefd",
    "filesystem",
    "hwmon",
    "loadavg",
    "meminfo",
    "netclass",
    "netdev",
    "netstat",
    "os",
    "pressure",
    "schedstat",
    "sockstat",
    "softnet",
    "stat",
    "textfile",
    "thermal_zone",
    "time",
    "udp_queues",
    "uname",
    "vmstat",
];

/// What the node_exporter of the test is too old for.
const NEWER: [&str; 4] = [
    "node_softnet_backlog_len",
    "node_softnet_cpu_collision_total",
    "node_softnet_flow_limit_count_total",
    "node_softnet_received_rps_total",
];

const MOUNT_POINTS: &str = "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+)($|/)";

/// A page, taken apart: labels without a value are none.
#[derive(Debug, Default)]
struct Page {
    values: BTreeMap<String, f64>,
    /// Type and help.
    families: BTreeMap<String, [String; 2]>,
}

impl Page {
    fn new(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# ") {
                let mut words = line.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                let family = page.families.entry(name.to_owned()).or_default();
                family[usize::from(what == "HELP")] = words.next().unwrap_or_default().to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = page
                    .values
                    .insert(canonical(series), value.parse().unwrap());
                assert_eq!(before, None, "{series} is there twice");
            }
        }
        page
    }

    fn series(&self) -> BTreeSet<&str> {
        self.values.keys().map(String::as_str).collect()
    }

    fn without(mut self, names: &[&str]) -> Self {
        let is_out = |name: &str| names.contains(&name);
        self.values.retain(|series, _| !is_out(name(series)));
        self.families.retain(|name, _| !is_out(name));
        self
    }
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap()
}

fn canonical(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else {
        return series.to_owned();
    };
    let labels = labels.strip_suffix("\"}").unwrap();
    let mut labels: Vec<String> = (labels.split("\","))
        .map(|label| format!("{label}\""))
        .collect();
    labels.retain(|label| !label.ends_with("=\"\""));
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// A node_exporter with the collectors that exist here, and where it listens.
fn node_exporter(dir: &Path, arguments: &[String]) -> (Process, u16) {
    on_free_port(|port| {
        let mut command = debian("prometheus-node-exporter", "prometheus-node-exporter");
        command.args([
            "--collector.disable-defaults",
            "--web.disable-exporter-metrics",
        ]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.args(COLLECTORS.map(|name| format!("--collector.{name}")));
        command.arg("--collector.netdev.device-exclude=");
        command.arg(format!(
            "--collector.filesystem.mount-points-exclude={MOUNT_POINTS}"
        ));
        command.args(arguments);
        let mut exporter = Process::start("node-exporter", command, dir);
        let is_up = exporter.is_up(|| is_ok(port, "/"));
        is_up.then_some((exporter, port))
    })
}

/// An agent with one exporter of this body.
fn agent(dir: &Path, body: &str) -> Agent {
    Agent::start_with(dir, &[], |_| {
        format!("prometheus.exporter.unix \"x\" {{\n{body}\n}}\n")
    })
}

const PATH: &str = "/api/v0/component/prometheus.exporter.unix.x/metrics";

fn page(port: u16, path: &str) -> Page {
    let reply = get(port, path).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    let head = reply.head.to_lowercase();
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    // What the other one says of itself.
    Page::new(&reply.text).without(&[
        "node_exporter_build_info",
        "promhttp_metric_handler_errors_total",
    ])
}

/// Writes the files of `tests/data/unix`: each behind a line with its path.
fn unpack(dir: &Path) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/unix");
    for file in ["proc.txt", "sys.txt"] {
        let all = fs::read_to_string(data.join(file)).unwrap();
        for one in all.split("==> ").skip(1) {
            let (path, text) = one.split_once(" <==\n").unwrap();
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

/// Series that only one of the two has.
fn differ(theirs: &Page, ours: &Page) -> Vec<String> {
    let (theirs, ours) = (theirs.series(), ours.series());
    let differ = theirs.symmetric_difference(&ours);
    differ.map(|series| (*series).to_owned()).collect()
}

/// Series whose values are of the moment they were asked for.
fn is_of_the_moment(series: &str) -> bool {
    let names = [
        "node_filesystem_avail_bytes",
        "node_filesystem_files_free",
        "node_filesystem_free_bytes",
        "node_scrape_collector_duration_seconds",
        "node_time_seconds",
    ];
    names.contains(&name(series))
}

#[test]
fn of_the_same_files_a_node_exporter_makes_the_same_series() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let arguments = [
        format!("--path.procfs={}", at("proc")),
        format!("--path.sysfs={}", at("sys")),
        format!("--path.rootfs={}", at("root")),
        format!("--path.udev.data={}", at("udev")),
        format!("--collector.textfile.directory={}", at("text")),
        // Of netlink there is no recording: counters of devices are those of the kernel that runs.
        "--no-collector.netdev.netlink".to_owned(),
        "--collector.cpu.info".to_owned(),
        "--collector.cpu.info.flags-include=^(aes|avx.?)$".to_owned(),
        "--collector.cpu.info.bugs-include=^spectre".to_owned(),
    ];
    let (_exporter, port) = node_exporter(dir.path(), &arguments);
    let agent = agent(
        dir.path(),
        &format!(
            "procfs_path = \"{}\"\nsysfs_path = \"{}\"\nrootfs_path = \"{}\"\nudev_data_path = \"{}\"\n\
             textfile {{ directory = \"{}\" }}\ncpu {{\n  guest = true\n  flags_include = \"^(aes|avx.?)$\"\n  \
             bugs_include = \"^spectre\"\n}}",
            at("proc"),
            at("sys"),
            at("root"),
            at("udev"),
            at("text"),
        ),
    );
    let theirs = page(port, "/metrics");
    let not_in_files = ["node_network_receive_nohandler_total"];
    let ours = page(agent.own_port, PATH)
        .without(&NEWER)
        .without(&not_in_files);
    assert!(theirs.values.len() > 500, "{}", theirs.values.len());
    let differ = differ(&theirs, &ours);
    assert!(differ.is_empty(), "{differ:?}");
    assert_eq!(ours.families, theirs.families);
    for (series, value) in &theirs.values {
        let own = ours.values[series];
        let is_same = own.to_bits() == value.to_bits();
        assert!(
            is_same || is_of_the_moment(series),
            "{series}: {own} for {value}"
        );
    }
}

#[test]
fn of_this_machine_a_node_exporter_makes_the_same_series() {
    let dir = tempfile::tempdir().unwrap();
    let (_exporter, port) = node_exporter(dir.path(), &[]);
    let agent = agent(dir.path(), "cpu { guest = true }");
    // Devices and neighbours come and go.
    eventually(PATIENCE, || {
        let before = page(port, "/metrics");
        let ours = page(agent.own_port, PATH).without(&NEWER);
        let after = page(port, "/metrics");
        let differ = differ(&before, &ours);
        if !differ.is_empty() {
            return Err(format!("{differ:?}"));
        }
        compare(&before, &ours, &after)
    });
}

/// Counters are between what they were before and after; what did not change in between is the same.
fn compare(before: &Page, ours: &Page, after: &Page) -> Result<(), String> {
    assert_eq!(ours.families, before.families);
    for (series, value) in &ours.values {
        let (first, last) = (before.values[series], after.values.get(series));
        let Some(last) = last else {
            return Err(format!("{series} is gone"));
        };
        let [kind, _] = &ours.families[name(series)];
        let is_between = first <= *value && *value <= *last;
        let may_differ = kind == "gauge" && (first.to_bits() != last.to_bits());
        if !is_between && !may_differ {
            return Err(format!("{series}: {first}, {value}, {last}"));
        }
    }
    Ok(())
}

#[test]
fn it_is_scraped_without_a_socket_and_what_hangs_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start();
    let url = recorder.url();
    let pipe = dir.path().join("proc/loadavg");
    fs::create_dir(dir.path().join("proc")).unwrap();
    // Opening it takes until somebody writes.
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut agent = Agent::start_with(dir.path(), &[], |_| {
        format!(
            "prometheus.exporter.unix \"fine\" {{ }}\nprometheus.exporter.unix \"hangs\" {{\n  \
             set_collectors = [\"loadavg\"]\n  procfs_path = \"{}\"\n}}\n\
             prometheus.scrape \"all\" {{\n  targets = array.concat(prometheus.exporter.unix.fine.targets, \
             [{{\"__address__\" = \"alloy.internal:12345\", \"job\" = \"hangs\", \"__metrics_path__\" = \
             prometheus.exporter.unix.hangs.targets[0][\"__metrics_path__\"]}}])\n  scrape_interval = \"200ms\"\n  \
             scrape_timeout = \"200ms\"\n  forward_to = [prometheus.remote_write.out.receiver]\n}}\n\
             prometheus.remote_write \"out\" {{\n  endpoint {{ url = \"{url}\" }}\n}}\n",
            dir.path().join("proc").display()
        )
    });
    let ups = |job: &str, want: f64| {
        let received = recorder.received();
        let is_it = |series: &str| series.contains("__name__=up,") && series.contains(job);
        let mut found = received.samples.iter().filter(|(series, _)| is_it(series));
        let values = found.next().map(|(_, samples)| samples.clone());
        let is_wanted = |(_, bits): &&(i64, u64)| f64::from_bits(*bits).to_bits() == want.to_bits();
        values.unwrap_or_default().iter().filter(is_wanted).count()
    };
    eventually(PATIENCE, || {
        match (ups("integrations/unix", 1.0), ups("hangs", 0.0)) {
            (up, down) if up >= 5 && down >= 5 => Ok(()),
            seen => Err(format!("{seen:?} scrapes")),
        }
    });
    let hanging = get(agent.own_port, "/metrics").unwrap();
    let threads = "penstock_thread_cpu_seconds{thread=\"collect\"}";
    assert!(hanging.text.contains(threads), "one hangs");
    let name = rustix::system::uname();
    let instance = format!("instance={}", name.nodename().to_str().unwrap());
    let received = recorder.received();
    let series = received
        .samples
        .keys()
        .find(|one| one.contains("node_memory_MemTotal_bytes"));
    let series = series.unwrap();
    assert!(
        series.contains(&instance) && series.contains("job=integrations/unix"),
        "{series}"
    );
    // Each writing lets one collection go on.
    eventually(PATIENCE, || {
        let wrote = fs::OpenOptions::new().write(true).open(&pipe);
        wrote
            .and_then(|mut pipe| std::io::Write::write_all(&mut pipe, b"1 2 3 1/2 3\n"))
            .unwrap();
        match ups("hangs", 1.0) {
            0 => Err("it goes on hanging".to_owned()),
            _ => Ok(()),
        }
    });
    assert!(agent.process.terminate().success());
}
