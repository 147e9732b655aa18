//! Turns requests into replies over plain sockets.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A hang becomes a failure.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A status and what came with it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

/// A connection that is made when needed and made again after it broke.
#[derive(Debug)]
pub(crate) struct Client {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    /// One that is connected already.
    pub(crate) fn connected(port: u16) -> io::Result<Self> {
        let stream = Some(BufReader::new(connect(port)?));
        Ok(Self { port, stream })
    }

    /// A remote-write request with the headers of a usual sender.
    pub(crate) fn write(&mut self, body: &[u8]) -> io::Result<Reply> {
        let headers = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
                       X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        self.send("POST /api/v1/metrics/write", headers, body)
    }

    /// A request with `line` (method and path), `headers` and the length of `body`.
    pub(crate) fn send(&mut self, line: &str, headers: &str, body: &[u8]) -> io::Result<Reply> {
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.exchange(&[head.as_bytes(), body].concat())
    }

    /// Any bytes, and the reply to them.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(self.port)?),
        };
        stream.get_mut().write_all(request)?;
        let reply = read_reply(&mut stream)?;
        if !reply
            .head
            .to_ascii_lowercase()
            .contains("connection: close")
        {
            self.stream = Some(stream);
        }
        Ok(reply)
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn read_reply(stream: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let (status, head) = read_head(stream)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let text = String::from_utf8(body).unwrap();
    Ok(Reply { status, head, text })
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(Error::new(
                ErrorKind::UnexpectedEof,
                "closed before a reply",
            ));
        }
    }
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, head.clone()))?;
    Ok((status, head))
}

/// A GET on a connection of its own. HTTP/1.0, as then a reply simply ends with its connection.
pub(crate) fn get(port: u16, path: &str) -> io::Result<Reply> {
    one_shot(port, &format!("GET {path} HTTP/1.0\r\nHost: t\r\n\r\n"))
}

/// A POST without a body.
pub(crate) fn post(port: u16, path: &str) -> io::Result<Reply> {
    let head = format!("POST {path} HTTP/1.0\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    one_shot(port, &head)
}

fn one_shot(port: u16, request: &str) -> io::Result<Reply> {
    let mut stream = BufReader::new(connect(port)?);
    stream.get_mut().write_all(request.as_bytes())?;
    let (status, head) = read_head(&mut stream)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Reply { status, head, text })
}

/// Whether a GET is answered with 200.
pub(crate) fn is_ok(port: u16, path: &str) -> bool {
    get(port, path).is_ok_and(|reply| reply.status == 200)
}

/// Text for the query part of a path.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A value of a metrics page: of the only line with this name and all these label pairs.
pub(crate) fn metric(page: &str, name: &str, pairs: &[(&str, &str)]) -> Option<f64> {
    let mut found = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        let is_named = rest.is_some_and(|rest| rest.starts_with(['{', ' ']));
        let has = |(label, value): &(&str, &str)| line.contains(&format!("{label}=\"{value}\""));
        is_named && pairs.iter().all(has)
    });
    let line = found.next()?;
    assert_eq!(found.next(), None, "more than one {name} with {pairs:?}");
    Some(line.rsplit(' ').next()?.parse().unwrap())
}
