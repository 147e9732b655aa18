//! Turns service discovery configurations into `discovery.*` components.
//!
//! Each kind is a list of what it holds, in the order the component's arguments have.

use super::http::{CLIENT, Client, client, tls};
use super::source::{Findings, Kind, Section};
use super::target::{Body, Field, field, text};

/// A kind of service discovery.
#[derive(Debug)]
pub(super) struct Discovery {
    /// The field of a scrape configuration it stands in.
    pub(super) source: &'static str,
    /// The component.
    pub(super) component: &'static str,
    parts: &'static [Part],
}

/// One thing after another of a component.
#[derive(Debug, Clone, Copy)]
enum Part {
    Fields(&'static [Field]),
    /// Repeated blocks: the field they come from, what they are called, what they hold.
    Blocks(&'static str, &'static str, &'static [Field]),
    /// A block that may be there.
    Block(&'static str, &'static [Field]),
    Http(Client),
    /// Of the forms of authentication only a token is known to the component.
    TokenHttp,
    Tls,
    AzureAuth,
}

const REFRESH_1M: Field = field("refresh_interval", Kind::Duration).or("1m0s");
const REFRESH_30S: Field = field("refresh_interval", Kind::Duration).or("30s");
const REFRESH_5M: Field = field("refresh_interval", Kind::Duration).or("5m0s");
const PORT_80: Field = field("port", Kind::Number).or("80");
const FILTER: &[Field] = &[text("name"), field("values", Kind::Texts)];

/// The kinds that have a component, in the order they are written.
pub(super) const KINDS: &[Discovery] = &[
    Discovery {
        source: "azure_sd_configs",
        component: "discovery.azure",
        parts: &[
            Part::Fields(&[
                text("environment").or("AzurePublicCloud"),
                PORT_80,
                text("subscription_id"),
            ]),
            Part::AzureAuth,
            Part::Fields(&[REFRESH_5M, text("resource_group")]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "consul_sd_configs",
        component: "discovery.consul",
        parts: &[
            Part::Fields(&[
                text("server").or("localhost:8500"),
                text("token"),
                text("datacenter"),
                text("namespace"),
                text("partition"),
                text("tag_separator").or(","),
                text("scheme").or("http"),
                text("username"),
                text("password"),
                field("allow_stale", Kind::Bool).or("true"),
                field("services", Kind::Texts),
                field("tags", Kind::Texts),
                field("node_meta", Kind::TextMap),
                REFRESH_30S,
            ]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "digitalocean_sd_configs",
        component: "discovery.digitalocean",
        parts: &[Part::Fields(&[REFRESH_1M, PORT_80]), Part::TokenHttp],
    },
    Discovery {
        source: "dns_sd_configs",
        component: "discovery.dns",
        parts: &[Part::Fields(&[
            field("names", Kind::Texts),
            REFRESH_30S,
            text("type").or("SRV"),
            field("port", Kind::Number),
        ])],
    },
    Discovery {
        source: "docker_sd_configs",
        component: "discovery.docker",
        parts: &[
            Part::Fields(&[
                text("host"),
                PORT_80,
                text("host_networking_host").or("localhost"),
                REFRESH_1M,
                field("match_first_network", Kind::Bool).or("true"),
            ]),
            Part::Blocks("filters", "filter", FILTER),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "dockerswarm_sd_configs",
        component: "discovery.dockerswarm",
        parts: &[
            Part::Fields(&[text("host"), text("role"), PORT_80]),
            Part::Blocks("filters", "filter", FILTER),
            Part::Fields(&[REFRESH_1M]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "ec2_sd_configs",
        component: "discovery.ec2",
        parts: &[
            Part::Fields(&[
                text("endpoint"),
                text("region"),
                text("access_key"),
                text("secret_key"),
                text("profile"),
                text("role_arn"),
                REFRESH_1M,
                PORT_80,
            ]),
            Part::Blocks("filters", "filter", FILTER),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "file_sd_configs",
        component: "discovery.file",
        parts: &[Part::Fields(&[field("files", Kind::Texts), REFRESH_5M])],
    },
    Discovery {
        source: "gce_sd_configs",
        component: "discovery.gce",
        parts: &[Part::Fields(&[
            text("project"),
            text("zone"),
            text("filter"),
            REFRESH_1M,
            PORT_80,
            text("tag_separator").or(","),
        ])],
    },
    Discovery {
        source: "http_sd_configs",
        component: "discovery.http",
        parts: &[
            // The reference writes these two out.
            Part::Http(Client {
                follow_redirects: ("true", "false"),
                enable_http2: ("true", "false"),
            }),
            Part::Fields(&[REFRESH_1M, text("url")]),
        ],
    },
    Discovery {
        source: "kubernetes_sd_configs",
        component: "discovery.kubernetes",
        parts: &[
            Part::Fields(&[text("api_server"), text("role"), text("kubeconfig_file")]),
            Part::Http(CLIENT),
            Part::Block(
                "namespaces",
                &[
                    field("own_namespace", Kind::Bool),
                    field("names", Kind::Texts),
                ],
            ),
            Part::Blocks(
                "selectors",
                "selectors",
                &[text("role"), text("label"), text("field")],
            ),
            Part::Block(
                "attach_metadata",
                &[field("node", Kind::Bool), field("namespace", Kind::Bool)],
            ),
        ],
    },
    Discovery {
        source: "kuma_sd_configs",
        component: "discovery.kuma",
        parts: &[
            Part::Fields(&[
                text("server"),
                field("refresh_interval", Kind::Duration).differs("15s", "30s"),
                field("fetch_timeout", Kind::Duration).or("2m0s"),
            ]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "linode_sd_configs",
        component: "discovery.linode",
        parts: &[
            Part::Fields(&[
                REFRESH_1M,
                PORT_80,
                text("tag_separator").or(","),
                text("region"),
            ]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "marathon_sd_configs",
        component: "discovery.marathon",
        parts: &[
            Part::Fields(&[
                field("servers", Kind::Texts),
                REFRESH_30S,
                text("auth_token"),
                text("auth_token_file"),
            ]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "nerve_sd_configs",
        component: "discovery.nerve",
        parts: &[Part::Fields(&[
            field("servers", Kind::Texts),
            field("paths", Kind::Texts),
            field("timeout", Kind::Duration).or("10s"),
        ])],
    },
    Discovery {
        source: "openstack_sd_configs",
        component: "discovery.openstack",
        parts: &[
            Part::Fields(&[
                text("identity_endpoint"),
                text("username"),
                text("userid"),
                text("password"),
                text("project_name"),
                text("project_id"),
                text("domain_name"),
                text("domain_id"),
                text("application_credential_name"),
                text("application_credential_id"),
                text("application_credential_secret"),
                text("role"),
                text("region"),
                REFRESH_1M,
                PORT_80,
                field("all_tenants", Kind::Bool),
            ]),
            Part::Tls,
            Part::Fields(&[text("availability").or("public")]),
        ],
    },
    Discovery {
        source: "scaleway_sd_configs",
        component: "discovery.scaleway",
        parts: &[
            Part::Fields(&[
                text("project_id"),
                text("role"),
                text("api_url").or("https://api.scaleway.com"),
                text("zone").or("fr-par-1"),
                text("access_key"),
                text("secret_key"),
                text("secret_key_file"),
                text("name_filter"),
                field("tags_filter", Kind::Texts),
                REFRESH_1M,
                PORT_80,
            ]),
            Part::Http(CLIENT),
        ],
    },
    Discovery {
        source: "triton_sd_configs",
        component: "discovery.triton",
        parts: &[
            Part::Fields(&[
                text("account"),
                text("role").or("container"),
                text("dns_suffix"),
                text("endpoint"),
                field("groups", Kind::Texts),
                field("port", Kind::Number).or("9163"),
                REFRESH_1M,
                field("version", Kind::Number).or("1"),
            ]),
            Part::Tls,
        ],
    },
];

/// Kinds that Prometheus has and nothing is converted to.
pub(super) const WITHOUT: &[&str] = &[
    "eureka_sd_configs",
    "hetzner_sd_configs",
    "ionos_sd_configs",
    "lightsail_sd_configs",
    "nomad_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
];

impl Discovery {
    /// The body of the component one entry becomes.
    pub(super) fn body(&self, mut section: Section<'_>, findings: &mut Findings) -> Body {
        let mut body = Body::default();
        for part in self.parts {
            match *part {
                Part::Fields(fields) => body.fields(&mut section, fields, findings),
                Part::Blocks(source, target, fields) => {
                    for mut inner in section.sections(source, findings) {
                        block(&mut inner, target, fields, &mut body, findings);
                        inner.finish(findings);
                    }
                }
                Part::Block(name, fields) => {
                    if let Some(mut inner) = section.section(name, findings) {
                        block(&mut inner, name, fields, &mut body, findings);
                        inner.finish(findings);
                    }
                }
                Part::Http(defaults) => client(&mut section, defaults, &mut body, findings),
                Part::TokenHttp => {
                    for (name, what) in [
                        ("basic_auth", "digitalocean_sd_configs basic_auth config"),
                        ("oauth2", "digitalocean_sd_configs oauth2 config"),
                    ] {
                        if section.take(name).is_some() {
                            findings.unsupported(what);
                            section.forget(name);
                        }
                    }
                    client(&mut section, CLIENT, &mut body, findings);
                }
                Part::Tls => tls(&mut section, &mut body, findings),
                Part::AzureAuth => azure_auth(&mut section, &mut body, findings),
            }
        }
        section.finish(findings);
        body
    }
}

fn block(
    section: &mut Section<'_>,
    name: &str,
    fields: &[Field],
    body: &mut Body,
    findings: &mut Findings,
) {
    let mut inner = Body::default();
    inner.fields(section, fields, findings);
    body.block(name, &inner);
}

/// The method says which of the fields count, and which block they become.
fn azure_auth(section: &mut Section<'_>, body: &mut Body, findings: &mut Findings) {
    const ALL: [&str; 3] = ["client_id", "tenant_id", "client_secret"];
    let method = section.text("authentication_method", findings);
    let (name, fields): (_, &[Field]) = match &*method {
        "ManagedIdentity" => ("managed_identity", &[text("client_id")]),
        "SDK" => ("sdk_auth", &[text("tenant_id")]),
        "WorkloadIdentity" => ("workload_identity", &[text("client_id"), text("tenant_id")]),
        _ => (
            "oauth",
            &[text("client_id"), text("tenant_id"), text("client_secret")],
        ),
    };
    block(section, name, fields, body, findings);
    for name in ALL {
        section.take(name);
    }
}
