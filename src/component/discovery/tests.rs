//! Arguments of components that find targets: what is there unless something is said, and what is refused.

use super::*;
use crate::component::testing::decoded;

/// What a block of this body asks for, or what is wrong with it.
fn load(read: fn(&mut BodyReader<'_>) -> Discovery, body: &str) -> Result<Discovery, String> {
    decoded(&format!("c \"x\" {{\n{body}\n}}\n"), read)
}

#[test]
fn what_is_not_said_is_as_in_the_reference() {
    for (read, body, seconds) in [
        (
            read_file as fn(&mut BodyReader<'_>) -> Discovery,
            "files = [\"/a/*.json\"]",
            300,
        ),
        (read_dns, "names = [\"a\"]", 30),
        (read_http, "url = \"http://h\"", 60),
        (read_docker, "host = \"unix:///s\"", 60),
        (read_process, "", 60),
        (read_file_match, "path_targets = []", 10),
    ] {
        let found = load(read, body).unwrap();
        assert_eq!(found.every, Duration::from_secs(seconds), "{body}");
    }
    let Place::Dns(dns) = load(read_dns, "names = [\"a\"]").unwrap().place else {
        panic!("dns");
    };
    assert_eq!((dns.kind, dns.port), (RecordKind::Srv, 0));
    let Place::Docker(docker) = load(read_docker, "host = \"unix:///s\"").unwrap().place else {
        panic!("docker");
    };
    assert_eq!((docker.port, docker.match_first_network), (80, true));
    assert_eq!(docker.host_networking_host, "localhost");
    assert!(docker.http.enable_http2 && docker.http.follow_redirects);
    for body in ["", "discover_config {}"] {
        let Place::Process(process) = load(read_process, body).unwrap().place else {
            panic!("process");
        };
        let ProcessLabels {
            exe,
            cwd,
            commandline,
            uid,
            username,
            cgroup_path,
            container_id,
        } = process.labels;
        assert!(exe && cwd && commandline && uid && username && container_id && !cgroup_path);
    }
}

#[test]
fn what_is_said_is_taken() {
    let body = "host = \"tcp://h:1\"\nport = 81\nhost_networking_host = \"me\"\n\
                match_first_network = false\nrefresh_interval = \"5s\"\nbearer_token = \"t\"\n\
                filter {\n name = \"label\"\n values = [\"a\", \"b\"]\n}\n\
                tls_config {\n insecure_skip_verify = true\n}";
    let found = load(read_docker, body).unwrap();
    assert_eq!(found.every, Duration::from_secs(5));
    let Place::Docker(docker) = found.place else {
        panic!("docker");
    };
    assert_eq!(docker.host, Host::Url("https://h:1".to_owned()));
    assert_eq!((docker.port, docker.match_first_network), (81, false));
    assert_eq!(docker.host_networking_host, "me");
    assert_eq!(docker.filters[0].name, "label");
    assert_eq!(docker.filters[0].values, ["a", "b"]);
    assert_ne!(docker.http, HttpOptions::default());
    let body = "names = [\"a\", \"b\"]\ntype = \"aaaa\"\nport = 9";
    let Place::Dns(dns) = load(read_dns, body).unwrap().place else {
        panic!("dns");
    };
    assert_eq!((dns.kind, dns.port), (RecordKind::Aaaa, 9));
    let body = "path_targets = [{__path__ = \"/a/*\", __path_exclude__ = \"/a/b\", j = \"x\"}, \
                {j = \"y\"}]\nsync_period = \"1s\"\nignore_older_than = \"2s\"";
    let found = load(read_file_match, body).unwrap();
    assert_eq!(found.every, Duration::from_secs(1));
    let Place::FileMatch(place) = found.place else {
        panic!("files");
    };
    assert_eq!(place.ignore_older_than, Duration::from_secs(2));
    assert_eq!(place.targets.len(), 1);
    assert!(place.targets[0].exclude.is_some() && place.targets[0].labels.len() == 3);
}

/// A reader, a body, and a part of what is wrong with it.
type Refused = (
    fn(&mut BodyReader<'_>) -> Discovery,
    &'static str,
    &'static str,
);

fn refuses(all: &[Refused]) {
    for (read, body, want) in all {
        let message = load(*read, body).unwrap_err();
        assert!(message.contains(want), "{body}: {message}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_where_it_stands() {
    let file = read_file;
    refuses(&[
        (file, "", "a:1:1: missing required attribute \"files\""),
        (file, "files = []", "a:2:9: [] must name a file"),
        (
            file,
            "files = [\"/a/*/b.json\"]",
            "path name \"/a/*/b.json\" is not valid for file discovery",
        ),
        (
            file,
            "files = [\"/a/b.txt\"]",
            "path name \"/a/b.txt\" is not valid for file discovery",
        ),
        (
            file,
            "files = [\"/a/[b.json\"]",
            "path name \"/a/[b.json\" is not valid for file discovery",
        ),
        (
            file,
            "files = [\"/a.json\"]\nrefresh_interval = \"0s\"",
            "a:3:20: \"0s\" must be greater than 0",
        ),
        (
            read_http,
            "url = \"ftp://h\"",
            "a:2:7: \"ftp://h\" must begin with http:// or https:// and have a host",
        ),
        (
            read_http,
            "url = \"http://h\"\nbearer_token = \"t\"\nbearer_token_file = \"f\"",
            "a:1:1: at most one of bearer_token & bearer_token_file must be configured",
        ),
        (
            read_dns,
            "names = []",
            "a:2:9: [] must contain at least one name",
        ),
        (
            read_dns,
            "names = [\"a\"]\ntype = \"TXT\"",
            "a:3:8: \"TXT\" invalid DNS-SD records type TXT",
        ),
        (
            read_dns,
            "names = [\"a\"]\ntype = \"NS\"",
            "a:1:1: a port is required in DNS-SD configs for all record types except SRV",
        ),
    ]);
}

#[test]
fn hosts_joins_and_patterns_that_cannot_be_used_are_refused_where_they_stand() {
    refuses(&[
        (
            read_docker,
            "host = \"\"",
            "a:2:8: \"\" host attribute must not be empty",
        ),
        (
            read_docker,
            "host = \"ssh://h\"",
            "a:2:8: \"ssh://h\" must be unix:// with a path, or tcp://, http:// or https:// with a host",
        ),
        (
            read_docker,
            "host = \"unix:///s\"\nfilter {}",
            "a:3:1: missing required attribute \"name\"\na:3:1: missing required attribute \"values\"",
        ),
        (
            read_process,
            "join = [1]",
            "a:2:9: 1 should be object, got number",
        ),
        (
            read_file_match,
            "path_targets = [{__path__ = \"/a/[\"}]",
            "\"/a/[\" is not a pattern: ",
        ),
        (
            read_file_match,
            "path_targets = []\nsync_period = \"0s\"",
            "a:3:15: \"0s\" must be greater than 0",
        ),
    ]);
}
