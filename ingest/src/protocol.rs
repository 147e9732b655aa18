//! Turns an accepted socket into a connection of the protocol its peer speaks.
//!
//! # Invariants
//! - A receiver without TLS and HTTP/2 costs nothing for others having them: its sockets go straight
//!   to `connection`.
//!
//! # Failure
//! - No TLS handshake, or no first bytes where they say which HTTP it is, within the read timeout:
//!   closed and counted.
//!
//! # Threads
//! - A connection lives on the shard thread that accepted it, from its first byte on.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::http::Receiver;
use crate::secure::Tls;
use crate::{connection, http2};

/// What a peer begins with that knows that we speak HTTP/2.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers the requests of a connection until it ends; after `stop` becomes true, only those in
/// flight.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    receiver: Rc<Receiver>,
    stop: watch::Receiver<bool>,
) {
    // Boxed where they are rare: a plain connection does not carry the state of a TLS one.
    let settings = receiver.settings();
    let (tls, has_http2) = (settings.tls.clone(), settings.options.http2.is_some());
    drop(settings);
    if let Some(tls) = tls {
        Box::pin(encrypted(stream, tls, receiver, stop)).await;
    } else if has_http2 {
        Box::pin(either(stream, receiver, stop)).await;
    } else {
        connection::serve(stream, receiver, stop).await;
    }
}

async fn encrypted<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: std::sync::Arc<Tls>,
    receiver: Rc<Receiver>,
    stop: watch::Receiver<bool>,
) {
    let read_timeout = receiver.settings().options.read_timeout;
    let accepting = tls.accept(stream, read_timeout);
    let Some(Some(stream)) = unless_stopped(accepting, &stop).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, receiver, stop).await;
    } else {
        connection::serve(stream, receiver, stop).await;
    }
}

/// HTTP/2 by prior knowledge, else HTTP/1.1.
async fn either<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    receiver: Rc<Receiver>,
    stop: watch::Receiver<bool>,
) {
    let mut stream = Rewound::new(stream);
    let read_timeout = receiver.settings().options.read_timeout;
    let looking = tokio::time::timeout(read_timeout, stream.is_http2());
    match unless_stopped(looking, &stop).await {
        Some(Ok(Ok(true))) => http2::serve(stream, receiver, stop).await,
        Some(Ok(Ok(false))) => connection::serve(stream, receiver, stop).await,
        Some(Ok(Err(error))) => {
            receiver.counters().connection_broken();
            tracing::debug!(receiver = receiver.stats.name(), %error, "connection ended");
        }
        Some(Err(_)) => receiver.counters().connection_timed_out(),
        None => {}
    }
}

/// What comes of it, or nothing if everything ends first: there is no request in flight yet.
async fn unless_stopped<T>(
    work: impl Future<Output = T>,
    stop: &watch::Receiver<bool>,
) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => Some(done),
        // An error means that whoever wanted us to run is gone.
        _ = async { stop.wait_for(|stop| *stop).await.is_ok() } => None,
    }
}

/// A stream whose first bytes were looked at and are read once more.
pub(crate) struct Rewound<S> {
    stream: S,
    first: [u8; PREFACE.len()],
    /// Of `first`, what has been read from the stream and what was given out again.
    read: usize,
    given: usize,
}

impl<S: AsyncRead + Unpin> Rewound<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            first: [0; PREFACE.len()],
            read: 0,
            given: 0,
        }
    }

    /// Reads until it is clear whether the peer begins with the preface of HTTP/2.
    async fn is_http2(&mut self) -> io::Result<bool> {
        while self.read < PREFACE.len() {
            let Some(rest) = self.first.get_mut(self.read..) else {
                return Ok(false);
            };
            let count = self.stream.read(rest).await?;
            self.read += count;
            let seen = self.first.get(..self.read);
            if count == 0 || seen != PREFACE.get(..self.read) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(left) = this.first.get(this.given..this.read)
            && !left.is_empty()
        {
            let count = left.len().min(buf.remaining());
            buf.put_slice(left.get(..count).unwrap_or_default());
            this.given += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(parts: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut peer, ours) = tokio::io::duplex(1024);
        let mut stream = Rewound::new(ours);
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let send = async move {
            for part in parts {
                tokio::io::AsyncWriteExt::write_all(&mut peer, &part)
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (is_http2, ()) = tokio::join!(stream.is_http2(), send);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        (is_http2.unwrap(), all)
    }

    #[tokio::test]
    async fn the_preface_is_found_however_it_is_cut_and_nothing_is_lost() {
        let whole = [&PREFACE[..], b"more"].concat();
        for at in 0..whole.len() {
            let (is_http2, all) = look(&[&whole[..at], &whole[at..]]).await;
            assert!(is_http2, "cut at {at}");
            assert_eq!(all, whole);
        }
        for other in [
            &b"POST / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/1.1\r\n",
            b"",
            b"P",
        ] {
            let (is_http2, all) = look(&[other]).await;
            assert!(!is_http2);
            assert_eq!(all, other);
        }
    }
}
