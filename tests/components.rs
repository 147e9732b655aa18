//! Turns the components that stand beside the main line into what they are for: lines of the log, a target,
//! modules with logs of their own.

use std::fs;

use crate::common::agent::{Agent, STORAGE};
use crate::common::http::get;
use crate::common::load::Stream;
use crate::common::sink::{Sink, expected};
use crate::common::{PATIENCE, eventually};

fn receiver(port: u16, to: &str) -> String {
    format!(
        "prometheus.receive_http \"in\" {{\n  http {{\n    listen_address = \"127.0.0.1\"\n    \
         listen_port = {port}\n  }}\n  forward_to = [{to}]\n}}\n"
    )
}

#[test]
fn an_echo_writes_what_it_takes_to_the_log_output() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start_with(dir.path(), &[], |port| {
        let echo = "prometheus.echo \"here\" {\n  format = \"openmetrics\"\n}\n";
        echo.to_owned() + &receiver(port, "prometheus.echo.here.receiver")
    });
    Stream::new("loud").send(agent.port, 0..3);
    eventually(PATIENCE, || {
        let log = agent.process.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("load_steady{sender="));
        match lines.filter(|line| line.contains("loud")).count() {
            150 => Ok(()),
            count => Err(format!("{count} of 150 samples are echoed")),
        }
    });
}

#[test]
fn the_agents_own_metrics_are_a_target() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start_with(dir.path(), &[], |port| {
        "prometheus.exporter.self \"own\" {}\n".to_owned() + &receiver(port, "")
    });
    let id = "prometheus.exporter.self.own";
    let page = get(agent.own_port, &format!("/api/v0/component/{id}/metrics")).unwrap();
    assert_eq!(page.status, 200);
    assert!(page.text.contains("penstock_build_info"), "{}", page.text);
    let detail = get(agent.own_port, &format!("/api/v0/web/components/{id}")).unwrap();
    assert!(detail.text.contains("integrations/self"), "{}", detail.text);
    let other = "/api/v0/component/prometheus.receive_http.in/metrics";
    assert_eq!(get(agent.own_port, other).unwrap().status, 404);
}

#[test]
fn a_writer_in_a_module_has_a_log_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    fs::write(
        dir.path().join("module.alloy"),
        "declare \"out\" {\n  argument \"url\" {}\n  prometheus.remote_write \"w\" {\n    endpoint {\n      \
         url = argument.url.value\n    }\n  }\n  export \"receiver\" {\n    \
         value = prometheus.remote_write.w.receiver\n  }\n}\n",
    )
    .unwrap();
    let agent = Agent::start_with(dir.path(), &[], |port| {
        let (module, url) = (dir.path().join("module.alloy"), sink.url());
        format!(
            "import.file \"m\" {{\n  filename = \"{}\"\n}}\nm.out \"one\" {{\n  url = \"{url}\"\n}}\n{}",
            module.display(),
            receiver(port, "m.out.one.receiver"),
        )
    });
    let stream = Stream::new("deep");
    stream.send(agent.port, 0..20);
    let acked = expected(stream.samples(0..20));
    let samples: usize = acked.values().map(Vec::len).sum();
    eventually(PATIENCE, || match sink.deliveries() {
        came if came >= samples => Ok(()),
        came => Err(format!("{came} of {samples} samples came")),
    });
    sink.log().assert_holds(&acked);
    let own = dir
        .path()
        .join(STORAGE)
        .join("m.out.one/prometheus.remote_write.w");
    assert!(
        own.join("segments").is_dir() || own.is_dir(),
        "{}",
        own.display()
    );
    let of = [
        ("component_path", "/m.out.one"),
        ("component_id", "prometheus.remote_write.w"),
    ];
    assert_eq!(
        agent.metric("penstock_wal_samples_total", &of),
        samples as f64
    );
    let page = get(agent.own_port, "/api/v0/web/modules/m.out.one/components").unwrap();
    assert!(
        page.text
            .contains("\"localID\":\"prometheus.remote_write.w\""),
        "{}",
        page.text
    );
}
