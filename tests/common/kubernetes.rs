//! A Kubernetes API: turns objects a test puts in, changes and takes out into lists and watches.
//!
//! Lists come in pages, watches in chunks that end in the middle of events. It can forget its history, close all
//! watches, refuse, fail, be slow and be away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

/// How long a watch may be quiet before it looks whether the server is away.
const TICK: Duration = Duration::from_millis(20);

/// What a URL calls the kinds of objects there are.
pub(crate) const PLURALS: [&str; 7] = [
    "nodes",
    "pods",
    "services",
    "endpoints",
    "endpointslices",
    "ingresses",
    "namespaces",
];

/// Objects of a kind, as an API gave them.
pub(crate) fn recorded(plural: &str) -> Value {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kubernetes");
    let text = std::fs::read_to_string(dir.join(format!("{plural}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What a server does instead of answering.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "two test programs have this, and not all of it")]
pub(crate) enum Fault {
    /// Connections are closed.
    Away,
    /// A status without an object.
    Status(u16),
    /// The answer never begins.
    Silent,
    /// Every answer is no JSON.
    Garbage,
}

/// How a server says that its history does not go back so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "two test programs have this, and not all of it")]
pub(crate) enum Gone {
    /// By an event in the watch.
    Event,
    /// By the status of the answer.
    Status,
}

struct State {
    version: u64,
    /// Objects by the path of their collection, without a namespace, and their key.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Version, collection, type, object.
    history: Vec<(u64, String, &'static str, Value)>,
    /// Watches from an older version are refused.
    oldest: u64,
    gone: Gone,
    /// What goes wrong, by the last part of the path; by "" with everything.
    faults: BTreeMap<String, Fault>,
    /// Watches of an older one end.
    epoch: u64,
    /// Every head so far.
    heads: Vec<String>,
    page_max: usize,
    is_over: bool,
}

/// One API at a port of this machine.
#[derive(Clone)]
pub(crate) struct KubernetesApi {
    pub(crate) url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
    /// The last of these ends it.
    _end: Arc<End>,
}

struct End(Arc<(Mutex<State>, Condvar)>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().is_over = true;
        self.0.1.notify_all();
    }
}

/// The path of the collection an object is in, without a namespace.
fn collection(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap();
    let version = object["apiVersion"].as_str().unwrap();
    let plural = match kind {
        "Endpoints" => "endpoints".to_owned(),
        "Ingress" => "ingresses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let root = if version == "v1" { "api" } else { "apis" };
    format!("/{root}/{version}/{plural}")
}

fn key(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

#[allow(dead_code, reason = "two test programs have this, and not all of it")]
impl KubernetesApi {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            version: 100,
            objects: BTreeMap::new(),
            history: Vec::new(),
            oldest: 0,
            gone: Gone::Event,
            faults: BTreeMap::new(),
            epoch: 0,
            heads: Vec::new(),
            page_max: usize::MAX,
            is_over: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let accepting = shared.clone();
        let accept = move || {
            for stream in listener.incoming() {
                if accepting.0.lock().unwrap().is_over {
                    return;
                }
                let shared = accepting.clone();
                let serve = move || {
                    // Who asked may be gone.
                    serve(&mut stream.unwrap(), &shared).ok();
                };
                let thread = std::thread::Builder::new().name("api-connection".to_owned());
                thread.spawn(serve).unwrap();
            }
        };
        let thread = std::thread::Builder::new().name("api".to_owned());
        thread.spawn(accept).unwrap();
        Self {
            url,
            _end: Arc::new(End(shared.clone())),
            shared,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.1.notify_all();
    }

    /// Puts objects in, or in the place of those that are there.
    pub(crate) fn put(&self, objects: &Value) {
        for object in objects.as_array().unwrap_or(&vec![objects.clone()]) {
            self.change(|state| {
                let (path, mut object) = (collection(object), object.clone());
                state.version += 1;
                object["metadata"]["resourceVersion"] = json!(state.version.to_string());
                let own = state.objects.entry(path.clone()).or_default();
                let before = own.insert(key(&object), object.clone());
                let what = if before.is_some() {
                    "MODIFIED"
                } else {
                    "ADDED"
                };
                state.history.push((state.version, path, what, object));
            });
        }
    }

    /// Takes an object out.
    pub(crate) fn delete(&self, object: &Value) {
        self.change(|state| {
            let path = collection(object);
            let own = state.objects.get_mut(&path).unwrap();
            let mut object = own.remove(&key(object)).unwrap();
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.history.push((state.version, path, "DELETED", object));
        });
    }

    /// Something goes wrong with a kind, by its plural, or with everything (""); what runs ends.
    pub(crate) fn fail(&self, plural: &str, fault: Fault) {
        self.change(|state| {
            state.faults.insert(plural.to_owned(), fault);
            state.epoch += 1;
        });
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.change(|state| {
            state.faults.clear();
            state.epoch += 1;
        });
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Forgets what was, and ends all watches.
    pub(crate) fn forget(&self, gone: Gone) {
        self.change(|state| {
            state.version += 10;
            (state.oldest, state.gone) = (state.version, gone);
            state.history.clear();
            state.epoch += 1;
        });
    }

    /// Lists come in pages of so many.
    pub(crate) fn page(&self, max: usize) {
        self.change(|state| state.page_max = max);
    }

    /// Every head since this was asked.
    pub(crate) fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.state().heads)
    }
}

fn serve(stream: &mut TcpStream, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let url = target.split_once('?').unwrap_or((&target, ""));
    let (path, namespace) = without_namespace(url.0);
    let query = url.1;
    let plural = path.rsplit('/').next().unwrap().to_owned();
    let mut state = shared.0.lock().unwrap();
    state.heads.push(head);
    let faults = [plural.as_str(), ""];
    let fault = faults.iter().find_map(|name| state.faults.get(*name));
    match fault.copied() {
        Some(Fault::Away) => Ok(()),
        Some(Fault::Silent) => {
            let epoch = state.epoch;
            while state.epoch == epoch && !state.is_over {
                state = shared.1.wait_timeout(state, TICK).unwrap().0;
            }
            Ok(())
        }
        Some(Fault::Status(code)) => {
            drop(state);
            answer(stream, code, &failure(code, &plural).to_string())
        }
        Some(Fault::Garbage) => {
            drop(state);
            answer(stream, 200, "{\"kind\": \"no JSON\n")
        }
        None if query.contains("watch=true") || query.contains("watch=1") => {
            drop(state);
            watch(stream, shared, (&path, namespace.as_deref()), query)
        }
        None => {
            let list = list(&state, &path, namespace.as_deref(), query);
            drop(state);
            answer(stream, 200, &list.to_string())
        }
    }
}

/// The path of a collection, and the namespace that was in it.
fn without_namespace(path: &str) -> (String, Option<String>) {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.iter().position(|part| *part == "namespaces") {
        Some(at) if at + 2 < parts.len() => {
            let rest = [&parts[..at], &parts[at + 2..]].concat();
            (rest.join("/"), Some(parts[at + 1].to_owned()))
        }
        _ => (path.to_owned(), None),
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut all = query.split('&').filter_map(|pair| pair.split_once('='));
    all.find_map(|(own, value)| (own == name).then_some(value))
}

fn failure(code: u16, plural: &str) -> Value {
    let message = match code {
        403 => format!(
            "{plural} is forbidden: User \"system:anonymous\" cannot list resource \"{plural}\""
        ),
        410 => "too old resource version".to_owned(),
        _ => format!("something is wrong with {plural}"),
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": "Forbidden", "code": code})
}

fn is_in(object: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
}

fn list(state: &State, path: &str, namespace: Option<&str>, query: &str) -> Value {
    let none = BTreeMap::new();
    let all = state.objects.get(path).unwrap_or(&none);
    let all: Vec<&Value> = all.values().filter(|one| is_in(one, namespace)).collect();
    let number = |name: &str| parameter(query, name).and_then(|text| text.parse().ok());
    let from = number("continue").unwrap_or(0);
    let limit = number("limit").filter(|limit| *limit > 0);
    let max = limit.unwrap_or(usize::MAX).min(state.page_max);
    let page: Vec<&&Value> = all.iter().skip(from).take(max).collect();
    let mut meta = json!({"resourceVersion": state.version.to_string()});
    if from + page.len() < all.len() {
        meta["continue"] = json!((from + page.len()).to_string());
    }
    let kinds = BTreeMap::from([
        ("nodes", "Node"),
        ("pods", "Pod"),
        ("services", "Service"),
        ("endpoints", "Endpoints"),
        ("endpointslices", "EndpointSlice"),
        ("ingresses", "Ingress"),
        ("namespaces", "Namespace"),
    ]);
    let (version, plural) = path.rsplit_once('/').unwrap();
    let version = version
        .trim_start_matches("/apis/")
        .trim_start_matches("/api/");
    let kind = kinds.get(plural).copied().unwrap_or("Unknown");
    json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": meta, "items": page})
}

fn answer(stream: &mut TcpStream, code: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {code} X\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes())
}

fn watch(
    stream: &mut TcpStream,
    shared: &(Mutex<State>, Condvar),
    (path, namespace): (&str, Option<&str>),
    query: &str,
) -> std::io::Result<()> {
    let from = parameter(query, "resourceVersion");
    let mut from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or(0);
    let state = shared.0.lock().unwrap();
    let (epoch, is_gone, gone) = (state.epoch, from < state.oldest, state.gone);
    if is_gone && gone == Gone::Status {
        drop(state);
        return answer(stream, 410, &failure(410, "").to_string());
    }
    drop(state);
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\
          Transfer-Encoding: chunked\r\n\r\n",
    )?;
    if is_gone {
        return event(stream, "ERROR", &failure(410, ""))
            .and_then(|()| stream.write_all(b"0\r\n\r\n"));
    }
    let mut sent = BTreeSet::new();
    loop {
        let mut state = shared.0.lock().unwrap();
        let is_news = |(version, own, ..): &&(u64, String, &str, Value)| {
            *version > from && own == path && !sent.contains(version)
        };
        let news: Vec<_> = state.history.iter().filter(is_news).cloned().collect();
        if state.epoch != epoch || state.is_over {
            drop(state);
            return stream.write_all(b"0\r\n\r\n");
        }
        if news.is_empty() {
            // A bookmark: nothing before this version is to come.
            let version = state.version;
            state = shared.1.wait_timeout(state, TICK).unwrap().0;
            drop(state);
            if version > from {
                from = version;
                let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": null},
                    "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}});
                event(stream, "BOOKMARK", &bookmark)?;
            }
            continue;
        }
        drop(state);
        for (version, _, what, object) in news {
            sent.insert(version);
            if is_in(&object, namespace) {
                event(stream, what, &object)?;
            }
        }
    }
}

/// An event in two chunks.
fn event(stream: &mut TcpStream, what: &str, object: &Value) -> std::io::Result<()> {
    let line = format!("{}\n", json!({"type": what, "object": object}));
    let (first, second) = line.as_bytes().split_at(line.len() / 2);
    for chunk in [first, second] {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
        stream.flush()?;
    }
    Ok(())
}
