//! Turns dead letters into text: what endpoints refused for good, and why.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;
use shipper::rejected::{DIRECTORY, files};

use super::{store_dir, time};

/// Shows what endpoints refused for good, oldest first: when, why, which series with which samples.
///
/// Works while an agent has the store. What was refused is counted in the metrics and in `wal inspect`;
/// the letters shown here are the newest 8 MiB of each endpoint.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// The store of a component, `<storage.path>/<component id>`, or a `<storage.path>` with one.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only what this endpoint refused.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// The lines as they are on disk: JSON.
    #[arg(long)]
    json: bool,
}

/// Shows them.
///
/// # Errors
/// A directory or a file cannot be read.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let dir = store_dir::find(&options.dir)?.join(DIRECTORY);
    let mut letters = Vec::new();
    for endpoint in directories(&dir)? {
        letters.extend(letters_in(&endpoint)?);
    }
    let wanted = options.endpoint.as_deref();
    letters.retain(|letter| wanted.is_none_or(|name| letter["endpoint"] == name));
    letters.sort_by_key(|letter| letter["time_ms"].as_i64());
    for letter in &letters {
        if options.json {
            writeln!(out, "{letter}")?;
        } else {
            out.write_all(text_of(letter).as_bytes())?;
        }
    }
    if letters.is_empty() && !options.json {
        writeln!(out, "nothing was refused")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One per endpoint that refused something.
fn directories(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = || format!("cannot read {}", dir.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        all.push(entry.with_context(unreadable)?.path());
    }
    all.sort_unstable();
    Ok(all)
}

/// The whole lines; the last of a file may be cut off.
fn letters_in(dir: &Path) -> anyhow::Result<Vec<Value>> {
    let mut letters = Vec::new();
    for path in files_in(dir)? {
        letters.extend(letters_of(&path)?);
    }
    Ok(letters)
}

/// Oldest first.
fn files_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = files(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn letters_of(path: &Path) -> anyhow::Result<Vec<Value>> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        // The agent has removed it meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(unreadable),
    };
    let mut letters = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        letters.extend(serde_json::from_slice::<Value>(&line.with_context(unreadable)?).ok());
    }
    Ok(letters)
}

/// At most so many letters of a store, the newest first.
///
/// # Errors
/// A directory or a file cannot be read.
pub(crate) fn newest(store: &Path, limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut newest = Vec::new();
    for endpoint in directories(&store.join(DIRECTORY))? {
        let mut of_endpoint = Vec::new();
        for path in files_in(&endpoint)?.iter().rev() {
            of_endpoint.extend(letters_of(path)?.into_iter().rev());
            if of_endpoint.len() >= limit {
                break;
            }
        }
        newest.extend(of_endpoint);
    }
    newest.sort_by_key(|letter| std::cmp::Reverse(letter["time_ms"].as_i64()));
    newest.truncate(limit);
    Ok(newest)
}

/// A letter as lines for people.
pub(crate) fn text_of(letter: &Value) -> String {
    let text = |key: &str| letter[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| letter[key].as_u64().unwrap_or(0);
    let mut out = format!(
        "{}  {}  {}  {} records: {}\n",
        time::format(letter["time_ms"].as_i64().unwrap_or(0)),
        text("endpoint"),
        text("reason"),
        number("records"),
        text("answer").trim(),
    );
    for series in letter["series"].as_array().into_iter().flatten() {
        out.push_str(&format!("    {}", series["labels"]));
        for sample in series["samples"].as_array().into_iter().flatten() {
            let value = sample[1].as_str().unwrap_or("?");
            out.push_str(&format!("  {value} @{}", sample[0]));
        }
        let more = series["more_samples"].as_u64().unwrap_or(0);
        if more > 0 {
            out.push_str(&format!("  and {more} more"));
        }
        for (kind, records) in series["others"].as_object().into_iter().flatten() {
            let count = records.as_array().map_or(0, Vec::len);
            out.push_str(&format!("  {count} x {kind}"));
        }
        out.push('\n');
    }
    if number("more_series") > 0 {
        out.push_str(&format!("    and {} series more\n", number("more_series")));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_letter_is_told_in_lines() {
        let letter = json!({
            "time_ms": 0, "endpoint": "a", "reason": "http_400", "answer": "no\n", "records": 3,
            "series": [{
                "labels": {"__name__": "up"}, "samples": [[5, "1.5"]], "more_samples": 1,
                "others": {"histogram": ["AA=="]},
            }],
            "more_series": 2, "left_out_before": 0,
        });
        assert_eq!(
            text_of(&letter),
            "1970-01-01T00:00:00.000Z  a  http_400  3 records: no\n    \
             {\"__name__\":\"up\"}  1.5 @5  and 1 more  1 x histogram\n    and 2 series more\n"
        );
    }

    #[test]
    fn a_line_that_is_cut_off_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000000.jsonl"), "{\"a\":1}\n{\"a\":").unwrap();
        assert_eq!(letters_in(dir.path()).unwrap(), [json!({"a": 1})]);
        assert!(directories(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn the_newest_come_first_whosever_they_are() {
        let store = tempfile::tempdir().unwrap();
        assert!(newest(store.path(), 5).unwrap().is_empty());
        for (file, times) in [("a/0", [1, 4]), ("a/1", [5, 7]), ("b/3", [2, 6])] {
            let path = store.path().join(DIRECTORY).join(format!("{file}.jsonl"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let lines = times.map(|time| format!("{{\"time_ms\":{time}}}\n"));
            fs::write(path, lines.concat()).unwrap();
        }
        let times = |limit| -> Vec<i64> {
            let letters = newest(store.path(), limit).unwrap();
            letters
                .iter()
                .filter_map(|one| one["time_ms"].as_i64())
                .collect()
        };
        assert_eq!(times(3), [7, 6, 5]);
        assert_eq!(times(50), [7, 6, 5, 4, 2, 1]);
    }
}
