//! Turns a revision of a repository elsewhere into its files, by a copy of just that revision.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gix::remote::{Connection, Direction, fetch};
use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;

use super::http::{self, Web};
use super::{Names, Problem, Remote, Wanted, isolated, no_revision, ssh, tree};
use crate::graph::watch::Files;

/// What the revision is called in a copy.
const TIP: &str = "refs/penstock/tip";

pub(super) fn files(place: &Remote, wanted: &Wanted<'_>, copy: &Path) -> Result<Files, String> {
    std::fs::create_dir_all(copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let look = Look {
        url: place.shown(),
        wanted,
        copy: copy.join("repository.git"),
        coming: copy.join("coming.git"),
        client: match place {
            Remote::Http(place) => Client::Http(http::Client::new(place)?),
            Remote::Ssh(place) => Client::Ssh(ssh::Client::new(place, copy)?),
        },
    };
    look.files().map_err(|problem| match look.client.problem() {
        // What failed underneath says more than what became of it.
        Some(first) => first,
        None => problem.into_text(),
    })
}

/// How a repository is reached.
enum Client {
    Http(Arc<http::Client>),
    Ssh(Arc<ssh::Client>),
}

impl Client {
    /// What failed first.
    fn problem(&self) -> Option<String> {
        match self {
            Self::Http(client) => client.allowance.problem(),
            Self::Ssh(client) => client.allowance.problem(),
        }
    }

    fn connect(&self, url: &str) -> Result<Box<dyn Transport>, Problem> {
        match self {
            Self::Http(client) => {
                let url = gix::url::parse(url).map_err(Problem::broken)?;
                let web = Web::new(client.clone());
                let version = Protocol::V2;
                let transport = gix_transport::client::blocking_io::http::Transport::new_http;
                Ok(Box::new(transport(web, url, version, false)))
            }
            Self::Ssh(client) => client.connect().map_err(Problem::Told),
        }
    }
}

struct Look<'a> {
    /// Without user and password.
    url: &'a str,
    wanted: &'a Wanted<'a>,
    copy: PathBuf,
    /// Where the next copy is made.
    coming: PathBuf,
    client: Client,
}

impl Look<'_> {
    fn files(&self) -> Result<Files, Problem> {
        let kept = gix::open_opts(&self.copy, isolated()).ok();
        let tip = match &self.wanted.names {
            Names::Id(id) => Tip {
                spec: id.to_string(),
                id: *id,
            },
            Names::Refs(names) => match &kept {
                Some(kept) => self.ask(kept, names)?,
                None => self.ask(&self.fresh()?, names)?,
            },
        };
        if let Some(kept) = kept.filter(|kept| kept.has_object(tip.id)) {
            match tree::files(&kept, tip.id, self.wanted) {
                Err(Problem::Broken(problem)) => {
                    tracing::warn!(problem, copy = %self.copy.display(), "a copy is made anew");
                }
                read => return read,
            }
        }
        let id = self.fetch(&tip)?;
        let copy = gix::open_opts(&self.copy, isolated()).map_err(Problem::broken)?;
        tree::files(&copy, id, self.wanted)
    }

    /// What the first of the names that exists stands for there.
    fn ask(&self, repository: &gix::Repository, names: &[String]) -> Result<Tip, Problem> {
        let specs = names.iter().map(|name| format!("+{name}:{TIP}"));
        let remote = self.remote(repository, &specs.collect::<Vec<String>>())?;
        let asked = self
            .connection(&remote)?
            .ref_map(gix::progress::Discard, Default::default());
        let (map, _) = asked.map_err(|error| self.strange(&error))?;
        for name in names {
            let found = map.remote_refs.iter().find_map(|one| {
                let (full, target, _) = one.unpack();
                (full == name.as_str())
                    .then(|| target.map(ToOwned::to_owned))
                    .flatten()
            });
            if let Some(id) = found {
                return Ok(Tip {
                    spec: name.clone(),
                    id,
                });
            }
        }
        Err(no_revision(&self.wanted.label))
    }

    /// Makes the copy anew; what the revision is.
    fn fetch(&self, tip: &Tip) -> Result<gix::ObjectId, Problem> {
        let fresh = self.fresh()?;
        let remote = self.remote(&fresh, &[format!("+{}:{TIP}", tip.spec)])?;
        let connection = self.connection(&remote)?;
        let prepared = connection.prepare_fetch(gix::progress::Discard, Default::default());
        let prepared = prepared.map_err(|error| self.strange(&error))?;
        let received = prepared
            .with_shallow(fetch::Shallow::DepthAtRemote(NonZeroU32::MIN))
            .receive(gix::progress::Discard, &AtomicBool::new(false));
        received.map_err(|error| match &self.wanted.names {
            Names::Id(_) if self.client.problem().is_none() => no_revision(&self.wanted.label),
            _ => self.strange(&error),
        })?;
        let id = fresh
            .find_reference(TIP)
            .and_then(|mut found| found.peel_to_id().map(gix::Id::detach));
        let id = id.map_err(Problem::broken)?;
        drop(fresh);
        let place =
            |error: std::io::Error| Problem::told(format!("{}: {error}", self.copy.display()));
        remove(&self.copy).map_err(place)?;
        std::fs::rename(&self.coming, &self.copy).map_err(place)?;
        Ok(id)
    }

    /// An empty repository where the next copy is made.
    fn fresh(&self) -> Result<gix::Repository, Problem> {
        let place =
            |error: std::io::Error| Problem::told(format!("{}: {error}", self.coming.display()));
        remove(&self.coming).map_err(place)?;
        gix::ThreadSafeRepository::init_opts(
            &self.coming,
            gix::create::Kind::Bare,
            gix::create::Options::default(),
            isolated(),
        )
        .map(|repository| repository.to_thread_local())
        .map_err(Problem::broken)
    }

    fn remote<'r>(
        &self,
        repository: &'r gix::Repository,
        specs: &[String],
    ) -> Result<gix::Remote<'r>, Problem> {
        let remote = repository.remote_at_without_url_rewrite(self.url);
        let remote = remote
            .map_err(Problem::broken)?
            .with_fetch_tags(fetch::Tags::None);
        let specs = specs.iter().map(String::as_str);
        remote.with_refspecs(specs, Direction::Fetch).map_err(|_| {
            Problem::told(format!(
                "the revision is not a name of git: {}",
                self.wanted.label
            ))
        })
    }

    fn connection<'a, 'r>(
        &self,
        remote: &'a gix::Remote<'r>,
    ) -> Result<Connection<'a, 'static, 'r, Box<dyn Transport>>, Problem> {
        let connection = remote.to_connection_with_transport(self.client.connect(self.url)?);
        // Credentials are given with each request: no program is asked for them.
        Ok(connection.with_credentials(|_| Ok(None)))
    }

    /// What the other side said is not what a repository says.
    fn strange(&self, error: &gix::Error) -> Problem {
        Problem::told(format!(
            "{} does not answer as a repository: {error}",
            self.url
        ))
    }
}

/// What to fetch.
struct Tip {
    spec: String,
    id: gix::ObjectId,
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
