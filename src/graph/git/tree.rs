//! Turns a commit and a path into texts.

use super::{Problem, Wanted};
use crate::graph::watch::{FILES_MAX, Files, TEXT_BYTES_MAX};

/// The file at the path, or the configuration files in the directory there, by name.
pub(super) fn files(
    repository: &gix::Repository,
    id: gix::ObjectId,
    wanted: &Wanted<'_>,
) -> Result<Files, Problem> {
    let object = repository.find_object(id).map_err(Problem::broken)?;
    let root = object.peel_to_tree().map_err(Problem::broken)?;
    let parts: Vec<&str> = wanted
        .path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let name = |rest: &str| format!("{}:{}{rest}", wanted.label, parts.join("/"));
    let directory = if parts.is_empty() {
        root
    } else {
        let entry = root
            .lookup_entry(parts.iter().copied())
            .map_err(Problem::broken)?;
        let Some(entry) = entry else {
            return Err(Problem::told(format!(
                "there is no such file or directory: {}",
                name("")
            )));
        };
        if entry.mode().is_blob() {
            let (text, _) = text(repository, entry.object_id(), &name(""), TEXT_BYTES_MAX)?;
            return Ok(vec![(name(""), text)]);
        }
        if !entry.mode().is_tree() {
            return Err(Problem::told(format!(
                "is neither a file nor a directory: {}",
                name("")
            )));
        }
        repository
            .find_tree(entry.object_id())
            .map_err(Problem::broken)?
    };
    let mut found = Vec::new();
    for entry in directory.iter() {
        let entry = entry.map_err(Problem::broken)?;
        let file = entry.filename().to_string();
        let is_ours = file.ends_with(".alloy") || file.ends_with(".penstock");
        if is_ours && entry.mode().is_blob() {
            found.push((file, entry.object_id()));
        }
    }
    if found.is_empty() {
        let place = name("");
        return Err(Problem::told(format!(
            "{place} holds no *.alloy or *.penstock file"
        )));
    }
    if found.len() > FILES_MAX {
        return Err(Problem::told(format!(
            "{} holds more than {FILES_MAX} files",
            name("")
        )));
    }
    found.sort();
    let mut left = TEXT_BYTES_MAX;
    let mut files = Files::new();
    let slash = if parts.is_empty() { "" } else { "/" };
    for (file, id) in found {
        let name = name(&format!("{slash}{file}"));
        let (text, length) = text(repository, id, &name, left)?;
        left = left.saturating_sub(length);
        files.push((name, text));
    }
    Ok(files)
}

/// A text and its length, which is looked at before anything is read.
fn text(
    repository: &gix::Repository,
    id: gix::ObjectId,
    name: &str,
    bytes_max: u64,
) -> Result<(String, u64), Problem> {
    let length = repository.find_header(id).map_err(Problem::broken)?.size();
    if length > bytes_max {
        return Err(Problem::told(format!(
            "{name}: there are more than {TEXT_BYTES_MAX} bytes of text"
        )));
    }
    let mut object = repository.find_object(id).map_err(Problem::broken)?;
    let text = String::from_utf8(std::mem::take(&mut object.data));
    let text = text.map_err(|_| Problem::told(format!("{name} is not UTF-8")))?;
    Ok((text, length))
}
