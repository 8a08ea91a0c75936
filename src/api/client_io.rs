//! What hyper reads a connection from: with a deadline for the first bytes, and with small reads in a crowd.
//!
//! Which version of HTTP a client speaks is seen from its first bytes, and hyper waits for them for ever: its own timeout of
//! a request's head begins after that.
//!
//! hyper's buffers grow with what a read brings: one that fills a buffer makes the next twice as large, so the largest read
//! is a byte less than the largest buffer. Each connection can have three of them under way, outside of the memory budget.
//! Large reads are fast; where there are many connections, small ones bound what all hold together.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// More connections than this are a crowd, and more than that a large one.
const FEW_CONNECTIONS: usize = 16;
const MANY_CONNECTIONS: usize = 512;
const READ_BYTES: u64 = (128 << 10) - 1;
const READ_IN_A_CROWD_BYTES: u64 = (16 << 10) - 1;
const READ_IN_A_LARGE_CROWD_BYTES: u64 = (8 << 10) - 1;

/// Knows how many connections there are.
#[derive(Clone)]
pub(super) struct Crowd {
    /// What is left of `limit`.
    pub(super) slots: Arc<Semaphore>,
    pub(super) limit: usize,
}

impl Crowd {
    fn largest_read(&self) -> u64 {
        let connections = self.limit - self.slots.available_permits();
        if connections > MANY_CONNECTIONS {
            READ_IN_A_LARGE_CROWD_BYTES
        } else if connections > FEW_CONNECTIONS {
            READ_IN_A_CROWD_BYTES
        } else {
            READ_BYTES
        }
    }
}

/// The IO object of a connection.
pub(super) struct ClientIo<I> {
    inner: Take<I>,
    crowd: Crowd,
    deadline: Option<Pin<Box<Sleep>>>,
    matched: usize,
}

impl<I: AsyncRead> ClientIo<I> {
    /// Reading fails if the version of HTTP cannot be told in the time given.
    pub(super) fn new(inner: I, first_bytes_within: Duration, crowd: Crowd) -> Self {
        Self {
            inner: inner.take(0),
            crowd,
            deadline: Some(Box::pin(tokio::time::sleep(first_bytes_within))),
            matched: 0,
        }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.matched..];
        let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        self.matched += same;
        if same < bytes.len() || self.matched == PREFACE.len() {
            self.deadline = None;
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ClientIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let most = self.crowd.largest_read();
        self.inner.set_limit(most);
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Some(deadline) = &mut self.deadline {
            if read.is_pending() {
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.saw(&buf.filled()[before..]);
        }
        read
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.get_ref().is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn crowd(connections: usize) -> Crowd {
        Crowd {
            slots: Arc::new(Semaphore::new(1000 - connections)),
            limit: 1000,
        }
    }

    #[tokio::test]
    async fn bounded_reads_are_small_in_a_crowd() {
        for (connections, expected) in [(16, 50_000), (17, 16_383), (513, 8_191)] {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let within = Duration::from_secs(10);
            let mut server = ClientIo::new(server, within, crowd(connections));
            client.write_all(&vec![b'G'; 50_000]).await.expect("room");
            let mut buf = vec![0; 1 << 16];
            assert_eq!(server.read(&mut buf).await.expect("read"), expected);
            drop(client);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.expect("read");
            assert_eq!(expected + rest.len(), 50_000, "the end is the client's own");
        }
    }

    async fn reads(sent: &[u8]) -> io::Result<()> {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = ClientIo::new(server, Duration::from_secs(10), crowd(1));
        client.write_all(sent).await.expect("room");
        let mut buf = vec![0; sent.len()];
        server.read_exact(&mut buf).await?;
        // Whatever comes now comes late.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_mins(1)).await;
            client.write_all(b"!").await
        });
        server.read_u8().await.map(|_| ())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_version_that_cannot_be_told_runs_out_of_time() {
        for told in [&b"GET"[..], b"PU", b"P\r", PREFACE] {
            reads(told).await.expect("the version can be told");
        }
        for untold in [&b""[..], b"P", &PREFACE[..20]] {
            let error = reads(untold).await.expect_err("nobody knows");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }
}
