//! Turns the numbers of encrypted and protected listeners into metric families.

use std::sync::atomic::Ordering;

use ingest::secure::{Handshake, Reload, SecureStats};

use super::families::{Families, Group};
use crate::server::ServerStats;

/// Adds those of a receiver.
pub(crate) fn collect_receiver(group: &mut Group<'_>, stats: &SecureStats) {
    collect(
        group,
        stats,
        [
            "penstock_receive_http_tls_handshakes",
            "penstock_receive_http_certificate_reloads",
        ],
    );
}

/// Adds those of the agent's own server.
pub(crate) fn collect_server(families: &mut Families, stats: &ServerStats) {
    let mut group = families.plain();
    let names = [
        "penstock_http_server_tls_handshakes",
        "penstock_http_server_certificate_reloads",
    ];
    collect(&mut group, &stats.secure, names);
    for (event, counter) in [
        ("accepted", &stats.accepted),
        ("refused", &stats.refused),
        ("timed_out", &stats.timed_out),
    ] {
        group.with("event", event).counter(
            "penstock_http_server_connections",
            "What became of connections to the agent's own address",
            counter.load(Ordering::Relaxed),
        );
    }
    group.counter(
        "penstock_http_server_unauthorized",
        "Requests to the agent's own address without the credentials they need",
        stats.unauthorized.load(Ordering::Relaxed),
    );
}

fn collect(group: &mut Group<'_>, stats: &SecureStats, [handshakes, reloads]: [&'static str; 2]) {
    for how in Handshake::ALL {
        let mut group = group.with("result", how.as_str());
        let help = "TLS handshakes by their end";
        group.counter(handshakes, help, stats.handshakes(how));
    }
    for how in Reload::ALL {
        let mut group = group.with("result", how.as_str());
        let help = "Changed certificate files by what became of them";
        group.counter(reloads, help, stats.reloads(how));
    }
}
