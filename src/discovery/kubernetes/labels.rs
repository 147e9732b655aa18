//! Turns what objects say of themselves into labels of targets.
//!
//! # Invariants
//! - A label name is made of a prefix and of what is left of a name when every character but ASCII letters,
//!   digits and `_` is `_`. Where two names become one the later in order of the names wins.

use super::super::target::{Labels, sanitized};
use super::objects::{Container, ContainerPort, Kind, Meta, Node, Pod, Ready};

const PREFIX: &str = "__meta_kubernetes_";
const PRESENT: &str = "true";

/// Sets a label.
pub(super) fn put(labels: &mut Labels, name: &str, text: impl Into<String>) {
    labels.insert(format!("{PREFIX}{name}"), text.into());
}

/// Sets a label of what may be left out.
pub(super) fn put_some(labels: &mut Labels, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        put(labels, name, text);
    }
}

/// The name, the labels and the annotations of an object.
pub(super) fn put_meta(labels: &mut Labels, kind: Kind, meta: &Meta) {
    put(labels, &format!("{}_name", kind.name()), &*meta.name);
    put_texts(labels, kind, meta);
}

/// The labels and the annotations of an object.
pub(super) fn put_texts(labels: &mut Labels, kind: Kind, meta: &Meta) {
    let kind = kind.name();
    for (what, texts) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
        for (name, text) in texts.iter() {
            let name = sanitized(name);
            put(labels, &format!("{kind}_{what}_{name}"), text);
            put(labels, &format!("{kind}_{what}present_{name}"), PRESENT);
        }
    }
}

/// A name and whether it is there, as labels.
pub(super) fn put_topology(labels: &mut Labels, name: &str, text: &str) {
    let name = sanitized(name);
    let prefix = "endpointslice_endpoint_topology";
    put(labels, &format!("{prefix}_{name}"), text);
    put(labels, &format!("{prefix}_present_{name}"), PRESENT);
}

/// What every target of a node has.
pub(super) fn node(labels: &mut Labels, node: &Node) {
    put(labels, "node_provider_id", &*node.spec.provider_id);
    put_meta(labels, Kind::Node, &node.metadata);
}

/// What every target of a pod has.
pub(super) fn pod(labels: &mut Labels, pod: &Pod) {
    let (spec, status) = (&pod.spec, &pod.status);
    let ready = match status.conditions {
        Ready::True => "true",
        Ready::False => "false",
        Ready::Unknown => "unknown",
    };
    for (name, text) in [
        ("pod_ip", &*status.pod_ip),
        ("pod_ready", ready),
        ("pod_phase", &*status.phase),
        ("pod_node_name", &*spec.node_name),
        ("pod_host_ip", &*status.host_ip),
        ("pod_uid", &*pod.metadata.uid),
    ] {
        put(labels, name, text);
    }
    if let Some(owner) = &pod.metadata.owner_references.0 {
        put(labels, "pod_controller_kind", &*owner.kind);
        put(labels, "pod_controller_name", &*owner.name);
    }
    put_meta(labels, Kind::Pod, &pod.metadata);
}

/// A container of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPod<'a> {
    pub(super) container: &'a Container,
    pub(super) is_init: bool,
}

impl<'a> InPod<'a> {
    /// All of a pod: those that run, then those that ran before them.
    pub(super) fn all(pod: &'a Pod) -> impl Iterator<Item = Self> {
        let of = |all: &'a [Container], is_init| {
            let one = move |container| Self { container, is_init };
            all.iter().map(one)
        };
        of(&pod.spec.containers, false).chain(of(&pod.spec.init_containers, true))
    }

    /// What the runtime calls it; empty until it was started.
    pub(super) fn id(self, pod: &'a Pod) -> &'a str {
        let statuses = match self.is_init {
            false => &pod.status.container_statuses,
            true => &pod.status.init_container_statuses,
        };
        let mut statuses = statuses.iter();
        let own = statuses.find(|status| status.name == self.container.name);
        own.map_or("", |status| &status.container_id)
    }

    /// What every target of it has.
    pub(super) fn labels(self, labels: &mut Labels) {
        put(labels, "pod_container_name", &*self.container.name);
        put(labels, "pod_container_image", &*self.container.image);
        put(labels, "pod_container_init", self.is_init.to_string());
    }
}

/// The port of a container.
pub(super) fn container_port(labels: &mut Labels, port: &ContainerPort, protocol: &str) {
    put(labels, "pod_container_port_name", &*port.name);
    let number = port.container_port.to_string();
    put(labels, "pod_container_port_number", number);
    put(labels, "pod_container_port_protocol", protocol);
}
