//! Turns the `http` block into who may speak to the agent's own address, and how.

use config::BodyReader;
use ingest::secure::{AuthOptions, TlsOptions};

use super::document::Document;
use super::tls_server::{self, read_auth, read_tls};

pub(crate) const NAME: &str = "http";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"http {
  tls {
    cert_file = "/etc/penstock/server.crt"
    key_file  = "/etc/penstock/server.key"
  }
  auth {
    basic {
      username = "scraper"
      password = sys.env("SCRAPER_PASSWORD")
    }
    filter {
      paths                       = ["/-/ready", "/-/healthy"]
      authenticate_matching_paths = false
    }
  }
}
"#,
    texts: &[
        ("", tls_server::TLS_TEXTS),
        ("", tls_server::AUTH_TEXTS),
        (
            "auth.filter",
            &[
                (
                    "authenticate_matching_paths",
                    "Whether `paths` alone need credentials, or all others.",
                ),
                (
                    "paths",
                    "What paths begin with; empty: every path needs credentials.",
                ),
            ],
        ),
        (
            "auth",
            &[("filter", "Which paths need credentials. Without it: all.")],
        ),
    ],
    metrics: &["penstock_http_server_"],
    failure: "- Certificates that cannot be used are logged once; those in use stay.\n",
};

/// What the agent's own server is told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HttpService {
    /// How it encrypts; none: not at all.
    pub(crate) tls: Option<TlsOptions>,
    /// Whom it lets in where; none: everybody.
    pub(crate) auth: Option<PathAuth>,
}

/// Credentials, and the paths they are needed for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PathAuth {
    /// The credentials.
    pub(crate) options: AuthOptions,
    /// What paths begin with; none: every path needs credentials.
    pub(crate) paths: Vec<String>,
    /// Whether these paths alone need credentials, or all others.
    pub(crate) is_for_matching: bool,
}

impl PathAuth {
    /// Whether a request for `path` needs credentials.
    pub(crate) fn covers(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        let mut prefixes = self.paths.iter();
        prefixes.any(|prefix| path.starts_with(prefix)) == self.is_for_matching
    }
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> HttpService {
    HttpService {
        tls: read_tls(r),
        auth: r.block("auth", read_path_auth),
    }
}

fn read_path_auth(r: &mut BodyReader<'_>) -> PathAuth {
    let options = read_auth(r);
    let filter = r.block("filter", |r| {
        let paths: Vec<String> = r.or("paths", Vec::new());
        if paths.iter().any(|path| !path.starts_with('/')) {
            r.refuse("paths", "must be a list of paths that begin with \"/\"");
        }
        (paths, r.or("authenticate_matching_paths", true))
    });
    let (paths, is_for_matching) = filter.unwrap_or((Vec::new(), true));
    PathAuth {
        options,
        paths,
        is_for_matching,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(text: &str) -> Result<HttpService, String> {
        decoded(text, read)
    }

    const BASIC: &str = "basic {\n username = \"u\"\n password = \"p\"\n}\n";

    fn auth(filter: &str) -> PathAuth {
        let text = format!("http {{\nauth {{\n{BASIC}{filter}}}\n}}\n");
        load(&text).unwrap().auth.unwrap()
    }

    #[test]
    fn nothing_given_lets_everybody_in() {
        assert_eq!(load("http {}\n").unwrap(), HttpService::default());
    }

    #[test]
    fn the_filter_says_which_paths_are_covered() {
        for (filter, covered) in [
            ("", [true, true, true]),
            ("filter {}\n", [true, true, true]),
            (
                "filter {\n authenticate_matching_paths = false\n}\n",
                [true, true, true],
            ),
            (
                "filter {\n paths = [\"/metrics\"]\n}\n",
                [true, false, false],
            ),
            (
                "filter {\n paths = [\"/-/\", \"/m\"]\n}\n",
                [true, true, false],
            ),
            (
                "filter {\n paths = [\"/-/\"]\n authenticate_matching_paths = false\n}\n",
                [true, false, true],
            ),
        ] {
            let auth = auth(filter);
            let found = ["/metrics", "/-/ready", "/"].map(|path| auth.covers(path));
            assert_eq!(found, covered, "{filter}");
        }
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, expected) in [
            ("http {\n auth {}\n}\n", "a:2:2: auth needs a basic block"),
            (
                "http {\n auth {\n bearer_tokens = [\"t\"]\n filter {\n paths = [\"x\"]\n}\n}\n}\n",
                "a:5:10: [\"x\"] must be a list of paths",
            ),
            (
                "http {\n tls {}\n}\n",
                "a:2:2: exactly one of cert_pem or cert_file",
            ),
            (
                "http {\n port = 1\n}\n",
                "unrecognized attribute name \"port\"",
            ),
        ] {
            let message = load(text).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
