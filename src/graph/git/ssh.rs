//! Turns a repository of an ssh server into a transport of the git protocol, by the `ssh` program.
//!
//! What `ssh` does for a user it does for the agent: his configuration, his known hosts, and without a key
//! of its own his keys. What it would ask is not answered, but for the passphrase of the key: the program it
//! asks is a script beside the key, which has it from the environment. No secret is on a command line.
//!
//! # Invariants
//! - Whether a host is known is never decided here. One that is not is refused, unless the user's own
//!   configuration says otherwise.
//! - The key and the script are readable by nobody else, and gone after the look.
//!
//! # Failure
//! - What `ssh` says is the problem where the other side said nothing.
//!
//! # Limits
//! - All of a look has one deadline and [`super::FETCH_BYTES_MAX`]; of what `ssh` says the last [`SAID_BYTES_MAX`]
//!   bytes are kept. It is killed when the look ends.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::git::ConnectMode;
use gix_transport::client::git::blocking_io::Connection;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::TIME_MAX;
use super::allowance::Allowance;
use crate::component::{GitLogin, SshKey};

/// Of what `ssh` says: why it failed is at the end.
const SAID_BYTES_MAX: usize = 4096;
/// Lines of it that are told. A host that is not known takes two.
const SAID_LINES: usize = 2;
/// What the script has the passphrase from.
const PASSPHRASE: &str = "PENSTOCK_SSH_PASSPHRASE";
/// Answers to nothing else: a question about a host is not one for a passphrase.
const SCRIPT: &str = "#!/bin/sh
case \"$1\" in
*[Pp]assphrase*) printf '%s\\n' \"$PENSTOCK_SSH_PASSPHRASE\" ;;
*) exit 1 ;;
esac
";

/// A repository of an ssh server.
pub(super) struct Place {
    /// Without a user.
    pub(super) shown: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    key: Option<SshKey>,
    passphrase: Option<config::Secret>,
    pub(super) time_max: Duration,
    /// What `ssh` is told before anything else.
    pub(super) options: Vec<String>,
}

impl Place {
    /// Nothing: the text is not `ssh://` or `user@host:path`.
    pub(super) fn of(text: &str, login: &GitLogin) -> Option<Result<Self, String>> {
        let is_url = text.starts_with("ssh://");
        // As git: a colon before the first slash. Without a user it could be any scheme, and is not taken.
        let (before, _) = text.split_once(':')?;
        if !is_url && (before.contains('/') || !before.contains('@')) {
            return None;
        }
        Some(Self::parsed(text, login))
    }

    fn parsed(text: &str, login: &GitLogin) -> Result<Self, String> {
        // What stands in the text is not repeated: it may be a password.
        let url = gix::url::parse(text)
            .map_err(|_| "repository: is not ssh://user@host/path or user@host:path".to_owned())?;
        let (user, key, passphrase) = match login {
            GitLogin::Ssh {
                username,
                key,
                passphrase,
            } => (
                Some(username.clone()),
                Some(key.clone()),
                passphrase.clone(),
            ),
            GitLogin::None => (url.user().map(str::to_owned), None, None),
            GitLogin::Basic { .. } => return Err("basic_auth is not for ssh: use ssh_key".into()),
        };
        if url.password().is_some() {
            return Err("repository: ssh takes no password: use ssh_key".to_owned());
        }
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(is_plain) {
            return Err("repository: has no name of a host".to_owned());
        }
        let path = url.path.to_string();
        // As git: what begins with a tilde is below the home of a user.
        let path = match path.starts_with("/~") {
            true => path.trim_start_matches('/').to_owned(),
            false => path,
        };
        if path.starts_with('-') || path.contains(char::is_control) {
            return Err("repository: has no path of a repository".to_owned());
        }
        let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
        let bracketed = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            shown: format!("ssh://{bracketed}{port}{slash}{path}"),
            user,
            host: host.to_owned(),
            port: url.port,
            path,
            key,
            passphrase,
            time_max: TIME_MAX,
            options: Vec::new(),
        })
    }
}

/// What all connections of a look have in common.
pub(super) struct Client {
    runtime: Runtime,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    path: String,
    url: String,
    pub(super) allowance: Allowance,
    /// Dropped last: nothing runs any more that reads it.
    _files: Option<KeyFiles>,
}

impl Client {
    /// `dir` is where the key may be written.
    pub(super) fn new(place: &Place, dir: &Path) -> Result<Arc<Self>, String> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("start a runtime: {error}"))?;
        let files = KeyFiles::write(place, dir)
            .map_err(|error| format!("write the key to {}: {error}", dir.display()))?;
        let mut environment = vec![
            ("GIT_PROTOCOL", "version=2".to_owned()),
            ("LC_ALL", "C".to_owned()),
        ];
        if let (Some(passphrase), Some(files)) = (&place.passphrase, &files) {
            environment.extend([
                (PASSPHRASE, passphrase.expose().to_owned()),
                ("SSH_ASKPASS", files.script().display().to_string()),
                ("SSH_ASKPASS_REQUIRE", "force".to_owned()),
            ]);
        }
        Ok(Arc::new(Self {
            runtime,
            arguments: arguments(place, files.as_ref()),
            environment,
            path: place.path.clone(),
            url: place.shown.clone(),
            allowance: Allowance::new(place.time_max),
            _files: files,
        }))
    }

    /// A connection. `ssh` runs as long as it is there.
    pub(super) fn connect(self: &Arc<Self>) -> Result<Box<dyn Transport>, String> {
        let mut command = Command::new("ssh");
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let entered = self.runtime.enter();
        let started = command.spawn();
        let mut child = started.map_err(|error| format!("start ssh: {error}"))?;
        drop(entered);
        let (Some(input), Some(output), Some(said)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("start ssh: it has no pipes".to_owned());
        };
        let session = Arc::new(Session {
            client: self.clone(),
            running: Mutex::new(Some(Running {
                child,
                said: self.runtime.spawn(tail(said)),
            })),
        });
        let from = From {
            session: session.clone(),
            output,
            has_heard: false,
        };
        let no_daemon = None::<(String, Option<u16>)>;
        let path = self.path.as_str();
        let to = To { session, input };
        let connection = Connection::new(
            from,
            to,
            Protocol::V2,
            path,
            no_daemon,
            ConnectMode::Process,
            false,
        );
        Ok(Box::new(
            connection.custom_url(Some(self.url.as_str().into())),
        ))
    }
}

fn arguments(place: &Place, files: Option<&KeyFiles>) -> Vec<String> {
    let mut all = place.options.clone();
    // A master that stays would hold what is waited for here.
    let mut options = vec![
        "ControlMaster=no",
        "ControlPath=none",
        "ClearAllForwardings=yes",
        "SendEnv=GIT_PROTOCOL",
        "PreferredAuthentications=publickey",
    ];
    options.push(match place.passphrase {
        // In batch mode it would not ask for that either. There is no other question it gets an answer to.
        Some(_) => "BatchMode=no",
        None => "BatchMode=yes",
    });
    let key = match (&place.key, files) {
        (Some(SshKey::File(path)), _) => Some(path.clone()),
        (Some(SshKey::Text(_)), Some(files)) => Some(files.key()),
        _ => None,
    };
    if key.is_some() {
        options.extend(["IdentitiesOnly=yes", "IdentityAgent=none"]);
    }
    all.push("-T".to_owned());
    all.extend(
        options
            .iter()
            .flat_map(|one| ["-o".to_owned(), (*one).to_owned()]),
    );
    let mut pair = |name: &str, value: Option<String>| {
        all.extend(value.into_iter().flat_map(|it| [name.to_owned(), it]));
    };
    pair("-i", key.map(|path| path.display().to_string()));
    pair("-p", place.port.map(|port| port.to_string()));
    pair("-l", place.user.clone());
    let path = place.path.replace('\'', r"'\''");
    all.extend([
        "--".to_owned(),
        place.host.clone(),
        format!("git-upload-pack '{path}'"),
    ]);
    all
}

/// What is written for `ssh`, until it is dropped.
struct KeyFiles(PathBuf);

impl KeyFiles {
    fn write(place: &Place, dir: &Path) -> io::Result<Option<Self>> {
        let files = Self(dir.join("ssh"));
        // There after a kill.
        files.remove()?;
        let key = match &place.key {
            Some(SshKey::Text(key)) => Some(key),
            _ => None,
        };
        if key.is_none() && place.passphrase.is_none() {
            return Ok(None);
        }
        std::fs::DirBuilder::new().mode(0o700).create(&files.0)?;
        if let Some(key) = key {
            // Without a line end behind its last line it is no key.
            let text = format!("{}\n", key.expose().trim_end());
            put(&files.key(), 0o600, &text)?;
        }
        put(&files.script(), 0o700, SCRIPT)?;
        Ok(Some(files))
    }

    fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    fn script(&self) -> PathBuf {
        self.0.join("askpass")
    }

    fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for KeyFiles {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::error!(%error, path = %self.0.display(), "a key stays where it was written");
        }
    }
}

fn put(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// A running `ssh`.
struct Session {
    client: Arc<Client>,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    said: JoinHandle<String>,
}

impl Session {
    /// Nothing more comes: why, unless that is as it should be.
    fn ended(&self, has_heard: bool) -> io::Result<()> {
        let Some(mut running) = self.running.lock().take() else {
            return Ok(());
        };
        let ended = async { (running.child.wait().await, running.said.await) };
        let Client {
            runtime, allowance, ..
        } = &*self.client;
        let (status, said) = runtime.block_on(allowance.in_time(ended))?;
        let status = status?;
        // 255 is its own; any other number is that of the program over there, which may have told by itself.
        if status.success() || (has_heard && status.code() != Some(255)) {
            return Ok(());
        }
        let said = said.unwrap_or_default();
        Err(allowance.failed(match said.is_empty() {
            true => format!("ssh ended with {status}"),
            // Some of what it says begins with its name already.
            false => format!("ssh: {}", said.trim_start_matches("ssh: ")),
        }))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.lock().take() {
            // Only one that has ended already cannot be killed.
            if let Err(error) = self.client.runtime.block_on(running.child.kill()) {
                tracing::debug!(%error, "ssh was gone");
            }
        }
    }
}

/// The end of what is said on standard error, in one line.
async fn tail(mut said: ChildStderr) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = said.read(&mut chunk).await {
        kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let over = kept.len().saturating_sub(SAID_BYTES_MAX);
        kept.drain(..over);
    }
    let text = String::from_utf8_lossy(&kept);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut last: Vec<&str> = lines.rev().take(SAID_LINES).collect();
    last.reverse();
    last.join("; ")
}

/// What comes from the repository.
struct From {
    session: Arc<Session>,
    output: ChildStdout,
    has_heard: bool,
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let client = &self.session.client;
        let read = client.allowance.in_time(self.output.read(into));
        let count = client.runtime.block_on(read)??;
        if count == 0 {
            self.session.ended(self.has_heard)?;
            return Ok(0);
        }
        self.has_heard = true;
        client.allowance.take(count)?;
        Ok(count)
    }
}

/// What goes to the repository.
struct To {
    session: Arc<Session>,
    input: ChildStdin,
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let client = &self.session.client;
        let write = client.allowance.in_time(self.input.write(bytes));
        client.runtime.block_on(write)?
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
