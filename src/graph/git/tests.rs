//! Repositories that `git` makes, from where they are and over HTTP. Without that program there is nothing
//! to look at, and the tests say so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use shipper::SecretSource;

use super::*;

mod ssh;

/// A repository with a branch, and a place for a copy.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    /// Nothing where there is no `git`.
    fn new() -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            println!("skipped: git is not installed");
            return None;
        }
        let bed = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        bed.git(&["init", "--quiet", "--initial-branch=main", "."]);
        bed.commit(&[
            ("a.alloy", "// one\n"),
            ("lib/b.alloy", "// b\n"),
            ("lib/c.txt", "no\n"),
        ]);
        Some(bed)
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("copies/import.git.x")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let dir = self.repository();
        std::fs::create_dir_all(&dir).unwrap();
        let ran = git(&dir).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "git {arguments:?}: {error}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.repository().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn local(&self, revision: &str, path: &str) -> Result<Files, String> {
        files(
            &fetch(self.repository().to_str().unwrap(), revision, path),
            &self.copy(),
        )
    }
}

/// `git`, with nothing of the machine's settings.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env_clear().env("HOME", dir);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "n")
            .env(format!("GIT_{who}_EMAIL"), "e@h");
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn fetch(repository: &str, revision: &str, path: &str) -> GitFetch {
    GitFetch {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        path: path.to_owned(),
        login: GitLogin::None,
    }
}

fn texts(files: Files) -> Vec<String> {
    files.into_iter().map(|(_, text)| text).collect()
}

/// What a server wants to see before it answers; `""`: nothing, and it must not.
type Login = Option<&'static str>;

/// Serves repositories below a directory by the smart protocol until the test ends.
fn serve(root: PathBuf, login: Login) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for stream in listener.incoming() {
            answer(&mut stream.unwrap(), &root, login);
        }
    };
    std::thread::Builder::new().spawn(serve).unwrap();
    format!("http://{address}")
}

fn answer(stream: &mut TcpStream, root: &Path, login: Login) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length, mut protocol, mut is_in) = (
        String::new(),
        0,
        String::new(),
        login.is_none_or(str::is_empty),
    );
    reader.read_line(&mut line).unwrap();
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap() <= 2 {
            break;
        }
        let (name, value) = header.trim().split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "git-protocol" => protocol = value.to_owned(),
            "authorization" => is_in = login == Some(value),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (path, _) = target.split_once('?').unwrap_or((&target, ""));
    let (status, kind, text) = if !is_in {
        ("401 Unauthorized", "text/plain", Vec::new())
    } else if let Some(name) = path.strip_suffix("/info/refs") {
        let ran = upload_pack(&root.join(name.trim_matches('/')), &protocol, true, &[]);
        let mut text = b"001e# service=git-upload-pack\n0000".to_vec();
        text.extend_from_slice(&ran.stdout);
        let status = if ran.status.success() {
            "200 OK"
        } else {
            "404 Not Found"
        };
        (status, "application/x-git-upload-pack-advertisement", text)
    } else {
        let name = path.trim_end_matches("/git-upload-pack");
        let ran = upload_pack(&root.join(name.trim_matches('/')), &protocol, false, &body);
        ("200 OK", "application/x-git-upload-pack-result", ran.stdout)
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    // The other side may have gone.
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&text))
        .ok();
}

/// Sends everybody to another server.
fn redirect(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let target = line.split(' ').nth(1).unwrap().to_owned();
            while line.trim() != "" {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            let head = format!(
                "HTTP/1.1 301 Moved\r\nlocation: {to}{target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
        }
    };
    std::thread::Builder::new().spawn(serve).unwrap();
    format!("http://user:hunter2@{address}")
}

#[test]
fn a_repository_that_moved_is_followed_and_the_login_stays() {
    let Some(bed) = Bed::new() else { return };
    let there = serve(bed.dir.path().to_owned(), Some(""));
    let url = format!("{}/repository", redirect(there.clone()));
    let found = files(&fetch(&url, "main", "a.alloy"), &bed.copy());
    assert_eq!(texts(found.unwrap()), ["// one\n"]);
    let direct = there.replace("http://", "http://user:hunter2@");
    let refused = files(
        &fetch(&format!("{direct}/repository"), "main", "a.alloy"),
        &bed.copy(),
    );
    assert!(
        refused.unwrap_err().contains("401"),
        "it would have been seen"
    );
}

fn upload_pack(repository: &Path, protocol: &str, is_asked: bool, body: &[u8]) -> Output {
    let mut command = git(Path::new("/"));
    command
        .args(["upload-pack", "--stateless-rpc"])
        .env("GIT_PROTOCOL", protocol);
    if is_asked {
        command.arg("--advertise-refs");
    }
    command
        .arg(repository)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // One that fails does not read.
    child.stdin.take().unwrap().write_all(body).ok();
    child.wait_with_output().unwrap()
}

#[test]
fn a_file_and_the_configuration_of_a_directory_are_read() {
    let Some(bed) = Bed::new() else { return };
    let name = bed.repository().display().to_string();
    let one = vec![(format!("{name}@main:a.alloy"), "// one\n".to_owned())];
    assert_eq!(bed.local("main", "a.alloy"), Ok(one));
    let lib = vec![(format!("{name}@HEAD:lib/b.alloy"), "// b\n".to_owned())];
    assert_eq!(bed.local("HEAD", "/lib/"), Ok(lib));
    let whole = vec![(format!("{name}@HEAD:a.alloy"), "// one\n".to_owned())];
    assert_eq!(bed.local("HEAD", "."), Ok(whole));
    let url = format!("file://{name}");
    assert_eq!(
        texts(files(&fetch(&url, "main", "a.alloy"), &bed.copy()).unwrap()),
        ["// one\n"]
    );
}

#[test]
fn every_kind_of_revision_is_found_here_and_elsewhere() {
    let Some(bed) = Bed::new() else { return };
    let first = bed.git(&["rev-parse", "HEAD"]);
    bed.git(&["tag", "--annotate", "--message=x", "v1"]);
    bed.git(&["branch", "side"]);
    bed.commit(&[("a.alloy", "// two\n")]);
    let url = format!("{}/repository", serve(bed.dir.path().to_owned(), None));
    for repository in [bed.repository().to_str().unwrap(), url.as_str()] {
        for (revision, text) in [
            (first.as_str(), "// one\n"),
            ("v1", "// one\n"),
            ("side", "// one\n"),
            ("refs/heads/main", "// two\n"),
            ("HEAD", "// two\n"),
        ] {
            let found = files(&fetch(repository, revision, "a.alloy"), &bed.copy());
            assert_eq!(texts(found.unwrap()), [text], "{repository} {revision}");
        }
    }
}

#[test]
fn a_branch_that_moved_is_seen_by_the_next_look_and_the_copy_does_not_grow() {
    let Some(bed) = Bed::new() else { return };
    let url = format!("{}/repository", serve(bed.dir.path().to_owned(), None));
    let look = || files(&fetch(&url, "main", "a.alloy"), &bed.copy()).map(texts);
    assert_eq!(look().unwrap(), ["// one\n"]);
    // The same revision fetched again would have the same name, but be another file.
    let packs = || {
        let dir = bed.copy().join("repository.git/objects/pack");
        let paths = std::fs::read_dir(dir)
            .unwrap()
            .map(|one| one.unwrap().path());
        let packs = paths.filter(|path| path.extension().is_some_and(|e| e == "pack"));
        let inodes = packs.map(|path| std::fs::metadata(path).unwrap().ino());
        inodes.collect::<Vec<u64>>()
    };
    let before = packs();
    assert_eq!(before.len(), 1);
    assert_eq!(look().unwrap(), ["// one\n"]);
    assert_eq!(packs(), before, "the same revision is not fetched again");
    for text in ["// two\n", "// three\n"] {
        bed.commit(&[("a.alloy", text)]);
        assert_eq!(look().unwrap(), [text]);
        assert_eq!(packs().len(), 1);
    }
    assert_eq!(texts(bed.local("main", "a.alloy").unwrap()), ["// three\n"]);
}

#[test]
fn a_broken_copy_is_made_anew() {
    let Some(bed) = Bed::new() else { return };
    let url = format!("{}/repository", serve(bed.dir.path().to_owned(), None));
    let look = || files(&fetch(&url, "main", "a.alloy"), &bed.copy()).map(texts);
    look().unwrap();
    let kept = bed.copy().join("repository.git");
    for pack in std::fs::read_dir(kept.join("objects/pack")).unwrap() {
        let path = pack.unwrap().path();
        if path.extension().is_some_and(|e| e == "pack") {
            // Packs are read-only.
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
        }
    }
    assert_eq!(look().unwrap(), ["// one\n"]);
    std::fs::write(kept.join("HEAD"), "nonsense").unwrap();
    std::fs::remove_dir_all(kept.join("objects")).unwrap();
    assert_eq!(look().unwrap(), ["// one\n"]);
}

#[test]
fn who_may_not_is_told_and_no_secret_is() {
    let Some(bed) = Bed::new() else { return };
    // user:hunter2
    let base = serve(bed.dir.path().to_owned(), Some("Basic dXNlcjpodW50ZXIy"));
    let mut asked = fetch(&format!("{base}/repository"), "main", "a.alloy");
    let refused = files(&asked, &bed.copy()).unwrap_err();
    assert_eq!(
        refused,
        "failed to read repository: the answer is 401 Unauthorized"
    );
    let file = bed.dir.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let sources = [
        SecretSource::Text("hunter2".into()),
        SecretSource::File(file),
    ];
    for password in sources {
        asked.login = GitLogin::Basic {
            username: "user".to_owned(),
            password,
        };
        assert_eq!(texts(files(&asked, &bed.copy()).unwrap()), ["// one\n"]);
    }
    let inside = base.replace("http://", "http://user:hunter2@");
    let found = files(
        &fetch(&format!("{inside}/repository"), "main", "a.alloy"),
        &bed.copy(),
    );
    assert_eq!(
        found.unwrap()[0].0,
        format!("{base}/repository@main:a.alloy")
    );
    for (revision, path) in [("main", "none"), ("none", "a.alloy")] {
        let found = files(
            &fetch(&format!("{inside}/repository"), revision, path),
            &bed.copy(),
        );
        assert!(!found.unwrap_err().contains("hunter2"));
    }
    let wrong = inside.replace("hunter2", "hunter3");
    let found = files(
        &fetch(&format!("{wrong}/repository"), "main", "a.alloy"),
        &bed.copy(),
    );
    assert_eq!(found.unwrap_err(), refused);
}

/// Why a look failed.
fn told(bed: &Bed, repository: &str, revision: &str, path: &str) -> String {
    let failed = files(&fetch(repository, revision, path), &bed.copy()).unwrap_err();
    let start = "failed to read repository: ";
    failed.strip_prefix(start).unwrap_or(&failed).to_owned()
}

#[test]
fn what_is_not_in_a_repository_is_told_with_its_place() {
    let Some(bed) = Bed::new() else { return };
    bed.commit(&[("none/a.txt", "x"), ("latin.alloy", "x")]);
    std::fs::write(bed.repository().join("latin.alloy"), [b'/', b'/', 0xe4]).unwrap();
    bed.git(&["commit", "--quiet", "--all", "--message=x"]);
    let here = bed.repository().display().to_string();
    let there = format!("{}/repository", serve(bed.dir.path().to_owned(), None));
    let id = "0123456789012345678901234567890123456789";
    for place in [here, there] {
        for revision in ["none", id] {
            let want = format!("there is no such revision: {place}@{revision}");
            assert_eq!(told(&bed, &place, revision, "a.alloy"), want);
        }
        for path in ["x", "x/y", "a.alloy/x"] {
            let want = format!("there is no such file or directory: {place}@main:{path}");
            assert_eq!(told(&bed, &place, "main", path), want);
        }
        let want = format!("{place}@main:none holds no *.alloy or *.penstock file");
        assert_eq!(told(&bed, &place, "main", "none"), want);
        let want = format!("{place}@main:latin.alloy is not UTF-8");
        assert_eq!(told(&bed, &place, "main", "latin.alloy"), want);
    }
}

#[test]
fn what_is_no_repository_is_told() {
    let Some(bed) = Bed::new() else { return };
    let base = serve(bed.dir.path().to_owned(), None);
    let dir = bed.dir.path().display().to_string();
    let nowhere = "repository: is neither a URL nor a directory that exists";
    let supported = "is not supported: use http, https, ssh, file or a path";
    for (repository, want) in [
        (format!("{dir}/nothing"), nowhere.to_owned()),
        (dir.clone(), format!("{dir} is not a repository")),
        (
            format!("{base}/none"),
            "the answer is 404 Not Found".to_owned(),
        ),
        (
            "git://h/r".to_owned(),
            format!("repository: git {supported}"),
        ),
    ] {
        assert_eq!(told(&bed, &repository, "main", "a"), want);
    }
    for revision in ["main~1", "", "-x", "+x", "a b", "a:b"] {
        let is = "is not HEAD, a branch, a tag or a whole commit id";
        let want = format!("revision: {revision:?} {is}");
        assert_eq!(told(&bed, &dir, revision, "a"), want);
    }
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r", listener.local_addr().unwrap());
    let copy = tempfile::tempdir().unwrap();
    let Repository::Remote(Remote::Http(mut place)) =
        Repository::of(&url, &GitLogin::None).unwrap()
    else {
        panic!("it is a URL");
    };
    place.time_max = Duration::from_millis(50);
    let wanted = Wanted {
        names: Names::of("HEAD").unwrap(),
        path: "",
        label: String::new(),
    };
    let went = remote::files(&Remote::Http(place), &wanted, copy.path());
    assert!(went.unwrap_err().ends_with("operation timed out"));
}
