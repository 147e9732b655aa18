//! Turns directories that take no file, or are full, into bodies that say the same without templates.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::*;

const SERIES: u32 = 600;
/// Set where a test has a file system of its own: its directory.
const INSIDE: &str = "PENSTOCK_TEST_TMPFS";

/// Rounds until all are hits; of those before what they were for want of a file.
fn rounds_until_hits(both: &mut Both, rounds_max: u32) -> u32 {
    let all = u64::from(SERIES) - 1;
    let is_hit = |number: &u32| both.encode_samples(&round(1..SERIES, *number)).hits == all;
    (0..rounds_max).find(is_hit).expect("templates in the end")
}

/// Rounds without a file: nothing is a hit, and little is built.
fn encode_without(both: &mut Both) {
    let mut built = 0;
    for number in 0..20 {
        let counts = both.encode_samples(&round(1..SERIES, number));
        built += counts.built;
        let reason = if number == 0 { Miss::New } else { Miss::Disk };
        let expected = misses(reason, u64::from(SERIES) - 1);
        assert_eq!((counts.hits, counts.misses), (0, expected));
        assert_eq!(counts.file_bytes, 0);
    }
    assert!(built <= 4, "{built} of 95");
}

/// A test that may mount: it runs once more in a process with a small file system of its own.
fn with_tmpfs(name: &str, test: impl FnOnce(&Path)) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        let dir = Path::new(&dir);
        fs::write(dir.with_file_name("ran"), "").unwrap();
        return test(dir);
    }
    let own = tempfile::tempdir().unwrap();
    let dir = own.path().join("mounted");
    fs::create_dir(&dir).unwrap();
    let unshare = |arguments: &[&OsStr]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--map-root-user"]);
        command.args(["sh", "-c"]).args(arguments).env(INSIDE, &dir);
        command
    };
    let mount = "mount -t tmpfs -o size=8m none \"$0\"";
    let mut probe = unshare(&[mount.as_ref(), dir.as_os_str()]);
    if !probe
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("{name} is skipped: it needs unshare(1) and to mount memory");
        return;
    }
    let script = format!("{mount} && exec \"$@\"");
    let this = std::env::current_exe().unwrap();
    let mut command = unshare(&[script.as_ref(), dir.as_os_str(), this.as_os_str()]);
    let status = command
        .args([name, "--exact", "--nocapture"])
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed, see above");
    assert!(own.path().join("ran").is_file(), "no test is named {name}");
}

/// What a thread logs.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn count(&self, what: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.matches(what).count()
    }
}

#[test]
fn a_full_disk_costs_the_templates_and_space_brings_them_back() {
    let name = "encode::template::tests::disk::\
                a_full_disk_costs_the_templates_and_space_brings_them_back";
    with_tmpfs(name, |dir| {
        let ballast = dir.join("ballast");
        fs::write(&ballast, vec![1; 7 << 20]).unwrap();
        // a chunk of 2 MiB
        let mut both = Both::in_dir(dir, 64 << 20, SERIES);
        encode_without(&mut both);
        fs::remove_file(&ballast).unwrap();
        rounds_until_hits(&mut both, 30);
        assert_eq!(both.stats.snapshot().file_bytes, 2 << 20);
        // what there is stays, whatever comes
        fs::write(&ballast, vec![1; 6 << 20]).unwrap();
        assert_eq!(rounds_until_hits(&mut both, 1), 0);
        let free = || fs::write(dir.join("more"), vec![1; 1 << 20]);
        assert!(free().is_err(), "the space is taken");
        drop(both);
        free().unwrap();
    });
}

#[test]
fn a_directory_that_takes_no_file_is_said_once_and_once_that_it_does() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let counts = || ["no file for templates", "have files again"].map(|what| logged.count(what));
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    // two encoders of one endpoint
    let mut both = Both::in_dir(&gone, BYTES_MAX, SERIES);
    let mut other = Both::in_dir(&gone, BYTES_MAX, SERIES);
    other.stats = Arc::clone(&both.stats);
    other.templated =
        RemoteWriteV1::new().with_templates(&gone, BYTES_MAX, Arc::clone(&other.stats));
    encode_without(&mut both);
    encode_without(&mut other);
    assert_eq!(counts(), [1, 0]);
    fs::create_dir(&gone).unwrap();
    rounds_until_hits(&mut both, 30);
    assert_eq!(counts(), [1, 0]);
    rounds_until_hits(&mut other, 30);
    assert_eq!(counts(), [1, 1]);
    assert_eq!(fs::read_dir(&gone).unwrap().count(), 0, "no names");
}

#[test]
fn churn_does_not_grow_the_files() {
    let series = 5000;
    // chunks of 512 KiB, all templates some 200
    let mut both = Both::new(16 << 20, series);
    let mut file_bytes_max = 0;
    for version in 0..60 {
        // all refs are given to others
        both.generation += 1;
        both.labels = (0..series).map(|number| labels(number, version)).collect();
        for number in 0..3 {
            let counts = both.encode_samples(&round(1..series, number));
            file_bytes_max = file_bytes_max.max(counts.file_bytes);
            assert_eq!(counts.hits > 0, number == 2);
        }
    }
    assert_eq!(both.stats.snapshot().built, 60 * 39);
    assert!(file_bytes_max <= 3 << 19, "{file_bytes_max}");
}
