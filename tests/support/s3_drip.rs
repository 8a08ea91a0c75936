//! A connection whose answers come byte by byte, from when a fault says so until it is taken back.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

/// Between two bytes: an answer's head takes some seconds.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a connection drips; clones are of the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dripping(Arc<Mutex<Option<watch::Receiver<u64>>>>);

impl Dripping {
    /// It drips from now on, until the other end is told something.
    pub(crate) fn begin(&self, released: watch::Receiver<u64>) {
        *self.0.lock().unwrap() = Some(released);
    }

    fn is_on(&self) -> bool {
        let state = self.0.lock().unwrap();
        let waits = |released: &watch::Receiver<u64>| matches!(released.has_changed(), Ok(false));
        state.as_ref().is_some_and(waits)
    }
}

/// A socket that may drip.
pub(crate) struct Drips<S> {
    socket: S,
    dripping: Dripping,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Drips<S> {
    pub(crate) fn over(socket: S, dripping: Dripping) -> Self {
        Self {
            socket,
            dripping,
            pause: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Drips<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Drips<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut most = bytes.len();
        if self.dripping.is_on() {
            most = most.min(1);
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Pin::new(&mut self.socket).poll_write(context, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
