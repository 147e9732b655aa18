//! Names against a server on loopback that answers as told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::super::target::tests::all_shown;
use super::refresh::Look as _;
use super::*;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const MX: u16 = 15;
const AAAA: u16 = 28;
const SRV: u16 = 33;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// Type and data of each record, or a response code.
type Told = Result<Vec<(u16, Vec<u8>)>, u8>;

struct Server {
    servers: ResolverConfig,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A name as it is in a message.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn sixteen(n: u16) -> [u8; 2] {
    [
        u8::try_from(n >> 8).unwrap(),
        u8::try_from(n & 0xff).unwrap(),
    ]
}

/// The answer to a question; names that nobody told of do not exist.
fn answer(query: &[u8], names: &BTreeMap<(Vec<u8>, u16), Told>) -> Vec<u8> {
    let question = &query[12..];
    let end = question.iter().position(|byte| *byte == 0).unwrap() + 1;
    let kind = u16::from(question[end]) << 8 | u16::from(question[end + 1]);
    let name = question[..end].to_ascii_lowercase();
    let told = names.get(&(name, kind)).cloned().unwrap_or(Err(NXDOMAIN));
    let (code, records) = match told {
        Ok(records) => (0, records),
        Err(code) => (code, Vec::new()),
    };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1]);
    out.extend(sixteen(u16::try_from(records.len()).unwrap()));
    out.extend([0; 4]);
    out.extend_from_slice(&question[..end + 4]);
    for (kind, data) in records {
        out.extend([0xc0, 12]);
        out.extend(sixteen(kind));
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(sixteen(u16::try_from(data.len()).unwrap()));
        out.extend(data);
    }
    out
}

async fn server(names: &[(&str, u16, Told)]) -> Server {
    let names = names.iter().cloned();
    let names = names.map(|(name, kind, told)| ((wire(name), kind), told));
    let names: BTreeMap<_, _> = names.collect();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = answer(&buffer[..length], &names);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    let mut connection = ConnectionConfig::udp();
    connection.port = port;
    let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
    server.connections = vec![connection];
    let servers = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    Server { servers, task }
}

async fn found(server: &Server, kind: RecordKind, names: &[&str]) -> Vec<String> {
    let place = DnsPlace {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        kind,
        port: 80,
    };
    let mut look = Look {
        place,
        servers: Some(server.servers.clone()),
    };
    let mut found = look.look().await.unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let shown = found.into_iter().flat_map(|(_, group)| match group {
        Ok(group) => all_shown(&group),
        Err(problem) => vec![problem],
    });
    shown.collect()
}

#[tokio::test]
async fn records_of_every_type_become_targets() {
    let srv = [&[0, 1, 0, 2, 0x1f, 0x90][..], &wire("h.test")].concat();
    let mx = [&[0, 10][..], &wire("mail.test")].concat();
    let server = server(&[
        (
            "a.test",
            A,
            Ok(vec![
                (CNAME, wire("b.test")),
                (A, vec![10, 0, 0, 2]),
                (A, vec![10, 0, 0, 1]),
            ]),
        ),
        (
            "a.test",
            AAAA,
            Ok(vec![(AAAA, Ipv6Addr::LOCALHOST.octets().to_vec())]),
        ),
        ("a.test", MX, Ok(vec![(MX, mx)])),
        ("a.test", NS, Ok(vec![(NS, wire("ns.test"))])),
        ("_x._tcp.test", SRV, Ok(vec![(SRV, srv)])),
    ])
    .await;
    let name = "__meta_dns_name=a.test.";
    for (kind, asked, want) in [
        (
            RecordKind::A,
            "a.test.",
            vec![
                format!("__address__=10.0.0.1:80 {name}"),
                format!("__address__=10.0.0.2:80 {name}"),
            ],
        ),
        (
            RecordKind::Aaaa,
            "a.test.",
            vec![format!("__address__=[::1]:80 {name}")],
        ),
        (
            RecordKind::Mx,
            "a.test.",
            vec![format!(
                "__address__=mail.test:80 __meta_dns_mx_record_target=mail.test. {name}"
            )],
        ),
        (
            RecordKind::Ns,
            "a.test.",
            vec![format!(
                "__address__=ns.test:80 {name} __meta_dns_ns_record_target=ns.test."
            )],
        ),
        (
            RecordKind::Srv,
            "_x._tcp.test.",
            vec![
                "__address__=h.test:8080 __meta_dns_name=_x._tcp.test. \
                 __meta_dns_srv_record_port=8080 __meta_dns_srv_record_target=h.test."
                    .to_owned(),
            ],
        ),
    ] {
        assert_eq!(found(&server, kind, &[asked]).await, want, "{kind:?}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_nothing_and_what_fails_is_an_error_of_its_own() {
    let server = server(&[
        ("a.test", A, Ok(vec![(A, vec![10, 0, 0, 1])])),
        ("empty.test", A, Ok(Vec::new())),
        ("broken.test", A, Err(SERVFAIL)),
    ])
    .await;
    let names = ["a.test.", "broken.test.", "empty.test.", "none.test."];
    let found = found(&server, RecordKind::A, &names).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "__address__=10.0.0.1:80 __meta_dns_name=a.test.");
    let start = "cannot look up \"broken.test.\": ";
    assert!(found[1].starts_with(start), "{found:?}");
}

#[tokio::test]
async fn a_name_that_is_none_is_an_error_of_its_own() {
    let server = server(&[]).await;
    let long = "x".repeat(64);
    let found = found(&server, RecordKind::A, &[&long]).await;
    assert!(found[0].starts_with("cannot look up "), "{found:?}");
}

#[tokio::test]
async fn many_names_are_looked_up_a_few_at_a_time() {
    let names: Vec<String> = (0..40).map(|n| format!("n{n}.test.")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let records = |name: &&'static str| (*name, A, Ok(vec![(A, vec![10, 0, 0, 1])]));
    let known = ["n0.test", "n17.test", "n39.test"].iter().map(records);
    let server = server(&known.collect::<Vec<_>>()).await;
    assert_eq!(found(&server, RecordKind::A, &names).await.len(), 3);
}
