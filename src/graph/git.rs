//! Turns a revision of a repository into the files in it.
//!
//! A repository on this machine is read where it is. Of one elsewhere a copy is kept: one revision, without
//! history. Each look asks for the names of the repository and fetches only if the revision is another one,
//! always into a new copy that then takes the place of the old one. So a copy never grows, and one that
//! cannot be read is made anew.
//!
//! # Failure
//! - Every problem is an error in words without secrets. The copy stays as it is unless it is broken.
//!
//! # Limits
//! - [`TIME_MAX`] and [`FETCH_BYTES_MAX`] of a look, `TEXT_BYTES_MAX` of all texts, `FILES_MAX` files.

mod allowance;
mod http;
mod local;
mod remote;
mod ssh;
mod tree;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use reqwest::Url;
use shipper::{Auth, HttpOptions, ProxyOptions};

use super::watch::Files;
use crate::component::{GitFetch, GitLogin};

/// Half of the shortest usual time between looks.
const TIME_MAX: Duration = Duration::from_secs(30);
/// More than one revision of a repository of configuration has.
const FETCH_BYTES_MAX: u64 = 256 << 20;

/// The files of a revision. `copy` is a directory for what is kept between calls.
pub(super) fn files(fetch: &GitFetch, copy: &Path) -> Result<Files, String> {
    let found = Repository::of(&fetch.repository, &fetch.login)?;
    let wanted = Wanted {
        names: Names::of(&fetch.revision)?,
        path: &fetch.path,
        label: format!("{}@{}", found.shown(), fetch.revision),
    };
    match found {
        Repository::Local(path) => local::files(Path::new(&path), &wanted),
        Repository::Remote(place) => remote::files(&place, &wanted, copy),
    }
    .map_err(|problem| format!("failed to read repository: {problem}"))
}

/// What is looked for.
struct Wanted<'a> {
    names: Names,
    path: &'a str,
    /// Repository and revision as they are shown.
    label: String,
}

/// Where a repository is.
enum Repository {
    Local(String),
    Remote(Remote),
}

/// A repository elsewhere.
enum Remote {
    Http(Box<Place>),
    Ssh(Box<ssh::Place>),
}

impl Remote {
    /// Without user and password.
    fn shown(&self) -> &str {
        match self {
            Self::Http(place) => place.url.as_str(),
            Self::Ssh(place) => &place.shown,
        }
    }
}

/// A repository of an HTTP server.
struct Place {
    /// Without user and password.
    url: Url,
    /// The same, with user and password where these are how to log in.
    login: Url,
    http: HttpOptions,
    time_max: Duration,
}

impl Repository {
    fn of(text: &str, login: &GitLogin) -> Result<Self, String> {
        if let Some(place) = ssh::Place::of(text, login) {
            return Ok(Self::Remote(Remote::Ssh(Box::new(place?))));
        }
        if matches!(login, GitLogin::Ssh { .. }) {
            return Err("ssh_key is for ssh://user@host/path or user@host:path".to_owned());
        }
        let Ok(mut url) = Url::parse(text) else {
            return Self::of_path(text);
        };
        match url.scheme() {
            "http" | "https" => {}
            "file" => {
                let path = url.to_file_path();
                let path =
                    path.map_err(|()| "repository: a file:// URL must have a path".to_owned())?;
                return Ok(Self::Local(path.display().to_string()));
            }
            other => {
                return Err(format!(
                    "repository: {other} is not supported: use http, https, ssh, file or a path"
                ));
            }
        }
        let auth = match login {
            GitLogin::Basic { username, password } => Auth::Basic {
                username: username.clone(),
                password: password.clone(),
            },
            _ => Auth::None,
        };
        let with_login = url.clone();
        let cleaned = url.set_username("").and_then(|()| url.set_password(None));
        assert!(cleaned.is_ok(), "an http url has a host");
        let is_told = !matches!(login, GitLogin::None);
        let proxy = ProxyOptions {
            from_environment: true,
            ..ProxyOptions::default()
        };
        Ok(Self::Remote(Remote::Http(Box::new(Place {
            login: if is_told { url.clone() } else { with_login },
            url,
            http: HttpOptions {
                auth,
                proxy,
                follow_redirects: true,
                ..HttpOptions::default()
            },
            time_max: TIME_MAX,
        }))))
    }

    fn of_path(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        let is_there = path.try_exists();
        let is_there = is_there.map_err(|error| format!("repository {text}: {error}"))?;
        if is_there {
            Ok(Self::Local(text.to_owned()))
        } else {
            // It is not repeated: nobody knows what stands there.
            Err("repository: is neither a URL nor a directory that exists".to_owned())
        }
    }

    fn shown(&self) -> &str {
        match self {
            Self::Local(path) => path,
            Self::Remote(place) => place.shown(),
        }
    }
}

/// What a revision may be the name of.
enum Names {
    Id(gix::ObjectId),
    /// Whole names, the first that exists counts.
    Refs(Vec<String>),
}

impl Names {
    fn of(revision: &str) -> Result<Self, String> {
        if revision.len() == gix::hash::Kind::Sha1.len_in_hex()
            && let Ok(id) = gix::ObjectId::from_hex(revision.as_bytes())
        {
            return Ok(Self::Id(id));
        }
        let is_odd = |c: char| c.is_control() || " :?*[\\^~".contains(c);
        if revision.is_empty() || revision.starts_with(['-', '+']) || revision.contains(is_odd) {
            return Err(format!(
                "revision: {revision:?} is not HEAD, a branch, a tag or a whole commit id"
            ));
        }
        Ok(Self::Refs(
            if revision == "HEAD" || revision.starts_with("refs/") {
                vec![revision.to_owned()]
            } else {
                vec![
                    format!("refs/tags/{revision}"),
                    format!("refs/heads/{revision}"),
                ]
            },
        ))
    }
}

/// Why a look failed.
#[derive(Debug)]
enum Problem {
    /// As it should be reported.
    Told(String),
    /// Something in a repository that should be there is not, or is not readable.
    Broken(String),
}

impl Problem {
    fn told(text: impl Into<String>) -> Self {
        Self::Told(text.into())
    }

    /// An error of the copy itself.
    fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }

    fn into_text(self) -> String {
        match self {
            Self::Told(text) | Self::Broken(text) => text,
        }
    }
}

/// Nothing but what is in the repository counts: no settings of the machine or the user.
fn isolated() -> gix::open::Options {
    let alloc = format!("gitoxide.objects.allocLimit={FETCH_BYTES_MAX}");
    gix::open::Options::isolated().config_overrides([alloc])
}

fn no_revision(label: &str) -> Problem {
    Problem::told(format!("there is no such revision: {label}"))
}
