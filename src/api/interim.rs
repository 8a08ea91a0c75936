//! Interim answers of HTTP/1.1: heads with a status of 1xx, sent ahead of a request's answer.
//!
//! hyper has no call for them, so the IO object puts them on the wire beside it, where one message has ended and the next has
//! not begun:
//!
//! - A head is begun in `poll_flush` alone. hyper flushes its IO object only when its own buffer is empty, and whenever the
//!   connection's task has run, so a head that wakes the task goes out at once. `poll_write` is no place to begin one, also
//!   when nothing was written since the last flush: an earlier answer may still be waiting in hyper's buffer.
//! - A head that is begun is finished before any byte of hyper's follows it.
//! - Only a request whose handler runs has heads. hyper takes a request up when the answer before is in its buffer to the
//!   end, and writes `100 Continue` in one piece; so when the buffer is empty, all that went out is whole messages.
//! - The heads that were not begun are dropped when the handler is done, before hyper sees the answer.
//!
//! This needs hyper's `pipeline_flush` to be off, which it is unless asked for. Requests of HTTP/1.0 have no handle, since it
//! has no interim answers, and those of HTTP/2 have none, since its frames are hyper's alone.
//!
//! An error while writing a head is not told to hyper, which would end the connection: what a client that has gone had sent
//! before is still to be read. hyper meets the error when it has something to write itself.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt as _;

/// The head of an interim answer as it goes on the wire.
#[derive(Debug, Clone)]
pub struct InterimHead(Bytes);

impl InterimHead {
    /// `104 (Upload Resumption Supported)` of draft-ietf-httpbis-resumable-upload with these fields.
    #[must_use]
    pub fn upload_resumption_supported(fields: &HeaderMap) -> Self {
        let mut head = b"HTTP/1.1 104 Upload Resumption Supported\r\n".to_vec();
        for (name, value) in fields {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        Self(head.into())
    }
}

/// Sends interim answers of one request. It is among the extensions of every HTTP/1.1 request.
#[derive(Debug, Clone)]
pub struct Interim(mpsc::Sender<Queued>);

impl Interim {
    /// Sends a head. Resolves when it has gone out, which takes as long as the client does not read.
    ///
    /// False when the answer was given before that, or the connection is gone or broken. Dropped before it resolves, the head
    /// is sent whole or not at all.
    pub async fn send(&self, head: InterimHead) -> bool {
        let (sent, outcome) = oneshot::channel();
        let rest = head.0;
        if self.0.send(Queued { rest, sent }).await.is_err() {
            return false;
        }
        tokio::select! {
            biased;
            outcome = outcome => outcome.is_ok(),
            // A head that is queued just as the queue closes may stay in it for good.
            () = self.0.closed() => false,
        }
    }
}

#[derive(Debug)]
struct Queued {
    /// What is still to be written.
    rest: Bytes,
    sent: oneshot::Sender<()>,
}

/// The queue of the request that a connection is serving, if its handler is running. Clones share it.
#[derive(Clone, Default)]
pub(super) struct InterimQueue(Arc<Mutex<Option<mpsc::Receiver<Queued>>>>);

impl InterimQueue {
    /// Has a request answered, with a handle for interim answers if its version of HTTP has them.
    pub(super) async fn answer(
        self,
        mut request: Request<Body>,
        router: Router,
    ) -> Result<Response<Body>, Infallible> {
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(self.open());
        }
        let answer = router.oneshot(request).await;
        self.close();
        answer
    }

    fn open(&self) -> Interim {
        // One is enough: who sends waits for its turn.
        let (heads, queue) = mpsc::channel(1);
        *self.lock() = Some(queue);
        Interim(heads)
    }

    /// Drops what is queued; what is sent later fails.
    fn close(&self) {
        *self.lock() = None;
    }

    /// The next head, or else the task is woken when there is one.
    fn poll_next(&self, cx: &mut Context<'_>) -> Option<Queued> {
        let mut queue = self.lock();
        while let Poll::Ready(Some(head)) = queue.as_mut()?.poll_recv(cx) {
            if !head.sent.is_closed() {
                return Some(head);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Receiver<Queued>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The IO object of a connection, with interim answers between what hyper writes.
pub(super) struct InterimIo<I> {
    inner: I,
    queue: InterimQueue,
    /// Begun, and not known to have been flushed.
    begun: Option<Queued>,
}

impl<I: AsyncWrite + Unpin> InterimIo<I> {
    /// Requests have to be answered through the same queue.
    pub(super) fn new(inner: I, queue: InterimQueue) -> Self {
        Self {
            inner,
            queue,
            begun: None,
        }
    }

    /// Writes the rest of the head that is begun.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Queued { rest, .. }) = &mut self.begun else {
            return Poll::Ready(Ok(()));
        };
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for InterimIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for InterimIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if ready!(self.poll_finish(cx)).is_err() {
                self.queue.close();
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            if let Some(head) = self.begun.take() {
                // Who sent it may have stopped waiting.
                let _ = head.sent.send(());
            }
            self.begun = self.queue.poll_next(cx);
            if self.begun.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
