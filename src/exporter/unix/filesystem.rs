//! Turns the mounts of the machine into how full they are.
//!
//! # Failure
//! - A mount that cannot be asked has `node_filesystem_device_error` 1 and nothing else.
//!
//! # Limits
//! - [`MOUNTS_MAX`] mounts; more are a failure of the collector.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Options;
use super::mounts::{Space, ask};
use super::read::{self, Problem};
use crate::exporter::page::Page;

const MOUNTS_MAX: usize = 10_000;

/// A line of `mounts`.
#[derive(Debug)]
struct Mount {
    device: String,
    /// As the machine sees it.
    point: String,
    kind: String,
    is_readonly: bool,
    /// As this process sees it.
    path: PathBuf,
}

pub(super) fn collect(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let mounts = mounts(options)?;
    let paths = mounts.iter().map(|mount| mount.path.clone()).collect();
    let answers = ask(paths, options.filesystem.mount_timeout);
    for (mount, space) in mounts.iter().zip(answers) {
        show(page, mount, space);
    }
    Ok(())
}

/// The mounts that are wanted, each once.
fn mounts(options: &Options) -> Result<Vec<Mount>, Problem> {
    // Those of the first process are the machine's; it may be none of ours to read.
    let text = read::text(options.procfs.join("1/mounts"));
    let text = text.or_else(|_| read::text(options.procfs.join("self/mounts")))?;
    let root = options.rootfs.to_string_lossy();
    let root = root.trim_end_matches('/');
    let (mut mounts, mut seen) = (Vec::new(), BTreeSet::new());
    for line in text.lines() {
        let mut fields = line.split(' ');
        let mut field = || fields.next().unwrap_or_default();
        let (device, point, kind, flags) = (field(), field(), field(), field());
        let point = unescaped(point);
        let point = match point.strip_prefix(root).unwrap_or(&point) {
            "" => "/",
            point => point,
        };
        let is_out = options.filesystem.mount_points_exclude.is_match(point)
            || options.filesystem.fs_types_exclude.is_match(kind);
        let key = (device.to_owned(), point.to_owned(), kind.to_owned());
        if is_out || !seen.insert(key) {
            continue;
        }
        if mounts.len() == MOUNTS_MAX {
            return Err(Problem::Failed(format!("more than {MOUNTS_MAX} mounts")));
        }
        mounts.push(Mount {
            device: device.to_owned(),
            point: point.to_owned(),
            kind: kind.to_owned(),
            is_readonly: flags.split(',').any(|flag| flag == "ro"),
            path: format!("{root}{point}").into(),
        });
    }
    Ok(mounts)
}

/// A path as it is: spaces, tabs, newlines and backslashes are written as octal numbers.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

fn show(page: &mut Page, mount: &Mount, space: Option<Space>) {
    let labels = [
        ("device", &*mount.device),
        ("fstype", &*mount.kind),
        ("mountpoint", &*mount.point),
    ];
    page.gauge(
        "node_filesystem_device_error",
        "Whether an error occurred while getting statistics for the given device.",
        &labels,
        f64::from(u8::from(space.is_none())),
    );
    let Some(space) = space else { return };
    for (name, help, value) in [
        (
            "node_filesystem_size_bytes",
            "Filesystem size in bytes.",
            space.size_bytes,
        ),
        (
            "node_filesystem_free_bytes",
            "Filesystem free space in bytes.",
            space.free_bytes,
        ),
        (
            "node_filesystem_avail_bytes",
            "Filesystem space available to non-root users in bytes.",
            space.avail_bytes,
        ),
        (
            "node_filesystem_files",
            "Filesystem total file nodes.",
            space.files,
        ),
        (
            "node_filesystem_files_free",
            "Filesystem total free file nodes.",
            space.files_free,
        ),
        (
            "node_filesystem_readonly",
            "Filesystem read-only status.",
            f64::from(u8::from(mount.is_readonly)),
        ),
    ] {
        page.gauge(name, help, &labels, value);
    }
}
