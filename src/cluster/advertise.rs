//! Turns network interfaces into where the others reach this agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;

use super::discovery::host_and_port;

/// `host:port` for the others: as it was given, else of the first of these interfaces that has an address.
///
/// # Errors
/// What was given is no address.
pub(super) fn address(
    given: Option<&str>,
    interfaces: &[String],
    own: SocketAddr,
) -> anyhow::Result<String> {
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        let wrong = || format!("--cluster.advertise-address {given:?} is no address");
        let (host, port) = host_and_port(given, own.port()).with_context(wrong)?;
        return Ok(joined(&host, port));
    }
    let all = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look at the network interfaces");
        Vec::new()
    });
    let all: Vec<(String, IpAddr)> = all
        .into_iter()
        .map(|one| (one.name.clone(), one.ip()))
        .collect();
    let ip = choose(&all, interfaces).unwrap_or_else(|| {
        let wanted = interfaces.join(",");
        tracing::warn!(
            interfaces = wanted,
            "none of the interfaces has an address: advertising 127.0.0.1 (--cluster.advertise-address)"
        );
        Ipv4Addr::LOCALHOST.into()
    });
    Ok(SocketAddr::new(ip, own.port()).to_string())
}

/// `host:port`, an IPv6 address in brackets.
pub(super) fn joined(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The first address by which others could reach this host; IPv4 before IPv6.
fn choose(all: &[(String, IpAddr)], interfaces: &[String]) -> Option<IpAddr> {
    let of = |name: &str| {
        let is_of = |one: &&(String, IpAddr)| name == "all" || one.0 == name;
        let good: Vec<IpAddr> = all
            .iter()
            .filter(is_of)
            .map(|one| one.1)
            .filter(is_reachable)
            .collect();
        let first_v4 = good.iter().find(|ip| ip.is_ipv4()).copied();
        first_v4.or_else(|| good.first().copied())
    };
    interfaces.iter().find_map(|name| of(name))
}

/// Whether an address means this host to another one.
fn is_reachable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<(String, IpAddr)> {
        let all = [
            ("lo", "127.0.0.1"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::1"),
            ("eth1", "2001:db8::2"),
            ("eth1", "10.0.0.2"),
            ("wlan0", "169.254.1.1"),
        ];
        all.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap()))
            .to_vec()
    }

    #[test]
    fn the_first_interface_with_a_usable_address_counts() {
        for (names, want) in [
            (vec!["eth0", "en0"], Some("2001:db8::1")),
            (vec!["en0", "eth1"], Some("10.0.0.2")),
            (vec!["wlan0", "lo"], None),
            (vec!["all"], Some("10.0.0.2")),
            (vec![], None),
        ] {
            let names: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
            let want = want.map(|ip| ip.parse().unwrap());
            assert_eq!(choose(&interfaces(), &names), want, "{names:?}");
        }
    }

    #[test]
    fn a_given_address_gets_the_own_port() {
        let own = "127.0.0.1:9000".parse().unwrap();
        for (given, want) in [
            ("h", "h:9000"),
            ("h:7", "h:7"),
            ("::1", "[::1]:9000"),
            ("[::1]:8", "[::1]:8"),
        ] {
            assert_eq!(address(Some(given), &[], own).unwrap(), want);
        }
        assert!(address(Some("a b"), &[], own).is_err());
        let nobody = address(None, &["nosuch0".to_owned()], own).unwrap();
        assert_eq!(nobody, "127.0.0.1:9000");
    }
}
