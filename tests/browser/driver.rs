//! Turns what a test wants into WebDriver commands, and their answers into values.
//!
//! WebDriver is JSON over HTTP with a few dozen commands, of which these tests need ten: the tests' own
//! HTTP client is enough, and no crate brings an asynchronous client along.
//!
//! # Failure
//! An error of the browser fails the test with what the browser said. The browser ends with the test:
//! its session is closed before its driver is killed, as it would outlive that.

use std::io;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::http::{Client, Reply};
use crate::common::process::{Process, debian};
use crate::common::{PATIENCE, eventually, on_free_port};

const CHROMIUM: &str = "/usr/bin/chromium";
/// Nothing of the browser's own is asked for over the network.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    // Tests may run as root, where the browser's sandbox does not work; it sees our own page only.
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-sync",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
];
/// No shot is higher: a picture shows the beginning of a page.
const SHOT_HEIGHT_MAX: f64 = 1320.0;

/// A browser with one tab.
pub(super) struct Browser {
    client: Client,
    session: String,
    _process: Process,
}

impl Browser {
    /// Starts one that keeps what it has to keep in `dir`.
    pub(super) fn start(dir: &Path) -> Self {
        on_free_port(|port| Self::start_on(port, dir))
    }

    fn start_on(port: u16, dir: &Path) -> Option<Self> {
        let mut command: Command = debian("chromedriver", "chromium-driver");
        command.arg(format!("--port={port}"));
        let mut process = Process::start("chromedriver", command, dir);
        let is_up = || {
            send(&mut Client::new(port), "GET /status", "").is_ok_and(|reply| reply.status == 200)
        };
        if !process.is_up(is_up) {
            return None;
        }
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        let profile = dir.join("browser");
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
        }}});
        let mut client = Client::new(port);
        let started = answer(
            &post(&mut client, "/session", &wanted),
            "starting a session",
        );
        let session = format!("/session/{}", started["sessionId"].as_str().unwrap());
        Some(Self {
            client,
            session,
            _process: process,
        })
    }

    fn post(&mut self, command: &str, body: &Value) -> Value {
        let path = format!("{}/{command}", self.session);
        answer(&post(&mut self.client, &path, body), command)
    }

    /// A command of the browser's own protocol.
    fn native(&mut self, command: &str, parameters: &Value) -> Value {
        self.post(
            "goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Shows an address, from anew also where only its fragment is another.
    pub(super) fn open(&mut self, url: &str) {
        self.post("url", &json!({"url": "about:blank"}));
        self.post("url", &json!({"url": url}));
    }

    pub(super) fn reload(&mut self) {
        self.post("refresh", &json!({}));
    }

    /// What the body of a function returns.
    pub(super) fn run(&mut self, script: &str) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// What the body of a function gives to its last argument.
    pub(super) fn run_async(&mut self, script: &str) -> Value {
        self.post("execute/async", &json!({"script": script, "args": []}))
    }

    /// Waits until the body of a function returns true.
    pub(super) fn until(&mut self, what: &str, script: &str) {
        eventually(PATIENCE, || match self.run(script) {
            Value::Bool(true) => Ok(()),
            other => Err(format!(
                "{what}: {other}; the page says {}",
                self.run("return document.body.innerText")
            )),
        });
    }

    pub(super) fn click(&mut self, selector: &str) {
        let found = self.post(
            "element",
            &json!({"using": "css selector", "value": selector}),
        );
        let id = found.as_object().unwrap().values().next().unwrap();
        let id = id.as_str().unwrap().to_owned();
        self.post(&format!("element/{id}/click"), &json!({}));
    }

    /// Presses a key where the focus is.
    pub(super) fn press(&mut self, key: &str) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("actions", &json!({"actions": [keyboard]}));
    }

    /// Makes the window so wide, and the system's theme `light` or `dark`.
    pub(super) fn resize(&mut self, width: u32, theme: &str) {
        let size =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.native("Emulation.setDeviceMetricsOverride", &size);
        let feature = json!({"name": "prefers-color-scheme", "value": theme});
        self.native(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        );
    }

    /// The whole page as PNG.
    pub(super) fn screenshot(&mut self, width: u32) -> Vec<u8> {
        let size = self.native("Page.getLayoutMetrics", &json!({}));
        let height = size["cssContentSize"]["height"]
            .as_f64()
            .unwrap()
            .min(SHOT_HEIGHT_MAX);
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let shot = json!({"format": "png", "captureBeyondViewport": true, "clip": clip, "optimizeForSpeed": false});
        let shot = self.native("Page.captureScreenshot", &shot);
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// Warnings and errors of the console since the last time.
    pub(super) fn console(&mut self) -> Vec<String> {
        let lines = self.post("se/log", &json!({"type": "browser"}));
        let lines = lines.as_array().unwrap().iter();
        let bad = lines.filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        bad.map(|line| line["message"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let line = format!("DELETE {}", self.session);
        if let Err(error) = send(&mut self.client, &line, "") {
            println!("the browser may still be there: {error}");
        }
    }
}

fn post(client: &mut Client, path: &str, body: &Value) -> Reply {
    let reply = send(client, &format!("POST {path}"), &body.to_string());
    reply.unwrap_or_else(|error| panic!("{path} is not answered: {error}"))
}

/// The driver answers who calls it by a local name only.
fn send(client: &mut Client, line: &str, body: &str) -> io::Result<Reply> {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    client.exchange(format!("{head}{body}").as_bytes())
}

fn answer(reply: &Reply, command: &str) -> Value {
    let mut told: Value = serde_json::from_str(&reply.text).unwrap();
    assert_eq!(reply.status, 200, "{command}: {told:#}");
    told["value"].take()
}
