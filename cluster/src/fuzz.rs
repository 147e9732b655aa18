//! Turns any bytes into what other agents say, and into answers: whatever they say, an agent goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::membership::MEMBERS_MAX;
use crate::node::State;
use crate::options::{Options, Timing};
use crate::running::{Cluster, Transport};
use crate::wire::{MESSAGE_BYTES_MAX, sealed};

/// Counts and looks at what goes out.
#[derive(Debug, Default)]
struct Outbox;

impl Transport for Outbox {
    fn send(&mut self, _: &Arc<str>, message: Bytes) {
        assert!(message.len() <= MESSAGE_BYTES_MAX);
    }

    fn look_for_peers(&mut self) {}
}

/// Takes the bytes apart into messages of the own cluster, each with a byte that says of which kind it is, a byte how
/// long the agent has waited for it, and a byte of its length.
///
/// # Panics
/// The agent forgets itself, or says or knows more than it may.
pub fn an_agent_goes_on(mut data: &[u8]) {
    let options = Options {
        cluster_name: "eu".to_owned(),
        node_name: "a".to_owned(),
        address: "h:1".to_owned(),
        started_ms: 1000,
        seed: 1,
        has_join_addresses: false,
        join_peers_max: 5,
        rejoin_interval: Duration::from_secs(60),
        wait_for_size: 0,
        wait_timeout: Duration::ZERO,
        timing: Timing::default(),
    };
    let mut now = Duration::ZERO;
    let Ok(mut cluster) = Cluster::new(&options, Outbox, now) else {
        return;
    };
    cluster.enter(State::Participant, now).ok();
    while let [kind, wait, length, rest @ ..] = data {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        now += Duration::from_millis(u64::from(*wait) * 20);
        cluster.tick(now);
        let answer = cluster.receive(&sealed(*kind & 31, "eu", content), now);
        assert!(answer.bytes.len() <= MESSAGE_BYTES_MAX);
        cluster.answered("h:2", &sealed(*kind & 31, "eu", content), now);
        let peers = cluster.ownership().peers();
        assert!(peers.len() <= MEMBERS_MAX);
        assert!(peers.iter().any(|peer| peer.is_self), "it knows of itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_change_nothing_and_random_nodes_are_bounded() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let mut data = Vec::new();
            for _ in 0..random.usize(1..20) {
                // A node as it is written, with other bytes in it.
                let mut node = vec![
                    1,
                    b'b' + random.u8(..9),
                    3,
                    b'h',
                    b':',
                    b'1' + random.u8(..9),
                ];
                node.extend(random.u64(..5000).to_le_bytes());
                node.extend(random.u32(..3).to_le_bytes());
                node.push(random.u8(..4));
                if random.bool() {
                    let at = random.usize(..node.len());
                    node[at] = random.u8(..);
                }
                let kind = [0, 1, 2, 16, 17, 5][random.usize(..6)];
                data.extend([kind, random.u8(..), u8::try_from(node.len()).unwrap()]);
                data.extend(node);
            }
            an_agent_goes_on(&data);
        }
    }
}
