//! The endpoints over a model that says what a test wants.

use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as _;
use serde_json::json;
use tokio::sync::mpsc;
use tracing_subscriber::Registry;
use zip::ZipArchive;

use super::fake::Fake;
use super::model::{Detail, Edge, Peer, Summary};
use super::*;
use crate::graph::{Health, HealthState};
use crate::server::Body;

/// A component of a module.
fn component(module: &str, local_id: &str) -> Detail {
    Detail {
        summary: Summary {
            name: "prometheus.relabel".to_owned(),
            local_id: local_id.to_owned(),
            module_id: module.to_owned(),
            label: "r".to_owned(),
            data_flow_edges_to: vec!["next".to_owned()],
            health: Health {
                state: HealthState::Unhealthy,
                message: "no".to_owned(),
                updated_ms: 1_795_253_400_123,
            },
            ..Summary::default()
        },
        created_module_ids: vec!["made".to_owned()],
        ..Detail::default()
    }
}

async fn get_as(web: &Arc<Web>, target: &str, is_head: bool) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = HeaderMap::new();
    let asked = Asked {
        path,
        query,
        headers: &headers,
        is_head,
    };
    web.answer(&asked).await
}

async fn get(web: &Arc<Web>, target: &str) -> Answer {
    get_as(web, target, false).await
}

async fn get_json(web: &Arc<Web>, path: &str) -> Value {
    let answer = get(web, &format!("/api/v0/web/{path}")).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    let kind = &answer.headers()["content-type"];
    assert_eq!(kind, "application/json; charset=utf-8");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

/// The next chunk of an endless answer.
async fn chunk(body: &mut Body) -> String {
    let frame = body.frame().await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn components_are_told_by_module() {
    let fake = Fake {
        details: vec![
            component("", "prometheus.relabel.r"),
            component("m.a/m.b", "x.y"),
        ],
        peers: vec![Peer {
            name: "n".to_owned(),
            addr: "a:1".to_owned(),
            is_self: true,
            state: "participant".to_owned(),
        }],
        ..Fake::default()
    };
    let web = fake::web(fake);
    let summary = json!({
        "name": "prometheus.relabel", "type": "block", "localID": "prometheus.relabel.r",
        "moduleID": "", "label": "r", "referencesTo": [], "referencedBy": [],
        "dataFlowEdgesTo": ["next"], "original": "", "liveDebuggingEnabled": false,
        "health": {
            "state": "unhealthy", "message": "no", "updatedTime": "2026-11-21T09:30:00.123Z",
        },
    });
    assert_eq!(get_json(&web, "components").await, json!([summary]));
    let mut detail = summary;
    for name in ["arguments", "exports", "debugInfo"] {
        detail[name] = json!([]);
    }
    detail["createdModuleIDs"] = json!(["made"]);
    assert_eq!(
        get_json(&web, "components/prometheus.relabel.r").await,
        detail
    );
    let of_module = get_json(&web, "modules/m.a/m.b/components").await;
    assert_eq!(of_module[0]["localID"], "x.y");
    for id in ["m.a/m.b/x.y", "m.a%2Fm.b%2Fx.y"] {
        let found = get_json(&web, &format!("components/{id}")).await;
        assert_eq!(found["moduleID"], "m.a/m.b");
    }
    let peers = json!([{"name": "n", "addr": "a:1", "isSelf": true, "state": "participant"}]);
    assert_eq!(get_json(&web, "peers").await, peers);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_wrong_is_said() {
    let web = fake::web(Fake::default());
    for (path, status) in [
        ("components/none", 404),
        ("modules/none/components", 404),
        ("modules/none", 404),
        ("graph/none", 404),
        ("debug/none", 404),
        ("debug/", 404),
        ("cardinality/none", 404),
        ("rejected/none", 404),
        ("agent/x", 404),
        ("nothing", 404),
        ("", 404),
        ("graph?window=0", 400),
        ("graph?window=61", 400),
        ("graph?window=x", 400),
        ("debug/x?sampleProb=1.1", 400),
        ("debug/x?sampleProb=NaN", 400),
        ("history?seconds=0", 400),
        ("cardinality/none?top=0", 400),
        ("rejected/none?limit=1001", 400),
    ] {
        let answer = get(&web, &format!("/api/v0/web/{path}")).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
    let long = format!("/api/v0/web/debug/x?filter={}", "x".repeat(2000));
    assert_eq!(get(&web, &long).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn everything_is_below_the_prefix_but_what_has_its_place() {
    let prefix = Prefix::new("/pen/stock").unwrap();
    let web = Arc::new(Web::new(Arc::new(Fake::default()), prefix, None));
    for (path, status) in [
        ("/pen/stock/api/v0/web/agent", 200),
        ("/api/v0/web/agent", 404),
        ("/pen/stockapi/v0/web/agent", 404),
        ("/-/support", 404),
    ] {
        assert_eq!(get(&web, path).await.status().as_u16(), status, "{path}");
    }
}

/// An edge and what counts on it.
fn edge(from: &str, to: &str) -> (Edge, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(1000));
    let read = Arc::clone(&count);
    let edge = Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        records: Arc::new(move || read.load(Ordering::Relaxed)),
    };
    (edge, count)
}

#[tokio::test(start_paused = true)]
async fn a_graph_is_told_window_by_window() {
    let (root, count) = edge("a.b", "c.d");
    let (inner, _) = edge("m.x/a.b", "m.x/c.d");
    let fake = Fake {
        details: vec![component("m.x", "a.b")],
        edges: vec![root, inner],
        ..Fake::default()
    };
    let web = fake::web(fake);
    let mut body = get(&web, "/api/v0/web/graph?window=4").await.into_body();
    for (more, rate) in [(0, 0.0), (40, 10.0), (2, 0.5)] {
        // After the one before was read.
        tokio::task::yield_now().await;
        count.fetch_add(more, Ordering::Relaxed);
        let text = chunk(&mut body).await;
        let told: Value = serde_json::from_str(text.strip_suffix("|;|").unwrap()).unwrap();
        let edge = json!({
            "componentID": "a.b", "targetComponentIDs": ["c.d"], "type": "metrics", "rate": rate,
        });
        assert_eq!(told, json!([edge]));
    }
    let mut body = get(&web, "/api/v0/web/graph/m.x?window=1")
        .await
        .into_body();
    let text = chunk(&mut body).await;
    assert!(
        text.contains("\"componentID\":\"m.x/a.b\"") && !text.contains("\"a.b\""),
        "{text}"
    );
}

#[tokio::test]
async fn there_are_so_many_streams_and_no_more() {
    let web = fake::web(Fake::default());
    let mut open = Vec::new();
    loop {
        let answer = get(&web, "/api/v0/web/graph").await;
        if answer.status() != StatusCode::OK {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            break;
        }
        open.push(answer);
    }
    assert_eq!(open.len(), 16);
    // Who asks only for the head opens none.
    let head = get_as(&web, "/api/v0/web/graph", true).await;
    assert_eq!(
        (head.status(), head.body().is_end_stream()),
        (StatusCode::OK, true)
    );
    drop(open.pop());
    assert_eq!(
        get(&web, "/api/v0/web/graph").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_passes_a_component_is_told_line_by_line() {
    let (lines, said) = mpsc::channel(8);
    let fake = Fake::default();
    *fake.debug.lock() = Some(said);
    let web = fake::web(fake);
    let answer = get(&web, "/api/v0/web/debug/a.b?sampleProb=0.5&filter=up").await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let mut body = answer.into_body();
    lines.send("up 1".to_owned()).await.unwrap();
    lines.send("up 2".to_owned()).await.unwrap();
    let mut text = String::new();
    while text != "up 1|;|up 2|;|" {
        text += &chunk(&mut body).await;
        assert!(text.len() <= 14, "{text}");
    }
    drop(lines);
    assert!(body.frame().await.is_none(), "it ends with the component");
    assert_eq!(
        get(&web, "/api/v0/web/debug/a.b").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(start_paused = true)]
async fn a_support_bundle_holds_everything_but_secrets() {
    let fake = Fake {
        details: vec![component("", "prometheus.relabel.r")],
        ..Fake::default()
    };
    // The layer has to be there for its filter.
    let (capture, _layer) = Capture::new::<Registry>();
    let web = Web::new(Arc::new(fake), Prefix::new("/").unwrap(), Some(capture));
    let web = Arc::new(web);
    for path in ["/-/support?duration=1", "/-/support?duration=301"] {
        assert_eq!(get(&web, path).await.status(), StatusCode::BAD_REQUEST);
    }
    let (first, second) = tokio::join!(get(&web, "/-/support"), get(&web, "/-/support"));
    assert_eq!(
        second.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "one at a time"
    );
    assert_eq!(first.headers()["content-type"], "application/zip");
    let bytes = first.into_body().collect().await.unwrap().to_bytes();
    let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    let names: Vec<&str> = names
        .iter()
        .map(|name| name.strip_prefix("penstock-support-bundle/").unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "penstock-metadata.yaml",
            "penstock-components.json",
            "penstock-peers.json",
            "penstock-runtime-flags.txt",
            "penstock-environment.txt",
            "sources/a.penstock",
            "penstock-metrics-sample-start.txt",
            "penstock-metrics-sample-end.txt",
            "penstock-logs.txt",
        ]
    );
    let mut text = |name: &str| {
        let name = format!("penstock-support-bundle/{name}");
        let mut text = String::new();
        let mut file = archive.by_name(&name).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(text("sources/a.penstock"), "logging {}\n");
    let components: Value = serde_json::from_str(&text("penstock-components.json")).unwrap();
    assert_eq!(components[0]["localID"], "prometheus.relabel.r");
    assert!(text("penstock-metrics-sample-end.txt").contains("penstock_build_info"));
    assert!(text("penstock-metadata.yaml").contains("version: \""));
}
