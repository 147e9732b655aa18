//! Turns a function into an HTTP server on loopback, with a thread for each connection. It lives as long as the test.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its lines without the empty one.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// What a header says.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// The port of a server that answers what `answer` says, and nothing where that is nothing.
pub(crate) fn start(
    name: &'static str,
    answer: impl Fn(Request) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    let named = move || std::thread::Builder::new().name(name.to_owned());
    let accept = move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            // Ends with its connection, however that is.
            let serve = move || serve(stream, &*answer).unwrap_or(());
            named().spawn(serve).unwrap();
        }
    };
    named().spawn(accept).unwrap();
    port
}

fn serve(stream: TcpStream, answer: &dyn Fn(Request) -> Option<Vec<u8>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read_request(&mut stream)?;
        if let Some(answer) = answer(request) {
            stream.get_mut().write_all(&answer)?;
        }
    }
}

/// The next request of a connection.
///
/// # Errors
/// There is none any more.
pub(crate) fn read_request(stream: &mut impl BufRead) -> io::Result<Request> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Request { head, body })
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
