//! Turns `remote_write` entries into the endpoints of a `prometheus.remote_write`.

use super::http::{CLIENT, Client, client};
use super::relabel::rules;
use super::source::{Findings, Kind, Section};
use super::target::{Body, Field, field, text};

/// Exemplars, and a retry after 429, are left at the target's default where nothing is said: as in the reference.
const ENDPOINT: &[Field] = &[
    text("name"),
    text("url"),
    field("remote_timeout", Kind::Duration).or("30s"),
    field("headers", Kind::TextMap),
    field("send_exemplars", Kind::Bool).or("true"),
    field("send_native_histograms", Kind::Bool),
    text("protobuf_message").or("prometheus.WriteRequest"),
    field("round_robin_dns", Kind::Bool),
];
const QUEUE: &[Field] = &[
    field("capacity", Kind::Number).or("10000"),
    field("max_shards", Kind::Number).or("50"),
    field("min_shards", Kind::Number).or("1"),
    field("max_samples_per_send", Kind::Number).or("2000"),
    field("batch_send_deadline", Kind::Duration).or("5s"),
    field("min_backoff", Kind::Duration).or("30ms"),
    field("max_backoff", Kind::Duration).or("5s"),
    field("retry_on_http_429", Kind::Bool).or("true"),
    field("sample_age_limit", Kind::Duration),
];
const METADATA: &[Field] = &[
    field("send", Kind::Bool).or("true"),
    field("send_interval", Kind::Duration).or("1m0s"),
    field("max_samples_per_send", Kind::Number).or("2000"),
];
const SIGV4: &[Field] = &[
    text("region"),
    text("access_key"),
    text("secret_key"),
    text("profile"),
    text("role_arn"),
    text("external_id"),
    field("use_fips_sts_endpoint", Kind::Bool),
    text("service_name").or("aps"),
];
const AZURE_FORMS: &[(&str, &[Field])] = &[
    ("managed_identity", &[text("client_id")]),
    (
        "oauth",
        &[text("client_id"), text("client_secret"), text("tenant_id")],
    ),
    ("sdk", &[text("tenant_id")]),
    (
        "workload_identity",
        &[
            text("client_id"),
            text("tenant_id"),
            text("token_file_path"),
        ],
    ),
];

/// Writes one endpoint.
pub(super) fn endpoint(mut section: Section<'_>, findings: &mut Findings) -> Body {
    let mut body = Body::default();
    body.fields(&mut section, ENDPOINT, findings);
    let defaults = Client {
        enable_http2: ("false", "false"),
        ..CLIENT
    };
    client(&mut section, defaults, &mut body, findings);
    for (name, fields) in [("queue_config", QUEUE), ("metadata_config", METADATA)] {
        let mut inner = Body::default();
        if let Some(mut given) = section.section(name, findings) {
            inner.fields(&mut given, fields, findings);
            given.finish(findings);
        }
        body.block(name, &inner);
    }
    let relabel = rules(
        &mut section,
        "write_relabel_configs",
        "write_relabel_config",
        findings,
    );
    body.append(&relabel);
    clouds(&mut section, &mut body, findings);
    section.finish(findings);
    body
}

fn clouds(section: &mut Section<'_>, body: &mut Body, findings: &mut Findings) {
    if let Some(mut sigv4) = section.section("sigv4", findings) {
        let mut inner = Body::default();
        inner.fields(&mut sigv4, SIGV4, findings);
        sigv4.finish(findings);
        body.block("sigv4", &inner);
    }
    if let Some(mut azure) = section.section("azuread", findings) {
        let mut inner = Body::default();
        for (name, fields) in AZURE_FORMS {
            if let Some(mut form) = azure.section(name, findings) {
                let mut block = Body::default();
                block.fields(&mut form, fields, findings);
                form.finish(findings);
                inner.block(name, &block);
            }
        }
        let rest = [text("cloud").or("AzurePublic"), text("scope")];
        inner.fields(&mut azure, &rest, findings);
        azure.finish(findings);
        body.block("azuread", &inner);
    }
    if let Some(mut google) = section.section("google_iam", findings) {
        let mut inner = Body::default();
        inner.fields(&mut google, &[text("credentials_file")], findings);
        google.finish(findings);
        body.block("google_iam", &inner);
    }
}
