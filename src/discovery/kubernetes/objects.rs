//! Turns the JSON of the Kubernetes API into what labels are made of, and nothing else.
//!
//! Fields that no label needs (`managedFields`, volumes, conditions of nodes, probes, ...) are passed over while
//! JSON is read: they are never in memory. What the API leaves out or gives as `null` is empty.
//!
//! # Invariants
//! - Two objects are equal when no label of theirs can differ: heartbeats and resource versions are no change.

use std::borrow::Cow;
use std::fmt;

use kube::core::{DynamicResourceScope, ObjectMeta, Resource};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

/// Kinds of objects that are watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
    Namespace,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::Endpoints,
        Self::EndpointSlice,
        Self::Ingress,
        Self::Namespace,
    ];

    /// What a role, a selector and a metric call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice",
            Self::Ingress => "ingress",
            Self::Namespace => "namespace",
        }
    }

    /// What a URL calls all of them.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslices",
            Self::Ingress => "ingresses",
            Self::Namespace => "namespaces",
        }
    }

    const fn group(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Ingress => "networking.k8s.io",
            _ => "",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Ingress => "Ingress",
            Self::Namespace => "Namespace",
        }
    }

    /// Whether each is in a namespace.
    pub(super) const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Namespace)
    }
}

/// An object of any kind.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Object {
    Node(Node),
    Pod(Box<Pod>),
    Service(Service),
    Endpoints(Endpoints),
    EndpointSlice(Box<EndpointSlice>),
    Ingress(Ingress),
    Namespace(Namespace),
}

impl Object {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Ingress(_) => Kind::Ingress,
            Self::Namespace(_) => Kind::Namespace,
        }
    }

    pub(super) const fn meta(&self) -> &Meta {
        match self {
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Endpoints(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Ingress(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
        }
    }
}

/// What can be watched.
pub(super) trait Known: DeserializeOwned + Clone + fmt::Debug + Send + 'static {
    const KIND: Kind;

    fn metadata(&mut self) -> &mut Meta;

    fn object(self) -> Object;
}

macro_rules! known {
    ($($kind:ident $(in $boxed:ident)?),*) => {
        $(impl Known for $kind {
            const KIND: Kind = Kind::$kind;

            fn metadata(&mut self) -> &mut Meta {
                &mut self.metadata
            }

            fn object(self) -> Object {
                Object::$kind($($boxed::new)?(self))
            }
        })*
    };
}

known!(
    Node,
    Pod in Box,
    Service,
    Endpoints,
    EndpointSlice in Box,
    Ingress,
    Namespace
);

/// An object as a watch needs it: its resource version is apart.
#[derive(Clone, Debug)]
pub(super) struct Versioned<T> {
    meta: ObjectMeta,
    pub(super) object: T,
}

impl<'de, T: Known> Deserialize<'de> for Versioned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = T::deserialize(deserializer)?;
        let version = std::mem::take(&mut object.metadata().resource_version);
        let meta = ObjectMeta {
            resource_version: (!version.is_empty()).then(|| version.into()),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, object })
    }
}

impl<T: Known> Resource for Versioned<T> {
    type DynamicType = ();
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.kind().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::KIND.group().into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::KIND.plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Labels or annotations, in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Texts(Box<[(Box<str>, Box<str>)]>);

impl Texts {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (&**name, &**text))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.iter();
        all.find_map(|(own, text)| (own == name).then_some(text))
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    all.push(pair);
                }
                all.sort_unstable();
                Ok(Texts(all.into()))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// `null` as what is not there.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A type whose fields may be missing or `null`.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $own:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(super) struct $name {
            $(
                $(#[$field])*
                #[serde(deserialize_with = "or_default")]
                pub(super) $own: $type,
            )*
        })*
    };
}

fields! {
    /// What every object has.
    Meta {
        name: Box<str>,
        namespace: Box<str>,
        uid: Box<str>,
        resource_version: Box<str>,
        labels: Texts,
        annotations: Texts,
        owner_references: Owners,
    }
    Owner {
        kind: Box<str>,
        name: Box<str>,
        controller: bool,
    }
    Namespace {
        metadata: Meta,
    }
    Node {
        metadata: Meta,
        spec: NodeSpec,
        status: NodeStatus,
    }
    NodeSpec {
        #[serde(rename = "providerID")]
        provider_id: Box<str>,
    }
    NodeStatus {
        addresses: Box<[NodeAddress]>,
        daemon_endpoints: DaemonEndpoints,
    }
    NodeAddress {
        #[serde(rename = "type")]
        kind: Box<str>,
        address: Box<str>,
    }
    DaemonEndpoints {
        kubelet_endpoint: DaemonEndpoint,
    }
    DaemonEndpoint {
        #[serde(rename = "Port")]
        port: i32,
    }
    Pod {
        metadata: Meta,
        spec: PodSpec,
        status: PodStatus,
    }
    PodSpec {
        node_name: Box<str>,
        containers: Box<[Container]>,
        init_containers: Box<[Container]>,
    }
    Container {
        name: Box<str>,
        image: Box<str>,
        ports: Box<[ContainerPort]>,
    }
    ContainerPort {
        name: Box<str>,
        container_port: i32,
        protocol: Box<str>,
    }
    PodStatus {
        phase: Box<str>,
        #[serde(rename = "podIP")]
        pod_ip: Box<str>,
        #[serde(rename = "hostIP")]
        host_ip: Box<str>,
        conditions: Ready,
        container_statuses: Box<[ContainerStatus]>,
        init_container_statuses: Box<[ContainerStatus]>,
    }
    Condition {
        #[serde(rename = "type")]
        kind: Box<str>,
        status: Box<str>,
    }
    ContainerStatus {
        name: Box<str>,
        #[serde(rename = "containerID")]
        container_id: Box<str>,
    }
    Service {
        metadata: Meta,
        spec: ServiceSpec,
    }
    ServiceSpec {
        #[serde(rename = "type")]
        kind: Box<str>,
        #[serde(rename = "clusterIP")]
        cluster_ip: Box<str>,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: Box<str>,
        external_name: Box<str>,
        ports: Box<[ServicePort]>,
    }
    ServicePort {
        name: Box<str>,
        port: i32,
        protocol: Box<str>,
    }
    Endpoints {
        metadata: Meta,
        subsets: Box<[Subset]>,
    }
    Subset {
        addresses: Box<[EndpointAddress]>,
        not_ready_addresses: Box<[EndpointAddress]>,
        ports: Box<[ServicePort]>,
    }
    EndpointAddress {
        ip: Box<str>,
        hostname: Box<str>,
        node_name: Option<Box<str>>,
        target_ref: Option<Reference>,
    }
    Reference {
        kind: Box<str>,
        namespace: Box<str>,
        name: Box<str>,
    }
    EndpointSlice {
        metadata: Meta,
        address_type: Box<str>,
        endpoints: Box<[Endpoint]>,
        ports: Box<[EndpointPort]>,
    }
    Endpoint {
        addresses: Box<[Box<str>]>,
        conditions: Conditions,
        hostname: Option<Box<str>>,
        node_name: Option<Box<str>>,
        zone: Option<Box<str>>,
        target_ref: Option<Reference>,
        deprecated_topology: Texts,
    }
    Conditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
    EndpointPort {
        name: Option<Box<str>>,
        port: Option<i32>,
        protocol: Option<Box<str>>,
        app_protocol: Option<Box<str>>,
    }
    Ingress {
        metadata: Meta,
        spec: IngressSpec,
    }
    IngressSpec {
        ingress_class_name: Option<Box<str>>,
        tls: Box<[IngressTls]>,
        rules: Box<[IngressRule]>,
    }
    IngressTls {
        hosts: Box<[Box<str>]>,
    }
    IngressRule {
        host: Box<str>,
        http: IngressPaths,
    }
    IngressPaths {
        paths: Box<[IngressPath]>,
    }
    IngressPath {
        path: Box<str>,
    }
}

/// The one owner that controls an object.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(from = "Vec<Owner>")]
pub(super) struct Owners(pub(super) Option<Box<Owner>>);

impl From<Vec<Owner>> for Owners {
    fn from(all: Vec<Owner>) -> Self {
        let controller = all.into_iter().find(|owner| owner.controller);
        Self(controller.map(Box::new))
    }
}

/// Whether a pod is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(from = "Vec<Condition>")]
pub(super) enum Ready {
    True,
    False,
    #[default]
    Unknown,
}

impl From<Vec<Condition>> for Ready {
    fn from(all: Vec<Condition>) -> Self {
        let ready = all
            .into_iter()
            .find(|condition| &*condition.kind == "Ready");
        match ready.as_ref().map(|condition| &*condition.status) {
            Some("True") => Self::True,
            Some("False") => Self::False,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_labels_need_makes_a_difference() {
        let pod = |version: &str, heartbeat: &str, ready: &str| {
            let pod: Versioned<Pod> = serde_json::from_value(json!({
                "metadata": {
                    "name": "p", "namespace": "n", "resourceVersion": version,
                    "managedFields": [{"manager": heartbeat, "fieldsV1": {"f:metadata": {}}}],
                    "ownerReferences": [
                        {"kind": "Other", "name": "o"},
                        {"kind": "ReplicaSet", "name": "r", "controller": true},
                    ],
                    "labels": {"b": "2", "a": "1"}, "annotations": null,
                },
                "spec": {"containers": [{"name": "c", "ports": null}], "initContainers": null},
                "status": {"podIP": "10.0.0.1", "conditions": [
                    {"type": "Initialized", "status": "True"},
                    {"type": "Ready", "status": ready, "lastProbeTime": heartbeat},
                ]},
            }))
            .unwrap();
            assert_eq!(pod.meta.resource_version.as_deref(), Some(version));
            pod.object
        };
        assert_eq!(pod("1", "x", "True"), pod("2", "y", "True"));
        assert_ne!(pod("1", "x", "True"), pod("1", "x", "False"));
        let pod = pod("1", "x", "Odd");
        assert_eq!(pod.status.conditions, Ready::Unknown);
        assert_eq!(&*pod.metadata.owner_references.0.unwrap().name, "r");
        let labels: Vec<_> = pod.metadata.labels.iter().collect();
        assert_eq!(labels, [("a", "1"), ("b", "2")]);
    }

    #[test]
    fn what_is_left_out_is_empty_and_what_is_wrong_an_error() {
        let slice = json!({"metadata": {"name": "s"}, "endpoints": null, "ports": null});
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
        assert_eq!(serde_json::from_str::<Node>("{}").unwrap(), Node::default());
        assert!(serde_json::from_value::<Pod>(json!({"metadata": 1})).is_err());
        assert!(serde_json::from_value::<Pod>(json!({"metadata": {"labels": [1]}})).is_err());
    }
}
