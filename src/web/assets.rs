//! Turns the files of `ui/` into answers.
//!
//! They are in the binary as they are in the repository: nothing is built, so nothing can be stale.
//! `index.html` is the page; what it needs is below `assets/`, asked for by relative addresses, so that
//! it works below any prefix, also one that only a proxy knows of.
//!
//! # Invariants
//! - What is served runs nothing but files of this table ([`POLICY`]), and no other site may frame it.
//! - A path that is no file leads to the page, which finds it in the fragment: old bookmarks work.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use super::request::Asked;
use crate::server::{Answer, text, whole};

const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; object-src 'none'";
/// Asked for again each time, and answered with 304: a new binary is a new page at once.
const CACHE: &str = "no-cache";
const PAGE: &str = "index.html";

/// A file: its path below `ui/`, and what is in it.
macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        [$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/", $path)))),+]
    };
}

const FILES: &[(&str, &[u8])] = &files![
    "index.html",
    "assets/css/drawings.css",
    "assets/css/frame.css",
    "assets/css/pages.css",
    "assets/css/parts.css",
    "assets/css/tokens.css",
    "assets/icon.svg",
    "assets/js/announce.js",
    "assets/js/api.js",
    "assets/js/chart/line.js",
    "assets/js/chart/scale.js",
    "assets/js/contract.js",
    "assets/js/dom.js",
    "assets/js/format.js",
    "assets/js/graph/layout.js",
    "assets/js/graph/view.js",
    "assets/js/icons.js",
    "assets/js/log/geometry.js",
    "assets/js/log/picture.js",
    "assets/js/main.js",
    "assets/js/pages/cardinality.js",
    "assets/js/pages/cluster.js",
    "assets/js/pages/component.js",
    "assets/js/pages/components.js",
    "assets/js/pages/debug.js",
    "assets/js/pages/overview.js",
    "assets/js/pages/reservoir.js",
    "assets/js/parts/common.js",
    "assets/js/parts/endpoint.js",
    "assets/js/parts/ledger.js",
    "assets/js/parts/lines.js",
    "assets/js/parts/rejected.js",
    "assets/js/parts/statements.js",
    "assets/js/parts/writer.js",
    "assets/js/poll.js",
    "assets/js/router.js",
    "assets/js/theme.js",
    "assets/js/words.js",
];

/// A file as it is served.
#[derive(Debug)]
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    tag: HeaderValue,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let assets = FILES.iter().map(|(path, bytes)| Asset {
        path,
        kind: kind(path),
        bytes,
        tag: tag(bytes),
    });
    assets.collect()
});

/// What addresses of the page begin with, the reference's among them: bookmarks lead to it.
const ADDRESSES: [&str; 9] = [
    "cardinality",
    "cluster",
    "clustering",
    "component",
    "components",
    "debug",
    "graph",
    "overview",
    "reservoir",
];

/// The answer to a path below the prefix that is not of the API.
pub(super) fn answer(below: &str, asked: &Asked<'_>) -> Answer {
    // The page's addresses are relative to a directory.
    if below.is_empty() && !asked.path.ends_with('/') {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        return redirect(&format!("{last}/"));
    }
    let path = if below.is_empty() { PAGE } else { below };
    match ASSETS.iter().find(|asset| asset.path == path) {
        Some(asset) => file(asset, asked),
        None if ADDRESSES.contains(&path.split('/').next().unwrap_or_default()) => {
            let up = "../".repeat(path.matches('/').count());
            redirect(&format!("./{up}#/{path}"))
        }
        None => text(
            StatusCode::NOT_FOUND,
            "there is nothing of that name; there are the page at /, /metrics, /-/ready, \
             /-/healthy and /-/reload\n",
        ),
    }
}

fn file(asset: &Asset, asked: &Asked<'_>) -> Answer {
    let known = asked.headers.get_all(IF_NONE_MATCH).iter();
    let is_known = known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag.as_bytes() == asset.tag.as_bytes());
    let mut answer = if is_known {
        whole(StatusCode::NOT_MODIFIED, asset.kind, Bytes::new())
    } else {
        whole(StatusCode::OK, asset.kind, Bytes::from_static(asset.bytes))
    };
    let headers = answer.headers_mut();
    headers.insert(ETAG, asset.tag.clone());
    for (name, value) in [
        (CACHE_CONTROL, CACHE),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// To an address relative to the one asked for.
fn redirect(to: &str) -> Answer {
    // Paths of requests are ASCII; what is not would be a bug of the HTTP library.
    let Ok(location) = HeaderValue::from_str(to) else {
        return text(StatusCode::NOT_FOUND, "there is nothing of that name\n");
    };
    let mut answer = text(StatusCode::TEMPORARY_REDIRECT, "the page is elsewhere\n");
    let headers = answer.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// FNV-1a: tells contents apart, and is the same in every build.
fn tag(bytes: &[u8]) -> HeaderValue {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let text = format!("\"{hash:016x}\"");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use hyper::HeaderMap;

    use super::*;

    /// The one address of the page that is a name and not a place.
    const SVG: &str = "http://www.w3.org/2000/svg";

    fn asked<'a>(path: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
        Asked {
            path,
            query: "",
            headers,
            is_head: false,
        }
    }

    fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES
            .iter()
            .map(|(path, bytes)| (*path, std::str::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let mut dirs = vec![root.clone()];
        let mut found = BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                found.insert(name);
            }
        }
        assert!(found.remove("README.md"), "says how the page is made");
        let served: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(served, found);
        for asset in ASSETS.iter() {
            assert_ne!(asset.kind, "application/octet-stream", "{}", asset.path);
        }
    }

    /// What stands in quotes after one of `openings`.
    fn quoted<'t>(text: &'t str, openings: &[&str]) -> Vec<&'t str> {
        let after = |opening: &&str| text.split(*opening).skip(1).collect::<Vec<_>>();
        let pieces = openings.iter().flat_map(after);
        pieces.filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_reference_is_to_a_file_that_is_there() {
        let mut count = 0;
        for (path, text) in texts() {
            let openings: &[&str] = match path.rsplit('.').next() {
                Some("html") => &["src=\"", "href=\""],
                Some("js") => &["from \"", "import \"", "import(\""],
                _ => &["url(\"", "@import \""],
            };
            for reference in quoted(text, openings) {
                if reference.starts_with('#') {
                    continue;
                }
                let mut target = PathBuf::from(path);
                target.pop();
                for part in reference.split('/') {
                    match part {
                        ".." => assert!(target.pop(), "{path}: {reference}"),
                        "." => {}
                        part => target.push(part),
                    }
                }
                let target = target.display().to_string();
                let is_there = FILES.iter().any(|(path, _)| *path == target);
                assert!(is_there, "{path} refers to {reference}");
                count += 1;
            }
        }
        assert!(count > 50, "only {count} were looked at");
    }

    #[test]
    fn nothing_points_outside_and_no_markup_is_made_of_data() {
        let never = [
            "://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
            "DOMParser",
            "javascript:",
            "cssText",
        ];
        for (path, text) in texts() {
            let text = text.replace(SVG, "");
            for word in never {
                assert!(!text.contains(word), "{path}: {word}");
            }
            let is_inline = path.ends_with(".html")
                && (text.contains("<style") || text.contains(" style=\"") || text.contains(" on"));
            assert!(!is_inline, "{path}: the policy allows nothing inline");
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        let first = answer("assets/js/main.js", &asked("/assets/js/main.js", &headers));
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[CONTENT_SECURITY_POLICY], POLICY);
        let tag = first.headers()[ETAG].clone();
        let other = answer("", &asked("/", &headers));
        assert_ne!(other.headers()[ETAG], tag);
        headers.insert(IF_NONE_MATCH, tag.clone());
        let again = answer("assets/js/main.js", &asked("/assets/js/main.js", &headers));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[ETAG], tag);
        let several = format!("\"a\", W/{}", tag.to_str().unwrap());
        headers.insert(IF_NONE_MATCH, several.parse().unwrap());
        let again = answer("assets/js/main.js", &asked("/assets/js/main.js", &headers));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn its_addresses_lead_to_the_page_and_other_paths_nowhere() {
        let headers = HeaderMap::new();
        for (path, below, to) in [
            ("/p", "", "p/"),
            ("/p/graph", "graph", "./#/graph"),
            ("/component/a.b", "component/a.b", "./../#/component/a.b"),
            ("/debug/b/", "debug/b/", "./../../#/debug/b/"),
        ] {
            let answer = answer(below, &asked(path, &headers));
            assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
            assert_eq!(answer.headers()[LOCATION], to, "{path}");
        }
        for below in ["assets/js/none.js", "api/v0/other", "a/b", "/other.example"] {
            let missing = answer(below, &asked(&format!("/{below}"), &headers));
            assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        }
    }
}
