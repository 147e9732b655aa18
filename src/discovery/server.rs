//! A server for tests: turns requests into the answers a test wants, over TCP or a socket of the machine.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

/// Status line, content type and further headers, body; by the path of the request.
pub(super) type Answer = (&'static str, String, String);

type Answers = Box<dyn Fn(&str) -> Answer + Send>;

/// Serves until it is dropped.
pub(super) struct Server {
    answers: Arc<Mutex<Answers>>,
    heads: Arc<Mutex<Vec<String>>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Server {
    fn new(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        Self {
            answers: Arc::new(Mutex::new(Box::new(answer))),
            heads: Arc::default(),
            task: None,
        }
    }

    /// One at a URL.
    pub(super) async fn tcp(answer: impl Fn(&str) -> Answer + Send + 'static) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = Self::new(answer);
        let (answers, heads) = (server.answers.clone(), server.heads.clone());
        server.task = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &answers, &heads).await;
            }
        }));
        (server, url)
    }

    /// One at a path.
    pub(super) fn unix(path: &Path, answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let mut server = Self::new(answer);
        let (answers, heads) = (server.answers.clone(), server.heads.clone());
        server.task = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &answers, &heads).await;
            }
        }));
        server
    }

    /// Answers so from now on.
    pub(super) fn answer(&self, answer: impl Fn(&str) -> Answer + Send + 'static) {
        *self.answers.lock() = Box::new(answer);
    }

    /// The heads of the requests so far, in lower case.
    pub(super) fn heads(&self) -> Vec<String> {
        std::mem::take(&mut *self.heads.lock())
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: &Mutex<Answers>,
    heads: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().push(head.to_ascii_lowercase());
    let (status, headers, body) = answers.lock()(&path);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\nContent-Type: \
         {headers}\r\n\r\n{body}"
    );
    // Whoever asked may be gone.
    stream.write_all(answer.as_bytes()).await.ok();
}
