//! Processes of this machine, of a made-up one, and their containers.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::target::tests::{all_shown, shown};
use super::refresh::Look as _;
use super::*;

const ALL: ProcessLabels = ProcessLabels {
    exe: true,
    cwd: true,
    commandline: true,
    uid: true,
    username: true,
    cgroup_path: true,
    container_id: true,
};

fn targets(all: &[&[(&str, &str)]]) -> Targets {
    let one = |labels: &&[(&str, &str)]| {
        let labels = labels.iter();
        value(
            labels
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
        )
    };
    Targets(all.iter().map(one).collect())
}

fn place(labels: ProcessLabels) -> ProcessPlace {
    ProcessPlace {
        join: targets(&[]),
        labels,
    }
}

async fn found(look: &mut Look) -> Vec<String> {
    let found = look.look().await.unwrap();
    all_shown(found[0].1.as_ref().unwrap())
}

#[tokio::test]
async fn this_process_is_found() {
    let found = found(&mut Look::new(place(ALL))).await;
    let pid = format!("__process_pid__={}", std::process::id());
    let own: Vec<&String> = found
        .iter()
        .filter(|line| line.split(' ').any(|label| label == pid))
        .collect();
    assert_eq!(own.len(), 1, "{found:?}");
    let exe = std::env::current_exe().unwrap();
    let uid = rustix::process::getuid().as_raw();
    for want in [
        format!("__meta_process_exe={} ", exe.display()),
        format!("__meta_process_uid={uid} "),
        format!("__meta_process_cwd={} ", env!("CARGO_MANIFEST_DIR")),
        "__meta_process_commandline=".to_owned(),
        "__meta_cgroup_path=".to_owned(),
    ] {
        assert!(own[0].contains(&want), "{want}: {}", own[0]);
    }
}

/// A `/proc` with one process that has everything, and some that lack something.
fn machine(cgroup: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    for pid in ["7", "30", "4", "self", "x1"] {
        fs::create_dir(dir.path().join(pid)).unwrap();
    }
    for pid in ["7", "30"] {
        symlink("/bin/app", dir.path().join(pid).join("exe")).unwrap();
        symlink("/srv", dir.path().join(pid).join("cwd")).unwrap();
        write(&format!("{pid}/cmdline"), "app\0-x\0");
        write(&format!("{pid}/cgroup"), cgroup);
    }
    write("7/status", "Name:\tapp\nUid:\t1000\t0\t0\t0\n");
    write("30/status", "Uid:\t5\t5\t5\t5\n");
    // A thread of the kernel has no program.
    write("4/cmdline", "");
    write(
        "passwd",
        "root:x:0:0::/:\nann:x:1000:1000::/:\nann2:x:1000:1:\nodd\n",
    );
    dir
}

fn on(dir: &Path, labels: ProcessLabels) -> Look {
    Look {
        place: place(labels),
        proc: dir.to_owned(),
        passwd: dir.join("passwd"),
    }
}

#[tokio::test]
async fn processes_are_in_order_with_what_is_asked_of_them() {
    let id = "ab".repeat(32);
    let dir = machine(&format!("1:cpu:/docker/{id}\n0::/x\n"));
    let all = found(&mut on(dir.path(), ALL)).await;
    let start = format!("__container_id__={id} __meta_cgroup_path=1:cpu:/docker/{id}|0::/x");
    let of_all =
        "__meta_process_commandline=app -x __meta_process_cwd=/srv __meta_process_exe=/bin/app";
    assert_eq!(
        all,
        [
            format!(
                "{start} {of_all} __meta_process_uid=1000 __meta_process_username=ann __process_pid__=7"
            ),
            format!("{start} {of_all} __meta_process_uid=5 __process_pid__=30"),
        ]
    );
    let none = ProcessLabels {
        exe: false,
        cwd: false,
        commandline: false,
        uid: false,
        username: false,
        cgroup_path: false,
        container_id: false,
    };
    let bare = found(&mut on(dir.path(), none)).await;
    assert_eq!(
        bare,
        [
            "__process_pid__=4",
            "__process_pid__=7",
            "__process_pid__=30"
        ]
    );
    let mut nowhere = on(&dir.path().join("nowhere"), ALL);
    let problem = nowhere.look().await.unwrap_err();
    assert!(
        problem.starts_with("failed to list processes: "),
        "{problem}"
    );
}

#[test]
fn containers_are_told_by_their_control_groups() {
    let id = "0123456789abcdef".repeat(4);
    for (cgroup, want) in [
        (format!("12:cpu:/docker/{id}"), true),
        (format!("0::/system.slice/docker-{id}.scope"), true),
        (
            format!("0::/kubepods/burstable/podx/cri-containerd-{id}.scope"),
            true,
        ),
        (format!("1:x:/\n0::/libpod/{id}  "), true),
        (format!("0::/{id}f"), false),
        ("0::/user.slice/session-5.scope".to_owned(), false),
        (String::new(), false),
    ] {
        let found = container_of_cgroup(&cgroup);
        assert_eq!(found.as_deref(), want.then_some(&*id), "{cgroup}");
    }
}

#[test]
fn processes_get_the_labels_of_their_containers_which_stay_too() {
    let processes = targets(&[
        &[
            ("__container_id__", "c1"),
            ("__process_pid__", "1"),
            ("x", "own"),
        ],
        &[("__container_id__", "c2"), ("__process_pid__", "2")],
        &[("__container_id__", "other://c9"), ("__process_pid__", "3")],
        &[("__process_pid__", "4")],
    ]);
    let containers = targets(&[
        &[("__meta_docker_container_id", "c1"), ("x", "theirs")],
        &[
            ("__meta_kubernetes_pod_container_id", "containerd://c2"),
            ("y", "2"),
        ],
        &[("__meta_kubernetes_pod_container_id", "other://c9")],
        &[("z", "3")],
    ]);
    let joined = join(processes.0.to_vec(), &containers);
    let shown: Vec<String> = joined.iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            "__container_id__=c1 __meta_docker_container_id=c1 __process_pid__=1 x=theirs",
            "__container_id__=c2 __meta_kubernetes_pod_container_id=containerd://c2 \
             __process_pid__=2 y=2",
            "__container_id__=other://c9 __process_pid__=3",
            "__process_pid__=4",
            "__meta_docker_container_id=c1 x=theirs",
            "__meta_kubernetes_pod_container_id=containerd://c2 y=2",
            "__meta_kubernetes_pod_container_id=other://c9",
            "z=3",
        ]
    );
}
