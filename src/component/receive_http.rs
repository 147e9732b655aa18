//! Turns a `prometheus.receive_http` block into where to listen and whom to feed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use config::{Block, BodyReader, Diagnostics, Handle, Scope};

use super::{MetricsReceiver, writers_of};

pub(crate) const NAME: &str = "prometheus.receive_http";
const DEFAULT_PORT: u16 = 8080;
/// The one message type of remote write 1.0.
const WRITE_REQUEST: &str = "prometheus.WriteRequest";

/// A `prometheus.receive_http` component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReceiveHttp {
    /// `prometheus.receive_http.LABEL`.
    pub(crate) id: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Indexes of the writers it feeds, in order.
    pub(crate) writers: Vec<usize>,
    /// Most connections; 0: the default of the server.
    pub(crate) conn_limit: usize,
    pub(crate) read_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

pub(crate) fn read(block: &Block, scope: &Scope) -> Result<ReceiveHttp, Diagnostics> {
    config::decode(block, scope, |r| {
        let forward_to = r.required::<Vec<Handle<MetricsReceiver>>>("forward_to");
        let messages: Option<Vec<String>> = r.optional("accepted_remote_write_protobuf_messages");
        if messages.is_some_and(|messages| messages != [WRITE_REQUEST]) {
            let text = format!("must be [{WRITE_REQUEST:?}]");
            r.refuse("accepted_remote_write_protobuf_messages", text);
        }
        let mut component = ReceiveHttp {
            id: block.id(),
            address: SocketAddr::new(any_address(), DEFAULT_PORT),
            writers: writers_of(forward_to),
            conn_limit: 0,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
        };
        r.block("http", |r| read_http(r, &mut component));
        component
    })
}

fn read_http(r: &mut BodyReader<'_>, component: &mut ReceiveHttp) {
    let port = r.or("listen_port", DEFAULT_PORT);
    let host = r.or("listen_address", String::new());
    match resolve(&host, port) {
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

    fn load(text: &str) -> Result<ReceiveHttp, String> {
        let file = config::parse("a", text).map_err(|e| e.to_string())?;
        read(&file.blocks[0], &Scope::new()).map_err(|e| e.to_string())
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
        let file = config::parse("a", text).unwrap();
        let found = read(&file.blocks[0], &Scope::new()).unwrap_err();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "a:1:1: missing required attribute \"forward_to\"",
                "a:3:19: \"many\" should be number, got string",
                "a:4:5: unrecognized attribute name \"listen_adress\"",
            ]
        );
    }

    #[test]
    fn remote_write_2_is_refused_by_name() {
        let text = "prometheus.receive_http \"x\" {\n  forward_to = []\n  \
                    accepted_remote_write_protobuf_messages = [\"io.prometheus.write.v2.Request\"]\n}\n";
        assert!(
            load(text)
                .unwrap_err()
                .ends_with("must be [\"prometheus.WriteRequest\"]")
        );
    }
}
