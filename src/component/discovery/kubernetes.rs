//! Turns `discovery.kubernetes` blocks into clusters to watch.

use std::time::Duration;

use config::BodyReader;
use shipper::HttpOptions;

use super::selector;
use crate::component::http_client;
use crate::discovery::{
    Access, AttachMetadata, Discovery, KubernetesPlace, KubernetesRole, NAMESPACES_MAX, Place,
    Selector,
};

const ROLES: &str = "pod, service, endpoints, endpointslice, node or ingress";

pub(crate) fn read(r: &mut BodyReader<'_>) -> Discovery {
    let name: String = r.required("role");
    let role = KubernetesRole::from_name(&name);
    if r.has_attribute("role") && role.is_none() {
        r.refuse(
            "role",
            format!("unknown Kubernetes role, expecting one of: {ROLES}"),
        );
    }
    let role = role.unwrap_or(KubernetesRole::Pod);
    let (own_namespace, namespaces) = read_namespaces(r);
    let access = read_access(r, own_namespace);
    let selectors = read_selectors(r, role);
    let attach = r.block("attach_metadata", |r| AttachMetadata {
        node: r.or("node", false),
        namespace: r.or("namespace", false),
    });
    Discovery {
        place: Place::Kubernetes(Box::new(KubernetesPlace {
            role,
            access,
            own_namespace,
            namespaces,
            selectors,
            attach: attach.unwrap_or_default(),
        })),
        every: Duration::ZERO,
    }
}

fn read_namespaces(r: &mut BodyReader<'_>) -> (bool, Vec<String>) {
    let read = r.block("namespaces", |r| {
        let names: Vec<String> = r.or("names", Vec::new());
        if names.len() > NAMESPACES_MAX {
            let problem = format!(
                "{} are more than {NAMESPACES_MAX}: without names all namespaces are watched at once",
                names.len()
            );
            r.refuse("names", problem);
        }
        (r.or("own_namespace", false), names)
    });
    read.unwrap_or_default()
}

fn read_access(r: &mut BodyReader<'_>, own_namespace: bool) -> Access {
    let server = r.or("api_server", String::new());
    let file = r.or("kubeconfig_file", String::new());
    let http = http_client::read(r, &HttpOptions::default(), false);
    let is_http = reqwest::Url::parse(&server)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !server.is_empty() && !is_http {
        let problem = "must begin with http:// or https:// and have a host";
        r.refuse("api_server", problem);
    }
    let is_custom = http != HttpOptions::default();
    if !file.is_empty() {
        if !server.is_empty() {
            let problem = "cannot use 'kubeconfig_file' and 'api_server' simultaneously";
            r.refuse("kubeconfig_file", problem);
        } else if is_custom {
            let problem =
                "cannot use a custom HTTP client configuration together with 'kubeconfig_file'";
            r.refuse("kubeconfig_file", problem);
        } else if own_namespace {
            let problem =
                "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously";
            r.refuse("kubeconfig_file", problem);
        }
        return Access::Kubeconfig(file.into());
    }
    if !server.is_empty() {
        if own_namespace {
            let problem = "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously";
            r.refuse("api_server", problem);
        }
        let http = Box::new(http);
        return Access::Server { url: server, http };
    }
    if is_custom {
        let problem = "to use custom HTTP client configuration please provide the 'api_server' URL \
                       explicitly";
        r.refuse_block(problem);
    }
    Access::InCluster
}

fn read_selectors(r: &mut BodyReader<'_>, role: KubernetesRole) -> Vec<Selector> {
    let allowed = role.selectable();
    let mut found: Vec<Selector> = Vec::new();
    r.blocks("selectors", |r| {
        let name: String = r.required("role");
        let kind = allowed.iter().copied().find(|kind| kind.name() == name);
        if r.has_attribute("role") && kind.is_none() {
            let names: Vec<&str> = allowed.iter().map(|kind| kind.name()).collect();
            let (role, names) = (role.kind().name(), names.join(", "));
            r.refuse(
                "role",
                format!("{role} role supports only {names} selectors"),
            );
        }
        let is_again = kind.is_some_and(|kind| found.iter().any(|one| one.kind == kind));
        if is_again {
            r.refuse("role", format!("duplicated selector role: {name}"));
        }
        let label = r.or("label", String::new());
        let field = r.or("field", String::new());
        for (argument, text, check) in [
            ("label", &label, selector::wrong_label as fn(&str) -> _),
            ("field", &field, selector::wrong_field),
        ] {
            if let Some(wrong) = check(text) {
                r.refuse(argument, format!("is no {argument} selector: {wrong:?}"));
            }
        }
        if let Some(kind) = kind {
            found.push(Selector { kind, label, field });
        }
    });
    found
}
