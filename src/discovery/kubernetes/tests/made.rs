//! What targets are made of objects: every label of every role, joins, bounds.

use std::fmt::Write;

use super::api::{PLURALS, recorded};
use super::*;
use crate::discovery::TARGETS_MAX;

fn store(role: Role, node: bool, namespace: bool) -> Store {
    Store::new(role, AttachMetadata { node, namespace }, OBJECTS_MAX)
}

/// The targets of everything that is recorded, a label a line.
fn golden(role: Role) -> String {
    let mut store = store(role, true, true);
    for kind in PLURALS {
        for one in recorded(kind).as_array().unwrap() {
            store.apply(object(one));
        }
    }
    store.make().unwrap();
    let mut text = String::new();
    for (key, group) in store.found() {
        writeln!(text, "{key}").unwrap();
        for target in group.unwrap().iter() {
            text.push_str("  target\n");
            for (name, value) in target.as_object().unwrap() {
                let config::Value::String(value) = value else {
                    panic!("{name} is no text");
                };
                let name = name.replace("__meta_kubernetes_", "");
                writeln!(text, "    {name} = {value:?}").unwrap();
            }
        }
    }
    text
}

/// What is expected is written with `PENSTOCK_WRITE_GOLDEN=1`, and read before it is committed.
#[test]
fn every_role_has_every_label() {
    for role in Role::ALL {
        let name = format!("tests/data/kubernetes/{}.txt", role.kind().name());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let found = golden(role);
        if std::env::var_os("PENSTOCK_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let want = std::fs::read_to_string(&path).unwrap();
        assert!(want == found, "{}:\n{found}", path.display());
    }
}

/// The store of endpoints of one pod.
fn joined() -> (Store, Value) {
    let mut store = store(Role::Endpoints, true, true);
    let endpoints = json!({
        "kind": "Endpoints", "metadata": {"name": "web", "namespace": "shop"},
        "subsets": [{"ports": [{"port": 80}], "addresses": [
            {"ip": "10.0.0.1", "nodeName": "n",
             "targetRef": {"kind": "Pod", "namespace": "shop", "name": "a"}}]}],
    });
    assert_eq!(store.apply(object(&endpoints)), Change::Added);
    (store, endpoints)
}

fn labels(store: &mut Store) -> String {
    store.make().unwrap();
    let found = store.found();
    let (_, group) = found.first().unwrap();
    let targets = group.as_ref().unwrap().iter().map(shown);
    let text = targets.collect::<Vec<_>>().join("\n");
    text.replace("__meta_kubernetes_", "")
}

#[test]
fn what_is_joined_later_changes_or_goes_makes_targets_again() {
    let (mut store, _) = joined();
    let own = "__address__=10.0.0.1:80 endpoint_address_target_kind=Pod \
               endpoint_address_target_name=a endpoint_node_name=n endpoint_ready=true \
               endpoints_name=web namespace=shop";
    assert_eq!(labels(&mut store), own);
    let labelled = |kind: &str, name: &str, namespace: Option<&str>, value: &str| {
        let labels = json!({"l": value});
        let meta = json!({"name": name, "namespace": namespace, "labels": labels});
        object(&json!({"kind": kind, "metadata": meta}))
    };
    for (kind, name, namespace) in [
        ("Pod", "a", Some("shop")),
        ("Service", "web", Some("shop")),
        ("Node", "n", None),
        ("Namespace", "shop", None),
    ] {
        let label = format!("{}_label_l", kind.to_lowercase());
        assert_eq!(
            store.apply(labelled(kind, name, namespace, "1")),
            Change::Added
        );
        assert_eq!(store.changed(), 1, "{kind}");
        let found = labels(&mut store);
        assert!(found.contains(&format!("{label}=1")), "{kind}: {found}");
        assert_eq!(
            store.apply(labelled(kind, name, namespace, "1")),
            Change::Nothing
        );
        assert_eq!(
            store.apply(labelled(kind, name, namespace, "2")),
            Change::Updated
        );
        let found = labels(&mut store);
        assert!(found.contains(&format!("{label}=2")), "{kind}: {found}");
    }
    for (kind, key) in [
        (Kind::Pod, "shop/a"),
        (Kind::Service, "shop/web"),
        (Kind::Node, "n"),
        (Kind::Namespace, "shop"),
    ] {
        assert_eq!(store.delete(kind, key), Change::Deleted);
        assert_eq!(store.delete(kind, key), Change::Nothing);
    }
    assert_eq!(labels(&mut store), own);
    // Who is of no concern changes nothing.
    store.apply(labelled("Pod", "b", Some("shop"), "1"));
    assert_eq!((store.changed(), store.len()), (0, 2));
    store.delete(Kind::Endpoints, "shop/web");
    store.make().unwrap();
    assert!(store.found().is_empty());
}

#[test]
fn of_ten_thousand_pods_only_the_one_that_changed_is_made_again() {
    let mut store = store(Role::Pod, false, false);
    let web = &recorded("pods")[0];
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    };
    let before = resident();
    for number in 0..10_000 {
        let mut pod = web.clone();
        pod["metadata"]["name"] = json!(format!("web-{number}"));
        pod["status"]["podIP"] = json!(format!("10.{}.{}.1", number / 256, number % 256));
        store.apply(object(&pod));
    }
    let objects = (resident() - before) / 10_000;
    store.make().unwrap();
    let all = (resident() - before) / 10_000;
    println!("{objects} B per pod, {all} B with its 6 targets");
    let first = store.found();
    let mut pod = web.clone();
    pod["metadata"]["name"] = json!("web-77");
    pod["status"]["phase"] = json!("Failed");
    store.apply(object(&pod));
    assert_eq!(store.changed(), 1);
    store.make().unwrap();
    let second = store.found();
    assert_eq!((first.len(), second.len()), (10_000, 10_000));
    let is_same = |((_, a), (_, b)): &(&(_, Result<_, _>), &(_, Result<_, _>))| {
        let groups: [&refresh::Group; 2] = [a.as_ref().unwrap(), b.as_ref().unwrap()];
        Arc::ptr_eq(groups[0], groups[1])
    };
    let same = first.iter().zip(&second).filter(is_same).count();
    assert_eq!(same, 9_999);
}

#[test]
fn there_are_no_more_targets_than_there_may_be() {
    let mut store = store(Role::EndpointSlice, false, false);
    let addresses = |count: usize| {
        let all = (0..count).map(|at| format!("10.0.{}.{}", at / 250, at % 250));
        json!([{"addresses": all.collect::<Vec<_>>()}])
    };
    let slice = |name: &str, ports: usize| {
        let ports: Vec<Value> = (0..ports).map(|port| json!({"port": port})).collect();
        object(&json!({
            "kind": "EndpointSlice", "metadata": {"name": name, "namespace": "n"},
            "endpoints": addresses(1_000), "ports": ports,
        }))
    };
    store.apply(slice("a", 60));
    store.make().unwrap();
    store.apply(slice("b", 60));
    let problem = store.make().unwrap_err();
    assert_eq!(problem, "120000 targets are more than 100000");
    assert_eq!(store.changed(), 1, "it is tried again");
    assert!(store.make().is_err());
    // One object alone does not make more either.
    store.apply(slice("a", 1_000));
    assert_eq!(
        store.make().unwrap_err(),
        format!("{} targets are more than 100000", TARGETS_MAX + 1)
    );
    store.apply(slice("a", 1));
    store.make().unwrap();
    let count: usize = store
        .found()
        .iter()
        .map(|(_, group)| group.as_ref().unwrap().len())
        .sum();
    assert_eq!(count, 61_000);
}

#[test]
fn there_are_no_more_objects_than_there_may_be() {
    let mut store = Store::new(Role::Pod, AttachMetadata::default(), 2);
    for (name, change) in [
        ("a", Change::Added),
        ("b", Change::Added),
        ("c", Change::Refused),
        ("a", Change::Nothing),
    ] {
        assert_eq!(store.apply(object(&pod(name, "1"))), change, "{name}");
    }
    assert_eq!(store.apply(object(&pod("a", "2"))), Change::Updated);
    store.delete(Kind::Pod, "shop/b");
    assert_eq!(store.apply(object(&pod("c", "1"))), Change::Added);
}

#[test]
fn only_what_is_needed_is_watched() {
    let place = |role: Role, attach: AttachMetadata, namespaces: &[&str]| KubernetesPlace {
        role,
        access: Access::InCluster,
        own_namespace: false,
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        selectors: vec![Selector {
            kind: Kind::Pod,
            label: "a=b".to_owned(),
            field: String::new(),
        }],
        attach,
    };
    let watched = |role: Role, node: bool, namespace: bool, names: &[&str]| {
        let place = place(role, AttachMetadata { node, namespace }, names);
        let all = place.wanted(None);
        let shown = all.iter().map(|one| match &one.label {
            Some(label) => format!("{} {label}", one.shown()),
            None => one.shown(),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(watched(Role::Node, true, true, &["x"]), "nodes");
    assert_eq!(watched(Role::Pod, false, false, &[]), "pods a=b");
    assert_eq!(
        watched(Role::Pod, true, true, &["y", "x", "y"]),
        "pods in x a=b, pods in y a=b, nodes, namespaces"
    );
    assert_eq!(watched(Role::Pod, false, false, &["x", ""]), "pods a=b");
    assert_eq!(
        watched(Role::Service, true, true, &[]),
        "services, namespaces"
    );
    assert_eq!(
        watched(Role::EndpointSlice, false, false, &["x"]),
        "endpointslices in x, pods in x a=b, services in x"
    );
    let own = place(Role::Ingress, AttachMetadata::default(), &[]).wanted(Some("me".to_owned()));
    assert_eq!(own[0].shown(), "ingresses in me");
}
