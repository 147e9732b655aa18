//! Containers and networks as the Docker API tells of them, over a socket and over TCP.

use serde_json::json;

use super::super::server::{Answer, Server};
use super::super::target::tests::all_shown;
use super::super::target::value;
use super::refresh::Look as _;
use super::*;

fn place(host: Host) -> DockerPlace {
    DockerPlace {
        host,
        http: HttpOptions::default(),
        filters: Vec::new(),
        port: 80,
        host_networking_host: "the-host".to_owned(),
        match_first_network: true,
    }
}

fn nowhere() -> DockerPlace {
    place(Host::Url("http://nowhere".to_owned()))
}

fn network(name: &str) -> Value {
    json!({
        "Id": format!("{name}-id"), "Name": name, "Scope": "local", "Internal": false,
        "Ingress": false, "Labels": {"com.example/zone": name},
    })
}

fn container(name: &str, mode: &str, networks: &[(&str, &str)], ports: &Value) -> Value {
    let networks: serde_json::Map<String, Value> = networks
        .iter()
        .map(|(network, ip)| {
            let joined = json!({"NetworkID": format!("{network}-id"), "IPAddress": ip});
            ((*network).to_owned(), joined)
        })
        .collect();
    json!({
        "Id": format!("{name}-id"), "Names": [format!("/{name}")], "Status": "Up 5 minutes",
        "Labels": {"a.b": "1"}, "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": networks}, "Ports": ports,
    })
}

/// The targets without the prefix that all labels have.
fn found(containers: &[Value], place: &DockerPlace) -> Vec<String> {
    let networks = json!([network("back"), network("front")]);
    let found = containers::targets(&json!(containers), &networks, place).unwrap();
    let shown = all_shown(&found.into_iter().map(value).collect::<Vec<_>>());
    shown
        .iter()
        .map(|line| line.replace("__meta_docker_", ""))
        .collect()
}

/// Only where they are.
fn addresses(containers: &[Value], place: &DockerPlace) -> Vec<String> {
    let found = found(containers, place).into_iter();
    let address = |line: String| line.split(' ').next().unwrap().replace("__address__=", "");
    found.map(address).collect()
}

#[test]
fn every_tcp_port_is_a_target_with_all_labels() {
    let ports = json!([
        {"PrivatePort": 9090, "PublicPort": 19090, "IP": "0.0.0.0", "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
        {"PrivatePort": 8080, "Type": "tcp"},
    ]);
    let web = container("web", "front", &[("front", "10.1.0.2")], &ports);
    let of_container = "container_id=web-id container_label_a_b=1 container_name=/web \
                        container_network_mode=front";
    let of_network = "network_id=front-id network_ingress=false network_internal=false \
                      network_ip=10.1.0.2 network_label_com_example_zone=front network_name=front \
                      network_scope=local";
    assert_eq!(
        found(&[web], &nowhere()),
        [
            format!(
                "__address__=10.1.0.2:9090 {of_container} {of_network} port_private=9090 \
                 port_public=19090 port_public_ip=0.0.0.0"
            ),
            format!("__address__=10.1.0.2:8080 {of_container} {of_network} port_private=8080"),
        ]
    );
}

#[test]
fn without_a_port_there_is_one_target_in_each_network() {
    let networks = [("front", "10.1.0.2"), ("back", "fd00::2")];
    let udp = json!([{"PrivatePort": 53, "Type": "udp"}]);
    let dns = container("dns", "front", &networks, &udp);
    let mut place = nowhere();
    let first = addresses(std::slice::from_ref(&dns), &place);
    assert_eq!(first, ["[fd00::2]:80"], "the first by name");
    place.match_first_network = false;
    assert_eq!(addresses(&[dns], &place), ["[fd00::2]:80", "10.1.0.2:80"]);
}

#[test]
fn in_the_hosts_network_the_host_is_the_address() {
    let host = container("node", "host", &[("host", "")], &json!([]));
    assert_eq!(addresses(&[host], &nowhere()), ["the-host"]);
}

#[test]
fn a_shared_network_is_that_of_the_other_container() {
    let none = json!([]);
    let ports = json!([{"PrivatePort": 1, "Type": "tcp"}]);
    let main = container("main", "back", &[("back", "10.2.0.2")], &none);
    let side = container("side", "container:main-id", &[], &ports);
    let far = container("far", "container:side-id", &[], &none);
    let lost = container("lost", "container:gone", &[], &none);
    let round = container("round", "container:round-id", &[], &none);
    let all = [main, side, far, lost, round];
    assert_eq!(
        addresses(&all, &nowhere()),
        ["10.2.0.2:80", "10.2.0.2:1", "10.2.0.2:80"]
    );
}

#[test]
fn what_is_missing_does_no_harm() {
    let odd = [
        json!({"Id": "a"}),
        json!({"Id": "b", "Names": []}),
        json!({"Id": "c", "Names": ["/c"], "NetworkSettings": {"Networks": {"n": null}}}),
        json!({"Names": ["/d"], "NetworkSettings": {"Networks": {"n": {}}}, "Ports": [1]}),
        json!(1),
    ];
    assert_eq!(addresses(&odd, &nowhere()), [":80"]);
    let problem = containers::targets(&json!({"message": "no"}), &json!([]), &nowhere());
    assert_eq!(
        problem.unwrap_err(),
        "the answer holds no list of containers"
    );
    let problem = containers::targets(&json!([]), &json!(null), &nowhere());
    assert_eq!(problem.unwrap_err(), "the answer holds no list of networks");
}

#[test]
fn a_host_is_a_socket_or_a_url() {
    let url = |text: &str| Some(Host::Url(text.to_owned()));
    let socket = Some(Host::Socket("/run/docker.sock".into()));
    for (text, is_tls, want) in [
        ("unix:///run/docker.sock", false, socket),
        ("tcp://h:2375", false, url("http://h:2375")),
        ("tcp://h:2376/", true, url("https://h:2376")),
        ("http://h", true, url("http://h")),
        ("https://h/docker/", false, url("https://h/docker")),
        ("ssh://h", false, None),
        ("unix://", false, None),
        ("", false, None),
    ] {
        assert_eq!(Host::from_text(text, is_tls), want, "{text}");
    }
}

/// Answers as a Docker host of one container does.
fn docker(path: &str) -> Answer {
    let json = "application/json".to_owned();
    let ports = json!([{"PrivatePort": 1, "Type": "tcp"}]);
    match path.split('?').next().unwrap() {
        "/_ping" => (
            "200 OK",
            "text/plain\r\nApi-Version: 1.44".to_owned(),
            "OK".to_owned(),
        ),
        "/v1.44/containers/json" => {
            let one = container("web", "front", &[("front", "10.1.0.2")], &ports);
            ("200 OK", json, json!([one]).to_string())
        }
        "/v1.44/networks" => ("200 OK", json, json!([network("front")]).to_string()),
        _ => (
            "404 Not Found",
            json,
            json!({"message": "page not found"}).to_string(),
        ),
    }
}

#[tokio::test]
async fn a_host_behind_a_socket_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let server = Server::unix(&path, docker);
    let filter = |name: &str, value: &str| Filter {
        name: name.to_owned(),
        values: vec![value.to_owned()],
    };
    let mut place = place(Host::Socket(path));
    place.filters = vec![
        filter("label", "a=b"),
        filter("name", "web"),
        filter("label", "c"),
    ];
    let mut look = Look::new(place, Duration::from_secs(30));
    let found = look.look().await.unwrap();
    assert_eq!((found.len(), &*found[0].0), (1, "Docker"));
    let shown = all_shown(found[0].1.as_ref().unwrap());
    assert!(shown[0].starts_with("__address__=10.1.0.2:1 "), "{shown:?}");
    let heads = server.heads();
    let lines: Vec<&str> = heads
        .iter()
        .filter_map(|head| head.lines().next())
        .collect();
    assert_eq!(
        lines,
        [
            "get /_ping http/1.1",
            "get /v1.44/containers/json?filters=%7b%22label%22%3a%5b%22a%3db%22%2c%22c%22%5d%2c\
             %22name%22%3a%5b%22web%22%5d%7d http/1.1",
            "get /v1.44/networks http/1.1",
        ]
    );
}

#[tokio::test]
async fn what_a_host_does_not_tell_is_an_error() {
    let (server, url) = Server::tcp(docker).await;
    let mut look = Look::new(place(Host::Url(url)), Duration::from_secs(30));
    assert_eq!(look.look().await.unwrap()[0].1.as_ref().unwrap().len(), 1);
    let broken = |at: &'static str, answer: Answer| {
        move |path: &str| {
            if path.contains(at) {
                answer.clone()
            } else {
                docker(path)
            }
        }
    };
    let refused = ("500 Oh", "text/plain".to_owned(), String::new());
    let cut = ("200 OK", "application/json".to_owned(), "[{".to_owned());
    let odd = ("200 OK", "application/json".to_owned(), "{}".to_owned());
    for (at, answer, want) in [
        (
            "ping",
            refused.clone(),
            "error while asking for its version: the answer is 500 Internal Server Error",
        ),
        (
            "containers",
            refused.clone(),
            "error while listing containers: the answer is 500 Internal Server Error",
        ),
        (
            "networks",
            cut,
            "error while listing networks: EOF while parsing an object at line 1 column 2",
        ),
        ("networks", odd, "the answer holds no list of networks"),
        // Without a version the paths are those without one, which this host does not have.
        (
            "ping",
            ("200 OK", "text/plain".to_owned(), "OK".to_owned()),
            "error while listing containers: the answer is 404 Not Found",
        ),
    ] {
        server.answer(broken(at, answer));
        assert_eq!(look.look().await.unwrap_err(), want, "{at}");
    }
}
