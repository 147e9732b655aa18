//! Turns the numbers of a cluster into metric families, with the names that its dashboards and alerts know.

use std::sync::atomic::Ordering;

use cluster::State;

use super::families::{Families, float};
use crate::cluster::{Clustering, Way};

/// Adds everything about the cluster, as this agent sees it.
pub(crate) fn collect(families: &mut Families, clustering: &Clustering) {
    collect_peers(families, clustering);
    collect_gossip(families, clustering);
    collect_transport(families, clustering);
    let mut plain = families.plain();
    let mut group = plain.with("cluster_name", clustering.name());
    let size = float(clustering.wait_for_size() as u64);
    group.gauge("cluster_minimum_size", "Agents that are waited for", size);
    let (drained, gave_up, held) = clustering.handover().numbers();
    for (result, count) in [("drained", drained), ("gave_up", gave_up)] {
        let name = "penstock_cluster_handovers";
        let help = "Endpoints that waited for who had their series before: until that had shipped what it had, or \
                    for too long";
        group.with("result", result).counter(name, help, count);
    }
    let help = "Endpoints that wait for who had their series before";
    group.gauge("penstock_cluster_held_endpoints", help, float(held as u64));
    let is_ready = f64::from(u8::from(clustering.ownership().is_ready()));
    let help = "1 while work is shared: there are as many agents as are waited for";
    group.gauge("cluster_ready_for_traffic", help, is_ready);
}

fn collect_peers(families: &mut Families, clustering: &Clustering) {
    let mut plain = families.plain();
    let mut group = plain.with("cluster_name", clustering.name());
    let peers = clustering.ownership().peers();
    if let Some(own) = peers.iter().find(|peer| peer.is_self) {
        group.with("state", own.state.as_str()).gauge(
            "cluster_node_info",
            "What this agent does in the cluster",
            1.0,
        );
    }
    for state in State::ALL {
        let count = peers.iter().filter(|peer| peer.state == state).count();
        group.with("state", state.as_str()).gauge(
            "cluster_node_peers",
            "Agents in the cluster, this one among them, by what they do",
            float(count as u64),
        );
    }
    group.gauge(
        "cluster_node_update_observers",
        "Who is told of changes",
        float(clustering.ownership().observers() as u64),
    );
    group.gauge(
        "penstock_cluster_version",
        "Grows with every change of who is there",
        float(clustering.ownership().version()),
    );
}

fn collect_gossip(families: &mut Families, clustering: &Clustering) {
    let counts = clustering.stats().counts();
    let mut plain = families.plain();
    let mut group = plain.with("cluster_name", clustering.name());
    for (event, count) in [
        ("state_change_message", counts.state_changed),
        ("unknown_message", counts.malformed + counts.foreign),
        ("get_local_state", counts.welcomed),
        ("merge_remote_state", counts.joins),
        ("node_join", counts.joined),
        ("node_leave", counts.left),
        ("node_update", counts.updated),
        ("node_conflict", counts.conflicts),
    ] {
        let name = "cluster_node_gossip_received_events";
        let help = "What was heard of the others";
        group.with("event", event).counter(name, help, count);
    }
    let name = "cluster_node_gossip_broadcasts";
    let help = "What the others were told";
    let mut told = group.with("event", "state_change");
    told.counter(name, help, counts.told);
    for (reason, count) in [
        ("malformed", counts.malformed),
        ("other_cluster", counts.foreign),
        ("other", counts.refused),
    ] {
        let name = "penstock_cluster_refused_messages";
        let help = "Messages of others that were refused";
        group.with("reason", reason).counter(name, help, count);
    }
    let name = "penstock_cluster_renewals";
    let help = "Times this agent was held for gone, and joined again";
    group.counter(name, help, counts.renewed);
    let name = "penstock_cluster_refusals_by_others";
    let help = "Messages of this agent that others refused";
    group.counter(name, help, counts.refused_by_others);
    let alive = clustering.ownership().peers().len();
    for (name, help, value) in [
        (
            "cluster_node_gossip_health_score",
            "Others that do not answer just now; 0 is well",
            counts.suspects,
        ),
        (
            "cluster_node_gossip_proto_version",
            "Version of the messages",
            u64::from(cluster::VERSION),
        ),
        (
            "cluster_node_gossip_alive_peers",
            "Agents that are there, this one among them",
            alive as u64,
        ),
    ] {
        group.gauge(name, help, float(value));
    }
}

fn collect_transport(families: &mut Families, clustering: &Clustering) {
    let mut plain = families.plain();
    let mut group = plain.with("cluster_name", clustering.name());
    let numbers = clustering.numbers();
    let names = |way: &'static str| match way {
        "rx" => [
            "cluster_transport_rx_packets",
            "cluster_transport_rx_bytes",
            "cluster_transport_rx_packets_failed",
        ],
        _ => [
            "cluster_transport_tx_packets",
            "cluster_transport_tx_bytes",
            "cluster_transport_tx_packets_failed",
        ],
    };
    let mut add = |way: &'static str, of: &Way| {
        let [messages, bytes, failed] = names(way);
        let count = of.messages.load(Ordering::Relaxed);
        group.counter(messages, "Messages between the agents", count);
        let count = of.bytes.load(Ordering::Relaxed);
        group.counter(bytes, "Bytes of messages between the agents", count);
        let count = of.failed.load(Ordering::Relaxed);
        group.counter(failed, "Messages that did not get through", count);
    };
    add("rx", &numbers.received);
    add("tx", &numbers.sent);
    let (sent, received) = clustering.waiting();
    for (name, help, value) in [
        (
            "cluster_transport_rx_packet_queue_length",
            "Messages that wait to be looked at",
            received as u64,
        ),
        (
            "cluster_transport_tx_packet_queue_length",
            "Messages that are under way",
            sent as u64,
        ),
        (
            "cluster_transport_streams",
            "Connections to the others",
            numbers.connections.load(Ordering::Relaxed),
        ),
    ] {
        group.gauge(name, help, float(value));
    }
    let name = "penstock_cluster_nobody_found";
    let help = "Times the join addresses led to nobody";
    let count = numbers.nobody_found.load(Ordering::Relaxed);
    group.counter(name, help, count);
}
