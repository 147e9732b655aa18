//! Turns files that other programs of the machine wrote into series of it.
//!
//! # Failure
//! - A file that cannot be read, is no text format, or says when its samples were taken is left out as a whole, told
//!   of, and `node_textfile_scrape_error` is 1. So it is where two files have the same series: the first stays.
//!
//! # Limits
//! - [`FILES_MAX`] files of [`FILE_BYTES_MAX`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ingest::decode::exposition::{self as text, Entry, Format, ParseOptions, Parser};

use super::Options;
use super::read::{self, Problem};
use crate::exporter::page::{Kind, Page};
use crate::telemetry::families;

const FILES_MAX: usize = 1000;
const FILE_BYTES_MAX: u64 = 4 << 20;

pub(super) fn collect(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let mut problems = Vec::new();
    let files = files(options, &mut problems);
    let mut whole = Vec::new();
    for path in files {
        match parsed(&path) {
            Ok(samples) => whole.push((path, samples)),
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    let sources = sources(&whole);
    for (path, samples) in &whole {
        if !add(page, samples, &sources) {
            problems.push(format!("{}: has series that are there", path.display()));
        }
        if let Some(seconds) = modified(path) {
            page.gauge(
                "node_textfile_mtime_seconds",
                "Unixtime mtime of textfiles successfully read.",
                &[("file", &path.display().to_string())],
                seconds,
            );
        }
    }
    page.gauge(
        "node_textfile_scrape_error",
        "1 if there was an error opening or reading a file, 0 otherwise",
        &[],
        f64::from(u8::from(!problems.is_empty())),
    );
    if problems.is_empty() {
        return Ok(());
    }
    Err(Problem::Partial(problems.join("; ")))
}

/// Every `*.prom` of the directories.
fn files(options: &Options, problems: &mut Vec<String>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in &options.textfile_directories {
        match read::entries(dir) {
            Ok(entries) => {
                let is_text = |(name, _): &(String, _)| name.ends_with(".prom");
                let found = entries.into_iter().filter(is_text);
                files.extend(found.map(|(_, path)| path));
            }
            Err(Problem::NoData) => {
                problems.push(format!("{}: there is no such directory", dir.display()));
            }
            Err(Problem::Failed(why) | Problem::Partial(why)) => problems.push(why),
        }
    }
    if files.len() > FILES_MAX {
        problems.push(format!("{} files; {FILES_MAX} are read", files.len()));
        files.truncate(FILES_MAX);
    }
    files
}

#[derive(Debug)]
struct Sample {
    family: String,
    kind: Kind,
    help: Option<String>,
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

fn parsed(path: &Path) -> Result<Vec<Sample>, String> {
    let mut body = Vec::new();
    // Opening what is no file, such as a pipe, may take for ever.
    if !path.metadata().is_ok_and(|found| found.is_file()) {
        return Err("is no file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut body);
    if read.map_err(|error| error.to_string())? as u64 > FILE_BYTES_MAX {
        return Err(format!("more than {FILE_BYTES_MAX} bytes"));
    }
    let mut parser = Parser::default();
    parser.start(&body, Format::Text, ParseOptions::default());
    let (mut kinds, mut helps) = (BTreeMap::new(), BTreeMap::new());
    let mut samples = Vec::new();
    let owned = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while let Some(entry) = parser.next(&body).map_err(|error| error.to_string())? {
        match entry {
            Entry::Help { family, text } => {
                let of = owned(parser.bytes(&body, family));
                helps.insert(of, owned(parser.bytes(&body, text)));
            }
            Entry::Type { family, kind } => {
                kinds.insert(owned(parser.bytes(&body, family)), known(kind));
            }
            Entry::Sample(sample) => {
                if sample.timestamp_ms.is_some() {
                    return Err("has timestamps, which are not supported".to_owned());
                }
                let name = owned(parser.name(&body));
                let (family, kind) = family(&name, &kinds);
                let labels = parser.labels(&body).skip(1);
                let labels = labels.filter(|(_, value)| !value.is_empty());
                samples.push(Sample {
                    help: helps.get(family).cloned(),
                    family: family.to_owned(),
                    kind,
                    labels: labels
                        .map(|(name, value)| (owned(name), owned(value)))
                        .collect(),
                    value: sample.value,
                    name,
                });
            }
            Entry::Unit { .. } | Entry::Comment | Entry::Histogram(_) => {}
        }
    }
    Ok(samples)
}

const fn known(kind: text::Kind) -> Kind {
    match kind {
        text::Kind::Counter => Kind::Counter,
        text::Kind::Gauge => Kind::Gauge,
        text::Kind::Histogram => Kind::Histogram,
        text::Kind::Summary => Kind::Summary,
        _ => Kind::Untyped,
    }
}

/// The family of a series, and its type.
fn family<'n>(name: &'n str, kinds: &BTreeMap<String, Kind>) -> (&'n str, Kind) {
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(family) = name.strip_suffix(suffix)
            && let Some(kind @ (Kind::Histogram | Kind::Summary)) = kinds.get(family)
        {
            return (family, *kind);
        }
    }
    (name, kinds.get(name).copied().unwrap_or(Kind::Untyped))
}

/// Which files have samples of a family, for those that say nothing about it.
fn sources(whole: &[(PathBuf, Vec<Sample>)]) -> BTreeMap<String, String> {
    let mut sources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, samples) in whole {
        for sample in samples {
            let paths = sources.entry(sample.family.clone()).or_default();
            let path = path.display().to_string();
            if paths.last() != Some(&path) {
                paths.push(path);
            }
        }
    }
    let told = |(family, paths): (String, Vec<String>)| {
        (family, format!("Metric read from {}", paths.join(", ")))
    };
    sources.into_iter().map(told).collect()
}

/// False if some were there already.
fn add(page: &mut Page, samples: &[Sample], sources: &BTreeMap<String, String>) -> bool {
    let mut all_new = true;
    for sample in samples {
        let source = sources.get(&sample.family).map_or("", String::as_str);
        let help = sample.help.as_deref().unwrap_or(source);
        let mut labels: Vec<(&str, &str)> = (sample.labels.iter())
            .map(|(name, value)| (&**name, &**value))
            .collect();
        labels.sort_unstable();
        let family = (&*sample.family, sample.kind, help);
        // A family of another type, or with another help, keeps what came first.
        all_new &= page.add_part(family, &sample.name, &labels, sample.value);
    }
    all_new
}

/// In whole seconds.
fn modified(path: &Path) -> Option<f64> {
    let modified = path.metadata().ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    Some(families::float(since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(files: &[(&str, &str)]) -> (String, Result<(), Problem>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let options = Options {
            textfile_directories: vec![dir.path().to_owned()],
            ..Options::default()
        };
        let mut page = Page::default();
        let went = collect(&options, &mut page);
        let text = page.encode().replace(dir.path().to_str().unwrap(), "DIR");
        (text, went)
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|one| one == line)
    }

    #[test]
    fn files_become_families_and_keep_their_types() {
        let (text, went) = collected(&[
            (
                "a.prom",
                "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 2\nh_count 1\n",
            ),
            ("b.prom", "x{b=\"2\",a=\"1\"} 1\n"),
            ("c.prom", "x 2\n# HELP y Why.\n# TYPE y counter\ny 1\n"),
            ("d.txt", "z 1\n"),
        ]);
        assert_eq!(went, Ok(()));
        for line in [
            "# TYPE h histogram",
            "# HELP h Metric read from DIR/a.prom",
            "h_bucket{le=\"+Inf\"} 1",
            "# HELP x Metric read from DIR/b.prom, DIR/c.prom",
            "# TYPE x untyped",
            "x 2",
            "x{a=\"1\",b=\"2\"} 1",
            "# HELP y Why.",
            "# TYPE y counter",
            "node_textfile_scrape_error 0",
        ] {
            assert!(has(&text, line), "{line} in {text}");
        }
        assert!(!text.contains("z 1"));
    }

    #[test]
    fn what_cannot_be_taken_is_told_and_the_rest_stays() {
        let (text, went) = collected(&[
            ("a.prom", "good 1\n"),
            ("b.prom", "fine 1\nbroken{ 1\n"),
            ("c.prom", "timed 1 1395066363000\n"),
            ("d.prom", "good 2\n"),
        ]);
        let Err(Problem::Partial(why)) = went else {
            panic!("it went well");
        };
        for name in ["b.prom: ", "c.prom: has timestamps", "d.prom: has series"] {
            assert!(why.contains(name), "{name} in {why}");
        }
        assert!(has(&text, "good 1") && has(&text, "node_textfile_scrape_error 1"));
        assert!(!text.contains("fine") && !text.contains("timed"), "{text}");
        assert!(!has(&text, "good 2"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        let options = Options {
            textfile_directories: vec!["/no/such/directory".into()],
            ..Options::default()
        };
        let mut page = Page::default();
        assert!(collect(&options, &mut page).is_err());
        assert!(page.encode().contains("node_textfile_scrape_error 1"));
    }
}
