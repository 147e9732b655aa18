//! Turns the lists of containers and networks that the Docker API gives into targets.
//!
//! # Invariants
//! - No two answers that mean the same give different targets: maps are in the order of their keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::TARGETS_MAX;
use super::super::refresh::too_many;
use super::super::target::{ADDRESS, Labels, host_port, sanitized};
use super::DockerPlace;

const PREFIX: &str = "__meta_docker_";
/// Longer chains of containers that share each other's network do not occur.
const SHARED_MAX: usize = 16;

/// A network as a container is in it.
struct Joined<'a> {
    id: &'a str,
    ip: &'a str,
}

/// Every target, in no particular order.
pub(super) fn targets(
    containers: &Value,
    networks: &Value,
    place: &DockerPlace,
) -> Result<Vec<Labels>, String> {
    let containers = list(containers, "containers")?;
    let networks = network_labels(list(networks, "networks")?);
    let by_id: BTreeMap<&str, &Value> = containers
        .iter()
        .map(|container| (text(container, &["Id"]), container))
        .collect();
    let mut all = Vec::new();
    for container in containers {
        let Some(labels) = container_labels(container) else {
            continue;
        };
        for network in joined(container, &by_id, place.match_first_network) {
            let mut labels = labels.clone();
            put(&mut labels, "network_ip", network.ip);
            if let Some(more) = networks.get(network.id) {
                labels.extend(more.clone());
            }
            all.extend(in_network(container, &network, &labels, place));
        }
        if all.len() > TARGETS_MAX {
            return Err(too_many(all.len()));
        }
    }
    Ok(all)
}

fn list<'a>(answer: &'a Value, what: &str) -> Result<&'a [Value], String> {
    let list = answer.as_array().map(Vec::as_slice);
    list.ok_or_else(|| format!("the answer holds no list of {what}"))
}

/// The targets of a container in one of its networks.
fn in_network(
    container: &Value,
    network: &Joined<'_>,
    labels: &Labels,
    place: &DockerPlace,
) -> Vec<Labels> {
    let mut all = Vec::new();
    let ports = container.get("Ports").and_then(Value::as_array);
    for port in ports.into_iter().flatten() {
        if text(port, &["Type"]) != "tcp" {
            continue;
        }
        let number = |name: &str| port.get(name).and_then(Value::as_u64).unwrap_or_default();
        let (private, public) = (number("PrivatePort"), number("PublicPort"));
        let mut labels = labels.clone();
        put(&mut labels, "port_private", &private.to_string());
        if public > 0 {
            put(&mut labels, "port_public", &public.to_string());
            put(&mut labels, "port_public_ip", text(port, &["IP"]));
        }
        labels.insert(ADDRESS.to_owned(), host_port(network.ip, private));
        all.push(labels);
    }
    if all.is_empty() {
        let mut labels = labels.clone();
        let address = match network_mode(container) {
            "host" => place.host_networking_host.clone(),
            _ => host_port(network.ip, place.port),
        };
        labels.insert(ADDRESS.to_owned(), address);
        all.push(labels);
    }
    all
}

/// The labels that all targets of a container have; none where it has no name.
fn container_labels(container: &Value) -> Option<Labels> {
    let name = container.get("Names")?.as_array()?.first()?.as_str()?;
    let mut labels = Labels::new();
    put(&mut labels, "container_id", text(container, &["Id"]));
    put(&mut labels, "container_name", name);
    put(
        &mut labels,
        "container_network_mode",
        network_mode(container),
    );
    put_labels(&mut labels, "container_label_", container);
    Some(labels)
}

/// The networks a container is in, in the order of their names: its own, or those of the container whose
/// network it shares.
fn joined<'a>(
    container: &'a Value,
    by_id: &BTreeMap<&str, &'a Value>,
    is_first_only: bool,
) -> Vec<Joined<'a>> {
    let mut of = container;
    let mut networks = networks_of(of);
    for _ in 0..SHARED_MAX {
        let other = network_mode(of).strip_prefix("container:");
        let Some(other) = other.and_then(|id| by_id.get(id)) else {
            break;
        };
        if networks.is_some_and(|networks| !networks.is_empty()) {
            break;
        }
        of = other;
        networks = networks_of(of);
    }
    let mut networks: Vec<(&String, &Value)> = networks.into_iter().flatten().collect();
    networks.retain(|(_, network)| !network.is_null());
    networks.sort_unstable_by_key(|(name, _)| *name);
    if is_first_only {
        networks.truncate(1);
    }
    let joined = |(_, network): (&String, &'a Value)| Joined {
        id: text(network, &["NetworkID"]),
        ip: text(network, &["IPAddress"]),
    };
    networks.into_iter().map(joined).collect()
}

fn networks_of(container: &Value) -> Option<&Map<String, Value>> {
    container
        .get("NetworkSettings")?
        .get("Networks")?
        .as_object()
}

fn network_mode(container: &Value) -> &str {
    text(container, &["HostConfig", "NetworkMode"])
}

/// The labels of every network, by its id.
fn network_labels(networks: &[Value]) -> BTreeMap<&str, Labels> {
    let labels_of = |network: &Value| {
        let mut labels = Labels::new();
        for (label, field) in [
            ("network_id", "Id"),
            ("network_name", "Name"),
            ("network_scope", "Scope"),
        ] {
            put(&mut labels, label, text(network, &[field]));
        }
        for (label, field) in [
            ("network_internal", "Internal"),
            ("network_ingress", "Ingress"),
        ] {
            let is = network.get(field).and_then(Value::as_bool);
            put(&mut labels, label, &is.unwrap_or_default().to_string());
        }
        put_labels(&mut labels, "network_label_", network);
        labels
    };
    let all = networks.iter();
    all.map(|network| (text(network, &["Id"]), labels_of(network)))
        .collect()
}

/// The labels that users gave.
fn put_labels(labels: &mut Labels, prefix: &str, of: &Value) {
    let given = of.get("Labels").and_then(Value::as_object);
    for (name, value) in given.into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        put(labels, &format!("{prefix}{}", sanitized(name)), value);
    }
}

fn put(labels: &mut Labels, name: &str, value: &str) {
    labels.insert(format!("{PREFIX}{name}"), value.to_owned());
}

/// The text at a path of fields; empty where there is none.
fn text<'a>(of: &'a Value, path: &[&str]) -> &'a str {
    let found = path.iter().try_fold(of, |of, name| of.get(name));
    found.and_then(Value::as_str).unwrap_or_default()
}
