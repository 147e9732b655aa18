//! Turns a revision of a repository on this machine into its files, without a copy.

use std::path::Path;

use super::{Names, Problem, Wanted, isolated, no_revision, tree};
use crate::graph::watch::Files;

pub(super) fn files(path: &Path, wanted: &Wanted<'_>) -> Result<Files, String> {
    let opened = gix::open_opts(path, isolated());
    let repository = opened.map_err(|_| format!("{} is not a repository", path.display()))?;
    let read = tip(&repository, wanted).and_then(|id| tree::files(&repository, id, wanted));
    read.map_err(Problem::into_text)
}

fn tip(repository: &gix::Repository, wanted: &Wanted<'_>) -> Result<gix::ObjectId, Problem> {
    let names = match &wanted.names {
        Names::Id(id) if repository.has_object(*id) => return Ok(*id),
        Names::Id(_) => return Err(no_revision(&wanted.label)),
        Names::Refs(names) => names,
    };
    for name in names {
        let found = repository
            .try_find_reference(name.as_str())
            .map_err(Problem::broken)?;
        if let Some(mut found) = found {
            let id = found.peel_to_id();
            return id
                .map(gix::Id::detach)
                .map_err(|_| no_revision(&wanted.label));
        }
    }
    Err(no_revision(&wanted.label))
}
