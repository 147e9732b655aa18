//! Turns components, values and times into the JSON of the API.
//!
//! # Invariants
//! - No secret passes: a secret is `(secret)`, whatever stands around it, and so is what stands before
//!   the `@` of a url.

use config::Value as Config;
use serde_json::{Value, json};

use super::model::{AgentInfo, Argument, Detail, Edge, Peer, Summary};
use crate::cluster::Clustering;
use crate::graph::Health;
use crate::wal::time;

const SECRET: &str = "(secret)";

/// Seconds since the Unix epoch.
#[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
pub(super) fn unix_seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

pub(super) fn summary(component: &Summary) -> Value {
    json!({
        "name": component.name,
        "type": "block",
        "localID": component.local_id,
        "moduleID": component.module_id,
        "label": component.label,
        "referencesTo": component.references_to,
        "referencedBy": component.referenced_by,
        "dataFlowEdgesTo": component.data_flow_edges_to,
        "health": health(&component.health),
        "original": "",
        "liveDebuggingEnabled": component.live_debugging,
    })
}

pub(super) fn detail(component: &Detail) -> Value {
    let exports = component.exports.iter();
    let exports: Vec<Value> = exports
        .map(|(name, value)| attribute(name, value))
        .collect();
    let mut all = summary(&component.summary);
    all["arguments"] = statements(&component.arguments);
    all["exports"] = exports.into();
    all["debugInfo"] = statements(&component.debug_info);
    all["createdModuleIDs"] = json!(component.created_module_ids);
    all
}

fn health(health: &Health) -> Value {
    json!({
        "state": health.state.as_str(),
        "message": health.message,
        "updatedTime": time::format(health.updated_ms),
    })
}

fn statements(body: &[Argument]) -> Value {
    body.iter().map(statement).collect::<Vec<_>>().into()
}

fn statement(argument: &Argument) -> Value {
    match argument {
        Argument::Attribute { name, value } => attribute(name, value),
        Argument::Block { name, label, body } => {
            json!({"name": name, "type": "block", "label": label, "body": statements(body)})
        }
    }
}

fn attribute(name: &str, of: &Config) -> Value {
    json!({"name": name, "type": "attr", "value": value(of)})
}

/// A value with its type.
fn value(of: &Config) -> Value {
    let shown = match of {
        Config::Null => Value::Null,
        Config::Bool(is) => json!(is),
        Config::Int(number) => json!(number),
        Config::Uint(number) => json!(number),
        // JSON has no infinity.
        Config::Float(number) if !number.is_finite() => json!(number.to_string()),
        Config::Float(number) => json!(number),
        Config::String(text) => json!(without_userinfo(text)),
        Config::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        Config::Object(fields) => {
            let fields = fields.iter();
            let field = |(key, field)| json!({"key": key, "value": value(field)});
            fields.map(field).collect::<Vec<_>>().into()
        }
        Config::Function(_) => json!("function"),
        Config::Capsule(capsule) => json!(capsule.kind()),
        Config::OptionalSecret(text) if !text.is_secret() => {
            let text = without_userinfo(text.expose());
            return json!({"type": "string", "value": text});
        }
        Config::Secret(_) | Config::OptionalSecret(_) => json!(SECRET),
    };
    json!({"type": of.type_of().to_string(), "value": shown})
}

/// A text in which no url has a user or a password.
pub(super) fn without_userinfo(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(['/', '?', '#', ' ', '"', '\n']);
        let (authority, behind) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str(SECRET);
                shown.push('@');
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

pub(super) fn peers(peers: &[Peer]) -> Value {
    let one = |peer: &Peer| {
        json!({
            "name": peer.name, "addr": peer.addr, "isSelf": peer.is_self, "state": peer.state,
        })
    };
    peers.iter().map(one).collect::<Vec<_>>().into()
}

/// What the cluster is like, and how much of the ring each of its agents owns; `null` without one.
pub(super) fn cluster(clustering: Option<&Clustering>) -> Value {
    let Some(clustering) = clustering else {
        return Value::Null;
    };
    let shares = clustering.ownership().shares().into_iter();
    let shares = shares.map(|(name, share)| json!({"name": &*name, "share": share}));
    json!({
        "name": clustering.name(),
        "isReady": clustering.ownership().is_ready(),
        "minimumSize": clustering.wait_for_size(),
        "shares": shares.collect::<Vec<_>>(),
    })
}

/// The agent, `ready` or not, at `now_ms`.
pub(super) fn agent(agent: &AgentInfo, engine: &str, ready: bool, now_ms: i64) -> Value {
    let config = &agent.config;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "hostname": agent.hostname,
        "startedAt": unix_seconds(agent.started_ms),
        "uptimeSeconds": unix_seconds((now_ms - agent.started_ms).max(0)),
        "ready": ready,
        "ioEngine": engine,
        "threads": agent.threads,
        "storagePath": agent.storage_path,
        "liveDebugging": agent.live_debugging,
        "clustering": agent.clustering,
        "config": {
            "path": config.path,
            "sha256": config.sha256,
            "loadedAt": config.loaded_ms.map(unix_seconds),
            "isLastLoadGood": config.is_last_load_good,
            "error": config.error,
        },
    })
}

/// An edge and what took it per second.
pub(super) fn edge(edge: &Edge, rate: f64) -> Value {
    json!({
        "componentID": edge.from, "targetComponentIDs": [edge.to], "type": "metrics", "rate": rate,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::{Capsule, Object, OptionalSecret, Secret};

    use super::*;

    #[test]
    fn values_have_their_types_and_secrets_none_of_their_text() {
        let object: Object = [
            ("a".to_owned(), Config::from(1)),
            ("key".to_owned(), Secret::new("hush").into()),
        ]
        .into();
        let capsule = Capsule::new("MetricsReceiver", Arc::new(()));
        for (of, kind, shown) in [
            (Config::Null, "null", json!(null)),
            (Config::Uint(u64::MAX), "number", json!(u64::MAX)),
            (Config::Float(1.5), "number", json!(1.5)),
            (Config::Float(f64::INFINITY), "number", json!("inf")),
            (true.into(), "bool", json!(true)),
            (capsule.into(), "capsule", json!("MetricsReceiver")),
            (Secret::new("hush").into(), "capsule", json!("(secret)")),
            (
                OptionalSecret::secret("hush").into(),
                "capsule",
                json!("(secret)"),
            ),
            (OptionalSecret::plain("x").into(), "string", json!("x")),
            (
                vec!["x".into(), Secret::new("hush").into()].into(),
                "array",
                json!([{"type": "string", "value": "x"}, {"type": "capsule", "value": "(secret)"}]),
            ),
            (
                object.into(),
                "object",
                json!([
                    {"key": "a", "value": {"type": "number", "value": 1}},
                    {"key": "key", "value": {"type": "capsule", "value": "(secret)"}},
                ]),
            ),
        ] {
            assert_eq!(value(&of), json!({"type": kind, "value": shown}));
        }
    }

    #[test]
    fn urls_lose_their_userinfo_wherever_they_stand() {
        for (text, shown) in [
            ("no url", "no url"),
            ("http://h/p?x=1", "http://h/p?x=1"),
            ("http://u:hush@h:1/p", "http://(secret)@h:1/p"),
            ("http://hush@h", "http://(secret)@h"),
            ("http://u:hu@sh@h?q", "http://(secret)@h?q"),
            (
                "a http://u:p@h b://v:w@i/",
                "a http://(secret)@h b://(secret)@i/",
            ),
            ("mail@host://x", "mail@host://x"),
            ("é://ü@ö/", "é://(secret)@ö/"),
        ] {
            assert_eq!(without_userinfo(text), shown);
        }
    }
}
