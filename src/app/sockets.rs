//! The sockets that the server listens on: those that were passed to the process, else those that the configuration names.

use std::fs::Permissions;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::Path;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use super::AppError;
use crate::api::listener::{Listener, SocketFile};
use crate::config::{FileMode, Server};

/// How many connections may wait to be accepted. When a server comes back, all its clients do: whoever finds the queue full
/// tries again after seconds that double each time. The system has a cap of its own (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Sockets that whoever started this process listens on for it (`LISTEN_FDS`): systemd's socket activation.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Option<net::TcpListener>,
    unix: Option<unix::UnixListener>,
}

impl Inherited {
    /// Takes over what was passed: one TCP and one Unix socket at most. To be called once, before there are threads, as it
    /// takes the variables out of the environment.
    pub fn take() -> Result<Self, AppError> {
        let mut passed = ListenFd::from_env();
        let mut taken = Self::default();
        for index in 0..passed.len() {
            // A socket of the other kind is an error, and can be taken again.
            let another = if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
                taken.tcp.replace(socket).is_some()
            } else {
                let socket = passed
                    .take_unix_listener(index)
                    .map_err(AppError::Inherited)?;
                socket.is_some_and(|socket| taken.unix.replace(socket).is_some())
            };
            if another {
                return Err(AppError::TooManyInherited);
            }
        }
        Ok(taken)
    }

    /// What the TCP socket is bound to, which takes the place of `server.listen`.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp
            .as_ref()
            .and_then(|socket| socket.local_addr().ok())
    }

    pub(super) fn tcp_or(&mut self, address: SocketAddr) -> Result<TcpListener, AppError> {
        let Some(socket) = self.tcp.take() else {
            return listen(address);
        };
        let nonblocking = socket.set_nonblocking(true);
        nonblocking
            .and_then(|()| TcpListener::from_std(socket))
            .map_err(AppError::Inherited)
    }

    /// The Unix socket that was passed, else the configured one, if there is either.
    pub(super) async fn unix_or(&mut self, server: &Server) -> Result<Option<Listener>, AppError> {
        if let Some(socket) = self.unix.take() {
            let nonblocking = socket.set_nonblocking(true);
            let socket = nonblocking
                .and_then(|()| UnixListener::from_std(socket))
                .map_err(AppError::Inherited)?;
            return Ok(Some(Listener::Unix { file: None, socket }));
        }
        let path = server.listen_unix.as_path();
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        listen_unix(path, server.listen_unix_mode)
            .await
            .map(Some)
            .map_err(|source| AppError::ListenUnix {
                path: path.to_owned(),
                source,
            })
    }
}

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let listening = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    });
    listening.map_err(|source| AppError::Listen { address, source })
}

async fn listen_unix(path: &Path, FileMode(mode): FileMode) -> io::Result<Listener> {
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path).await => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let file = SocketFile::new(path.to_owned());
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(Listener::Unix {
        file: Some(file),
        socket,
    })
}

/// Whether this is the socket of a process that has gone. Whatever else is there is left alone.
async fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: FileMode = FileMode(0o600);

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_makes_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jumar.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "as a crash leaves it");
        let listening = listen_unix(&path, MODE).await.expect("taken over");
        let mode = std::fs::metadata(&path).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let error = listen_unix(&path, MODE).await.err().expect("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists(), "the other's socket is left alone");
        drop(listening);
        assert!(!path.exists(), "removed at the end");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jumar.sock");
        std::fs::write(&path, "mine").expect("written");
        assert!(listen_unix(&path, MODE).await.is_err());
        assert_eq!(std::fs::read(&path).expect("there"), b"mine");
    }
}
