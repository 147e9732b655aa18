//! Turns bytes of a connection into heads and bodies of HTTP/1.1, for a peer that is well-behaved.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::series::Protocol;

/// A hang becomes an error.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;
/// Behind the content type.
const V2_MESSAGE: &str = ";proto=io.prometheus.write.v2.Request";

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// Head and body of a message, in the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    head: usize,
    whole: usize,
}

impl Connection {
    /// Connects to `address`.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Talks over `stream`.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            filled: 0,
        })
    }

    /// Sends a remote-write body and waits for the answer's status.
    pub(crate) fn push(&mut self, protocol: Protocol, body: &[u8]) -> io::Result<u16> {
        let (message, version) = match protocol {
            Protocol::V1 => ("", "0.1.0"),
            Protocol::V2 => (V2_MESSAGE, "2.0.0"),
        };
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\
             {message}\r\nContent-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: {version}\r\n\
             User-Agent: penstock-bench\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(head.as_bytes())?;
        self.send(body)?;
        let answer = self
            .receive()?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let status = self
            .head(answer)
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status"))?;
        self.consume(answer);
        Ok(status)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next message; `None` if the peer closed instead.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Message>> {
        let mut searched = 0;
        let head = loop {
            let from = searched.min(self.filled);
            let found = self.buffer[from..self.filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(at) = found {
                break from + at + 4;
            }
            searched = self.filled.saturating_sub(3);
            if !self.fill()? {
                return Ok(None);
            }
        };
        let whole = head + content_length(&String::from_utf8_lossy(&self.buffer[..head]));
        while self.filled < whole {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(Message { head, whole }))
    }

    /// The head of a message that was not consumed yet.
    pub(crate) fn head(&self, message: Message) -> &str {
        std::str::from_utf8(&self.buffer[..message.head]).unwrap_or_default()
    }

    /// The body of a message that was not consumed yet.
    pub(crate) fn body(&self, message: Message) -> &[u8] {
        &self.buffer[message.head..message.whole]
    }

    /// Makes room for the next message.
    pub(crate) fn consume(&mut self, message: Message) {
        self.buffer.copy_within(message.whole..self.filled, 0);
        self.filled -= message.whole;
    }

    fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.len() < self.filled + READ_BYTES {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        self.filled += count;
        Ok(count > 0)
    }
}

fn content_length(head: &str) -> usize {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Fetches a page of text.
pub(crate) fn page(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The sum over all series of a metric in a page of text exposition; `None` without any.
pub(crate) fn metric_sum(page: &str, name: &str) -> Option<f64> {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .reduce(|sum, number| sum + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_and_not_confused_with_others() {
        let page = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\na_more 100\n";
        assert_eq!(metric_sum(page, "a"), Some(5.0));
        assert_eq!(metric_sum(page, "b"), None);
    }

    #[test]
    fn bodies_have_the_length_the_head_says() {
        assert_eq!(
            content_length("POST / HTTP/1.1\r\ncontent-length: 17\r\n\r\n"),
            17
        );
        assert_eq!(content_length("HTTP/1.1 204 No Content\r\n\r\n"), 0);
    }
}
