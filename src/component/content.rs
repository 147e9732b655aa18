//! Turns `local.file` and `remote.http` blocks into where a text is and how often to look at it.
//!
//! What they export is the text; whether it is a secret is an argument. The text of a file is exported as
//! it is, an answer without white space around it: both as in the reference.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::{BodyReader, OptionalSecret, Secret, Value};
use shipper::{HttpOptions, SecretSource};

use super::document::Document;
use super::http_client;

pub(crate) const FILE: &str = "local.file";
pub(crate) const HTTP: &str = "remote.http";

pub(crate) const FILE_DOCUMENT: Document = Document {
    example: r#"local.file "token" {
  filename  = "/etc/penstock/token"
  is_secret = true
}

prometheus.remote_write "out" {
  endpoint {
    url          = "http://backend:9090/api/v1/write"
    bearer_token = local.file.token.content
  }
}
"#,
    texts: &[(
        "",
        &[
            (
                "detector",
                "How changes are noticed: `fsnotify`, within a second, or `poll`.",
            ),
            ("filename", "The file, UTF-8, at most 16 MiB."),
            (
                "is_secret",
                "Whether its text is a secret, which is shown nowhere.",
            ),
            ("poll_frequency", "How often `poll` looks."),
        ],
    )],
    metrics: &[],
    failure: "- A file that cannot be read keeps the agent from starting. Later the component is unhealthy, and \
              the last text stays.\n",
};

pub(crate) const HTTP_DOCUMENT: Document = Document {
    example: r#"remote.http "targets" {
  url            = "https://config/url"
  poll_frequency = "5m"
}

prometheus.remote_write "out" {
  endpoint {
    url = convert.nonsensitive(remote.http.targets.content)
  }
}
"#,
    texts: &[
        (
            "",
            &[
                ("body", "The body of the request."),
                ("client", "Credentials, certificates and the way there."),
                ("headers", "Further headers."),
                (
                    "is_secret",
                    "Whether the text is a secret, which is shown nowhere.",
                ),
                (
                    "method",
                    "`GET`, `POST`, `PUT`, `HEAD`, `PATCH` or `DELETE`.",
                ),
                ("poll_frequency", "How often it asks."),
                ("poll_timeout", "How long an answer may take."),
                (
                    "url",
                    "Where the text is, http or https. Only 200 with UTF-8 of at most 16 MiB is an answer.",
                ),
            ],
        ),
        ("client", http_client::CLIENT_TEXTS),
        ("client", http_client::BASIC_TEXTS),
        ("client", http_client::PROXY_TEXTS),
        ("client.tls_config", http_client::TLS_TEXTS),
        ("client.oauth2", http_client::PROXY_TEXTS),
        ("client.oauth2.tls_config", http_client::TLS_TEXTS),
    ],
    metrics: &[],
    failure: "- Without a first answer the agent does not start. Later the component is unhealthy while there is \
              none, and the last text stays.\n",
};

/// How often a file is looked at where the reference would have the system tell of changes. Looking costs
/// one call, works on every file system, and sees a file that is replaced by a link.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A text from elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) fetch: Fetch,
    /// Time between looks.
    pub(crate) every: Duration,
    pub(crate) is_secret: bool,
}

/// Where a text comes from.
#[derive(Clone, Debug)]
pub(crate) enum Fetch {
    File(PathBuf),
    /// A file, or the configuration files of a directory.
    Module(PathBuf),
    Http(Box<HttpFetch>),
    Git(Box<GitFetch>),
}

/// A part of a repository.
#[derive(Clone, Debug)]
pub(crate) struct GitFetch {
    pub(crate) repository: String,
    pub(crate) revision: String,
    /// A file or directory in it.
    pub(crate) path: String,
    pub(crate) login: GitLogin,
}

/// How a repository lets us in.
#[derive(Clone, Debug, Default)]
pub(crate) enum GitLogin {
    #[default]
    None,
    Basic {
        username: String,
        password: SecretSource,
    },
    Ssh {
        username: String,
        key: SshKey,
        passphrase: Option<Secret>,
    },
}

/// A private key.
#[derive(Clone, Debug)]
pub(crate) enum SshKey {
    Text(Secret),
    File(PathBuf),
}

/// A request whose answer is the text.
#[derive(Clone, Debug)]
pub(crate) struct HttpFetch {
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) headers: BTreeMap<String, Secret>,
    pub(crate) body: String,
    pub(crate) timeout: Duration,
    pub(crate) http: HttpOptions,
}

impl Content {
    /// The value that is exported.
    pub(crate) fn export(&self, files: &[(String, String)]) -> Value {
        let text = files.first().map(|(_, text)| text.as_str());
        let text = text.unwrap_or_default();
        if self.is_secret {
            OptionalSecret::secret(text).into()
        } else {
            OptionalSecret::plain(text).into()
        }
    }
}

pub(crate) fn read_file(r: &mut BodyReader<'_>) -> Content {
    let file: String = r.required("filename");
    Content {
        fetch: Fetch::File(PathBuf::from(file)),
        every: read_detector(r),
        is_secret: r.or("is_secret", false),
    }
}

/// `detector` and `poll_frequency`, of files.
pub(crate) fn read_detector(r: &mut BodyReader<'_>) -> Duration {
    let detector = r.or("detector", "fsnotify".to_owned());
    let every = read_frequency(r);
    match detector.as_str() {
        "fsnotify" => WATCH_EVERY,
        "poll" => every,
        _ => {
            r.refuse("detector", "must be \"fsnotify\" or \"poll\"");
            every
        }
    }
}

fn read_frequency(r: &mut BodyReader<'_>) -> Duration {
    let every = r.or("poll_frequency", Duration::from_secs(60));
    if every.is_zero() {
        r.refuse("poll_frequency", "must be more than 0");
    }
    every
}

pub(crate) fn read_http(r: &mut BodyReader<'_>) -> Content {
    Content {
        is_secret: r.or("is_secret", false),
        ..read_request(r)
    }
}

/// What `remote.http` and `import.http` have in common.
pub(crate) fn read_request(r: &mut BodyReader<'_>) -> Content {
    let every = read_frequency(r);
    let timeout = r.or("poll_timeout", Duration::from_secs(10));
    if timeout.is_zero() {
        r.refuse("poll_timeout", "must be more than 0");
    }
    let url: String = r.required("url");
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    if !url.is_empty() && !is_http {
        r.refuse("url", "must begin with http:// or https://");
    }
    let method = r.or("method", "GET".to_owned());
    if !["GET", "POST", "PUT", "HEAD", "PATCH", "DELETE"].contains(&method.as_str()) {
        r.refuse("method", "is not a method of HTTP");
    }
    let defaults = HttpOptions::default();
    Content {
        fetch: Fetch::Http(Box::new(HttpFetch {
            url,
            method,
            headers: r.or("headers", BTreeMap::new()),
            body: r.or("body", String::new()),
            timeout,
            http: r
                .block("client", |r| http_client::read(r, &defaults, false))
                .unwrap_or_default(),
        })),
        every,
        is_secret: false,
    }
}

/// `import.file`.
pub(crate) fn read_import_file(r: &mut BodyReader<'_>) -> Content {
    let file: String = r.required("filename");
    Content {
        fetch: Fetch::Module(PathBuf::from(file)),
        every: read_detector(r),
        is_secret: false,
    }
}

/// `import.http`.
pub(crate) fn read_import_http(r: &mut BodyReader<'_>) -> Content {
    read_request(r)
}

/// `import.git`.
pub(crate) fn read_import_git(r: &mut BodyReader<'_>) -> Content {
    let every = r.or("pull_frequency", Duration::from_secs(60));
    if every.is_zero() {
        r.refuse("pull_frequency", "must be more than 0");
    }
    let basic = r.block("basic_auth", http_client::read_basic);
    let ssh = r.block("ssh_key", read_ssh_key).flatten();
    if basic.is_some() && ssh.is_some() {
        r.refuse_block("at most one of basic_auth & ssh_key must be configured");
    }
    let login = match (basic, ssh) {
        (Some(shipper::Auth::Basic { username, password }), _) => {
            GitLogin::Basic { username, password }
        }
        (_, Some(ssh)) => ssh,
        _ => GitLogin::None,
    };
    let repository: String = r.required("repository");
    let begins = |all: &[&str]| all.iter().any(|scheme| repository.starts_with(scheme));
    match login {
        GitLogin::Ssh { .. } if begins(&["http://", "https://", "file://"]) => {
            r.refuse(
                "repository",
                "must be ssh://user@host/path or user@host:path where there is an ssh_key",
            );
        }
        GitLogin::Basic { .. } if begins(&["ssh://"]) => {
            r.refuse("repository", "takes no basic_auth: use ssh_key");
        }
        _ => {}
    }
    Content {
        fetch: Fetch::Git(Box::new(GitFetch {
            repository,
            revision: r.or("revision", "HEAD".to_owned()),
            path: r.required("path"),
            login,
        })),
        every,
        is_secret: false,
    }
}

fn read_ssh_key(r: &mut BodyReader<'_>) -> Option<GitLogin> {
    let username: String = r.required("username");
    if username.starts_with('-') {
        r.refuse("username", "must not begin with -");
    }
    let key: Option<Secret> = r.optional("key");
    let file: Option<String> = r.optional("key_file");
    let passphrase = r.optional("passphrase");
    let key = match (key, file) {
        (Some(_), Some(_)) => {
            r.refuse_block("at most one of ssh_key key & key_file must be configured");
            return None;
        }
        (Some(key), None) => SshKey::Text(key),
        (None, Some(file)) => SshKey::File(PathBuf::from(file)),
        (None, None) => {
            r.refuse_block("one of ssh_key key & key_file must be configured");
            return None;
        }
    };
    Some(GitLogin::Ssh {
        username,
        key,
        passphrase,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with the body of an `import.git`.
    fn wrong(body: &str) -> String {
        let text = format!("import.git \"x\" {{\npath = \"p\"\n{body}\n}}");
        let file = config::parse("a", &text).unwrap();
        let all = config::check(&file.blocks[0], |r| drop(read_import_git(r)));
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.join("\n")
    }

    #[test]
    fn a_login_that_cannot_be_is_refused_where_it_stands() {
        let ssh = "repository = \"git@h:r\"";
        let key = "ssh_key {\nusername = \"git\"\nkey_file = \"k\"\n";
        for (body, want) in [
            (format!("{ssh}\n{key}}}"), ""),
            (format!("{ssh}\n{key}passphrase = \"hunter2\"\n}}"), ""),
            (
                format!("{ssh}\n{key}key = \"hunter2\"\n}}"),
                "a:4:1: at most one of ssh_key key & key_file must be configured",
            ),
            (
                format!("{ssh}\nssh_key {{\nusername = \"git\"\n}}"),
                "a:4:1: one of ssh_key key & key_file must be configured",
            ),
            (
                format!("{ssh}\nssh_key {{\nusername = \"-l\"\nkey_file = \"k\"\n}}"),
                "a:5:12: \"-l\" must not begin with -",
            ),
            (
                format!("{ssh}\nbasic_auth {{ }}\n{key}}}"),
                "a:1:1: at most one of basic_auth & ssh_key must be configured",
            ),
            (
                format!("repository = \"https://h/r\"\n{key}}}"),
                "a:3:14: \"https://h/r\" must be ssh://user@host/path or user@host:path where there is an ssh_key",
            ),
            (
                "repository = \"ssh://h/r\"\nbasic_auth { }".to_owned(),
                "a:3:14: \"ssh://h/r\" takes no basic_auth: use ssh_key",
            ),
        ] {
            assert_eq!(wrong(&body), want, "{body}");
        }
    }
}
