//! Turns the HTTP client arguments into what they mean.

use crate::component::document::Texts;

/// Everything but what is in [`TLS`] and [`PROXY`].
pub(crate) const CLIENT: Texts = &[
    ("authorization", "An `Authorization` header of any scheme."),
    (
        "authorization.credentials",
        "What follows the scheme. Not with `credentials_file`.",
    ),
    (
        "authorization.credentials_file",
        "A file with it, read again within a second of a change.",
    ),
    ("authorization.type", "The scheme; empty is `Bearer`."),
    (
        "bearer_token",
        "A token for `Authorization: Bearer`. Not with `bearer_token_file`.",
    ),
    (
        "bearer_token_file",
        "A file with it, read again within a second of a change.",
    ),
    ("enable_http2", "Whether HTTP/2 is offered."),
    (
        "follow_redirects",
        "Whether redirects that keep the body are followed. Credentials stay at their origin.",
    ),
    ("http_headers", "Further headers, each with its values."),
    (
        "oauth2",
        "A token by OAuth 2.0 client credentials, renewed 10 s before it expires.",
    ),
    ("oauth2.client_id", "Who asks for a token."),
    (
        "oauth2.client_secret",
        "Its secret. Not with `client_secret_file`.",
    ),
    (
        "oauth2.client_secret_file",
        "A file with it, read again within a second of a change.",
    ),
    (
        "oauth2.endpoint_params",
        "Further parameters of the token request.",
    ),
    ("oauth2.scopes", "Scopes to ask for."),
    ("oauth2.tls_config", "TLS to the token's server."),
    ("oauth2.token_url", "Where tokens are."),
    (
        "tls_config",
        "TLS of the connection. Changed files are used within 2 s, for new connections.",
    ),
];

/// A `basic_auth` block.
pub(crate) const BASIC: Texts = &[
    ("basic_auth", "User name and password."),
    (
        "basic_auth.password",
        "The password. Not with `password_file`.",
    ),
    (
        "basic_auth.password_file",
        "A file with it, read again within a second of a change.",
    ),
    ("basic_auth.username", "The user name."),
];

/// A `tls_config` block.
pub(crate) const TLS: Texts = &[
    ("ca_file", "As `ca_pem`, in a file."),
    (
        "ca_pem",
        "Certificates the server's may come from; none: those the machine trusts.",
    ),
    ("cert_file", "As `cert_pem`, in a file."),
    ("cert_pem", "The client's own certificate, with a key."),
    ("insecure_skip_verify", "Whether any certificate will do."),
    ("key_file", "As `key_pem`, in a file."),
    ("key_pem", "The key of the client's certificate."),
    (
        "min_version",
        "Oldest version: `TLS12` or `TLS13`; `TLS10` and `TLS11` mean 1.2, which is the oldest there is.",
    ),
    (
        "server_name",
        "The name the server's certificate must have; empty: the host of the URL.",
    ),
];

/// How to get there.
pub(crate) const PROXY: Texts = &[
    (
        "no_proxy",
        "Hosts, domains and networks that are reached without the proxy, separated by commas.",
    ),
    ("proxy_connect_header", "Headers for the proxy."),
    (
        "proxy_from_environment",
        "Whether `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count. Not with `proxy_url`.",
    ),
    ("proxy_url", "A proxy, http or https."),
];

/// Forms of auth that only endpoints of remote write have.
pub(crate) const CLOUDS: Texts = &[
    ("azuread", "Not supported: refused."),
    ("google_iam", "Not supported: refused."),
    (
        "sigv4",
        "Requests are signed by AWS Signature Version 4. Keys come from here, the profile, the environment or the shared credentials file.",
    ),
    ("sigv4.access_key", "The access key, with `secret_key`."),
    (
        "sigv4.external_id",
        "Refused unless empty: no role is assumed.",
    ),
    ("sigv4.profile", "A profile of the shared credentials file."),
    (
        "sigv4.region",
        "The region; empty: of the profile or the environment.",
    ),
    (
        "sigv4.role_arn",
        "Refused unless empty: no role is assumed.",
    ),
    ("sigv4.secret_key", "The secret key."),
    ("sigv4.service_name", "The service that is signed for."),
    (
        "sigv4.use_fips_sts_endpoint",
        "Refused if true: the token service is not used.",
    ),
];
