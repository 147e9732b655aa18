//! Turns the processes of the machine into targets, joined with those of others by their containers.
//!
//! # Failure
//! - A process that ended meanwhile, or whose program, directory or command line may not be read, is left out:
//!   other users' processes are seen by root only. Threads of the kernel have no program.
//!
//! # Limits
//! - [`TARGETS_MAX`] processes, and of what `/proc` says of one [`TEXT_BYTES_MAX`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use config::{Object, Value};
use regex::Regex;

use super::refresh::{self, Found, Group, too_many};
use super::target::{Labels, Targets, label, value};
use super::{TARGETS_MAX, blocking};

/// More than any command line a list of targets should hold.
const TEXT_BYTES_MAX: u64 = 128 << 10;

const CONTAINER_ID: &str = "__container_id__";

/// Which labels processes get, and with what they are joined.
#[derive(Clone, Debug)]
pub(crate) struct ProcessPlace {
    pub(crate) join: Targets,
    pub(crate) labels: ProcessLabels,
}

/// Which labels processes get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an argument of its own"
)]
pub(crate) struct ProcessLabels {
    pub(crate) exe: bool,
    pub(crate) cwd: bool,
    pub(crate) commandline: bool,
    pub(crate) uid: bool,
    pub(crate) username: bool,
    pub(crate) cgroup_path: bool,
    pub(crate) container_id: bool,
}

pub(super) struct Look {
    place: ProcessPlace,
    /// `/proc` and `/etc/passwd`.
    proc: PathBuf,
    passwd: PathBuf,
}

impl Look {
    pub(super) fn new(place: ProcessPlace) -> Self {
        Self {
            place,
            proc: "/proc".into(),
            passwd: "/etc/passwd".into(),
        }
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        let (place, proc, passwd) = (self.place.clone(), self.proc.clone(), self.passwd.clone());
        let group = blocking(move || {
            let users = users(&passwd);
            let processes = processes(&proc, place.labels, &users)?;
            Ok(join(processes, &place.join))
        });
        Ok(vec![(String::new(), Ok(group.await?))])
    }
}

/// Every process, in the order of their numbers.
fn processes(
    proc: &Path,
    labels: ProcessLabels,
    users: &BTreeMap<String, String>,
) -> Result<Vec<Value>, String> {
    let failed = |error: std::io::Error| format!("failed to list processes: {error}");
    let mut pids = Vec::new();
    for entry in proc.read_dir().map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    if pids.len() > TARGETS_MAX {
        return Err(too_many(pids.len()));
    }
    pids.sort_unstable();
    let process = |pid: u32| process(&proc.join(pid.to_string()), pid, labels, users);
    Ok(pids.into_iter().filter_map(process).map(value).collect())
}

/// The labels of a process; none where it is left out.
fn process(
    dir: &Path,
    pid: u32,
    which: ProcessLabels,
    users: &BTreeMap<String, String>,
) -> Option<Labels> {
    let mut labels = Labels::new();
    let mut put = |name: &str, text: String| drop(labels.insert(name.to_owned(), text));
    put("__process_pid__", pid.to_string());
    let link = |name: &str| {
        let path = std::fs::read_link(dir.join(name)).ok()?;
        Some(path.to_string_lossy().into_owned())
    };
    if which.exe {
        put("__meta_process_exe", link("exe")?);
    }
    if which.cwd {
        put("__meta_process_cwd", link("cwd")?);
    }
    if which.commandline {
        let line = read(&dir.join("cmdline"))?.replace('\0', " ");
        put("__meta_process_commandline", line.trim_end().to_owned());
    }
    if which.uid || which.username {
        let uid = read(&dir.join("status")).and_then(|status| uid(&status));
        let uid = uid.unwrap_or_default();
        if which.username {
            let name = users.get(&uid).cloned();
            put("__meta_process_username", name.unwrap_or_default());
        }
        if which.uid {
            put("__meta_process_uid", uid);
        }
    }
    if which.container_id || which.cgroup_path {
        let cgroup = read(&dir.join("cgroup"))?;
        if which.container_id {
            put(
                CONTAINER_ID,
                container_of_cgroup(&cgroup).unwrap_or_default(),
            );
        }
        if which.cgroup_path {
            let paths: Vec<&str> = cgroup.lines().collect();
            put("__meta_cgroup_path", paths.join("|"));
        }
    }
    Some(labels)
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?.take(TEXT_BYTES_MAX);
    { file }.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The real user, of the four that a `status` names.
fn uid(status: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// The names of users by their numbers. Those of a directory service are not known.
fn users(passwd: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(passwd).unwrap_or_default();
    let mut users = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) {
            users
                .entry(uid.to_owned())
                .or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// A name of a control group that ends in the id of a container.
static IN_CONTAINER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^.*/(?:.*-)?([0-9a-f]{64})(?:\.|\s*$)").ok());

fn container_of_cgroup(cgroup: &str) -> Option<String> {
    let pattern = IN_CONTAINER.as_ref()?;
    let found = cgroup.lines().find_map(|line| pattern.captures(line))?;
    found.get(1).map(|id| id.as_str().to_owned())
}

/// The id of the container that a target is in; empty where it is in none.
fn container_of(labels: &Object) -> &str {
    let own = label(labels, CONTAINER_ID);
    if !own.is_empty() {
        return own;
    }
    let pod = label(labels, "__meta_kubernetes_pod_container_id");
    if !pod.is_empty() {
        let runtimes = ["docker://", "containerd://", "cri-o://"];
        let id = runtimes
            .iter()
            .find_map(|runtime| pod.strip_prefix(runtime));
        return id.unwrap_or_default();
    }
    label(labels, "__meta_docker_container_id")
}

/// Processes with the labels of their containers, and behind them the containers.
fn join(processes: Vec<Value>, containers: &Targets) -> Group {
    let mut by_id: BTreeMap<&str, &Object> = BTreeMap::new();
    for (_, labels) in containers.iter() {
        match container_of(labels) {
            "" => {}
            id => drop(by_id.insert(id, labels)),
        }
    }
    let processes = processes.into_iter().map(|process| {
        let Some(labels) = process.as_object() else {
            return process;
        };
        match by_id.get(container_of(labels)) {
            Some(container) => {
                let mut all = labels.clone();
                all.extend(
                    container
                        .iter()
                        .map(|(name, text)| (name.clone(), text.clone())),
                );
                all.into()
            }
            None => process,
        }
    });
    processes.chain(containers.0.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
