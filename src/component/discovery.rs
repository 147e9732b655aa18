//! Turns `discovery.*` and `local.file_match` blocks into where targets are found and how often to look.
//!
//! What they export is a list of targets: maps of labels. It is empty until the first look is done. Nothing
//! outside is looked at here.

mod kubernetes;
mod selector;
mod texts;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use config::{BodyReader, Object, Value};
use regex::Regex;
use shipper::HttpOptions;

use super::definition::Export;
use super::http_client;
use crate::discovery::{
    Discovery, DnsPlace, DockerPlace, FileMatchPlace, FilePlace, Filter, Host, HttpPlace,
    PathTarget, Pattern, Place, ProcessLabels, ProcessPlace, RecordKind, Targets,
};

pub(crate) use kubernetes::read as read_kubernetes;
pub(crate) use texts::{
    DNS as DNS_DOCUMENT, DOCKER as DOCKER_DOCUMENT, FILE as FILE_DOCUMENT,
    FILE_MATCH as FILE_MATCH_DOCUMENT, HTTP as HTTP_DOCUMENT, KUBERNETES as KUBERNETES_DOCUMENT,
    PROCESS as PROCESS_DOCUMENT,
};

pub(crate) const DNS: &str = "discovery.dns";
pub(crate) const DOCKER: &str = "discovery.docker";
pub(crate) const FILE: &str = "discovery.file";
pub(crate) const FILE_MATCH: &str = "local.file_match";
pub(crate) const HTTP: &str = "discovery.http";
pub(crate) const KUBERNETES: &str = "discovery.kubernetes";
pub(crate) const PROCESS: &str = "discovery.process";

/// The name of what they export.
pub(crate) const TARGETS: &str = "targets";

pub(crate) const EXPORT: Export = Export {
    name: TARGETS,
    type_name: "list(map(string))",
    text: "What was found, for the `targets` of others.",
};

/// What is exported before anything is known.
pub(crate) fn nothing() -> Value {
    Value::from(Vec::new())
}

fn every(r: &mut BodyReader<'_>, name: &'static str, default_seconds: u64) -> Duration {
    let every = r.or(name, Duration::from_secs(default_seconds));
    if every.is_zero() {
        r.refuse(name, "must be greater than 0");
        return Duration::from_secs(default_seconds);
    }
    every
}

fn refresh_interval(r: &mut BodyReader<'_>, default_seconds: u64) -> Duration {
    every(r, "refresh_interval", default_seconds)
}

/// The names of files that may hold targets: a pattern in the last of their names only.
static IS_FILES: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[^*]*(\*[^/]*)?\.(json|yml|yaml|JSON|YML|YAML)$").ok());

pub(crate) fn read_file(r: &mut BodyReader<'_>) -> Discovery {
    let names: Vec<String> = r.required("files");
    if r.has_attribute("files") && names.is_empty() {
        r.refuse("files", "must name a file");
    }
    let mut files = Vec::new();
    for name in &names {
        let is_valid = IS_FILES.as_ref().is_some_and(|it| it.is_match(name));
        match Pattern::new(name) {
            Ok(pattern) if is_valid => files.push(pattern),
            _ => {
                let problem = format!("path name {name:?} is not valid for file discovery");
                r.refuse("files", problem);
            }
        }
    }
    Discovery {
        place: Place::File(FilePlace {
            files: files.into(),
        }),
        every: refresh_interval(r, 300),
    }
}

pub(crate) fn read_http(r: &mut BodyReader<'_>) -> Discovery {
    let url: String = r.required("url");
    let is_http = reqwest::Url::parse(&url)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !url.is_empty() && !is_http {
        r.refuse("url", "must begin with http:// or https:// and have a host");
    }
    let every = refresh_interval(r, 60);
    let http = http_client::read(r, &HttpOptions::default(), false);
    Discovery {
        place: Place::Http(Box::new(HttpPlace { url, http })),
        every,
    }
}

pub(crate) fn read_dns(r: &mut BodyReader<'_>) -> Discovery {
    let names: Vec<String> = r.required("names");
    if r.has_attribute("names") && names.is_empty() {
        r.refuse("names", "must contain at least one name");
    }
    let name = r.or("type", "SRV".to_owned());
    let kind = RecordKind::from_name(&name);
    if kind.is_none() {
        r.refuse("type", format!("invalid DNS-SD records type {name}"));
    }
    let kind = kind.unwrap_or(RecordKind::Srv);
    let port: u16 = r.or("port", 0);
    if port == 0 && kind != RecordKind::Srv {
        let problem = "a port is required in DNS-SD configs for all record types except SRV";
        r.refuse("port", problem);
    }
    Discovery {
        place: Place::Dns(DnsPlace { names, kind, port }),
        every: refresh_interval(r, 30),
    }
}

pub(crate) fn read_docker(r: &mut BodyReader<'_>) -> Discovery {
    let text: String = r.required("host");
    let filters = r.blocks("filter", |r| Filter {
        name: r.required("name"),
        values: r.required("values"),
    });
    let port = r.or("port", 80);
    let host_networking_host = r.or("host_networking_host", "localhost".to_owned());
    let match_first_network = r.or("match_first_network", true);
    let every = refresh_interval(r, 60);
    let http = http_client::read(r, &HttpOptions::default(), false);
    let is_tls = http.tls != HttpOptions::default().tls;
    let host = Host::from_text(&text, is_tls);
    if r.has_attribute("host") && host.is_none() {
        let problem = if text.is_empty() {
            "host attribute must not be empty"
        } else {
            "must be unix:// with a path, or tcp://, http:// or https:// with a host"
        };
        r.refuse("host", problem);
    }
    Discovery {
        place: Place::Docker(Box::new(DockerPlace {
            host: host.unwrap_or(Host::Url(String::new())),
            http,
            filters,
            port,
            host_networking_host,
            match_first_network,
        })),
        every,
    }
}

pub(crate) fn read_process(r: &mut BodyReader<'_>) -> Discovery {
    let join = r.or("join", Targets(Arc::default()));
    let every = refresh_interval(r, 60);
    let labels = r.block("discover_config", |r| ProcessLabels {
        exe: r.or("exe", true),
        cwd: r.or("cwd", true),
        commandline: r.or("commandline", true),
        uid: r.or("uid", true),
        username: r.or("username", true),
        cgroup_path: r.or("cgroup_path", false),
        container_id: r.or("container_id", true),
    });
    let labels = labels.unwrap_or(ProcessLabels {
        exe: true,
        cwd: true,
        commandline: true,
        uid: true,
        username: true,
        cgroup_path: false,
        container_id: true,
    });
    Discovery {
        place: Place::Process(ProcessPlace { join, labels }),
        every,
    }
}

pub(crate) fn read_file_match(r: &mut BodyReader<'_>) -> Discovery {
    let given: Targets = r.required("path_targets");
    let mut targets = Vec::new();
    for (_, labels) in given.iter() {
        let text = |name: &str| match labels.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let mut pattern = |text: String| match Pattern::new(&text) {
            Ok(pattern) => Some(pattern),
            Err(problem) => {
                let problem = format!("{text:?} is not a pattern: {problem}");
                r.refuse("path_targets", problem);
                None
            }
        };
        // As in the reference, one without a path finds nothing.
        let path = text("__path__").and_then(&mut pattern);
        let exclude = text("__path_exclude__").and_then(&mut pattern);
        targets.extend(path.map(|path| PathTarget {
            labels: Object::clone(labels),
            pattern: path,
            exclude,
        }));
    }
    Discovery {
        place: Place::FileMatch(FileMatchPlace {
            targets: targets.into(),
            ignore_older_than: r.or("ignore_older_than", Duration::ZERO),
        }),
        every: every(r, "sync_period", 10),
    }
}

#[cfg(test)]
mod tests;
