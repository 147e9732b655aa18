//! Turns a url into the proxy on the way to it.
//!
//! The rules are those of the reference's runtime, not reqwest's: a `no_proxy` entry may have a
//! port, and one that begins with a dot does not mean the domain itself.
//!
//! # Invariants
//! - Rules from the environment or with a `no_proxy` list never send `localhost` or a loopback
//!   address through a proxy; a `proxy_url` alone takes everything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::header::HeaderMap;

use super::options::{InvalidOption, header_map};
use super::secret::Secret;

/// The way to a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProxyOptions {
    /// The proxy; secret because it may hold a password.
    pub proxy_url: Option<Secret>,
    /// Where the proxy is not used: addresses, networks and domains, separated by commas.
    pub no_proxy: String,
    /// Whether `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say which proxy is used.
    pub from_environment: bool,
    /// Headers for the proxy.
    pub connect_headers: BTreeMap<String, Vec<Secret>>,
}

impl ProxyOptions {
    pub(super) fn validate(&self) -> Result<(), InvalidOption> {
        let has_url = self.proxy_url.is_some();
        let rules = [
            (
                "proxy_from_environment",
                self.from_environment && has_url,
                "if proxy_from_environment is configured, proxy_url must not be configured",
            ),
            (
                "proxy_from_environment",
                self.from_environment && !self.no_proxy.is_empty(),
                "if proxy_from_environment is configured, no_proxy must not be configured",
            ),
            (
                "no_proxy",
                !self.no_proxy.is_empty() && !has_url,
                "if no_proxy is configured, proxy_url must also be configured",
            ),
            (
                "proxy_connect_header",
                !self.connect_headers.is_empty() && !has_url && !self.from_environment,
                "if proxy_connect_header is configured, proxy_url or proxy_from_environment must \
                 also be configured",
            ),
        ];
        if let Some((option, _, problem)) = rules.into_iter().find(|(_, broken, _)| *broken) {
            return Err(InvalidOption::new(option, problem));
        }
        self.headers()?;
        match &self.proxy_url {
            Some(url) => parse_proxy(url.expose(), "proxy_url").map(drop),
            None => Ok(()),
        }
    }

    /// The headers for the proxy, marked sensitive.
    pub(super) fn headers(&self) -> Result<HeaderMap, InvalidOption> {
        let headers = self.connect_headers.iter();
        let headers =
            headers.flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        header_map(headers).map_err(|problem| InvalidOption::new("proxy_connect_header", problem))
    }
}

/// Which proxy is used for what.
#[derive(Clone)]
pub(super) struct ProxyRules {
    http: Option<Url>,
    https: Option<Url>,
    except: Exceptions,
}

impl ProxyRules {
    /// The rules of valid options, or what is wrong with the environment.
    pub(super) fn new(
        options: &ProxyOptions,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidOption> {
        if !options.from_environment {
            let url = options.proxy_url.as_ref();
            let url = url.map(|url| parse_proxy(url.expose(), "proxy_url"));
            let url = url.transpose()?;
            return Ok(Self {
                http: url.clone(),
                https: url,
                except: Exceptions::parse(&options.no_proxy, !options.no_proxy.is_empty()),
            });
        }
        let either = |upper: &str| {
            let value = environment(upper).filter(|value| !value.is_empty());
            value.or_else(|| environment(&upper.to_lowercase()).filter(|value| !value.is_empty()))
        };
        let proxy = |name: &'static str| {
            let url = either(name).map(|url| {
                let url = if url.contains("://") {
                    url
                } else {
                    format!("http://{url}")
                };
                parse_proxy(&url, name)
            });
            url.transpose()
        };
        // of a CGI program HTTP_PROXY is the client's header "Proxy"
        let is_cgi = environment("REQUEST_METHOD").is_some_and(|method| !method.is_empty());
        Ok(Self {
            http: if is_cgi { None } else { proxy("HTTP_PROXY")? },
            https: proxy("HTTPS_PROXY")?,
            except: Exceptions::parse(&either("NO_PROXY").unwrap_or_default(), true),
        })
    }

    /// Whether there is a proxy at all.
    pub(super) const fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy on the way to `url`.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref()?,
            _ => self.http.as_ref()?,
        };
        (!self.except.contains(url)).then(|| proxy.clone())
    }
}

/// A proxy's url, which is not repeated where it cannot be used: it may hold a password.
fn parse_proxy(url: &str, option: &'static str) -> Result<Url, InvalidOption> {
    let url = Url::parse(url).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            let problem = "must begin with http:// or https:// and have a host";
            InvalidOption::new(option, problem)
        })
}

/// What is reached without a proxy.
#[derive(Clone)]
struct Exceptions {
    all: bool,
    loopback: bool,
    entries: Vec<Exception>,
}

#[derive(Clone)]
struct Exception {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone)]
enum Host {
    Network(IpNet),
    /// A domain with its leading dot, and whether it is meant itself.
    Domain {
        suffix: String,
        itself: bool,
    },
}

impl Exceptions {
    fn parse(list: &str, loopback: bool) -> Self {
        let list = list.to_lowercase();
        let entries = list.split(',').map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        Self {
            all: entries.clone().any(|entry| entry == "*"),
            loopback,
            entries: entries.filter_map(Exception::parse).collect(),
        }
    }

    fn contains(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.').to_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let is_loopback = host == "localhost" || address.is_some_and(|ip| ip.is_loopback());
        let port = url.port_or_known_default();
        self.all
            || (self.loopback && is_loopback)
            || self
                .entries
                .iter()
                .any(|entry| entry.matches(&host, address, port))
    }
}

impl Exception {
    /// Nothing for what is neither an address, a network nor a domain: it cannot match.
    fn parse(entry: &str) -> Option<Self> {
        if let Ok(network) = entry.parse() {
            return Some(Self {
                host: Host::Network(network),
                port: None,
            });
        }
        let (host, port) = split_port(entry);
        let host = match host.parse::<IpAddr>() {
            Ok(address) => Host::Network(address.into()),
            Err(_) => {
                let host = host.strip_prefix('*').unwrap_or(host);
                let itself = !host.starts_with('.');
                let domain = host.trim_start_matches('.');
                if domain.is_empty() {
                    return None;
                }
                Host::Domain {
                    suffix: format!(".{domain}"),
                    itself,
                }
            }
        };
        Some(Self { host, port })
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        let is_host = match &self.host {
            Host::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Host::Domain { suffix, itself } => {
                host.ends_with(suffix) || (*itself && suffix.strip_prefix('.') == Some(host))
            }
        };
        is_host && (self.port.is_none() || self.port == port)
    }
}

/// `host`, `host:port`, `[address]:port` or a bare address of version 6.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let bare = |host: &'_ str| host.parse::<IpAddr>().is_ok();
    match entry.rsplit_once(':') {
        Some((host, port)) if !bare(entry) && port.parse::<u16>().is_ok() => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (host, port.parse().ok())
        }
        _ => (entry.trim_start_matches('[').trim_end_matches(']'), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy:3128/";

    fn used(rules: &ProxyRules, url: &str) -> Option<String> {
        let url = Url::parse(url).unwrap();
        rules.proxy_for(&url).map(|proxy| proxy.to_string())
    }

    fn with_exceptions(no_proxy: &str) -> ProxyRules {
        let options = ProxyOptions {
            proxy_url: Some(PROXY.into()),
            no_proxy: no_proxy.into(),
            ..ProxyOptions::default()
        };
        options.validate().unwrap();
        ProxyRules::new(&options, |_| panic!("not asked")).unwrap()
    }

    fn from(environment: &[(&str, &str)]) -> Result<ProxyRules, InvalidOption> {
        let options = ProxyOptions {
            from_environment: true,
            ..ProxyOptions::default()
        };
        ProxyRules::new(&options, |name| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_proxy_url_alone_takes_everything() {
        let rules = with_exceptions("");
        for url in [
            "http://a/",
            "https://a/",
            "http://localhost/",
            "http://[::1]/",
        ] {
            assert_eq!(used(&rules, url).as_deref(), Some(PROXY), "{url}");
        }
    }

    #[test]
    fn exceptions_are_addresses_networks_domains_and_ports() {
        for (entry, direct, proxied) in [
            ("10.1.2.3", "http://10.1.2.3:9/", "http://10.1.2.4/"),
            ("10.0.0.0/8", "http://10.9.9.9/", "http://11.0.0.1/"),
            ("fd00::/8", "http://[fd00::1]/", "http://[fe00::1]/"),
            ("::2", "http://[::2]/", "http://[::3]/"),
            ("[::2]:80", "http://[::2]/", "http://[::2]:81/"),
            ("foo.com", "http://foo.com/", "http://afoo.com/"),
            ("foo.com", "http://a.foo.com/", "http://foo.com.a/"),
            (".foo.com", "http://a.foo.com/", "http://foo.com/"),
            ("*.foo.com", "https://A.Foo.Com./", "http://foo.com/"),
            ("foo.com:443", "https://foo.com/", "http://foo.com/"),
            (" FOO.com , b", "http://foo.com/", "http://c/"),
            ("b", "http://localhost/", "http://c/"),
            ("b", "http://127.9.9.9/", "http://128.0.0.1/"),
        ] {
            let rules = with_exceptions(entry);
            assert_eq!(used(&rules, direct), None, "{entry}: {direct}");
            assert_eq!(
                used(&rules, proxied).as_deref(),
                Some(PROXY),
                "{entry}: {proxied}"
            );
        }
        assert_eq!(used(&with_exceptions("a,*"), "http://b/"), None);
    }

    #[test]
    fn the_environment_names_a_proxy_per_scheme() {
        let rules = from(&[
            ("http_proxy", "plain:1"),
            ("HTTPS_PROXY", "http://tls:2"),
            ("https_proxy", "http://not-this"),
            ("no_proxy", "inside"),
        ])
        .unwrap();
        assert_eq!(
            used(&rules, "http://a/").as_deref(),
            Some("http://plain:1/")
        );
        assert_eq!(used(&rules, "https://a/").as_deref(), Some("http://tls:2/"));
        for direct in [
            "http://inside/",
            "http://localhost:1/",
            "https://127.0.0.1/",
        ] {
            assert_eq!(used(&rules, direct), None);
        }
        assert!(from(&[]).unwrap().is_empty());
        let cgi = from(&[("HTTP_PROXY", "evil"), ("REQUEST_METHOD", "GET")]).unwrap();
        assert!(cgi.is_empty());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_and_not_repeated() {
        let problem = from(&[("HTTP_PROXY", "socks5://u:hunter2@h")])
            .err()
            .unwrap();
        assert_eq!(problem.option, "HTTP_PROXY");
        assert!(!format!("{problem:?}").contains("hunter2"));
    }

    #[test]
    fn arguments_that_do_not_go_together_are_refused() {
        let url = || Some(Secret::from("http://p"));
        let headers = || BTreeMap::from([("x".to_owned(), vec![Secret::from("y")])]);
        let cases = [
            (url(), "", true, BTreeMap::new(), "proxy_url must not be"),
            (None, "a", true, BTreeMap::new(), "no_proxy must not be"),
            (None, "a", false, BTreeMap::new(), "proxy_url must also be"),
            (
                None,
                "",
                false,
                headers(),
                "proxy_url or proxy_from_environment must",
            ),
            (Some("p:1".into()), "", false, headers(), "must begin with"),
        ];
        for (proxy_url, no_proxy, from_environment, connect_headers, expected) in cases {
            let options = ProxyOptions {
                proxy_url,
                no_proxy: no_proxy.into(),
                from_environment,
                connect_headers,
            };
            let problem = options.validate().unwrap_err().problem;
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
