//! Turns one object, and those it is joined with, into the targets it stands for.
//!
//! | role | a target for each |
//! |---|---|
//! | node | node that has an address |
//! | pod | port of each container of a pod that has an address; container without ports |
//! | service | port |
//! | ingress | path of each rule |
//! | endpoints, endpointslice | address and port (`endpoints`) |
//!
//! # Invariants
//! - What a target says of itself goes before what its object says.
//! - Whatever was looked up to make targets is named with them, found or not: when that object comes, changes or
//!   goes, the targets are made again.
//!
//! # Limits
//! - [`TARGETS_MAX`] of one object; the rest is not made, which is one too many for the component.

use config::Value;

use super::super::TARGETS_MAX;
use super::super::target::{ADDRESS, Labels, host_port, sanitized, value};
use super::labels::{self, InPod, put, put_meta, put_some, put_texts};
use super::objects::{Ingress, IngressRule, Kind, Namespace, Node, Object, Pod, Service};
use super::store::Objects;
use super::{AttachMetadata, endpoints};

/// An object that was looked up: its kind and key.
pub(super) type Need = (Kind, Box<str>);

/// What an object came to.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) targets: Vec<Value>,
    pub(super) needs: Vec<Need>,
}

/// Every target of an object of the role's kind.
pub(super) fn of(object: &Object, objects: &Objects, attach: AttachMetadata) -> Made {
    let mut maker = Maker {
        objects,
        attach,
        labels: Labels::new(),
        made: Made::default(),
    };
    match object {
        Object::Node(node) => maker.node(node),
        Object::Pod(pod) => maker.pod(pod),
        Object::Service(service) => maker.service(service),
        Object::Ingress(ingress) => maker.ingress(ingress),
        Object::Endpoints(all) => endpoints::endpoints(&mut maker, all),
        Object::EndpointSlice(slice) => endpoints::slice(&mut maker, slice),
        Object::Namespace(_) => {}
    }
    maker.made.needs.sort_unstable();
    maker.made.needs.dedup();
    maker.made
}

/// Makes the targets of one object.
pub(super) struct Maker<'a> {
    objects: &'a Objects,
    pub(super) attach: AttachMetadata,
    /// What all targets of the object have, unless they say otherwise.
    pub(super) labels: Labels,
    made: Made,
}

impl<'a> Maker<'a> {
    /// Adds a target.
    pub(super) fn add(&mut self, mut labels: Labels) {
        if self.is_full() {
            return;
        }
        for (name, text) in &self.labels {
            if !labels.contains_key(name) {
                labels.insert(name.clone(), text.clone());
            }
        }
        self.made.targets.push(value(labels));
    }

    /// Whether there are more than there may be.
    pub(super) const fn is_full(&self) -> bool {
        self.made.targets.len() > TARGETS_MAX
    }

    fn need(&mut self, kind: Kind, key: String) -> Option<&'a Object> {
        let found = self.objects.get(kind, &key);
        self.made.needs.push((kind, key.into()));
        found
    }

    pub(super) fn pod_of(&mut self, namespace: &str, name: &str) -> Option<&'a Pod> {
        match self.need(Kind::Pod, format!("{namespace}/{name}")) {
            Some(Object::Pod(pod)) => Some(pod),
            _ => None,
        }
    }

    pub(super) fn service_of(&mut self, namespace: &str, name: &str) -> Option<&'a Service> {
        match self.need(Kind::Service, format!("{namespace}/{name}")) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }

    fn node_of(&mut self, name: &str) -> Option<&'a Node> {
        match self.need(Kind::Node, name.to_owned()) {
            Some(Object::Node(node)) => Some(node),
            _ => None,
        }
    }

    fn namespace_of(&mut self, name: &str) -> Option<&'a Namespace> {
        match self.need(Kind::Namespace, name.to_owned()) {
            Some(Object::Namespace(namespace)) => Some(namespace),
            _ => None,
        }
    }

    /// The name of the namespace, and what it says of itself where that is wanted.
    pub(super) fn in_namespace(&mut self, name: &str) {
        put(&mut self.labels, "namespace", name);
        if self.attach.namespace
            && let Some(namespace) = self.namespace_of(name)
        {
            put_texts(&mut self.labels, Kind::Namespace, &namespace.metadata);
        }
    }

    /// What a node says of itself, where that is wanted.
    pub(super) fn on_node(&mut self, name: Option<&str>, labels: &mut Labels) {
        if self.attach.node
            && let Some(name) = name
            && let Some(node) = self.node_of(name)
        {
            put_meta(labels, Kind::Node, &node.metadata);
        }
    }

    fn node(&mut self, node: &Node) {
        // In this order, the first kind there is.
        const ADDRESSES: [&str; 6] = [
            "InternalIP",
            "InternalDNS",
            "ExternalIP",
            "ExternalDNS",
            "LegacyHostIP",
            "Hostname",
        ];
        let addresses = &node.status.addresses;
        let of_kind = |kind: &str| addresses.iter().find(|address| &*address.kind == kind);
        let Some(address) = ADDRESSES.into_iter().find_map(of_kind) else {
            return;
        };
        labels::node(&mut self.labels, node);
        let port = node.status.daemon_endpoints.kubelet_endpoint.port;
        let mut own = Labels::new();
        own.insert(ADDRESS.to_owned(), host_port(&address.address, port));
        own.insert("instance".to_owned(), (*node.metadata.name).to_owned());
        // The first of each kind.
        for address in addresses.iter().rev() {
            let kind = sanitized(&address.kind);
            put(&mut own, &format!("node_address_{kind}"), &*address.address);
        }
        self.add(own);
    }

    fn pod(&mut self, pod: &Pod) {
        // It is starting, or was evicted.
        if pod.status.pod_ip.is_empty() {
            return;
        }
        self.in_namespace(&pod.metadata.namespace);
        let mut labels = std::mem::take(&mut self.labels);
        self.on_node(Some(&pod.spec.node_name), &mut labels);
        labels::pod(&mut labels, pod);
        self.labels = labels;
        for of in InPod::all(pod) {
            let mut own = Labels::new();
            of.labels(&mut own);
            put(&mut own, "pod_container_id", of.id(pod));
            if of.container.ports.is_empty() {
                // Whoever scrapes it knows the port.
                own.insert(ADDRESS.to_owned(), (*pod.status.pod_ip).to_owned());
                self.add(own);
                continue;
            }
            for port in &of.container.ports {
                let mut own = own.clone();
                let address = host_port(&pod.status.pod_ip, port.container_port);
                own.insert(ADDRESS.to_owned(), address);
                labels::container_port(&mut own, port, &port.protocol);
                self.add(own);
            }
        }
    }

    fn service(&mut self, service: &Service) {
        let (meta, spec) = (&service.metadata, &service.spec);
        self.in_namespace(&meta.namespace);
        put_meta(&mut self.labels, Kind::Service, meta);
        for port in &spec.ports {
            let mut own = Labels::new();
            let host = format!("{}.{}.svc", meta.name, meta.namespace);
            own.insert(ADDRESS.to_owned(), host_port(&host, port.port));
            put(&mut own, "service_port_name", &*port.name);
            put(&mut own, "service_port_number", port.port.to_string());
            put(&mut own, "service_port_protocol", &*port.protocol);
            put(&mut own, "service_type", &*spec.kind);
            match &*spec.kind {
                "ExternalName" => put(&mut own, "service_external_name", &*spec.external_name),
                _ => put(&mut own, "service_cluster_ip", &*spec.cluster_ip),
            }
            if &*spec.kind == "LoadBalancer" {
                put(&mut own, "service_loadbalancer_ip", &*spec.load_balancer_ip);
            }
            self.add(own);
        }
    }

    fn ingress(&mut self, ingress: &Ingress) {
        self.in_namespace(&ingress.metadata.namespace);
        put_meta(&mut self.labels, Kind::Ingress, &ingress.metadata);
        let class = ingress.spec.ingress_class_name.as_deref();
        put_some(&mut self.labels, "ingress_class_name", class);
        for rule in &ingress.spec.rules {
            let scheme = scheme(ingress, rule);
            let given = rule.http.paths.iter().map(|path| &*path.path);
            // A rule without paths is one for all of them.
            let or_all = rule.http.paths.is_empty().then_some("");
            for path in given.chain(or_all) {
                let mut own = Labels::new();
                own.insert(ADDRESS.to_owned(), (*rule.host).to_owned());
                put(&mut own, "ingress_scheme", scheme);
                put(&mut own, "ingress_host", &*rule.host);
                let path = if path.is_empty() { "/" } else { path };
                put(&mut own, "ingress_path", path);
                self.add(own);
            }
        }
    }
}

/// Whether some certificate of the ingress is for the host of a rule.
fn scheme(ingress: &Ingress, rule: &IngressRule) -> &'static str {
    let mut hosts = ingress.spec.tls.iter().flat_map(|tls| &tls.hosts);
    match hosts.any(|pattern| is_for(pattern, &rule.host)) {
        true => "https",
        false => "http",
    }
}

/// Whether a name, or one whose first part is `*`, stands for a host.
fn is_for(pattern: &str, host: &str) -> bool {
    let wild = |pattern: &str| {
        let rest = pattern.strip_prefix("*.")?;
        let (_, of_host) = host.split_once('.')?;
        Some(rest == of_host)
    };
    pattern == host || wild(pattern).unwrap_or(false)
}
