//! Turns the HTTP client settings of a section into the arguments of the component they belong to.

use super::source::{Findings, Kind, Section};
use super::target::{Body, Field, field, text};

/// What differs between the components that are HTTP clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// `follow_redirects` and `enable_http2` where they are not given: in the source, in the target.
    pub(super) follow_redirects: (&'static str, &'static str),
    pub(super) enable_http2: (&'static str, &'static str),
}

pub(super) const CLIENT: Client = Client {
    follow_redirects: ("true", "true"),
    enable_http2: ("true", "true"),
};

const BASIC: &[Field] = &[text("username"), text("password"), text("password_file")];
const AUTHORIZATION: &[Field] = &[
    text("type").differs("Bearer", ""),
    text("credentials"),
    text("credentials_file"),
];
const OAUTH2: &[Field] = &[
    text("client_id"),
    text("client_secret"),
    text("client_secret_file"),
    field("scopes", Kind::Texts),
    text("token_url"),
    field("endpoint_params", Kind::TextMap),
];
const PROXY: &[Field] = &[
    text("proxy_url"),
    text("no_proxy"),
    field("proxy_from_environment", Kind::Bool),
    field("proxy_connect_header", Kind::ListMap),
];
const TLS: &[Field] = &[
    text("ca").becomes("ca_pem"),
    text("ca_file"),
    text("cert").becomes("cert_pem"),
    text("cert_file"),
    text("key").becomes("key_pem"),
    text("key_file"),
    text("server_name"),
    field("insecure_skip_verify", Kind::Bool),
    text("min_version"),
];

/// Writes everything a client may be told.
pub(super) fn client(
    section: &mut Section<'_>,
    client: Client,
    body: &mut Body,
    findings: &mut Findings,
) {
    if let Some(mut basic) = section.section("basic_auth", findings) {
        let mut inner = Body::default();
        inner.fields(&mut basic, BASIC, findings);
        basic.finish(findings);
        body.block("basic_auth", &inner);
    }
    authorization(section, body, findings);
    if let Some(mut oauth2) = section.section("oauth2", findings) {
        let mut inner = Body::default();
        inner.fields(&mut oauth2, OAUTH2, findings);
        inner.fields(&mut oauth2, PROXY, findings);
        tls(&mut oauth2, &mut inner, findings);
        oauth2.finish(findings);
        body.block("oauth2", &inner);
    }
    body.fields(section, PROXY, findings);
    tls(section, body, findings);
    let (follow, http2) = (client.follow_redirects, client.enable_http2);
    let rest = [
        field("follow_redirects", Kind::Bool).differs(follow.0, follow.1),
        field("enable_http2", Kind::Bool).differs(http2.0, http2.1),
    ];
    body.fields(section, &rest, findings);
    headers(section, body, findings);
}

/// Tokens given the old way become the block they stand for.
fn authorization(section: &mut Section<'_>, body: &mut Body, findings: &mut Findings) {
    let token = section.text("bearer_token", findings);
    let file = section.text("bearer_token_file", findings);
    let mut inner = Body::default();
    if let Some(mut authorization) = section.section("authorization", findings) {
        inner.fields(&mut authorization, AUTHORIZATION, findings);
        authorization.finish(findings);
    } else if token.is_empty() && file.is_empty() {
        return;
    } else {
        inner.value("type", Kind::Text, "Bearer");
        for (name, value) in [("credentials", &token), ("credentials_file", &file)] {
            if !value.is_empty() {
                inner.value(name, Kind::Text, value);
            }
        }
    }
    body.block("authorization", &inner);
}

/// Writes the `tls_config` block where there is something in it.
pub(super) fn tls(section: &mut Section<'_>, body: &mut Body, findings: &mut Findings) {
    let Some(mut tls) = section.section("tls_config", findings) else {
        return;
    };
    let mut inner = Body::default();
    inner.fields(&mut tls, TLS, findings);
    if tls.take("max_version").is_some() {
        findings.unsupported("HTTP Client max_version config");
    }
    tls.finish(findings);
    if !inner.is_empty() {
        body.block("tls_config", &inner);
    }
}

/// Headers by name: values, secrets or files; only the first two are in the text.
fn headers(section: &mut Section<'_>, body: &mut Body, findings: &mut Findings) {
    let Some(node) = section.take("http_headers") else {
        return;
    };
    let config::yaml::NodeKind::Map(fields) = &node.kind else {
        findings.fault(node.line, "cannot unmarshal http_headers into a map");
        return;
    };
    let mut lines = String::from("{\n");
    for (name, header) in fields {
        let mut header = Section::new(header, findings);
        let values = header.scalar("values", Kind::Texts, findings);
        let secrets = header.scalar("secrets", Kind::Texts, findings);
        if header.take("files").is_some() {
            findings.unsupported("HTTP Client http_headers files config");
        }
        header.finish(findings);
        if let Some(values) = values.or(secrets) {
            let name = super::source::quoted(name.text().unwrap_or_default());
            lines.push_str(&format!("{name} = {values},\n"));
        }
    }
    lines.push('}');
    body.attribute("http_headers", &lines);
}
