//! Repositories behind an ssh server: an `sshd` for each connection, with keys of its own.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::component::SshKey;
use crate::graph::git::ssh::Place;

const PASSPHRASE: &str = "hunter2 'or' more";

/// A server, and a client that knows it.
struct Server {
    bed: Bed,
    port: u16,
    user: String,
}

impl Server {
    /// Nothing where there is no `sshd`.
    fn start() -> Option<Self> {
        let bed = Bed::new()?;
        if Command::new("/usr/sbin/sshd").arg("-V").output().is_err() {
            println!("skipped: sshd is not installed");
            return None;
        }
        // Who is root is asked for it; else it is not looked at.
        std::fs::create_dir_all("/run/sshd").ok();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let server = Self {
            port: 0,
            user: String::from_utf8(user).unwrap().trim().to_owned(),
            bed,
        };
        for (name, passphrase) in [
            ("host", ""),
            ("other-host", ""),
            ("good", ""),
            ("locked", PASSPHRASE),
            ("bad", ""),
        ] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
                .arg(server.at(name))
                .status();
            assert!(made.unwrap().success());
        }
        server.write(
            "authorized",
            &(server.read("good.pub") + &server.read("locked.pub")),
        );
        let dir = server.bed.dir.path().display();
        server.write(
            "sshd_config",
            &format!(
                "HostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nStrictModes no\nUsePAM no\n\
                 PermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nSetEnv PATH={}\n",
                std::env::var("PATH").unwrap()
            ),
        );
        Some(server.listening())
    }

    fn listening(mut self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.port = listener.local_addr().unwrap().port();
        self.knows("host");
        let config = self.at("sshd_config");
        let serve = move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut command = Command::new("/usr/sbin/sshd");
                command.arg("-i").arg("-f").arg(&config);
                command.stdin(OwnedFd::from(stream.try_clone().unwrap()));
                command.stdout(OwnedFd::from(stream)).stderr(Stdio::null());
                let mut child = command.spawn().unwrap();
                drop(command);
                child.wait().unwrap();
            }
        };
        std::thread::Builder::new().spawn(serve).unwrap();
        self
    }

    /// Has the client know the server by a key.
    fn knows(&self, host: &str) {
        let key = self.read(&format!("{host}.pub"));
        self.write("known", &format!("[127.0.0.1]:{} {key}", self.port));
        let known = self.at("known");
        self.write(
            "ssh_config",
            &format!(
                "UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nUpdateHostKeys no\n",
                known.display()
            ),
        );
    }

    fn at(&self, name: &str) -> PathBuf {
        self.bed.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn url(&self) -> String {
        let repository = self.bed.repository();
        let (user, port) = (&self.user, self.port);
        format!("ssh://{user}@127.0.0.1:{port}{}", repository.display())
    }

    fn login(&self, key: SshKey, passphrase: Option<&str>) -> GitLogin {
        GitLogin::Ssh {
            username: self.user.clone(),
            key,
            passphrase: passphrase.map(config::Secret::new),
        }
    }

    fn by_file(&self, name: &str) -> GitLogin {
        self.login(SshKey::File(self.at(name)), None)
    }

    /// A look with nothing of the user's own configuration.
    fn look(
        &self,
        repository: &str,
        login: &GitLogin,
        time_max: Duration,
    ) -> Result<Files, String> {
        let mut place = Place::of(repository, login).unwrap()?;
        place.options = vec!["-F".to_owned(), self.at("ssh_config").display().to_string()];
        place.time_max = time_max;
        let wanted = Wanted {
            names: Names::of("main").unwrap(),
            path: "a.alloy",
            label: format!("{}@main", place.shown),
        };
        let found = remote::files(&Remote::Ssh(Box::new(place)), &wanted, &self.bed.copy());
        let is_there = self.bed.copy().join("ssh").try_exists();
        assert!(!is_there.unwrap(), "the key is gone");
        found
    }

    fn told(&self, login: &GitLogin) -> String {
        self.look(&self.url(), login, TIME_MAX).unwrap_err()
    }
}

#[test]
fn a_key_lets_in_as_a_file_as_text_and_with_its_passphrase() {
    let Some(server) = Server::start() else {
        return;
    };
    let as_text = |name| SshKey::Text(config::Secret::new(server.read(name).trim_end()));
    for login in [
        server.by_file("good"),
        server.login(as_text("good"), None),
        server.login(SshKey::File(server.at("locked")), Some(PASSPHRASE)),
        server.login(as_text("locked"), Some(PASSPHRASE)),
    ] {
        let found = server.look(&server.url(), &login, TIME_MAX).unwrap();
        let (name, text) = found.first().unwrap();
        assert_eq!(text, "// one\n");
        let shown = server.url().replace(&format!("{}@", server.user), "");
        assert_eq!(
            *name,
            format!("{shown}@main:a.alloy"),
            "who asks is not told"
        );
        std::fs::remove_dir_all(server.bed.copy()).unwrap();
    }
}

#[test]
fn what_moved_is_fetched_by_the_short_form_too() {
    let Some(server) = Server::start() else {
        return;
    };
    let login = server.by_file("good");
    let path = server.bed.repository().display().to_string();
    let mut config = server.read("ssh_config");
    config += &format!("Host short\nHostName 127.0.0.1\nPort {}\n", server.port);
    server.write("ssh_config", &config);
    let repository = format!("nobody@short:{path}");
    let look = || server.look(&repository, &login, TIME_MAX).map(texts);
    assert_eq!(look().unwrap(), ["// one\n"]);
    server.bed.commit(&[("a.alloy", "// two\n")]);
    assert_eq!(look().unwrap(), ["// two\n"]);
    // A server that is not told of the newer protocol speaks the older one.
    let config = server
        .read("sshd_config")
        .replace("AcceptEnv GIT_PROTOCOL", "");
    server.write("sshd_config", &config);
    server.bed.commit(&[("a.alloy", "// three\n")]);
    assert_eq!(look().unwrap(), ["// three\n"]);
}

#[test]
fn without_the_right_key_nobody_gets_in() {
    let Some(server) = Server::start() else {
        return;
    };
    let denied = "Permission denied (publickey)";
    let locked = || SshKey::File(server.at("locked"));
    for login in [
        server.by_file("bad"),
        server.by_file("locked"),
        server.login(locked(), Some("wrong")),
        server.login(SshKey::Text(config::Secret::new("no key")), None),
        server.by_file("nothing"),
    ] {
        let told = server.told(&login);
        assert!(told.contains(denied), "{told}");
        assert!(!told.contains("wrong"), "{told}");
    }
}

#[test]
fn a_host_that_is_another_one_or_not_known_is_refused() {
    let Some(server) = Server::start() else {
        return;
    };
    let with_passphrase = server.login(SshKey::File(server.at("locked")), Some(PASSPHRASE));
    for login in [server.by_file("good"), with_passphrase] {
        server.knows("other-host");
        let told = server.told(&login);
        assert!(told.ends_with("Host key verification failed."), "{told}");
        assert!(told.contains("has changed"), "{told}");
        server.write("known", "");
        let told = server.told(&login);
        assert!(told.ends_with("Host key verification failed."), "{told}");
        assert_eq!(server.read("known"), "", "nothing is learned");
    }
}

#[test]
fn what_is_not_there_is_told() {
    let Some(server) = Server::start() else {
        return;
    };
    let login = server.by_file("good");
    let nowhere = format!("{}-not", server.url());
    let told = server.look(&nowhere, &login, TIME_MAX).unwrap_err();
    assert!(
        told.contains("does not appear to be a git repository"),
        "{told}"
    );
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let url = format!("ssh://u@127.0.0.1:{port}/r");
    let told = server.look(&url, &login, TIME_MAX).unwrap_err();
    assert!(told.starts_with("ssh: connect to host 127.0.0.1"), "{told}");
}

#[test]
fn an_ssh_server_that_never_answers_is_given_up() {
    let Some(server) = Server::start() else {
        return;
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ssh://u@{}/r", silent.local_addr().unwrap());
    let login = server.by_file("good");
    let told = server
        .look(&url, &login, Duration::from_millis(50))
        .unwrap_err();
    assert_eq!(told, "operation timed out");
}

#[test]
fn a_key_is_readable_by_nobody_else_while_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let login = GitLogin::Ssh {
        username: "u".to_owned(),
        key: SshKey::Text(config::Secret::new("k")),
        passphrase: Some(config::Secret::new("hunter2")),
    };
    let place = Place::of("u@h:r", &login).unwrap().unwrap();
    // As after a kill.
    std::fs::create_dir(dir.path().join("ssh")).unwrap();
    std::fs::File::create(dir.path().join("ssh/key"))
        .unwrap()
        .write_all(b"old")
        .unwrap();
    let client = crate::graph::git::ssh::Client::new(&place, dir.path()).unwrap();
    let mode = |name: &str| {
        let found = std::fs::metadata(dir.path().join(name)).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("ssh"), mode("ssh/key"), mode("ssh/askpass")),
        (0o700, 0o600, 0o700)
    );
    assert_eq!(std::fs::read(dir.path().join("ssh/key")).unwrap(), b"k\n");
    drop(client);
    assert!(!dir.path().join("ssh").try_exists().unwrap());
}

#[test]
fn places_of_ssh_are_told_apart_and_bad_ones_refused() {
    let place = |text: &str| Place::of(text, &GitLogin::None);
    for (text, shown) in [
        ("git@host:a/b.git", "ssh://host/a/b.git"),
        ("git@host:/a", "ssh://host/a"),
        ("ssh://git@host:2222/a", "ssh://host:2222/a"),
        ("ssh://host/~u/a", "ssh://host/~u/a"),
        ("ssh://git@[::1]:22/a", "ssh://[::1]:22/a"),
    ] {
        assert_eq!(place(text).unwrap().unwrap().shown, shown, "{text}");
    }
    for text in ["https://u@h/r", "./a@b:c", "host:r", "/srv/x", "file:///x"] {
        assert!(place(text).is_none(), "{text}");
    }
    for text in [
        "ssh://u:hunter2@h/r",
        "ssh://-oProxyCommand=hunter2/r",
        "u@-oProxyCommand=hunter2:r",
        "ssh://u@h",
        "u@h:-hunter2",
        "ssh://u@ho st/hunter2",
        "u@h:a\nhunter2",
    ] {
        let told = place(text).unwrap().err();
        assert!(told.is_some_and(|told| !told.contains("hunter2")), "{text}");
    }
    let basic = GitLogin::Basic {
        username: "u".to_owned(),
        password: SecretSource::default(),
    };
    let told = Place::of("u@h:r", &basic).unwrap().err();
    assert_eq!(told.unwrap(), "basic_auth is not for ssh: use ssh_key");
}
