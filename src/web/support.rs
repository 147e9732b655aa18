//! Turns the agent, watched for a while, into a zip file for whoever is to help with it.
//!
//! # Invariants
//! - Secrets are nowhere in it but under `sources/`: there the configuration stands as it was written.
//! - Of the environment only [`VARIABLES`] are in it, without user names and passwords.
//!
//! # Limits
//! One at a time; lines of the log as far as `telemetry::capture` keeps them; [`COMPONENTS_MAX`] components.

use std::collections::VecDeque;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::StatusCode;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::json::{self, without_userinfo};
use super::model::{AgentInfo, Detail, Model};
use super::request::Asked;
use crate::server::{Answer, fresh, text, whole};
use crate::telemetry::capture::Capture;
use crate::wal::time;

const FOLDER: &str = "penstock-support-bundle";
const SECONDS: u64 = 10;
const SECONDS_MAX: u64 = 300;
/// Components that are told, those of the root first. Each costs a walk over all of them.
const COMPONENTS_MAX: usize = 1000;

/// Variables that change what the agent does and hold no secret once credentials are removed.
const VARIABLES: [&str; 11] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Names and contents.
type Files = Vec<(String, String)>;

/// Watches the agent for as long as was asked for, and answers with the bundle.
pub(super) async fn told(model: &Arc<dyn Model>, capture: &Capture, asked: &Asked<'_>) -> Answer {
    let seconds = match asked.number("duration", (2, SECONDS_MAX), SECONDS) {
        Ok(seconds) => seconds,
        Err(problem) => return text(StatusCode::BAD_REQUEST, problem),
    };
    if asked.is_head {
        return text(StatusCode::OK, "");
    }
    let metrics = || model.sources().collect().encode().unwrap_or_default();
    let start = metrics();
    // Ends with this future, also if the peer goes away.
    let capturing = capture.begin();
    tracing::info!(seconds, "a support bundle is being made");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let logs = capturing.text();
    drop(capturing);
    let mut files = about(&**model);
    files.extend([
        ("penstock-metrics-sample-start.txt".to_owned(), start),
        ("penstock-metrics-sample-end.txt".to_owned(), metrics()),
        ("penstock-logs.txt".to_owned(), logs),
    ]);
    super::blocking(move || match zipped(&files) {
        Ok(bytes) => {
            let mut answer = fresh(whole(StatusCode::OK, "application/zip", bytes));
            let name = format!("attachment; filename=\"{FOLDER}.zip\"");
            if let Ok(name) = HeaderValue::from_str(&name) {
                answer.headers_mut().insert(CONTENT_DISPOSITION, name);
            }
            answer
        }
        Err(error) => {
            tracing::error!(%error, "a support bundle could not be made");
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
    })
    .await
}

/// What does not change while it is watched.
fn about(model: &dyn Model) -> Files {
    let (agent, sources) = (model.agent(), model.sources());
    let now_ms = sources.clock.unix_ms();
    let details = details(model);
    let pretty = |value: &Value| format!("{value:#}\n");
    let flags = agent.flags.iter();
    let flags: String = flags
        .map(|(name, value)| format!("--{name}={value}\n"))
        .collect();
    let mut files = vec![
        (
            "penstock-metadata.yaml".to_owned(),
            metadata(&agent, sources.engine.as_str(), now_ms),
        ),
        (
            "penstock-components.json".to_owned(),
            pretty(&details.iter().map(json::detail).collect()),
        ),
        (
            "penstock-peers.json".to_owned(),
            pretty(&json::peers(&model.peers())),
        ),
        ("penstock-runtime-flags.txt".to_owned(), flags),
        (
            "penstock-environment.txt".to_owned(),
            environment(|name| std::env::var(name).ok()),
        ),
    ];
    for (name, text) in model.config_sources() {
        let name = Path::new(&name).file_name().unwrap_or_default();
        files.push((format!("sources/{}", name.to_string_lossy()), text));
    }
    files
}

/// Of the components of the root, then of those in the modules they made, and so on.
fn details(model: &dyn Model) -> Vec<Detail> {
    let mut found: Vec<Detail> = Vec::new();
    let mut modules = VecDeque::from([String::new()]);
    while let Some(module) = modules.pop_front() {
        for summary in model.components(&module).unwrap_or_default() {
            if found.len() == COMPONENTS_MAX {
                return found;
            }
            let id = match module.is_empty() {
                true => summary.local_id,
                false => format!("{module}/{}", summary.local_id),
            };
            if let Some(detail) = model.component(&id) {
                modules.extend(detail.created_module_ids.iter().cloned());
                found.push(detail);
            }
        }
    }
    found
}

fn metadata(agent: &AgentInfo, engine: &str, now_ms: i64) -> String {
    // Strings as JSON has them are strings of YAML.
    let quoted = |text: &str| Value::from(text).to_string();
    let config = &agent.config;
    [
        ("version", quoted(env!("CARGO_PKG_VERSION"))),
        ("os", quoted(std::env::consts::OS)),
        ("architecture", quoted(std::env::consts::ARCH)),
        ("hostname", quoted(&agent.hostname)),
        ("takenAt", quoted(&time::format(now_ms))),
        ("startedAt", quoted(&time::format(agent.started_ms))),
        ("threads", agent.threads.to_string()),
        ("ioEngine", quoted(engine)),
        ("storagePath", quoted(&agent.storage_path)),
        ("configPath", quoted(&config.path)),
        ("configSha256", quoted(&config.sha256)),
        ("isLastLoadGood", config.is_last_load_good.to_string()),
        ("clustering", agent.clustering.to_string()),
    ]
    .map(|(key, value)| format!("{key}: {value}\n"))
    .concat()
}

/// The variables that are told, as `variable` has them.
fn environment(variable: impl Fn(&str) -> Option<String>) -> String {
    let line = |name: &&str| {
        let value = variable(name)?;
        // A proxy may be given without a scheme.
        let value = match value.rsplit_once('@') {
            Some((_, host)) if !value.contains("://") => format!("(secret)@{host}"),
            _ => without_userinfo(&value),
        };
        Some(format!("{name}={value}\n"))
    };
    VARIABLES.iter().filter_map(line).collect()
}

fn zipped(files: &Files) -> anyhow::Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, text) in files {
        let name = format!("{FOLDER}/{name}");
        let cannot = || format!("add {name}");
        zip.start_file(name.as_str(), options)
            .with_context(cannot)?;
        zip.write_all(text.as_bytes()).with_context(cannot)?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::fake::Fake;
    use crate::web::model::Summary;

    fn one(module: &str, id: &str, modules: &[&str]) -> Detail {
        Detail {
            summary: Summary {
                module_id: module.to_owned(),
                local_id: id.to_owned(),
                ..Summary::default()
            },
            created_module_ids: modules.iter().map(|id| (*id).to_owned()).collect(),
            ..Detail::default()
        }
    }

    fn ids(model: &Fake) -> Vec<String> {
        let all = details(model).into_iter();
        all.map(|it| format!("{}|{}", it.summary.module_id, it.summary.local_id))
            .collect()
    }

    #[test]
    fn what_is_in_modules_is_told_after_what_they_are_in_and_not_without_end() {
        let mut model = Fake {
            details: vec![
                one("x.a/y.b", "in", &[]),
                one("x.a", "y.b", &["x.a/y.b"]),
                one("", "x.a", &["x.a"]),
                one("", "out", &[]),
            ],
            ..Fake::default()
        };
        let all = ["|x.a", "|out", "x.a|y.b", "x.a/y.b|in"];
        assert_eq!(ids(&model), all);
        let many = (0..COMPONENTS_MAX).map(|at| one("x.a", &format!("z.{at}"), &[]));
        model.details.extend(many);
        assert_eq!(ids(&model).len(), COMPONENTS_MAX);
    }

    #[test]
    fn of_the_environment_only_what_is_safe_is_told() {
        let variable = |name: &str| match name {
            "HTTP_PROXY" => Some("http://u:hush@proxy:3128".to_owned()),
            "https_proxy" => Some("u:hush@proxy:3128".to_owned()),
            "NO_PROXY" => Some("a,b".to_owned()),
            "TZ" => None,
            _ => (!VARIABLES.contains(&name)).then(|| "hush".to_owned()),
        };
        assert_eq!(
            environment(variable),
            "HTTP_PROXY=http://(secret)@proxy:3128\nNO_PROXY=a,b\n\
             https_proxy=(secret)@proxy:3128\n"
        );
    }
}
