//! The table of everything a configuration may hold: what is not in it is refused by its name.
//!
//! Documents, checks and completions are made from this table and from what each reader asks for.

use config::{BodyReader, Schema};

use super::document::Document;
use super::{
    Role, content, discovery, echo, exporter, exporter_self, exporter_unix, http_service,
    live_debugging, logging, receive_http, relabel, relabel_targets, remote_write, scrape,
    tracing_block,
};

/// What kind of block it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Has a label, may be in a module.
    Component,
    /// Once, without a label, at the root.
    Setting,
    /// The same; the reference calls it a service.
    Service,
}

/// Something a component exports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Export {
    pub(crate) name: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documents are written by a test")
    )]
    pub(crate) type_name: &'static str,
    /// What it is, for its document.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documents are written by a test")
    )]
    pub(crate) text: &'static str,
}

/// A block that may stand in a configuration.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) read: fn(&mut BodyReader<'_>) -> Role,
    pub(crate) exports: &'static [Export],
    /// What it does, for its document.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documents are written by a test")
    )]
    pub(crate) text: &'static str,
    /// The rest of its document.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documents are written by a test")
    )]
    pub(crate) document: Document,
}

impl Definition {
    /// Every argument it takes.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documents are written by a test")
    )]
    pub(crate) fn schema(&self) -> Schema {
        config::describe(self.read)
    }
}

const RECEIVER: Export = Export {
    name: "receiver",
    type_name: "MetricsReceiver",
    text: "Takes metrics: for the `forward_to` of others.",
};

/// A component that finds targets.
const fn finds_targets(
    name: &'static str,
    read: fn(&mut BodyReader<'_>) -> Role,
    text: &'static str,
    document: Document,
) -> Definition {
    Definition {
        name,
        kind: Kind::Component,
        read,
        exports: &[discovery::EXPORT],
        text,
        document,
    }
}

/// Everything there is, by name.
pub(crate) static DEFINITIONS: [Definition; 21] = [
    finds_targets(
        discovery::DNS,
        |r| Role::Discovery(discovery::read_dns(r)),
        "Targets from the records of names.",
        discovery::DNS_DOCUMENT,
    ),
    finds_targets(
        discovery::DOCKER,
        |r| Role::Discovery(discovery::read_docker(r)),
        "Targets from the containers of a Docker host.",
        discovery::DOCKER_DOCUMENT,
    ),
    finds_targets(
        discovery::FILE,
        |r| Role::Discovery(discovery::read_file(r)),
        "Targets from files.",
        discovery::FILE_DOCUMENT,
    ),
    finds_targets(
        discovery::HTTP,
        |r| Role::Discovery(discovery::read_http(r)),
        "Targets from the answer of a URL.",
        discovery::HTTP_DOCUMENT,
    ),
    finds_targets(
        discovery::KUBERNETES,
        |r| Role::Discovery(discovery::read_kubernetes(r)),
        "Targets from the objects of a Kubernetes cluster.",
        discovery::KUBERNETES_DOCUMENT,
    ),
    finds_targets(
        discovery::PROCESS,
        |r| Role::Discovery(discovery::read_process(r)),
        "Targets from the processes of the machine.",
        discovery::PROCESS_DOCUMENT,
    ),
    Definition {
        name: relabel_targets::NAME,
        kind: Kind::Component,
        read: |r| Role::RelabelTargets(relabel_targets::read(r)),
        exports: &[
            Export {
                name: "output",
                type_name: "list(map(string))",
                text: "The targets that rules left, as they left them.",
            },
            Export {
                name: "rules",
                type_name: "list(object)",
                text: "Its rules.",
            },
        ],
        text: "Rewrites or drops targets by rules on their labels.",
        document: relabel_targets::DOCUMENT,
    },
    Definition {
        name: http_service::NAME,
        kind: Kind::Service,
        read: |r| Role::Http(Box::new(http_service::read(r))),
        exports: &[],
        text: "Who may speak to the agent's own address, and whether it is encrypted.",
        document: http_service::DOCUMENT,
    },
    Definition {
        name: live_debugging::NAME,
        kind: Kind::Service,
        read: |r| Role::LiveDebugging(live_debugging::read(r)),
        exports: &[],
        text: "Whether data may be looked at while it passes.",
        document: live_debugging::DOCUMENT,
    },
    Definition {
        name: content::FILE,
        kind: Kind::Component,
        read: |r| Role::Content(content::read_file(r)),
        exports: &[Export {
            name: "content",
            type_name: "optional(secret)",
            text: "The text of the file, as it is.",
        }],
        text: "The text of a file, for the arguments of others.",
        document: content::FILE_DOCUMENT,
    },
    finds_targets(
        discovery::FILE_MATCH,
        |r| Role::Discovery(discovery::read_file_match(r)),
        "Targets from the files that patterns match.",
        discovery::FILE_MATCH_DOCUMENT,
    ),
    Definition {
        name: logging::NAME,
        kind: Kind::Setting,
        read: |r| Role::Logging(logging::read(r)),
        exports: &[],
        text: "How the agent logs.",
        document: logging::DOCUMENT,
    },
    Definition {
        name: echo::NAME,
        kind: Kind::Component,
        read: |r| Role::Echo(echo::read(r)),
        exports: &[RECEIVER],
        text: "Writes what it takes to the agent's log output.",
        document: echo::DOCUMENT,
    },
    Definition {
        name: exporter_self::NAME,
        kind: Kind::Component,
        read: |r| {
            exporter_self::read(r);
            Role::ExporterSelf
        },
        exports: &[exporter::export("The agent's own metrics as a target.")],
        text: "The agent's own metrics, as a target for a scrape.",
        document: exporter_self::DOCUMENT,
    },
    Definition {
        name: exporter_unix::NAME,
        kind: Kind::Component,
        read: |r| Role::ExporterUnix(Box::new(exporter_unix::read(r))),
        exports: &[exporter::export("The machine's metrics as a target.")],
        text: "The machine's metrics, as node_exporter has them, as a target for a scrape.",
        document: exporter_unix::DOCUMENT,
    },
    Definition {
        name: receive_http::NAME,
        kind: Kind::Component,
        read: |r| Role::Receiver(Box::new(receive_http::read(r))),
        exports: &[],
        text: "Takes remote write requests, 1.0 and 2.0, and answers once they are on disk.",
        document: receive_http::DOCUMENT,
    },
    Definition {
        name: relabel::NAME,
        kind: Kind::Component,
        read: |r| Role::Relabel(Box::new(relabel::read(r))),
        exports: &[
            RECEIVER,
            Export {
                name: "rules",
                type_name: "list(object)",
                text: "Its rules.",
            },
        ],
        text: "Rewrites or drops series by rules on their labels.",
        document: relabel::DOCUMENT,
    },
    Definition {
        name: remote_write::NAME,
        kind: Kind::Component,
        read: |r| Role::Writer(Box::new(remote_write::read(r))),
        exports: &[RECEIVER],
        text: "Keeps what it takes in a write-ahead log and sends it to every endpoint.",
        document: remote_write::DOCUMENT,
    },
    Definition {
        name: scrape::NAME,
        kind: Kind::Component,
        read: |r| Role::Scrape(Box::new(scrape::read(r))),
        exports: &[],
        text: "Fetches metrics of targets again and again.",
        document: scrape::DOCUMENT,
    },
    Definition {
        name: content::HTTP,
        kind: Kind::Component,
        read: |r| Role::Content(content::read_http(r)),
        exports: &[Export {
            name: "content",
            type_name: "optional(secret)",
            text: "The answer, without white space around it.",
        }],
        text: "The answer of a URL, for the arguments of others.",
        document: content::HTTP_DOCUMENT,
    },
    Definition {
        name: tracing_block::NAME,
        kind: Kind::Setting,
        read: |r| {
            tracing_block::read(r);
            Role::Tracing
        },
        exports: &[],
        text: "Accepted and without effect: the agent makes no traces of its own.",
        document: tracing_block::DOCUMENT,
    },
];

/// The definition of a name.
pub(crate) fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|one| one.name == name)
}

/// Most names that are offered in place of one that does not exist.
const NEAREST_MAX: usize = 3;

/// What there is instead of a name that does not exist: the nearest of `known`, or, where none is near,
/// all components.
pub(crate) fn instead<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut near: Vec<(usize, &str)> = known
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .filter(|(distance, other)| distance * 5 <= name.len().max(other.len()) * 2)
        .collect();
    near.sort_unstable();
    near.truncate(NEAREST_MAX);
    if near.is_empty() {
        let all = DEFINITIONS.iter().filter(|one| one.kind == Kind::Component);
        let all: Vec<&str> = all.map(|one| one.name).collect();
        return format!("there are {}", all.join(", "));
    }
    let near: Vec<&str> = near.into_iter().map(|(_, other)| other).collect();
    format!("nearest: {}", near.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_are_unique() {
        let names: Vec<&str> = DEFINITIONS.iter().map(|one| one.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn a_slip_leads_to_what_was_meant() {
        let known = || DEFINITIONS.iter().map(|one| one.name);
        let meant = |name: &str| instead(name, known());
        assert!(meant("prometheus.relable").starts_with("nearest: prometheus.relabel"));
        assert_eq!(meant("local.fle"), "nearest: local.file");
        assert!(meant("loki.write").starts_with("there are discovery.dns, discovery.docker, "));
    }
}
