//! Turns a `prometheus.receive_http` block into where to listen and whom to feed.

mod texts;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use config::BodyReader;
use ingest::secure::{AuthOptions, TlsOptions};
use ingest::{Http2Options, Message, TenantsOptions};

use super::receive_limits::{self, Limits};
use super::tls_server::{read_auth, read_tls};
use super::{Receivers, forward_to, receive_tenants};

pub(crate) use texts::DOCUMENT;

pub(crate) const NAME: &str = "prometheus.receive_http";
const DEFAULT_PORT: u16 = 8080;
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);
/// A fleet has a connection each; what one of them may ask for at a time is bounded anyway.
const STREAMS_MAX: u32 = 10_000;

/// A `prometheus.receive_http` component.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveHttp {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whom it feeds, in order.
    pub(crate) forward_to: Receivers,
    /// The messages it accepts.
    pub(crate) messages: Vec<Message>,
    /// Most connections; 0: the default of the server.
    pub(crate) conn_limit: usize,
    pub(crate) read_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// How much of everything it takes.
    pub(crate) limits: Limits,
    /// Limits per tenant.
    pub(crate) tenants: Option<TenantsOptions>,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) auth: Option<AuthOptions>,
    pub(crate) http2: Option<Http2Options>,
    /// How long series wait for the agent that had them, where the agents of a cluster share them; none: they do not.
    pub(crate) handover_timeout: Option<Duration>,
}

pub(crate) fn read(r: &mut BodyReader<'_>) -> ReceiveHttp {
    let forward_to = forward_to(r);
    let messages = read_messages(r);
    let mut component = ReceiveHttp {
        address: SocketAddr::new(any_address(), DEFAULT_PORT),
        forward_to,
        messages,
        conn_limit: 0,
        read_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(120),
        limits: r.block("limits", receive_limits::read).unwrap_or_default(),
        tenants: r.block("tenants", receive_tenants::read),
        tls: None,
        auth: None,
        http2: None,
        handover_timeout: r.block("clustering", read_clustering).flatten(),
    };
    r.block("http", |r| read_http(r, &mut component));
    component
}

/// The time a handover may take, where series are shared.
fn read_clustering(r: &mut BodyReader<'_>) -> Option<Duration> {
    let is_enabled = r.required::<bool>("enabled");
    let timeout = r.or("handover_timeout", HANDOVER_TIMEOUT);
    is_enabled.then_some(timeout)
}

/// The messages it accepts: by default both, as a sender drops what is answered 415.
fn read_messages(r: &mut BodyReader<'_>) -> Vec<Message> {
    const NAME: &str = "accepted_remote_write_protobuf_messages";
    let Some(names) = r.optional::<Vec<String>>(NAME) else {
        return Message::ALL.to_vec();
    };
    let messages: Option<Vec<_>> = names.iter().map(|name| Message::from_name(name)).collect();
    messages.filter(|some| !some.is_empty()).unwrap_or_else(|| {
        let [v1, v2] = Message::ALL.map(Message::as_str);
        r.refuse(NAME, format!("must be a list of {v1:?} and {v2:?}"));
        Vec::new()
    })
}

fn read_http(r: &mut BodyReader<'_>, component: &mut ReceiveHttp) {
    let port = r.or("listen_port", DEFAULT_PORT);
    let host = r.or("listen_address", String::new());
    // A check looks at nothing but the text.
    let resolved = match r.is_text_only() {
        true => Ok(component.address),
        false => resolve(&host, port),
    };
    match resolved {
        Ok(address) => component.address = address,
        Err(problem) => r.refuse("listen_address", problem),
    }
    component.conn_limit = r.or("conn_limit", 0);
    for (name, timeout) in [
        ("server_read_timeout", &mut component.read_timeout),
        ("server_write_timeout", &mut component.write_timeout),
        ("server_idle_timeout", &mut component.idle_timeout),
    ] {
        *timeout = r.or(name, *timeout);
        if timeout.is_zero() {
            r.refuse(name, "must be more than 0");
        }
    }
    component.tls = read_tls(r);
    component.auth = r.block("auth", read_auth);
    component.http2 = r.block("http2", read_http2).flatten();
}

/// HTTP/2 where it is enabled. Times of 0 mean what they do in the reference: none of its own.
fn read_http2(r: &mut BodyReader<'_>) -> Option<Http2Options> {
    let enabled = r.or("enabled", false);
    let defaults = Http2Options::default();
    let mut time = |name: &'static str| {
        let time = r.or(name, Duration::ZERO);
        (!time.is_zero()).then_some(time)
    };
    let idle_timeout = time("idle_timeout");
    let read_idle_timeout = time("read_idle_timeout");
    let options = Http2Options {
        max_concurrent_streams: r.or("max_concurrent_streams", defaults.max_concurrent_streams),
        idle_timeout,
        read_idle_timeout,
        ping_timeout: r.or("ping_timeout", defaults.ping_timeout),
    };
    if !(1..=STREAMS_MAX).contains(&options.max_concurrent_streams) {
        let problem = format!("must be 1 to {STREAMS_MAX}");
        r.refuse("max_concurrent_streams", problem);
    }
    if options.ping_timeout.is_zero() {
        r.refuse("ping_timeout", "must be more than 0");
    }
    enabled.then_some(options)
}

/// The address to listen on; an empty host is every address of the machine.
pub(crate) fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    if host.is_empty() {
        return Ok(SocketAddr::new(any_address(), port));
    }
    let mut found = (host, port)
        .to_socket_addrs()
        .map_err(|e| format!("cannot be resolved: {e}"))?;
    found.next().ok_or_else(|| "has no address".to_owned())
}

/// Every address of the machine: of both families where the machine has both.
fn any_address() -> IpAddr {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(text: &str) -> Result<ReceiveHttp, String> {
        decoded(text, read)
    }

    #[test]
    fn the_defaults_are_those_of_the_reference() {
        let component = load("prometheus.receive_http \"x\" {\n  forward_to = []\n}\n").unwrap();
        assert_eq!(component.address.port(), 8080);
        assert!(component.address.ip().is_unspecified());
        assert_eq!(component.idle_timeout, Duration::from_secs(120));
    }

    #[test]
    fn every_mistake_of_a_block_is_reported_with_its_place() {
        let text = "prometheus.receive_http \"x\" {\n  http {\n    listen_port = \"many\"\n    \
                    listen_adress = \"\"\n  }\n}\n";
        let found = load(text).unwrap_err();
        assert_eq!(
            found.lines().collect::<Vec<_>>(),
            [
                "a:1:1: missing required attribute \"forward_to\"",
                "a:3:19: \"many\" should be number, got string",
                "a:4:5: unrecognized attribute name \"listen_adress\"",
            ]
        );
    }

    #[test]
    fn http2_is_off_unless_enabled() {
        let with = |block: &str| {
            load(&format!(
                "prometheus.receive_http \"x\" {{\n  forward_to = []\n  http {{\n{block}}}\n}}\n"
            ))
        };
        assert_eq!(with("").unwrap().http2, None);
        assert_eq!(with("http2 {}\n").unwrap().http2, None);
        let plain = with("http2 {\n enabled = true\n}\n").unwrap().http2;
        assert_eq!(plain, Some(Http2Options::default()));
        let all = "http2 {\n enabled = true\n max_concurrent_streams = 7\n ping_timeout = \"1s\"\n \
                   idle_timeout = \"2s\"\n read_idle_timeout = \"3s\"\n}\n";
        let expected = Http2Options {
            max_concurrent_streams: 7,
            idle_timeout: Some(Duration::from_secs(2)),
            read_idle_timeout: Some(Duration::from_secs(3)),
            ping_timeout: Duration::from_secs(1),
        };
        assert_eq!(with(all).unwrap().http2, Some(expected));
        let message = with("http2 {\n max_concurrent_streams = 0\n}\n").unwrap_err();
        assert!(message.contains("must be 1 to 10000"), "{message}");
    }

    #[test]
    fn credentials_are_read_and_a_mistake_has_its_place() {
        let with = |block: &str| {
            load(&format!(
                "prometheus.receive_http \"x\" {{\n  forward_to = []\n  http {{\n{block}\n  }}\n}}\n"
            ))
        };
        let given = with("auth {\n bearer_tokens = [\"t\"]\n}").unwrap();
        assert_eq!(given.auth.unwrap().bearer_tokens, ["t".into()]);
        let message = with("tls {\n cert_file = \"/nowhere\"\n key_file = \"/nowhere\"\n}");
        let message = message.unwrap_err();
        assert!(
            message.contains("a:5:14: \"/nowhere\" cannot be read"),
            "{message}"
        );
    }

    #[test]
    fn both_messages_are_accepted_unless_it_is_said_otherwise() {
        let with = |line: &str| {
            load(&format!(
                "prometheus.receive_http \"x\" {{\n  forward_to = []\n{line}}}\n"
            ))
        };
        assert_eq!(with("").unwrap().messages, Message::ALL);
        let only = |names: &str| {
            with(&format!(
                "  accepted_remote_write_protobuf_messages = [{names}]\n"
            ))
        };
        let v2 = only("\"io.prometheus.write.v2.Request\"").unwrap();
        assert_eq!(v2.messages, [Message::V2]);
        for bad in ["\"prometheus.WriteRequests\"", ""] {
            let message = only(bad).unwrap_err();
            assert!(message.contains("must be a list of"), "{message}");
        }
    }
}
