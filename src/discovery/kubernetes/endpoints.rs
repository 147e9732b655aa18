//! Turns endpoints and endpoint slices, with the pods behind them and the service before them, into targets.
//!
//! Each address and port of the object is a target; so is every further port that the containers of its pods
//! declare.

use std::collections::BTreeMap;

use super::super::target::{ADDRESS, Labels, host_port};
use super::labels::{self, InPod, put, put_meta, put_some, put_topology};
use super::objects::{
    Endpoint, EndpointAddress, EndpointPort, EndpointSlice, Endpoints, Kind, Pod, Reference,
    ServicePort,
};
use super::targets::Maker;

/// Where the name of the service of a slice is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The pods behind an object, with the ports of them that are targets, by their keys.
type Seen<'a> = BTreeMap<String, (&'a Pod, Vec<i32>)>;

pub(super) fn endpoints(maker: &mut Maker<'_>, all: &Endpoints) {
    let meta = &all.metadata;
    maker.in_namespace(&meta.namespace);
    put_meta(&mut maker.labels, Kind::Endpoints, meta);
    service_labels(maker, &meta.namespace, &meta.name);
    let mut seen = Seen::new();
    for subset in &all.subsets {
        for port in &subset.ports {
            let ready = subset.addresses.iter().map(|address| (address, true));
            let others = subset.not_ready_addresses.iter();
            for (address, is_ready) in ready.chain(others.map(|address| (address, false))) {
                if maker.is_full() {
                    return;
                }
                address_target(maker, &mut seen, (address, is_ready), port);
            }
        }
    }
    other_ports(maker, seen);
}

fn address_target<'a>(
    maker: &mut Maker<'a>,
    seen: &mut Seen<'a>,
    (address, is_ready): (&EndpointAddress, bool),
    port: &ServicePort,
) {
    let mut own = Labels::new();
    own.insert(ADDRESS.to_owned(), host_port(&address.ip, port.port));
    put(&mut own, "endpoint_port_name", &*port.name);
    put(&mut own, "endpoint_port_protocol", &*port.protocol);
    put(&mut own, "endpoint_ready", is_ready.to_string());
    let node = address.node_name.as_deref();
    put_some(&mut own, "endpoint_node_name", node);
    put(&mut own, "endpoint_hostname", &*address.hostname);
    if let Some(target) = &address.target_ref {
        put(&mut own, "endpoint_address_target_kind", &*target.kind);
        put(&mut own, "endpoint_address_target_name", &*target.name);
    }
    let target = address.target_ref.as_ref();
    maker.on_node(node.or_else(|| node_of(target)), &mut own);
    let port = Some((port.port, Some(&*port.protocol)));
    behind(maker, seen, target, port, &mut own);
    maker.add(own);
}

pub(super) fn slice(maker: &mut Maker<'_>, slice: &EndpointSlice) {
    let meta = &slice.metadata;
    maker.in_namespace(&meta.namespace);
    let kind = &*slice.address_type;
    put(&mut maker.labels, "endpointslice_address_type", kind);
    put_meta(&mut maker.labels, Kind::EndpointSlice, meta);
    if let Some(service) = meta.labels.get(SERVICE_NAME) {
        service_labels(maker, &meta.namespace, service);
    }
    let mut seen = Seen::new();
    for endpoint in &slice.endpoints {
        for port in &slice.ports {
            for address in &endpoint.addresses {
                if maker.is_full() {
                    return;
                }
                endpoint_target(maker, &mut seen, (endpoint, address), port);
            }
        }
    }
    other_ports(maker, seen);
}

fn endpoint_target<'a>(
    maker: &mut Maker<'a>,
    seen: &mut Seen<'a>,
    (endpoint, address): (&Endpoint, &str),
    port: &EndpointPort,
) {
    let mut own = Labels::new();
    let at = match port.port {
        Some(port) => host_port(address, port),
        None => address.to_owned(),
    };
    own.insert(ADDRESS.to_owned(), at);
    let number = port.port.map(|port| port.to_string());
    let flag = |flag: Option<bool>| flag.map(|flag| if flag { "true" } else { "false" });
    let conditions = &endpoint.conditions;
    let node = endpoint.node_name.as_deref();
    let target = endpoint.target_ref.as_ref();
    for (name, text) in [
        ("port", number.as_deref()),
        ("port_name", port.name.as_deref()),
        ("port_protocol", port.protocol.as_deref()),
        ("port_app_protocol", port.app_protocol.as_deref()),
        ("endpoint_conditions_ready", flag(conditions.ready)),
        ("endpoint_conditions_serving", flag(conditions.serving)),
        (
            "endpoint_conditions_terminating",
            flag(conditions.terminating),
        ),
        ("endpoint_hostname", endpoint.hostname.as_deref()),
        ("endpoint_node_name", node),
        ("endpoint_zone", endpoint.zone.as_deref()),
        ("address_target_kind", target.map(|target| &*target.kind)),
        ("address_target_name", target.map(|target| &*target.name)),
    ] {
        put_some(&mut own, &format!("endpointslice_{name}"), text);
    }
    for (name, text) in endpoint.deprecated_topology.iter() {
        put_topology(&mut own, name, text);
    }
    maker.on_node(node_of(target).or(node), &mut own);
    let port = port.port.map(|port| (port, None));
    behind(maker, seen, target, port, &mut own);
    maker.add(own);
}

/// The node that an address is, if it is one.
fn node_of(target: Option<&Reference>) -> Option<&str> {
    let node = target.filter(|target| &*target.kind == "Node");
    node.map(|target| &*target.name)
}

fn service_labels(maker: &mut Maker<'_>, namespace: &str, name: &str) {
    if let Some(service) = maker.service_of(namespace, name) {
        put_meta(&mut maker.labels, Kind::Service, &service.metadata);
    }
}

/// The labels of the pod behind an address, and of its container that has the port. The protocol is that of the
/// container where none is given.
fn behind<'a>(
    maker: &mut Maker<'a>,
    seen: &mut Seen<'a>,
    target: Option<&Reference>,
    port: Option<(i32, Option<&str>)>,
    own: &mut Labels,
) {
    let Some(target) = target.filter(|target| &*target.kind == "Pod") else {
        return;
    };
    let Some(pod) = maker.pod_of(&target.namespace, &target.name) else {
        return;
    };
    labels::pod(own, pod);
    let key = format!("{}/{}", target.namespace, target.name);
    let (_, ports) = seen.entry(key).or_insert((pod, Vec::new()));
    let Some((number, protocol)) = port else {
        return;
    };
    if !ports.contains(&number) {
        ports.push(number);
    }
    for of in InPod::all(pod) {
        let mut ports = of.container.ports.iter();
        if let Some(port) = ports.find(|port| port.container_port == number) {
            of.labels(own);
            labels::container_port(own, port, protocol.unwrap_or(&port.protocol));
        }
    }
}

/// Targets of the ports that containers of the pods declare and the object does not have.
fn other_ports(maker: &mut Maker<'_>, seen: Seen<'_>) {
    for (pod, known) in seen.into_values() {
        // It is starting, or was evicted.
        if pod.status.pod_ip.is_empty() {
            continue;
        }
        for of in InPod::all(pod) {
            for port in &of.container.ports {
                if known.contains(&port.container_port) {
                    continue;
                }
                let mut own = Labels::new();
                let address = host_port(&pod.status.pod_ip, port.container_port);
                own.insert(ADDRESS.to_owned(), address);
                of.labels(&mut own);
                labels::container_port(&mut own, port, &port.protocol);
                labels::pod(&mut own, pod);
                maker.add(own);
            }
        }
    }
}
