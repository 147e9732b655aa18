//! Turns join addresses, names and SRV records among them, into `host:port`.
//!
//! | given | asked for |
//! |---|---|
//! | `1.2.3.4:5` | nothing |
//! | `name:5` | the name's addresses, else its SRV records |
//! | `dns+name:5` | the name's addresses |
//! | `dnssrv+name:5` | its SRV records, and the addresses of what they name |
//! | `dnssrvnoa+name:5` | its SRV records |
//!
//! Without a port the agent's own counts; that of a SRV record never does.
//!
//! # Failure
//! - What leads to nothing is logged and left out.
//!
//! # Limits
//! - [`FOUND_MAX`] addresses, and [`LOOK_WITHIN`] for each name.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use tokio::time::timeout;

use super::advertise::joined;

const FOUND_MAX: usize = 1024;
const LOOK_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Any,
    Addresses,
    Srv,
    SrvNames,
}

/// Where others may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JoinAddress {
    kind: Kind,
    host: String,
    port: u16,
}

impl JoinAddress {
    /// What `text` means; none if nothing.
    pub(super) fn new(text: &str, default_port: u16) -> Option<Self> {
        let (kind, rest) = match text.split_once('+') {
            Some(("dns", rest)) => (Kind::Addresses, rest),
            Some(("dnssrv", rest)) => (Kind::Srv, rest),
            Some(("dnssrvnoa", rest)) => (Kind::SrvNames, rest),
            Some(_) => return None,
            None => (Kind::Any, text),
        };
        let (host, port) = host_and_port(rest, default_port)?;
        Some(Self { kind, host, port })
    }

    /// The addresses it stands for now.
    async fn resolved(&self) -> Vec<String> {
        let hosts = match self.kind {
            Kind::Any if self.host.parse::<IpAddr>().is_ok() => vec![self.host.clone()],
            Kind::Any => match addresses(&self.host).await {
                found if found.is_empty() => srv_addresses(&self.host).await,
                found => found,
            },
            Kind::Addresses => addresses(&self.host).await,
            Kind::Srv => srv_addresses(&self.host).await,
            Kind::SrvNames => srv(&self.host).await,
        };
        let hosts = hosts.into_iter();
        hosts.map(|host| joined(&host, self.port)).collect()
    }
}

/// A host, without brackets, and its port.
pub(super) fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let is_v6 = |host: &str| host.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) if is_v6(host) => (host, None),
        Some((host, rest)) if is_v6(host) => (host, Some(rest.strip_prefix(':')?)),
        Some(_) => return None,
        None if is_v6(text) => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || host.len() > 240 || !(is_v6(host) || host.chars().all(is_usual)) {
        return None;
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => default_port,
    };
    Some((host.to_owned(), port))
}

/// Everywhere others may be, as it is known now.
pub(super) async fn look(all: Vec<JoinAddress>) -> Vec<Arc<str>> {
    let mut found = BTreeSet::<Arc<str>>::new();
    for address in all {
        let resolved = timeout(LOOK_WITHIN, address.resolved()).await;
        let resolved = resolved.unwrap_or_default();
        if resolved.is_empty() {
            tracing::warn!(host = address.host, "a join address leads to nobody");
        }
        found.extend(resolved.into_iter().map(Arc::from));
    }
    found.into_iter().take(FOUND_MAX).collect()
}

/// By the system's resolver, so that its files count.
async fn addresses(host: &str) -> Vec<String> {
    match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => found.map(|address| address.ip().to_string()).collect(),
        Err(error) => {
            tracing::debug!(host, %error, "a name has no address");
            Vec::new()
        }
    }
}

async fn srv_addresses(host: &str) -> Vec<String> {
    let mut all = Vec::new();
    for name in srv(host).await {
        all.extend(addresses(&name).await);
    }
    all
}

/// The names of SRV records.
async fn srv(host: &str) -> Vec<String> {
    let found = async {
        // Made anew each time: the servers to ask may have changed.
        let resolver = TokioResolver::builder_tokio()?.build()?;
        resolver.srv_lookup(host).await
    };
    match found.await {
        Ok(found) => {
            let records = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::SRV(srv) => Some(srv.target.to_utf8()),
                    _ => None,
                });
            let names = records.map(|name| name.trim_end_matches('.').to_owned());
            names.filter(|name| !name.is_empty()).collect()
        }
        Err(error) => {
            tracing::debug!(host, %error, "a name has no SRV records");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(Kind, String, u16)> {
        JoinAddress::new(text, 12345).map(|address| (address.kind, address.host, address.port))
    }

    #[test]
    fn prefixes_and_ports_are_understood() {
        for (text, kind, host, port) in [
            ("h", Kind::Any, "h", 12345),
            ("h:1", Kind::Any, "h", 1),
            ("10.0.0.1", Kind::Any, "10.0.0.1", 12345),
            ("::1", Kind::Any, "::1", 12345),
            ("[::1]:80", Kind::Any, "::1", 80),
            ("dns+a.b:2", Kind::Addresses, "a.b", 2),
            ("dnssrv+_x._tcp.a", Kind::Srv, "_x._tcp.a", 12345),
            ("dnssrvnoa+a:3", Kind::SrvNames, "a", 3),
        ] {
            assert_eq!(parsed(text), Some((kind, host.to_owned(), port)), "{text}");
        }
        for text in [
            "", ":1", "a:b", "a:0", "a:70000", "a b", "x+a", "dns+", "[h]:1", "[::1]x", "a/b",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_given_twice_is_found_once() {
        let all = ["127.0.0.1:7", "localhost:7", "dns+localhost:7", "[::1]:8"];
        let all = all.map(|text| JoinAddress::new(text, 1).unwrap()).to_vec();
        let found = look(all).await;
        assert!(found.contains(&"127.0.0.1:7".into()), "{found:?}");
        assert!(found.contains(&"[::1]:8".into()), "{found:?}");
        let plain = found.iter().filter(|address| address.starts_with("127."));
        assert_eq!(plain.count(), 1);
    }
}
