//! Objects as an API gives them, and an API that changes, forgets, fails and is away.

#[path = "../../../tests/common/kubernetes.rs"]
mod api;
mod made;
mod watched;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::super::target::tests::shown;
use super::objects::{
    EndpointSlice, Endpoints, Ingress, Known, Namespace, Node, Pod, Service, Versioned,
};
use super::*;

fn decoded<T: Known>(object: &Value) -> Object {
    let seen: Versioned<T> = serde_json::from_value(object.clone()).unwrap();
    seen.object.object()
}

fn object(object: &Value) -> Object {
    match object["kind"].as_str().unwrap() {
        "Node" => decoded::<Node>(object),
        "Pod" => decoded::<Pod>(object),
        "Service" => decoded::<Service>(object),
        "Endpoints" => decoded::<Endpoints>(object),
        "EndpointSlice" => decoded::<EndpointSlice>(object),
        "Ingress" => decoded::<Ingress>(object),
        "Namespace" => decoded::<Namespace>(object),
        kind => panic!("{kind} is not watched"),
    }
}

/// A pod of one port.
fn pod(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
        "status": {"podIP": ip, "phase": "Running"},
    })
}

/// The addresses of what was found, by the keys of objects; problems as they are.
fn addresses(found: &Found) -> BTreeMap<&str, String> {
    let address = |target: &config::Value| {
        let shown = shown(target);
        let first = shown.split(' ').next().unwrap();
        first.replace("__address__=", "")
    };
    let shown = |group: &Result<refresh::Group, String>| match group {
        Ok(group) => group.iter().map(address).collect::<Vec<_>>().join(" "),
        Err(problem) => problem.clone(),
    };
    let all = found.iter();
    all.map(|(key, group)| (key.as_str(), shown(group)))
        .collect()
}
