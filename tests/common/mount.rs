//! Turns a test into one that may mount: file systems of its own that end with it, however it ends.
//!
//! The test runs once more as a process in a mount namespace of its own. As root that may mount
//! anything; as another user (`unshare --map-root-user`) memory only.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::eventually;

/// Set in the process that may mount: a file that it makes, as a name that no test has runs none and succeeds.
const INSIDE: &str = "PENSTOCK_TEST_MOUNTS";
/// Ballast is written in pieces of this size, and at last byte by byte.
const PIECE_BYTES: usize = 1 << 20;

/// Who may mount what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    Memory,
    /// A loop device, so root.
    LoopDevice,
}

/// Runs `test` where it may mount; says so and returns where nobody lets it. `name` is its own.
pub(crate) fn with_mounts(name: &str, needs: Needs, test: impl FnOnce()) {
    if let Some(ran) = std::env::var_os(INSIDE) {
        File::create(ran).unwrap();
        return test();
    }
    let Some(mut unshare) = unshare(needs) else {
        println!("{name} is skipped: it needs root or unshare(1), and {needs:?} to mount");
        return;
    };
    let this = std::env::current_exe().unwrap();
    unshare
        .arg(this)
        .args([name, "--exact", "--nocapture", "--include-ignored"]);
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let status = unshare.env(INSIDE, &ran).status().unwrap();
    assert!(status.success(), "{name} failed, see above");
    assert!(ran.is_file(), "no test is named {name}");
}

/// A command line to which another can be added, if it works here.
fn unshare(needs: Needs) -> Option<Command> {
    let users: [&[&str]; 2] = [&[], &["--map-root-user"]];
    users.into_iter().find_map(|user| {
        let command = || {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "--propagation", "private"])
                .args(user);
            command
        };
        let probe = match needs {
            Needs::Memory => "mount -t tmpfs none /mnt",
            Needs::LoopDevice => "losetup --find && mkfs.ext4 -V",
        };
        let mut probing = command();
        probing.args(["sh", "-c", probe]);
        let status = probing.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then(command)
    })
}

/// A mounted file system, which is gone when the test is.
#[derive(Debug)]
pub(crate) struct FileSystem {
    dir: PathBuf,
    is_ext4: bool,
}

impl FileSystem {
    /// One in memory.
    pub(crate) fn tmpfs(dir: &Path, mib: u64) -> Self {
        std::fs::create_dir(dir).unwrap();
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mib}m"),
                "none",
                text(dir),
            ],
        );
        let dir = dir.to_owned();
        Self {
            dir,
            is_ext4: false,
        }
    }

    /// An ext4 in a file beside `dir`, on a loop device that goes when it is unmounted.
    pub(crate) fn ext4(dir: &Path, mib: u64) -> Self {
        std::fs::create_dir(dir).unwrap();
        let file_system = Self {
            dir: dir.to_owned(),
            is_ext4: true,
        };
        let image = file_system.image();
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        // Without blocks kept back for root: full is to mean full.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)]);
        file_system.mount();
        file_system
    }

    fn image(&self) -> PathBuf {
        self.dir.with_extension("img")
    }

    fn mount(&self) {
        let options = "loop,errors=remount-ro";
        run(
            "mount",
            &["-o", options, text(&self.image()), text(&self.dir)],
        );
    }

    /// A file that takes `bytes`.
    pub(crate) fn ballast(&self, name: &str, bytes: u64) -> Ballast {
        let path = self.dir.join(name);
        let file = File::create(&path).unwrap();
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, bytes).unwrap();
        Ballast { path }
    }

    /// A file that takes all there is, to the last byte.
    pub(crate) fn fill(&self, name: &str) -> Ballast {
        let path = self.dir.join(name);
        let mut file = File::create(&path).unwrap();
        let piece = vec![0xb5; PIECE_BYTES];
        let mut length = piece.len();
        while length > 0 {
            match file.write_all(&piece[..length]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => length /= 2,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        file.sync_all().unwrap();
        Ballast { path }
    }

    /// Makes the kernel find an error in it: it is read-only from then on.
    pub(crate) fn break_down(&self) {
        assert!(self.is_ext4);
        let device = run("findmnt", &["-n", "-o", "SOURCE", text(&self.dir)]);
        let device = device.trim().strip_prefix("/dev/").unwrap();
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    }

    /// What an operator does then; nobody may use it meanwhile.
    pub(crate) fn repair(&self) {
        // A killed process may hold it a moment longer.
        eventually(super::PATIENCE, || {
            let status = Command::new("umount").arg(&self.dir).status().unwrap();
            status
                .success()
                .then_some(())
                .ok_or_else(|| status.to_string())
        });
        // 1: errors were corrected.
        let check = Command::new("fsck.ext4")
            .args(["-f", "-y"])
            .arg(self.image())
            .output()
            .unwrap();
        assert!(matches!(check.status.code(), Some(0 | 1)), "{check:?}");
        self.mount();
    }

    /// Lets nothing in it be written, not even through open files, or lets it again.
    pub(crate) fn set_immutable(&self, below: &Path, is_immutable: bool) {
        assert!(self.is_ext4);
        run(
            "chattr",
            &["-R", if is_immutable { "+i" } else { "-i" }, text(below)],
        );
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // At once, or when the last user is gone.
        let result = Command::new("umount").arg("--lazy").arg(&self.dir).status();
        if !result.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.dir.display());
        }
    }
}

/// A file that is in the way.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(crate) fn remove(self) {
        std::fs::remove_file(self.path).unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What the command prints.
fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{command} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}
