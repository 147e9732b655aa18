//! Turns the flags of `run` that the reference has into settings, or into the remark that they mean nothing.
//!
//! A command line written for the reference starts this agent. A flag that stands for something there is only
//! here is accepted and told of once; one that is a mistake there is one here.
//!
//! # Failure
//! Flags that exclude each other, and experimental ones without the level that allows them, keep it from starting.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};

use crate::graph::Stability;
use crate::run::parse_duration;

/// What language a configuration is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigFormat {
    Alloy,
    Otelcol,
    Prometheus,
    Promtail,
    Static,
}

/// The flags of `run` that are the reference's.
#[derive(Debug, Args)]
#[allow(dead_code, reason = "some are for what is not there yet")]
pub(crate) struct RunFlags {
    /// Least stable features a configuration may use.
    #[arg(
        long = "stability.level",
        value_name = "LEVEL",
        value_enum,
        default_value = "generally-available"
    )]
    pub(crate) stability: Stability,
    /// The language of the configuration.
    #[arg(
        long = "config.format",
        value_name = "FORMAT",
        value_enum,
        default_value = "alloy"
    )]
    pub(crate) config_format: ConfigFormat,
    /// Go on without what cannot be converted from another language.
    #[arg(long = "config.bypass-conversion-errors", value_name = "BOOL",
        action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true")]
    pub(crate) bypass_conversion_errors: bool,
    /// Arguments the program of the other language is started with.
    #[arg(
        long = "config.extra-args",
        value_name = "ARGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub(crate) config_extra_args: String,
    /// Say nothing about this agent to anybody: it never does.
    #[arg(long = "disable-reporting", value_name = "BOOL",
        action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true")]
    pub(crate) disable_reporting: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
    #[command(flatten)]
    without_meaning: WithoutMeaning,
}

/// Which agents share the work, and how they find each other.
#[derive(Debug, Args)]
pub(crate) struct ClusterFlags {
    /// Share the work with other agents.
    #[arg(id = "cluster.enabled", long = "cluster.enabled", value_name = "BOOL",
        action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true")]
    pub(crate) enabled: bool,
    /// Name of this agent among them; by default the host's.
    #[arg(long = "cluster.node-name", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Addresses of some of the others.
    #[arg(
        long = "cluster.join-addresses",
        value_name = "ADDRS",
        value_delimiter = ',',
        conflicts_with = "discover_peers"
    )]
    pub(crate) join_addresses: Vec<String>,
    /// How to find the others: provider=NAME KEY=VALUE ...
    #[arg(long = "cluster.discover-peers", value_name = "QUERY", value_parser = parse_discovery)]
    pub(crate) discover_peers: Option<String>,
    /// How often to look for others that were lost; 0 is never.
    #[arg(long = "cluster.rejoin-interval", value_name = "DURATION",
        default_value = "60s", value_parser = parse_duration)]
    pub(crate) rejoin_interval: Duration,
    /// Where the others reach this agent.
    #[arg(long = "cluster.advertise-address", value_name = "ADDR")]
    pub(crate) advertise_address: Option<String>,
    /// Interfaces whose address that is where none is given; all: any.
    #[arg(
        long = "cluster.advertise-interfaces",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "eth0,en0"
    )]
    pub(crate) advertise_interfaces: Vec<String>,
    /// Most agents to join at first; 0: all that are found.
    #[arg(long = "cluster.max-join-peers", value_name = "N", default_value_t = 5)]
    pub(crate) max_join_peers: u32,
    /// Name of the cluster: agents of another one are not let in.
    #[arg(
        id = "cluster.name",
        long = "cluster.name",
        value_name = "NAME",
        default_value = ""
    )]
    pub(crate) name: String,
    /// Speak to the others by TLS.
    #[arg(id = "cluster.enable-tls", long = "cluster.enable-tls", value_name = "BOOL",
        action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true")]
    pub(crate) enable_tls: bool,
    /// CA of the others.
    #[arg(long = "cluster.tls-ca-path", value_name = "FILE")]
    pub(crate) tls_ca_path: Option<PathBuf>,
    /// Certificate shown to the others.
    #[arg(
        long = "cluster.tls-cert-path",
        value_name = "FILE",
        requires = "tls_key_path"
    )]
    pub(crate) tls_cert_path: Option<PathBuf>,
    /// Its key.
    #[arg(
        long = "cluster.tls-key-path",
        value_name = "FILE",
        requires = "tls_cert_path"
    )]
    pub(crate) tls_key_path: Option<PathBuf>,
    /// Name the others' certificates are for.
    #[arg(long = "cluster.tls-server-name", value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,
    /// Number of agents to wait for before work is shared; 0: none.
    #[arg(long = "cluster.wait-for-size", value_name = "N", default_value_t = 0)]
    pub(crate) wait_for_size: u32,
    /// How long to wait for them; 0: without end.
    #[arg(long = "cluster.wait-timeout", value_name = "DURATION",
        default_value = "0s", value_parser = parse_duration)]
    pub(crate) wait_timeout: Duration,
}

/// Flags that mean something to the reference only.
#[derive(Debug, Args)]
struct WithoutMeaning {
    #[arg(long = "server.http.enable-pprof", value_name = "BOOL", hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_pprof: Option<bool>,
    #[arg(long = "server.http.enable-graphql", value_name = "BOOL", hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_graphql: Option<bool>,
    #[arg(long = "server.http.enable-graphql-playground", value_name = "BOOL", hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_graphql_playground: Option<bool>,
    #[arg(long = "feature.community-components.enabled", value_name = "BOOL", hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    community_components: Option<bool>,
    #[arg(long = "feature.prometheus.direct-fanout.enabled", value_name = "BOOL", hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    direct_fanout: Option<bool>,
    #[arg(
        long = "feature.prometheus.metric-validation-scheme",
        value_name = "SCHEME",
        hide = true
    )]
    metric_validation_scheme: Option<String>,
    #[arg(long = "cluster.use-discovery-v1", value_name = "BOOL", hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_discovery_v1: Option<bool>,
    #[arg(
        long = "windows.priority",
        value_name = "PRIORITY",
        hide = true,
        value_parser = ["above_normal", "below_normal", "high", "idle", "normal", "realtime"]
    )]
    windows_priority: Option<String>,
}

/// A query that says who is asked.
fn parse_discovery(text: &str) -> Result<String, String> {
    let mut words = text.split_whitespace();
    if words.any(|word| word.starts_with("provider=")) {
        return Ok(text.to_owned());
    }
    Err("has no provider=NAME".to_owned())
}

impl RunFlags {
    /// Logs the flags that were given and mean nothing.
    ///
    /// # Errors
    /// An experimental flag without the level that allows it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.check_stability()?;
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    fn check_stability(&self) -> anyhow::Result<()> {
        let flags = &self.without_meaning;
        let preview = (Stability::PublicPreview, "public preview", "public-preview");
        let experimental = (Stability::Experimental, "experimental", "experimental");
        for (name, is_given, (least, level, value)) in [
            (
                "server.http.enable-graphql",
                flags.enable_graphql == Some(true),
                experimental,
            ),
            (
                "server.http.enable-graphql-playground",
                flags.enable_graphql_playground == Some(true),
                experimental,
            ),
            (
                "feature.prometheus.direct-fanout.enabled",
                flags.direct_fanout == Some(true),
                experimental,
            ),
            (
                "windows.priority",
                flags.windows_priority.is_some(),
                preview,
            ),
        ] {
            if is_given && self.stability > least {
                bail!(
                    "'--{name}' can only be used at {level} stability level. \
                     Use --stability.level={value} to enable."
                );
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let flags = &self.without_meaning;
        let mut warnings = Vec::new();
        let given = [
            ("server.http.enable-pprof", flags.enable_pprof.is_some()),
            ("server.http.enable-graphql", flags.enable_graphql.is_some()),
            (
                "server.http.enable-graphql-playground",
                flags.enable_graphql_playground.is_some(),
            ),
            (
                "feature.community-components.enabled",
                flags.community_components.is_some(),
            ),
            (
                "feature.prometheus.direct-fanout.enabled",
                flags.direct_fanout.is_some(),
            ),
            (
                "feature.prometheus.metric-validation-scheme",
                flags.metric_validation_scheme.is_some(),
            ),
            ("cluster.use-discovery-v1", flags.use_discovery_v1.is_some()),
            ("windows.priority", flags.windows_priority.is_some()),
        ];
        let given = given.into_iter().filter(|&(_, is_given)| is_given);
        warnings.extend(given.map(|(name, _)| format!("--{name} has no meaning here")));
        warnings
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        flags: RunFlags,
    }

    fn parse(line: &str) -> Result<RunFlags, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        match Command::try_parse_from(words) {
            Ok(command) => Ok(command.flags),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn nothing_given_gives_the_defaults_and_no_warning() {
        let flags = parse("").unwrap();
        assert_eq!(flags.stability, Stability::GenerallyAvailable);
        assert_eq!(flags.config_format, ConfigFormat::Alloy);
        assert!(!flags.cluster.enabled && flags.cluster.join_addresses.is_empty());
        assert_eq!(flags.cluster.rejoin_interval, Duration::from_secs(60));
        assert_eq!(flags.cluster.advertise_interfaces, ["eth0", "en0"]);
        assert!(flags.warnings().is_empty() && flags.check().is_ok());
    }

    #[test]
    fn a_command_line_of_the_reference_is_taken() {
        let flags = parse(
            "--disable-reporting --stability.level=experimental --config.format=prometheus \
             --config.bypass-conversion-errors --cluster.enabled=true --cluster.name=c \
             --cluster.join-addresses=a:1,b:2 --cluster.wait-for-size=3 --cluster.wait-timeout=5m \
             --server.http.enable-pprof=false \
             --feature.community-components.enabled --feature.prometheus.direct-fanout.enabled \
             --windows.priority=normal --cluster.use-discovery-v1",
        )
        .unwrap();
        assert!(flags.disable_reporting && flags.bypass_conversion_errors && flags.cluster.enabled);
        assert_eq!(flags.cluster.join_addresses, ["a:1", "b:2"]);
        assert_eq!(flags.cluster.wait_timeout, Duration::from_secs(300));
        let warnings = flags.warnings();
        assert_eq!(warnings.len(), 5);
        assert!(warnings.contains(&"--windows.priority has no meaning here".to_owned()));
        assert!(flags.check().is_ok());
    }

    #[test]
    fn mistakes_are_refused() {
        for (line, want) in [
            (
                "--stability.level=beta",
                "possible values: experimental, public-preview",
            ),
            (
                "--config.format=toml",
                "possible values: alloy, otelcol, prometheus",
            ),
            ("--cluster.rejoin-interval=5", "missing unit in duration"),
            ("--cluster.max-join-peers=-1", "invalid value"),
            ("--cluster.discover-peers=aws", "has no provider=NAME"),
            (
                "--cluster.join-addresses=a --cluster.discover-peers=provider=aws",
                "cannot be used with",
            ),
            ("--cluster.tls-cert-path=a", "--cluster.tls-key-path"),
            ("--windows.priority=fast", "invalid value"),
            ("--disable-reporting=maybe", "invalid value"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(want), "{line}: {message}");
        }
        let message = parse("--windows.priority=idle")
            .unwrap()
            .check()
            .unwrap_err();
        assert_eq!(
            message.to_string(),
            "'--windows.priority' can only be used at public preview stability level. \
             Use --stability.level=public-preview to enable."
        );
        let flags = parse("--server.http.enable-graphql --stability.level=public-preview").unwrap();
        assert!(flags.check().is_err());
    }
}
