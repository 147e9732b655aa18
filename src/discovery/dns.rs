//! Turns names into the targets that their DNS records are.
//!
//! The system's `resolv.conf` is read for every look, so that a change of it counts, and nothing is cached: a
//! look is seldom, and is for what is true now.
//!
//! # Failure
//! - A name that does not exist, or has no record of the type, has no targets; one that cannot be asked for
//!   keeps its.
//!
//! # Limits
//! - [`NAMES_AT_ONCE`] names are asked for at a time; servers and attempts are those of `resolv.conf`.

use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;

use super::refresh::{self, Found, Group};
use super::target::{ADDRESS, Labels, host_port, sorted_group};

const NAMES_AT_ONCE: usize = 16;

/// Names to look up.
#[derive(Clone, Debug)]
pub(crate) struct DnsPlace {
    pub(crate) names: Vec<String>,
    pub(crate) kind: RecordKind,
    /// Of every target but those of SRV records.
    pub(crate) port: u16,
}

/// The records that are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordKind {
    A,
    Aaaa,
    Mx,
    Ns,
    Srv,
}

impl RecordKind {
    /// By its name in a configuration, in any case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "A" => Self::A,
            "AAAA" => Self::Aaaa,
            "MX" => Self::Mx,
            "NS" => Self::Ns,
            "SRV" => Self::Srv,
            _ => return None,
        })
    }

    const fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Mx => RecordType::MX,
            Self::Ns => RecordType::NS,
            Self::Srv => RecordType::SRV,
        }
    }
}

pub(super) struct Look {
    place: DnsPlace,
    /// Whom to ask, where that is not the system's matter.
    servers: Option<ResolverConfig>,
}

impl Look {
    pub(super) const fn new(place: DnsPlace) -> Self {
        Self {
            place,
            servers: None,
        }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let builder = match &self.servers {
            Some(servers) => {
                TokioResolver::builder_with_config(servers.clone(), TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()
                .map_err(|error| format!("cannot read the system's DNS configuration: {error}"))?,
        };
        let mut builder = builder;
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let built = builder.build();
        built.map_err(|error| format!("cannot ask the system's DNS servers: {error}"))
    }
}

impl refresh::Look for Look {
    async fn look(&mut self) -> Result<Found, String> {
        let resolver = Arc::new(self.resolver()?);
        let mut found = Found::new();
        for names in self.place.names.chunks(NAMES_AT_ONCE) {
            let mut asking = JoinSet::new();
            for name in names {
                let (resolver, name) = (resolver.clone(), name.clone());
                let (kind, port) = (self.place.kind, self.place.port);
                asking.spawn(async move {
                    let group = ask(&resolver, &name, kind, port).await;
                    (name, group)
                });
            }
            while let Some(answered) = asking.join_next().await {
                found.push(answered.map_err(|ended| format!("ended early: {ended}"))?);
            }
        }
        Ok(found)
    }
}

async fn ask(
    resolver: &TokioResolver,
    name: &str,
    kind: RecordKind,
    port: u16,
) -> Result<Group, String> {
    let answer = match resolver.lookup(name, kind.record_type()).await {
        Ok(answer) => answer,
        Err(error) if error.is_no_records_found() => return Ok(Group::default()),
        Err(error) => return Err(format!("cannot look up {name:?}: {error}")),
    };
    let records = answer.answers().iter();
    let targets = records.filter_map(|record| target(&record.data, name, port));
    Ok(sorted_group(targets.collect()))
}

/// The labels of a record; none for those on the way, such as an alias.
fn target(record: &RData, name: &str, port: u16) -> Option<Labels> {
    let host = |name: &Name| name.to_ascii().trim_end_matches('.').to_owned();
    let (address, more): (String, Vec<(&str, String)>) = match record {
        RData::A(ip) => (host_port(&ip.to_string(), port), Vec::new()),
        RData::AAAA(ip) => (host_port(&ip.to_string(), port), Vec::new()),
        RData::MX(mx) => (
            host_port(&host(&mx.exchange), port),
            vec![("__meta_dns_mx_record_target", mx.exchange.to_ascii())],
        ),
        RData::NS(ns) => (
            host_port(&host(&ns.0), port),
            vec![("__meta_dns_ns_record_target", ns.0.to_ascii())],
        ),
        RData::SRV(srv) => (
            host_port(&host(&srv.target), srv.port),
            vec![
                ("__meta_dns_srv_record_target", srv.target.to_ascii()),
                ("__meta_dns_srv_record_port", srv.port.to_string()),
            ],
        ),
        _ => return None,
    };
    let mut labels = Labels::new();
    labels.insert(ADDRESS.to_owned(), address);
    labels.insert("__meta_dns_name".to_owned(), name.to_owned());
    labels.extend(more.into_iter().map(|(name, text)| (name.to_owned(), text)));
    Some(labels)
}

#[cfg(test)]
mod tests;
