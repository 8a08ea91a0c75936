//! Where connections come from: any number of sockets, of which the next connection is taken in turn.
//!
//! Owns accepting and, by dropping it, the end of a Unix socket's file. Making the sockets is left to whoever starts the server.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::tls::Tls;

/// A socket that is listened on.
pub enum Listener {
    /// HTTP, or HTTPS.
    Tcp {
        /// The socket.
        socket: TcpListener,
        /// What every connection begins with.
        tls: Option<Tls>,
    },
    /// HTTP, from this machine alone.
    Unix {
        /// What goes before the socket is closed, so that whoever listens there next finds the place empty.
        file: Option<SocketFile>,
        /// The socket.
        socket: UnixListener,
    },
}

/// The file of a Unix socket that is our own. It goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Takes over a socket's file that was just made.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the socket's file stays behind");
        }
    }
}

/// A connection that nothing was read from yet.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr, Option<Tls>),
    Unix(UnixStream),
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp { socket, tls } => socket.poll_accept(cx).map_ok(|(stream, address)| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no TCP_NODELAY");
                }
                Accepted::Tcp(stream, address, tls.clone())
            }),
            Self::Unix { socket, .. } => socket
                .poll_accept(cx)
                .map_ok(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// The next connection of any. Nothing is lost when this is dropped.
pub(super) async fn accept(listeners: &mut [Listener]) -> io::Result<Accepted> {
    // Whoever was asked first is asked last the next time, so that a busy socket does not starve the others.
    listeners.rotate_left(1);
    std::future::poll_fn(|cx| {
        listeners
            .iter()
            .map(|listener| listener.poll_accept(cx))
            .find(Poll::is_ready)
            .unwrap_or(Poll::Pending)
    })
    .await
}
