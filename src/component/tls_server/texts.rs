//! Turns the arguments of listeners for TLS and credentials into what they mean.

use crate::component::document::Texts;

/// A `tls` block.
pub(crate) const TLS: Texts = &[
    (
        "tls",
        "Encryption. Changed files are used within 2 s, for new connections.",
    ),
    ("tls.cert_file", "As `cert_pem`, in a file."),
    (
        "tls.cert_pem",
        "The certificate; one of the two must be given.",
    ),
    (
        "tls.cipher_suites",
        "Cipher suites by Go's names; empty: all there are.",
    ),
    (
        "tls.client_auth_type",
        "What clients have to show: `NoClientCert` (empty is the same), `RequestClientCert`, `RequireAnyClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`.",
    ),
    ("tls.client_ca_file", "As `client_ca_pem`, in a file."),
    (
        "tls.client_ca_pem",
        "Certificates that those of clients must come from.",
    ),
    (
        "tls.curve_preferences",
        "Curves by Go's names; empty: all there are.",
    ),
    ("tls.key_file", "As `key_pem`, in a file."),
    ("tls.key_pem", "The key; one of the two must be given."),
    ("tls.max_version", "Newest version; empty is `TLS13`."),
    (
        "tls.min_version",
        "Oldest version; empty is `TLS12`, and there are no older ones.",
    ),
];

/// An `auth` block.
pub(crate) const AUTH: Texts = &[
    ("auth", "Who is let in: by any of what is in it."),
    ("auth.basic", "A user name and a password."),
    ("auth.basic.password", "The password."),
    ("auth.basic.username", "The user name, without a colon."),
    (
        "auth.bearer_tokens",
        "Tokens of `Authorization: Bearer`, up to 64, any of which will do.",
    ),
];
