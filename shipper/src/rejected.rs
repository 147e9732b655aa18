//! Turns what an endpoint refuses for good into dead letters: lines of JSON beside the log.
//!
//! # On disk
//! `rejected/<endpoint>/<n>.jsonl` in the store's directory, `<n>` growing; one line per refusal:
//!
//! ```text
//! {"time_ms":..., "endpoint":"...", "reason":"http_400", "answer":"...", "records":2,
//!  "series":[{"labels":{"__name__":"up"}, "samples":[[1700000000000,"1"]], "more_samples":0,
//!             "others":{"histogram":["<base64>"]}}],
//!  "more_series":0, "left_out_before":0}
//! ```
//!
//! # Failure
//! A letter that cannot be written is told in the log, at a limited rate, and is gone: what was refused
//! is counted all the same. Nothing is synced: these are for people.
//!
//! # Limits
//! - `FILES_MAX` files of `FILE_BYTES_MAX` per endpoint, the oldest goes first;
//!   `BYTES_PER_SECOND` on average; `SERIES_MAX` series in a letter and `RECORDS_MAX` records of
//!   each. What is left out is counted in the letter, or in the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use wal::{RecordKind, SeriesRef};

use crate::batch::Batch;
use crate::metadata::family;
use labels::for_each;

/// The directory of dead letters in that of a store.
pub const DIRECTORY: &str = "rejected";
const FILES_MAX: usize = 8;
const FILE_BYTES_MAX: u64 = 1 << 20;
const BYTES_PER_SECOND: f64 = 65_536.0;
/// So much may be written at once after a pause.
const BURST_BYTES: f64 = 1_048_576.0;
const SERIES_MAX: usize = 100;
const RECORDS_MAX: usize = 20;

/// Why and what was refused.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) time_ms: i64,
    pub(crate) reason: &'a str,
    pub(crate) answer: &'a str,
    pub(crate) batch: &'a Batch,
}

/// The dead letters of one endpoint.
#[derive(Debug)]
pub(crate) struct Rejected {
    endpoint: String,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: Option<(File, u64)>,
    /// Bytes that may be written now.
    budget: f64,
    since: Duration,
    /// Refusals without a letter since the last one.
    left_out: u64,
}

impl Rejected {
    /// Those in `store`, the directory of a store.
    pub(crate) fn new(store: &Path, endpoint: &wal::Endpoint) -> Self {
        Self {
            endpoint: endpoint.name().to_owned(),
            dir: store.join(DIRECTORY).join(endpoint.file_name()),
            state: Mutex::new(State {
                open: None,
                budget: BURST_BYTES,
                since: Duration::ZERO,
                left_out: 0,
            }),
        }
    }

    /// Writes a letter, at `now` since some fixed instant. Answers the labels of the first series, for
    /// the log.
    pub(crate) fn write<'a>(
        &self,
        now: Duration,
        refusal: &Refusal<'_>,
        labels: impl Fn(SeriesRef) -> &'a [u8],
    ) -> (io::Result<()>, Option<String>) {
        let mut state = self.state.lock();
        let gained = now.saturating_sub(state.since).as_secs_f64() * BYTES_PER_SECOND;
        state.budget = (state.budget + gained).min(BURST_BYTES);
        state.since = now;
        let mut series = Vec::new();
        let more_series = series_of(refusal.batch, labels, &mut series);
        let first = series.first().map(|one| Value::Object(one.labels.clone()));
        let named = first.map(|labels| labels.to_string());
        if state.budget <= 0.0 {
            state.left_out += 1;
            return (Ok(()), named);
        }
        let series: Vec<Value> = series.into_iter().map(Letter::into_json).collect();
        let line = json!({
            "time_ms": refusal.time_ms,
            "endpoint": self.endpoint,
            "reason": refusal.reason,
            "answer": refusal.answer,
            "records": refusal.batch.records(),
            "series": series,
            "more_series": more_series,
            "left_out_before": state.left_out,
        });
        let line = format!("{line}\n");
        #[expect(clippy::cast_precision_loss, reason = "a line is far below 2^53 bytes")]
        let bytes = line.len() as f64;
        state.budget -= bytes;
        let written = self.append(&mut state, line.as_bytes());
        match written {
            Ok(()) => state.left_out = 0,
            Err(_) => {
                state.left_out += 1;
                state.open = None;
            }
        }
        (written, named)
    }

    fn append(&self, state: &mut State, line: &[u8]) -> io::Result<()> {
        let bytes = line.len() as u64;
        let is_full = |(_, used): &mut (File, u64)| *used + bytes > FILE_BYTES_MAX;
        state.open.take_if(is_full);
        let (file, used) = match &mut state.open {
            Some(open) => open,
            none => none.insert((self.next_file()?, 0)),
        };
        *used += bytes;
        file.write_all(line)
    }

    /// A new file, and none too many.
    fn next_file(&self) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        let mut files = files(&self.dir)?;
        let next = files.last().map_or(0, |(number, _)| number + 1);
        while files.len() >= FILES_MAX {
            fs::remove_file(files.remove(0).1)?;
        }
        let path = self.dir.join(format!("{next:08}.jsonl"));
        OpenOptions::new().create_new(true).append(true).open(path)
    }
}

/// The files of dead letters in the directory of an endpoint, oldest first.
///
/// # Errors
/// The directory cannot be listed.
pub fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        files.extend(number.map(|number| (number, path)));
    }
    files.sort_unstable();
    Ok(files)
}

/// One series of a letter, or one metric family.
struct Letter {
    series: SeriesRef,
    /// Of metadata.
    family: Option<Box<[u8]>>,
    labels: Map<String, Value>,
    samples: Vec<Value>,
    more_samples: usize,
    others: Map<String, Value>,
}

impl Letter {
    fn new(series: SeriesRef, family: Option<&[u8]>, labels: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut named = Map::new();
        for_each(labels, |name, value| {
            named.insert(text(name), text(value).into());
        });
        if let Some(family) = family {
            named.insert("__name__".to_owned(), text(family).into());
        }
        Self {
            series,
            family: family.map(Into::into),
            labels: named,
            samples: Vec::new(),
            more_samples: 0,
            others: Map::new(),
        }
    }

    fn into_json(self) -> Value {
        json!({
            "labels": self.labels,
            "samples": self.samples,
            "more_samples": self.more_samples,
            "others": self.others,
        })
    }
}

/// The series of a batch, as many as a letter holds; how many there are besides.
fn series_of<'a>(
    batch: &Batch,
    labels: impl Fn(SeriesRef) -> &'a [u8],
    letters: &mut Vec<Letter>,
) -> usize {
    let mut more = std::collections::HashSet::new();
    for sample in &batch.samples {
        let Some(letter) = letter_of((sample.series, None), &labels, letters) else {
            more.insert(sample.series);
            continue;
        };
        if letter.samples.len() < RECORDS_MAX {
            let value = f64::from_bits(sample.value_bits).to_string();
            letter.samples.push(json!([sample.timestamp_ms, value]));
        } else {
            letter.more_samples += 1;
        }
    }
    for record in &batch.raw {
        let is_metadata = record.kind == RecordKind::Metadata;
        let family = is_metadata.then(|| family(&record.bytes)).flatten();
        let Some(letter) = letter_of((record.series, family), &labels, letters) else {
            more.insert(record.series);
            continue;
        };
        let kind = match record.kind {
            RecordKind::Exemplar => "exemplar",
            RecordKind::Histogram => "histogram",
            RecordKind::Metadata => "metadata",
            RecordKind::StartedSample => "started_sample",
        };
        let of_kind = letter.others.entry(kind).or_insert_with(|| json!([]));
        if let Some(list) = of_kind
            .as_array_mut()
            .filter(|list| list.len() < RECORDS_MAX)
        {
            list.push(STANDARD.encode(&record.bytes).into());
        }
    }
    more.len()
}

/// The letter of a series, begun if there is room for one more.
fn letter_of<'l, 'a>(
    (series, family): (SeriesRef, Option<&[u8]>),
    labels: &impl Fn(SeriesRef) -> &'a [u8],
    letters: &'l mut Vec<Letter>,
) -> Option<&'l mut Letter> {
    let is_it = |one: &Letter| one.series == series && one.family.as_deref() == family;
    let at = letters.iter().rposition(is_it);
    let at = match at {
        Some(at) => at,
        None if letters.len() < SERIES_MAX => {
            letters.push(Letter::new(series, family, labels(series)));
            letters.len() - 1
        }
        None => return None,
    };
    letters.get_mut(at)
}

#[cfg(test)]
mod tests {
    use wal::Sample;

    use super::*;
    use crate::ack::FrameNumber;
    use crate::batch::OwnedRecord;
    use labels::canonical;

    fn rejected(dir: &Path) -> Rejected {
        Rejected {
            endpoint: "a".to_owned(),
            dir: dir.join(DIRECTORY).join("a"),
            state: Mutex::new(State {
                open: None,
                budget: BURST_BYTES,
                since: Duration::ZERO,
                left_out: 0,
            }),
        }
    }

    fn batch(series: std::ops::Range<u32>) -> Batch {
        let mut batch = Batch::default();
        let samples = series.map(|number| Sample {
            series: SeriesRef::new(number),
            timestamp_ms: 7,
            value_bits: f64::NAN.to_bits(),
        });
        let samples: Vec<_> = samples.collect();
        batch.push(FrameNumber::new(0), &[&samples], std::iter::empty());
        batch
    }

    fn refusal(batch: &Batch) -> Refusal<'_> {
        Refusal {
            time_ms: 5,
            reason: "http_400",
            answer: "no \"such\" thing",
            batch,
        }
    }

    fn lines(dir: &Path) -> Vec<Value> {
        let files = files(&dir.join(DIRECTORY).join("a")).unwrap();
        let text: String = (files.iter())
            .map(|(_, path)| fs::read_to_string(path).unwrap())
            .collect();
        (text.lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_letter_says_what_was_refused_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let labels = canonical(&[("__name__", "up"), ("job", "j\"k")]);
        let batch = batch(1..2);
        let (written, named) =
            rejected(dir.path()).write(Duration::ZERO, &refusal(&batch), |_| &labels);
        written.unwrap();
        assert_eq!(named.unwrap(), r#"{"__name__":"up","job":"j\"k"}"#);
        let lines = lines(dir.path());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["answer"], "no \"such\" thing");
        assert_eq!(lines[0]["series"][0]["labels"]["job"], "j\"k");
        assert_eq!(lines[0]["series"][0]["samples"], json!([[7, "NaN"]]));
    }

    #[test]
    fn metadata_is_named_by_its_family() {
        let dir = tempfile::tempdir().unwrap();
        let mut batch = Batch::default();
        // Tag 2 of the message is the name.
        let record = |name: &[u8]| OwnedRecord {
            series: SeriesRef::NONE,
            kind: RecordKind::Metadata,
            bytes: [&[0x12, 2], name].concat().into(),
        };
        let records = [record(b"up"), record(b"go")].into_iter();
        batch.push(FrameNumber::new(0), &[], records);
        let (written, named) =
            rejected(dir.path()).write(Duration::ZERO, &refusal(&batch), |_| &[]);
        written.unwrap();
        assert_eq!(named.unwrap(), r#"{"__name__":"up"}"#);
        assert_eq!(
            lines(dir.path())[0]["series"][1]["labels"]["__name__"],
            "go"
        );
    }

    #[test]
    fn files_and_bytes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let labels = canonical(&[("__name__", &"x".repeat(300))]);
        let rejected = rejected(dir.path());
        let batch = batch(1..300);
        for second in 0..2000 {
            let now = Duration::from_secs(second);
            let (written, _) = rejected.write(now, &refusal(&batch), |_| &labels);
            written.unwrap();
        }
        let files = files(&dir.path().join(DIRECTORY).join("a")).unwrap();
        assert_eq!(files.len(), FILES_MAX);
        for (_, path) in &files {
            assert!(fs::metadata(path).unwrap().len() <= FILE_BYTES_MAX);
        }
        let lines = lines(dir.path());
        assert_eq!(lines[0]["series"].as_array().unwrap().len(), SERIES_MAX);
        assert_eq!(lines[0]["more_series"], 299 - SERIES_MAX);
    }

    #[test]
    fn a_flood_leaves_out_letters_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let labels = canonical(&[("__name__", &"x".repeat(300))]);
        let rejected = rejected(dir.path());
        let batch = batch(1..100);
        for _ in 0..1000 {
            let (written, _) = rejected.write(Duration::ZERO, &refusal(&batch), |_| &labels);
            written.unwrap();
        }
        let (written, _) = rejected.write(Duration::from_secs(9), &refusal(&batch), |_| &labels);
        written.unwrap();
        let lines = lines(dir.path());
        assert!(lines.len() < 100, "{}", lines.len());
        let last = lines.last().unwrap();
        assert_eq!(last["left_out_before"], 1001 - lines.len());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(DIRECTORY), "in the way").unwrap();
        let batch = batch(1..2);
        let (written, _) = rejected(dir.path()).write(Duration::ZERO, &refusal(&batch), |_| &[]);
        assert!(written.is_err());
    }
}
