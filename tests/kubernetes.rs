//! Turns the objects of a Kubernetes API into targets, as others do, while objects and the API come and go.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::agent::Agent;
use crate::common::http::{get, is_ok};
use crate::common::kubernetes::{Fault, Gone, KubernetesApi, PLURALS, recorded};
use crate::common::process::{Process, debian};
use crate::common::{PATIENCE, eventually, on_free_port};
use crate::discovery::{Labels, all_exported, detail, until};

fn whole_api() -> KubernetesApi {
    let api = KubernetesApi::start();
    for kind in PLURALS {
        api.put(&recorded(kind));
    }
    api
}

/// What vmagent of this version does not know yet, and what belongs to a scrape.
fn is_apart(name: &str) -> bool {
    matches!(
        name,
        "job"
            | "__scheme__"
            | "__metrics_path__"
            | "__scrape_interval__"
            | "__scrape_timeout__"
            | "__meta_kubernetes_pod_container_id"
            | "__meta_kubernetes_pod_container_image"
            | "__meta_kubernetes_service_loadbalancer_ip"
            | "__meta_kubernetes_service_port_number"
    )
}

fn compared(targets: impl IntoIterator<Item = Labels>) -> BTreeSet<Labels> {
    let without = |mut labels: Labels| {
        labels.retain(|name, text| !is_apart(name) && !text.is_empty());
        labels
    };
    targets.into_iter().map(without).collect()
}

/// Every target of a job of vmagent, as it was found.
fn found_by_vmagent(port: u16, job: &str) -> BTreeSet<Labels> {
    let page = get(port, "/api/v1/targets?state=any").unwrap().text;
    let page: Value = serde_json::from_str(&page).unwrap();
    let lists = ["activeTargets", "droppedTargets"].into_iter();
    let all = lists.flat_map(|list| page["data"][list].as_array().cloned().unwrap_or_default());
    let labels = all.map(|target| -> Labels {
        serde_json::from_value(target["discoveredLabels"].clone()).unwrap()
    });
    compared(labels.filter(|labels| labels.get("job").is_some_and(|own| own == job)))
}

/// Looks for targets with vmagent.
fn vmagent(dir: &Path, config: &str) -> (Process, u16) {
    let path = dir.join("vmagent.yml");
    fs::write(&path, config).unwrap();
    on_free_port(|port| {
        let mut command = debian("/usr/bin/vmagent", "victoria-metrics");
        command
            .arg(format!("-promscrape.config={}", path.display()))
            .arg("-remoteWrite.url=http://127.0.0.1:9/")
            .arg(format!(
                "-remoteWrite.tmpDataPath={}",
                dir.join("vmagent").display()
            ))
            .arg("-enableTCP6")
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        let mut process = Process::start("vmagent", command, dir);
        process
            .is_up(|| is_ok(port, "/health"))
            .then_some((process, port))
    })
}

#[test]
fn what_is_found_is_what_vmagent_finds() {
    let dir = tempfile::tempdir().unwrap();
    let api = whole_api();
    let (mut theirs, mut ours) = ("scrape_configs:\n".to_owned(), String::new());
    let roles = [("node", 2), ("pod", 10), ("service", 4), ("ingress", 6)];
    for (role, _) in roles {
        let (attach, url) = (role == "pod", &api.url);
        theirs += &format!(
            "- job_name: {role}\n  kubernetes_sd_configs: [{{role: {role}, api_server: '{url}', \
             attach_metadata: {{node: {attach}}}}}]\n"
        );
        ours += &format!(
            "discovery.kubernetes \"{role}\" {{\n  role = \"{role}\"\n  api_server = \"{url}\"\n  \
             attach_metadata {{\n    node = {attach}\n  }}\n}}\n"
        );
    }
    let (_vmagent, port) = vmagent(dir.path(), &theirs);
    let agent = Agent::start_with(dir.path(), &[], |_| ours.clone());
    for (role, count) in roles {
        eventually(PATIENCE, || {
            let theirs = found_by_vmagent(port, role);
            let ours = compared(all_exported(
                &agent,
                &format!("discovery.kubernetes.{role}"),
            ));
            if theirs.len() == count && theirs == ours {
                return Ok(());
            }
            let only = |a: &BTreeSet<Labels>, b: &BTreeSet<Labels>| -> Vec<Labels> {
                a.difference(b).cloned().collect()
            };
            let (a, b) = (only(&theirs, &ours), only(&ours, &theirs));
            Err(format!("{role}: only theirs {a:#?}\nonly ours {b:#?}"))
        });
    }
}

fn pod(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
        "status": {"podIP": ip, "phase": "Running"},
    })
}

const ID: &str = "discovery.kubernetes.pods";
const ADDRESSES: (&str, &str, &str) = (ID, "targets", "__address__");

/// Watches the pods of one namespace that have labels.
fn component(access: &str) -> String {
    format!(
        "discovery.kubernetes \"pods\" {{\n  role = \"pod\"\n  {access}\n  selectors {{\n    \
         role = \"pod\"\n    label = \"app in (web, db)\"\n  }}\n  namespaces {{\n    \
         names = [\"shop\"]\n  }}\n}}\n"
    )
}

/// Whether requests are for the pods that are wanted, by who has that token.
fn are_asked_for(heads: &[String], token: &str) -> bool {
    let credentials = format!("\r\nauthorization: bearer {token}\r\n");
    let is_asked_for = |head: &String| {
        head.starts_with("GET /api/v1/namespaces/shop/pods?")
            && head.contains("labelSelector=app+in+%28web%2C+db%29")
            && head.to_lowercase().contains(&credentials)
    };
    !heads.is_empty() && heads.iter().all(is_asked_for)
}

#[test]
fn pods_come_and_go_while_the_api_is_away_forgets_and_forbids() {
    let dir = tempfile::tempdir().unwrap();
    let api = KubernetesApi::start();
    api.put(&pod("a", "10.0.0.1"));
    let server = format!("api_server = \"{}\"\n  bearer_token = \"hunter2\"", api.url);
    let agent = Agent::start_with(dir.path(), &[], |_| component(&server));
    until(&agent, ADDRESSES, &["10.0.0.1:80"]);
    let heads = api.heads();
    assert!(are_asked_for(&heads, "hunter2"), "{heads:#?}");
    api.put(&pod("b", "10.0.0.2"));
    until(&agent, ADDRESSES, &["10.0.0.1:80", "10.0.0.2:80"]);
    api.put(&pod("b", "10.0.0.3"));
    api.delete(&pod("a", ""));
    until(&agent, ADDRESSES, &["10.0.0.3:80"]);

    api.fail("", Fault::Away);
    let of = [("component_id", ID)];
    eventually(PATIENCE, || {
        match agent.metric("prometheus_sd_kubernetes_failures_total", &of) {
            count if count >= 1.0 => Ok(()),
            count => Err(format!("{count} failures")),
        }
    });
    api.put(&pod("c", "10.0.0.4"));
    api.forget(Gone::Event);
    api.heal();
    let last = ["10.0.0.3:80", "10.0.0.4:80"];
    until(&agent, ADDRESSES, &last);
    api.fail("pods", Fault::Status(403));
    eventually(PATIENCE, || {
        let info = detail(&agent, ID)["debugInfo"].to_string();
        match info.contains("pods in shop: watching: the answer is 403: pods is forbidden") {
            true => Ok(()),
            false => Err(info),
        }
    });
    assert_eq!(detail(&agent, ID)["health"]["state"], "healthy");
    until(&agent, ADDRESSES, &last);
    let log = agent.process.log();
    assert!(!log.contains("hunter2") && !log.contains("kube_"), "{log}");
    let added = [("component_id", ID), ("role", "pod"), ("event", "add")];
    let added = agent.metric("prometheus_sd_kubernetes_events_total", &added);
    assert!((added - 3.0).abs() < 0.5, "{added}");
}

#[test]
fn a_file_of_kubectl_says_where_the_api_is_and_its_token_changes() {
    let dir = tempfile::tempdir().unwrap();
    let api = KubernetesApi::start();
    api.put(&pod("a", "10.0.0.1"));
    let path = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{}'}}}}]\n\
         users: [{{name: u, user: {{tokenFile: token}}}}]\n",
        api.url
    );
    fs::write(&path, text).unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "first").unwrap();
    let file = format!("kubeconfig_file = \"{}\"", path.display());
    let agent = Agent::start_with(dir.path(), &[], |_| component(&file));
    until(&agent, ADDRESSES, &["10.0.0.1:80"]);
    let heads = api.heads();
    assert!(are_asked_for(&heads, "first"), "{heads:#?}");
    api.put(&pod("b", "10.0.0.2"));
    until(&agent, ADDRESSES, &["10.0.0.1:80", "10.0.0.2:80"]);
    api.delete(&pod("b", ""));
    until(&agent, ADDRESSES, &["10.0.0.1:80"]);

    fs::write(&token, "second").unwrap();
    eventually(PATIENCE, || {
        api.close();
        let heads = api.heads();
        match are_asked_for(&heads, "second") {
            true => Ok(()),
            false => Err(format!("{heads:#?}")),
        }
    });
}
