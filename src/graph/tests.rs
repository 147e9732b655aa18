//! The graph over texts, with files of a temporary directory as what is outside.

use std::path::Path;
use std::time::Duration;

use config::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::*;

mod discovery;

/// A graph whose outside is real.
struct Bed {
    runtime: Runtime,
    seen: mpsc::Receiver<Seen>,
    graph: Graph,
}

impl Bed {
    fn new(stability: Stability) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (told, seen) = mpsc::channel(8);
        let graph = Graph::new(Host {
            facts: Facts::default(),
            stability,
            watcher: Watcher {
                runtime: runtime.handle().clone(),
                seen: told,
                storage: Path::new("/nowhere").into(),
            },
        });
        Self {
            runtime,
            seen,
            graph,
        }
    }

    /// Loads a text; what is wrong with it, one a line.
    fn load(&mut self, text: &str) -> Result<(), String> {
        let lines = |found: Diagnostics| {
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        let file = config::parse("a", text).map_err(lines)?;
        let wrong = self
            .graph
            .load(vec![file], "/dir".to_owned())
            .map_err(lines)?;
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(lines(wrong))
        }
    }

    /// Waits for a change outside and takes it over.
    fn outside(&mut self) -> Diagnostics {
        let seen = self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(30), self.seen.recv()).await
        });
        self.graph.seen(seen.unwrap().unwrap())
    }

    /// Ids of everything the agent has to do.
    fn asked(&self) -> Vec<String> {
        self.graph.asked().into_iter().map(|one| one.id).collect()
    }

    fn forwards(&self, id: &str) -> Vec<String> {
        let asked = self.graph.asked();
        let found = asked.iter().find(|one| one.id == id).unwrap();
        found.role.forward_to().to_vec()
    }

    fn health(&self, id: &str) -> Health {
        let mut found = None;
        self.graph.visit(&mut |_, _, node| {
            if node.id() == id {
                found = Some(node.health());
            }
        });
        found.unwrap()
    }

    /// The url of the first endpoint of a writer.
    fn url(&self, id: &str) -> String {
        let asked = self.graph.asked();
        let found = asked.iter().find(|one| one.id == id).unwrap();
        let Role::Writer(writer) = found.role else {
            panic!("{id} is no writer");
        };
        writer.endpoints[0].url.clone()
    }
}

fn stable() -> Bed {
    Bed::new(Stability::GenerallyAvailable)
}

const WRITER: &str = "prometheus.remote_write \"w\" {\n}\n";

#[test]
fn what_refers_may_stand_before_what_it_refers_to() {
    let mut bed = stable();
    bed.load(
        "prometheus.receive_http \"in\" {\n  forward_to = [prometheus.relabel.r.receiver]\n}\n\
         prometheus.relabel \"r\" {\n  forward_to = [prometheus.remote_write.w.receiver, null]\n}\n\
         prometheus.remote_write \"w\" {}\n",
    )
    .unwrap();
    assert_eq!(
        bed.forwards("prometheus.receive_http.in"),
        ["prometheus.relabel.r"]
    );
    assert_eq!(
        bed.forwards("prometheus.relabel.r"),
        ["prometheus.remote_write.w"]
    );
}

#[test]
fn a_body_that_does_not_hang_together_changes_nothing() {
    let mut bed = stable();
    bed.load(WRITER).unwrap();
    for (text, wrong) in [
        (
            "prometheus.scrap \"x\" {}\n",
            "a:1:1: cannot find the definition of component name \"prometheus.scrap\"; nearest: \
             prometheus.scrape, prometheus.echo, prometheus.relabel",
        ),
        (
            "prometheus.remote_write {}\n",
            "a:1:1: component \"prometheus.remote_write\" must have a label",
        ),
        (
            "logging \"x\" {}\n",
            "a:1:1: block \"logging\" does not support specifying labels",
        ),
        (
            "prometheus.echo \"a\" {}\nprometheus.echo \"a\" {}\n",
            "a:2:1: block prometheus.echo.a already declared at a:1:1",
        ),
        (
            "http {}\nhttp {}\n",
            "a:2:1: duplicate definition of \"http\"",
        ),
        (
            "prometheus.receive_http \"in\" {\n  forward_to = [prometheus.nope.x.receiver]\n}\n",
            "a:2:17: component \"prometheus.nope.x.receiver\" does not exist or is out of scope",
        ),
        (
            "prometheus.relabel \"a\" {\n  forward_to = [prometheus.relabel.b.receiver]\n}\n\
             prometheus.relabel \"b\" {\n  forward_to = [prometheus.relabel.a.receiver]\n}\n",
            "a:1:1: cycle detected: prometheus.relabel.a, prometheus.relabel.b",
        ),
        (
            "prometheus.relabel \"a\" {\n  forward_to = [prometheus.relabel.a.receiver]\n}\n",
            "a:1:1: cannot reference self: prometheus.relabel.a",
        ),
        (
            "argument \"x\" {}\n",
            "a:1:1: argument blocks only allowed inside a module",
        ),
    ] {
        assert_eq!(bed.load(text).unwrap_err(), wrong);
        assert_eq!(bed.asked(), ["prometheus.remote_write.w"]);
    }
}

#[test]
fn a_component_that_cannot_be_read_stays_and_the_others_change() {
    let mut bed = stable();
    bed.load(
        "prometheus.remote_write \"a\" {\n  endpoint {\n    url = \"http://a/1\"\n  }\n}\n\
         prometheus.remote_write \"b\" {\n  endpoint {\n    url = \"http://b/1\"\n  }\n}\n",
    )
    .unwrap();
    let wrong = bed
        .load(
            "prometheus.remote_write \"a\" {\n  endpoint {\n    url = true\n  }\n}\n\
             prometheus.remote_write \"b\" {\n  endpoint {\n    url = \"http://b/2\"\n  }\n}\n",
        )
        .unwrap_err();
    assert!(
        wrong.contains("a:3:11: true should be string, got bool"),
        "{wrong}"
    );
    assert_eq!(bed.url("prometheus.remote_write.a"), "http://a/1");
    assert_eq!(bed.url("prometheus.remote_write.b"), "http://b/2");
    let health = bed.health("prometheus.remote_write.a");
    assert_eq!(health.state, HealthState::Unhealthy);
    assert!(health.message.starts_with("component evaluation failed: "));
}

#[test]
fn what_did_not_change_is_what_it_was() {
    let mut bed = stable();
    let text = |url: &str| {
        format!(
            "prometheus.receive_http \"in\" {{\n  forward_to = [prometheus.remote_write.w.receiver]\n}}\n\
             prometheus.remote_write \"w\" {{\n  endpoint {{\n    url = \"{url}\"\n  }}\n}}\n"
        )
    };
    bed.load(&text("http://one")).unwrap();
    let role = |bed: &Bed, id: &str| {
        let asked = bed.graph.asked();
        std::ptr::from_ref(asked.iter().find(|one| one.id == id).unwrap().role) as usize
    };
    let (receiver, writer) = ("prometheus.receive_http.in", "prometheus.remote_write.w");
    let before = (role(&bed, receiver), role(&bed, writer));
    bed.load(&format!("// another text\n{}", text("http://one")))
        .unwrap();
    assert_eq!((role(&bed, receiver), role(&bed, writer)), before);
    bed.load(&text("http://two")).unwrap();
    assert_eq!(role(&bed, receiver), before.0);
    assert_eq!(bed.url(writer), "http://two");
}

#[test]
fn what_is_outside_changes_what_refers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, "http://one").unwrap();
    let mut bed = stable();
    let text = format!(
        "local.file \"url\" {{\n  filename = \"{}\"\n  detector = \"poll\"\n  poll_frequency = \"5ms\"\n}}\n\
         prometheus.remote_write \"w\" {{\n  endpoint {{\n    url = local.file.url.content\n  }}\n}}\n",
        file.display()
    );
    bed.load(&text).unwrap();
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://one");
    std::fs::write(dir.path().join("next"), "http://two").unwrap();
    std::fs::rename(dir.path().join("next"), &file).unwrap();
    assert!(bed.outside().is_empty());
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://two");
    std::fs::remove_file(&file).unwrap();
    assert!(bed.outside().is_empty());
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://two");
    let health = bed.health("local.file.url");
    assert_eq!(health.state, HealthState::Unhealthy);
    assert!(
        health.message.starts_with("failed to read file: "),
        "{}",
        health.message
    );
    // It is there again.
    std::fs::write(dir.path().join("next"), "http://three").unwrap();
    std::fs::rename(dir.path().join("next"), &file).unwrap();
    assert!(bed.outside().is_empty());
    assert_eq!(bed.health("local.file.url").state, HealthState::Healthy);
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://three");
}

#[test]
fn what_a_watch_of_another_place_saw_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| {
        format!(
            "local.file \"url\" {{\n  filename = \"{}\"\n  detector = \"poll\"\n  poll_frequency = \"5ms\"\n}}\n\
             prometheus.remote_write \"w\" {{\n  endpoint {{\n    url = local.file.url.content\n  }}\n}}\n",
            dir.path().join(name).display()
        )
    };
    let put = |name: &str, url: &str| std::fs::write(dir.path().join(name), url).unwrap();
    put("one", "http://one");
    put("two", "http://two");
    let mut bed = stable();
    bed.load(&text("one")).unwrap();
    put("one", "http://late");
    let seen = bed.runtime.block_on(bed.seen.recv()).unwrap();
    bed.load(&text("two")).unwrap();
    assert!(bed.graph.seen(seen).is_empty());
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://two");
}

#[test]
fn what_cannot_be_had_the_first_time_is_an_error_and_said_once() {
    let mut bed = stable();
    let wrong = bed
        .load(
            "local.file \"url\" {\n  filename = \"/nowhere/x\"\n}\n\
             prometheus.remote_write \"w\" {\n  endpoint {\n    url = local.file.url.content\n  }\n}\n",
        )
        .unwrap_err();
    assert_eq!(wrong.lines().count(), 1, "{wrong}");
    assert!(
        wrong.starts_with("a:1:1: Failed to build component: failed to read file: "),
        "{wrong}"
    );
}

const DECLARED: &str = "declare \"fork\" {\n\
    argument \"to\" {}\n  argument \"site\" {\n    optional = true\n    default = \"here\"\n  }\n\
    prometheus.relabel \"r\" {\n    forward_to = argument.to.value\n\
    rule {\n      target_label = \"site\"\n      replacement = argument.site.value\n    }\n  }\n\
    export \"receiver\" {\n    value = prometheus.relabel.r.receiver\n  }\n}\n";

#[test]
fn a_declared_component_is_a_module_of_its_own() {
    let mut bed = stable();
    let text = |site: &str| {
        format!(
            "{DECLARED}{WRITER}\
             fork \"one\" {{\n  to = [prometheus.remote_write.w.receiver]\n  {site}\n}}\n\
             prometheus.receive_http \"in\" {{\n  forward_to = [fork.one.receiver]\n}}\n"
        )
    };
    bed.load(&text("")).unwrap();
    assert_eq!(
        bed.forwards("prometheus.receive_http.in"),
        ["fork.one/prometheus.relabel.r"]
    );
    assert_eq!(
        bed.forwards("fork.one/prometheus.relabel.r"),
        ["prometheus.remote_write.w"]
    );
    let rules = |bed: &Bed| {
        let mut value = Value::Null;
        bed.graph.visit(&mut |_, _, node| {
            if node.id() == "fork.one/prometheus.relabel.r" {
                value = node.exports["rules"].clone();
            }
        });
        format!("{value:?}")
    };
    assert!(rules(&bed).contains("here"), "{}", rules(&bed));
    bed.load(&text("site = \"there\"")).unwrap();
    assert!(rules(&bed).contains("there"), "{}", rules(&bed));
    for (arguments, wrong) in [
        ("", "missing required argument \"to\" to module"),
        (
            "to = []\n  z = 1",
            "Provided argument \"z\" is not defined in the module",
        ),
    ] {
        let text = format!("{DECLARED}fork \"one\" {{\n  {arguments}\n}}\n");
        let found = bed.load(&text).unwrap_err();
        assert!(found.contains(wrong), "{found}");
    }
}

#[test]
fn declarations_that_use_each_other_are_a_cycle() {
    let mut bed = stable();
    let text = "declare \"a\" {\n  b \"x\" {}\n}\ndeclare \"b\" {\n  a \"x\" {}\n}\n";
    assert_eq!(
        bed.load(text).unwrap_err(),
        "a:1:1: cycle detected: declare.a, declare.b"
    );
    let text = "declare \"a\" {\n  a \"x\" {}\n}\n";
    assert_eq!(
        bed.load(text).unwrap_err(),
        "a:1:1: cannot reference self: declare.a"
    );
}

#[test]
fn a_module_sees_nothing_of_what_is_around_it() {
    let mut bed = stable();
    let text = format!(
        "{WRITER}declare \"m\" {{\n  prometheus.relabel \"r\" {{\n    \
         forward_to = [prometheus.remote_write.w.receiver]\n  }}\n}}\nm \"x\" {{}}\n"
    );
    let found = bed.load(&text).unwrap_err();
    assert!(
        found.contains("does not exist or is out of scope"),
        "{found}"
    );
    let text = "declare \"m\" {\n  logging {}\n}\nm \"x\" {}\n";
    let found = bed.load(text).unwrap_err();
    assert_eq!(found, "a:2:3: logging block not allowed inside a module");
}

#[test]
fn each_item_of_a_collection_is_a_pipeline() {
    let mut bed = Bed::new(Stability::Experimental);
    let text = |items: &str| {
        format!(
            "{WRITER}foreach \"site\" {{\n  collection = [{items}]\n  var = \"each\"\n  template {{\n    \
             prometheus.relabel \"r\" {{\n      forward_to = [prometheus.remote_write.w.receiver]\n      \
             rule {{\n        target_label = \"site\"\n        replacement = each\n      }}\n    }}\n  }}\n}}\n"
        )
    };
    bed.load(&text("\"a.b\", \"c\", \"c\"")).unwrap();
    let modules = |bed: &Bed| {
        let asked = bed.asked().into_iter().filter_map(|id| {
            let id = id.strip_prefix("foreach.site/")?.to_owned();
            Some(id.split('/').next().unwrap().to_owned())
        });
        asked.collect::<Vec<_>>()
    };
    assert_eq!(
        modules(&bed),
        ["foreach_a_b_1", "foreach_c_1", "foreach_c_2"]
    );
    bed.load(&text("\"c\"")).unwrap();
    assert_eq!(modules(&bed), ["foreach_c_1"]);
    let mut bed = stable();
    let found = bed.load(&text("")).unwrap_err();
    assert!(found.contains("--stability.level=experimental"), "{found}");
}

#[test]
fn what_is_imported_declares_and_can_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.alloy");
    let module = |site: &str| {
        format!(
            "declare \"stamp\" {{\n  argument \"to\" {{}}\n  prometheus.relabel \"r\" {{\n    \
             forward_to = argument.to.value\n    rule {{\n      target_label = \"site\"\n      \
             replacement = \"{site}\"\n    }}\n  }}\n  export \"receiver\" {{\n    \
             value = prometheus.relabel.r.receiver\n  }}\n}}\n"
        )
    };
    let put = |text: &str| {
        std::fs::write(dir.path().join("next"), text).unwrap();
        std::fs::rename(dir.path().join("next"), &file).unwrap();
    };
    put(&module("one"));
    let mut bed = stable();
    let text = format!(
        "import.file \"m\" {{\n  filename = \"{}\"\n  detector = \"poll\"\n  poll_frequency = \"5ms\"\n}}\n\
         {WRITER}m.stamp \"x\" {{\n  to = [prometheus.remote_write.w.receiver]\n}}\n\
         prometheus.receive_http \"in\" {{\n  forward_to = [m.stamp.x.receiver]\n}}\n",
        file.display()
    );
    bed.load(&text).unwrap();
    let replacement = |bed: &Bed| {
        let asked = bed.graph.asked();
        let found = asked
            .iter()
            .find(|one| one.id == "m.stamp.x/prometheus.relabel.r");
        format!("{:?}", found.unwrap().body)
    };
    assert!(replacement(&bed).contains("one"));
    assert_eq!(
        bed.forwards("prometheus.receive_http.in"),
        ["m.stamp.x/prometheus.relabel.r"]
    );
    put(&module("two"));
    assert!(bed.outside().is_empty());
    assert!(replacement(&bed).contains("two"));
    // A text that is none keeps what there was.
    put("declare \"stamp\" {");
    assert!(bed.outside().has_errors());
    assert!(replacement(&bed).contains("two"));
    assert_eq!(bed.health("import.file.m").state, HealthState::Unhealthy);
    put("logging {}\n");
    let found = bed.outside();
    assert!(
        found
            .to_string()
            .contains("only declare and import blocks are allowed in a module, got logging")
    );
}

#[test]
fn a_text_can_be_imported_as_it_stands() {
    let mut bed = stable();
    bed.load(&format!(
        "import.string \"m\" {{\n  content = `{DECLARED}`\n}}\n{WRITER}\
         m.fork \"x\" {{\n  to = [prometheus.remote_write.w.receiver]\n}}\n"
    ))
    .unwrap();
    assert!(
        bed.asked()
            .contains(&"m.fork.x/prometheus.relabel.r".to_owned())
    );
    let found = bed
        .load("import.string \"m\" {\n  content = \"\"\n}\nm.none \"x\" {}\n")
        .unwrap_err();
    assert!(
        found.contains("cannot find the definition of component name \"m.none\""),
        "{found}"
    );
}

#[test]
fn the_configuration_of_the_readme_loads() {
    let readme = include_str!("../../README.md");
    let block = readme.split("```alloy\n").nth(1).unwrap();
    let mut bed = stable();
    bed.load(block.split("```").next().unwrap()).unwrap();
    assert!(!bed.asked().is_empty());
}

/// Answers every request with the next of `answers` (status line and text), the last one again and again.
fn web_server(answers: Vec<(&'static str, String)>) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/dir/m.alloy", listener.local_addr().unwrap());
    let serve = move || {
        let mut answers = answers.into_iter().peekable();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.extend_from_slice(&byte);
            }
            assert!(String::from_utf8(head).unwrap().contains("x-key: k"));
            let (status, text) = answers.peek().cloned().unwrap();
            if answers.len() > 1 {
                answers.next();
            }
            let length = text.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
            );
            // The one who asked may be gone.
            stream.write_all(answer.as_bytes()).ok();
        }
    };
    let thread = std::thread::Builder::new().name("web".to_owned());
    thread.spawn(serve).unwrap();
    url
}

#[test]
fn what_is_behind_a_url_changes_what_refers_to_it() {
    let answer = |text: &str| ("200 OK", text.to_owned());
    let away = ("503 Away", "later".to_owned());
    let url = web_server(vec![answer(" http://one \n"), away, answer("http://two")]);
    let mut bed = stable();
    let text = format!(
        "remote.http \"url\" {{\n  url = \"{url}\"\n  headers = {{\"x-key\" = \"k\"}}\n  \
         poll_frequency = \"20ms\"\n}}\n\
         prometheus.remote_write \"w\" {{\n  endpoint {{\n    url = remote.http.url.content\n  }}\n}}\n"
    );
    bed.load(&text).unwrap();
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://one");
    assert!(bed.outside().is_empty());
    let health = bed.health("remote.http.url");
    assert_eq!(
        health.message,
        "failed to fetch: the answer is 503 Service Unavailable"
    );
    assert!(bed.outside().is_empty());
    assert_eq!(bed.health("remote.http.url").state, HealthState::Healthy);
    assert_eq!(bed.url("prometheus.remote_write.w"), "http://two");
    let gone = text.replace(&url, "http://127.0.0.1:1/");
    let wrong = stable().load(&gone).unwrap_err();
    assert!(
        wrong.starts_with("a:1:1: Failed to build component: failed to fetch: "),
        "{wrong}"
    );
}

#[test]
fn a_module_can_come_from_a_url() {
    let url = web_server(vec![("200 OK", DECLARED.to_owned())]);
    let mut bed = stable();
    bed.load(&format!(
        "import.http \"m\" {{\n  url = \"{url}\"\n  headers = {{\"x-key\" = \"k\"}}\n}}\n{WRITER}\
         m.fork \"x\" {{\n  to = [prometheus.remote_write.w.receiver]\n}}\n"
    ))
    .unwrap();
    assert!(
        bed.asked()
            .contains(&"m.fork.x/prometheus.relabel.r".to_owned())
    );
}
