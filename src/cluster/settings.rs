//! Turns the `--cluster.*` flags into values known to be good.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use cluster::{Options, Timing};
use shipper::{SecretSource, TlsOptions, client_tls};

use super::advertise;
use super::discovery::JoinAddress;
use crate::run_flags::ClusterFlags;

/// Join addresses that can be given.
const JOIN_ADDRESSES_MAX: usize = 1024;

/// How this agent clusters.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(super) options: Options,
    pub(super) join: Vec<JoinAddress>,
    /// None: the others are spoken to in plain.
    pub(super) tls: Option<TlsOptions>,
}

impl Settings {
    /// Those of an agent that listens at `own` on the host `hostname`; none where it is not to cluster.
    ///
    /// # Errors
    /// A flag that cannot be used, or that is not supported.
    pub(crate) fn of(
        flags: &ClusterFlags,
        own: SocketAddr,
        hostname: &str,
        started_ms: i64,
    ) -> anyhow::Result<Option<Self>> {
        if !flags.enabled {
            return Ok(None);
        }
        if flags.discover_peers.is_some() {
            bail!(
                "--cluster.discover-peers is not supported: --cluster.join-addresses takes host:port, \
                 dns+NAME:port for all addresses of a name, dnssrv+NAME and dnssrvnoa+NAME for SRV records"
            );
        }
        if flags.join_addresses.len() > JOIN_ADDRESSES_MAX {
            bail!("--cluster.join-addresses has more than {JOIN_ADDRESSES_MAX} addresses");
        }
        let given = flags.join_addresses.iter().map(|address| address.trim());
        let given = given.filter(|address| !address.is_empty());
        let join = given.map(|text| {
            let wrong = || format!("--cluster.join-addresses: {text:?} is no address");
            JoinAddress::new(text, own.port()).with_context(wrong)
        });
        let join = join.collect::<anyhow::Result<Vec<_>>>()?;
        let advertised = flags.advertise_address.as_deref();
        let address = advertise::address(advertised, &flags.advertise_interfaces, own)?;
        let name = flags.node_name.clone().filter(|name| !name.is_empty());
        let options = Options {
            cluster_name: flags.name.clone(),
            node_name: name.unwrap_or_else(|| hostname.to_owned()),
            address,
            started_ms: u64::try_from(started_ms).unwrap_or(0),
            seed: fastrand::u64(..),
            has_join_addresses: !join.is_empty(),
            join_peers_max: usize::try_from(flags.max_join_peers)?,
            rejoin_interval: flags.rejoin_interval,
            wait_for_size: usize::try_from(flags.wait_for_size)?,
            wait_timeout: flags.wait_timeout,
            timing: Timing::default(),
        };
        Ok(Some(Self {
            options,
            join,
            tls: tls(flags)?,
        }))
    }
}

fn tls(flags: &ClusterFlags) -> anyhow::Result<Option<TlsOptions>> {
    if !flags.enable_tls {
        return Ok(None);
    }
    let file = |path: &Option<std::path::PathBuf>| {
        path.as_deref().map(Path::to_owned).map(SecretSource::File)
    };
    let options = TlsOptions {
        ca: file(&flags.tls_ca_path),
        cert: file(&flags.tls_cert_path),
        key: file(&flags.tls_key_path),
        server_name: flags.tls_server_name.clone().unwrap_or_default(),
        ..TlsOptions::default()
    };
    // What cannot be read now would only fail later, again and again.
    let good = client_tls(&options).map(drop);
    good.map_err(|problem| anyhow::anyhow!("--cluster.enable-tls: {problem}"))?;
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: ClusterFlags,
    }

    fn settings(line: &str) -> anyhow::Result<Option<Settings>> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let line = Line::try_parse_from(words)?;
        let own = "127.0.0.1:12345".parse().unwrap();
        Settings::of(&line.flags, own, "host-1", 1000)
    }

    #[test]
    fn it_is_off_unless_it_is_asked_for() {
        assert!(settings("").unwrap().is_none());
        assert!(
            settings("--cluster.discover-peers=provider=aws")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn flags_become_options() {
        let found = settings(
            "--cluster.enabled --cluster.join-addresses=a,dns+b:7 --cluster.name=eu --cluster.wait-for-size=3 \
             --cluster.advertise-address=10.0.0.7 --cluster.max-join-peers=0",
        );
        let found = found.unwrap().unwrap();
        assert_eq!(found.options.node_name, "host-1");
        assert_eq!(found.options.address, "10.0.0.7:12345");
        assert_eq!(found.options.cluster_name, "eu");
        assert_eq!(
            (found.options.wait_for_size, found.options.join_peers_max),
            (3, 0)
        );
        assert_eq!(found.join.len(), 2);
        assert!(found.options.has_join_addresses && found.tls.is_none());
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (line, want) in [
            (
                "--cluster.discover-peers=provider=aws",
                "--cluster.join-addresses takes host:port, dns+NAME",
            ),
            ("--cluster.join-addresses=a:b", "\"a:b\" is no address"),
            (
                "--cluster.advertise-address=a:b",
                "--cluster.advertise-address",
            ),
            (
                "--cluster.enable-tls --cluster.tls-ca-path=/nowhere/ca",
                "--cluster.enable-tls: ",
            ),
        ] {
            let error = settings(&format!("--cluster.enabled {line}")).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(want), "{line}: {text}");
        }
    }
}
