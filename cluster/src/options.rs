//! Turns settings into values known to be good.

use std::time::Duration;

use crate::wire::is_address;

/// What a text may be long, so that its length is a byte.
const TEXT_BYTES_MAX: usize = 255;

/// Who this agent is, and how it finds and waits for the others.
#[derive(Clone, Debug)]
pub struct Options {
    /// Agents of another cluster are not let in.
    pub cluster_name: String,
    /// Among the others no second agent may have it.
    pub node_name: String,
    /// `host:port`, where the others reach this agent.
    pub address: String,
    /// When the process began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Where random numbers begin.
    pub seed: u64,
    /// Whether there are addresses to join by.
    pub has_join_addresses: bool,
    /// Most agents to join at a time; 0: all that are found.
    pub join_peers_max: usize,
    /// How often to look for others that were lost; zero: never.
    pub rejoin_interval: Duration,
    /// Number of agents to wait for; 0: none.
    pub wait_for_size: usize,
    /// How long to wait for them; zero: without end.
    pub wait_timeout: Duration,
    /// How quickly things are found out.
    pub timing: Timing,
}

/// How quickly things are found out. The reference probes every 5 s with a timeout of 2 s; this finds an agent
/// that was killed within 10 s.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How often one of the others is asked whether it is there.
    pub probe_interval: Duration,
    /// How long it may take to answer before more are asked to ask it.
    pub probe_timeout: Duration,
    /// How long one that does not answer has to say that it is there.
    pub suspicion: Duration,
    /// How often news is passed on, while there is some.
    pub gossip_interval: Duration,
    /// How often somebody is asked for everything it knows.
    pub announce_interval: Duration,
    /// How often those that are gone are tried again: after a partition this brings both sides together.
    pub announce_down_interval: Duration,
    /// How long it is known that somebody is gone.
    pub forget_after: Duration,
    /// How long after a join that led to nobody it is tried again; doubles up to the rejoin interval.
    pub join_backoff: Duration,
    /// How long a new agent that has found nobody waits for somebody before it takes part in the work alone.
    pub join_within: Duration,
    /// At most so often others are told of a change.
    pub notify_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            suspicion: Duration::from_secs(4),
            gossip_interval: Duration::from_millis(200),
            announce_interval: Duration::from_secs(30),
            announce_down_interval: Duration::from_secs(10),
            forget_after: Duration::from_secs(3600),
            join_backoff: Duration::from_secs(1),
            join_within: Duration::from_secs(5),
            notify_interval: Duration::from_secs(1),
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{option} {problem}")]
pub struct InvalidOption {
    /// Which one.
    pub option: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Options {
    pub(crate) fn validate(&self) -> Result<(), InvalidOption> {
        let invalid = |option, problem| Err(InvalidOption { option, problem });
        if self.node_name.is_empty() || self.node_name.len() > TEXT_BYTES_MAX {
            return invalid("the node name", "must have 1 to 255 bytes");
        }
        if self.cluster_name.len() > TEXT_BYTES_MAX {
            return invalid("the cluster name", "must have at most 255 bytes");
        }
        if !is_address(&self.address) {
            return invalid("the advertised address", "is no host:port");
        }
        let timing = &self.timing;
        let intervals = [
            timing.probe_timeout,
            timing.gossip_interval,
            timing.announce_interval,
            timing.announce_down_interval,
            timing.join_backoff,
        ];
        if intervals.contains(&Duration::ZERO) || timing.probe_interval <= timing.probe_timeout {
            return invalid("timing", "has an interval that is too short");
        }
        Ok(())
    }
}
