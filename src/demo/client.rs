//! Turns a request into an answer over one blocking HTTP/1.1 connection.
//!
//! Connects when needed and forgets the connection after any error, so the caller's retry is the
//! whole story of recovery.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting may take; the peer is this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One connection to one address.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Nothing is connected yet. `timeout` bounds every wait for the peer.
    pub(super) const fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            stream: None,
            buffer: Vec::new(),
        }
    }

    /// Sends a remote-write 1.0 body; answers the status.
    pub(super) fn push(&mut self, body: &[u8]) -> io::Result<u16> {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
             User-Agent: penstock-demo\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let status = self.exchange(&head, body);
        if status.is_err() {
            self.stream = None;
        }
        status
    }

    /// Fetches a page of text over a connection of its own.
    pub(super) fn page(&mut self, path: &str) -> io::Result<String> {
        let mut stream = self.connect()?;
        let head = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, text) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| invalid("the answer has no end of head"))?;
        if status_of(head.as_bytes()) != Some(200) {
            return Err(invalid("the page is not there"));
        }
        Ok(text.to_owned())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        // With nobody listening, a socket may be given the very port it connects to and so reach
        // itself.
        if stream.local_addr()? == self.address {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    fn exchange(&mut self, head: &str, body: &[u8]) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        self.buffer.clear();
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            fill(&mut stream, &mut self.buffer)?;
        };
        let head = self.buffer.get(..head_end).unwrap_or_default();
        let status = status_of(head).ok_or_else(|| invalid("the answer has no status"))?;
        let whole = head_end + content_length(head);
        while self.buffer.len() < whole {
            fill(&mut stream, &mut self.buffer)?;
        }
        self.stream = Some(stream);
        Ok(status)
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
    Ok(())
}

fn status_of(head: &[u8]) -> Option<u16> {
    let code = head.split(|byte| *byte == b' ').nth(1)?;
    std::str::from_utf8(code.get(..3)?).ok()?.parse().ok()
}

fn content_length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head);
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The sum over all series of a metric in a page of text exposition; `None` without any.
pub(super) fn metric_sum(page: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once("} ").map(|(_, value)| value),
            None => rest.strip_prefix(' '),
        };
        let number = value
            .and_then(|value| value.split_whitespace().next())
            .and_then(|value| value.parse::<f64>().ok());
        if let Some(number) = number {
            *sum.get_or_insert(0.0) += number;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_series_and_not_confused_with_others() {
        let page = "# TYPE a_total counter\na_total{x=\"} 9\"} 2\na_total{x=\"b\"} 3.5 1700\n\
                    a_total_more 100\nb 7\n";
        assert_eq!(metric_sum(page, "a_total"), Some(5.5));
        assert_eq!(metric_sum(page, "b"), Some(7.0));
        assert_eq!(metric_sum(page, "c"), None);
    }

    #[test]
    fn heads_are_read() {
        let head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-LENGTH: 12\r\n\r\n";
        assert_eq!(status_of(head), Some(503));
        assert_eq!(content_length(head), 12);
        assert_eq!(content_length(b"HTTP/1.1 204 No Content\r\n\r\n"), 0);
    }
}
