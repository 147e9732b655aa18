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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;
    use crate::discovery::KubernetesKind;

    fn load(body: &str) -> Result<KubernetesPlace, String> {
        match decoded(&format!("c \"x\" {{\n{body}\n}}\n"), read)?.place {
            Place::Kubernetes(place) => Ok(*place),
            place => panic!("{place:?}"),
        }
    }

    #[test]
    fn what_is_not_said_is_as_in_the_reference() {
        for role in KubernetesRole::ALL {
            let name = role.kind().name();
            let place = load(&format!("role = \"{name}\"")).unwrap();
            assert_eq!(place.role, role);
            assert!(matches!(place.access, Access::InCluster));
            assert!(!place.own_namespace && place.namespaces.is_empty());
            assert_eq!(place.attach, AttachMetadata::default());
        }
    }

    #[test]
    fn everything_is_read() {
        let place = load(
            "role = \"endpoints\"\nnamespaces {\n own_namespace = true\n names = [\"a\", \"b\"]\n}\n\
             selectors {\n role = \"pod\"\n label = \"a=b\"\n field = \"spec.nodeName=n\"\n}\n\
             selectors {\n role = \"service\"\n}\n\
             attach_metadata {\n node = true\n namespace = true\n}",
        )
        .unwrap();
        assert_eq!(place.namespaces, ["a", "b"]);
        assert!(place.own_namespace && place.attach.node && place.attach.namespace);
        let kinds = place.selectors.iter().map(|selector| selector.kind);
        let kinds: Vec<KubernetesKind> = kinds.collect();
        assert_eq!(kinds, [KubernetesKind::Pod, KubernetesKind::Service]);
        assert_eq!(place.selectors[0].field, "spec.nodeName=n");
        let place = load("role = \"pod\"\nkubeconfig_file = \"/k\"").unwrap();
        assert!(matches!(place.access, Access::Kubeconfig(_)));
        let place = load(
            "role = \"pod\"\napi_server = \"https://h:6443\"\noauth2 {\n client_id = \"c\"\n \
             token_url = \"https://t/\"\n}\ntls_config {\n ca_file = \"/ca\"\n}",
        );
        let Access::Server { url, http } = place.unwrap().access else {
            panic!("a server");
        };
        assert_eq!(url, "https://h:6443");
        assert!(http.tls.ca.is_some() && http.auth != shipper::Auth::None);
    }

    #[test]
    fn what_cannot_be_is_refused_where_it_stands() {
        let names = vec!["\"n\""; NAMESPACES_MAX + 1].join(", ");
        for (body, problem) in [
            ("", "a:1:1: missing required attribute \"role\""),
            ("role = \"pods\"", "a:2:8: \"pods\" unknown Kubernetes role"),
            (
                "role = \"pod\"\napi_server = \"h:1\"",
                "a:3:14: \"h:1\" must begin with http:// or https:// and have a host",
            ),
            (
                "role = \"pod\"\napi_server = \"http://h\"\nkubeconfig_file = \"/k\"",
                "cannot use 'kubeconfig_file' and 'api_server' simultaneously",
            ),
            (
                "role = \"pod\"\nbearer_token = \"hunter2\"\nkubeconfig_file = \"/k\"",
                "cannot use a custom HTTP client configuration together with 'kubeconfig_file'",
            ),
            (
                "role = \"pod\"\nkubeconfig_file = \"/k\"\nnamespaces {\n own_namespace = true\n}",
                "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously",
            ),
            (
                "role = \"pod\"\napi_server = \"http://h\"\nnamespaces {\n own_namespace = true\n}",
                "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously",
            ),
            (
                "role = \"pod\"\nbearer_token = \"hunter2\"",
                "a:1:1: to use custom HTTP client configuration please provide the 'api_server' URL",
            ),
            (
                "role = \"pod\"\nselectors {\n role = \"service\"\n}",
                "a:4:9: \"service\" pod role supports only pod selectors",
            ),
            (
                "role = \"endpointslice\"\nselectors {\n role = \"endpoints\"\n}",
                "endpointslice role supports only pod, service, endpointslice selectors",
            ),
            (
                "role = \"pod\"\nselectors {\n role = \"pod\"\n}\nselectors {\n role = \"pod\"\n}",
                "duplicated selector role: pod",
            ),
            (
                "role = \"pod\"\nselectors {\n role = \"pod\"\n label = \"a in b\"\n field = \"a\"\n}",
                "a:5:10: \"a in b\" is no label selector",
            ),
            (
                &format!("role = \"pod\"\nnamespaces {{\n names = [{names}]\n}}"),
                "257 are more than 256",
            ),
        ] {
            let found = load(body).err().unwrap();
            assert!(found.contains(problem), "{body}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
}
