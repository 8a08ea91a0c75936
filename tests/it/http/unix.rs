//! The Unix socket, beside the TCP listener.

use std::os::unix::fs::PermissionsExt as _;

use tokio::net::UnixStream;

use crate::support::http::Connection;
use crate::support::server::Server;

#[tokio::test]
async fn a_unix_socket_serves_the_same_routes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jumar.sock");
    let server = Server::with(|config| config.server.listen_unix.clone_from(&path)).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let upload = server.create_of(5).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut connection = Connection::over(stream, "localhost");
    let fields = [
        ("Upload-Key", upload.key.as_str()),
        ("Content-Range", "bytes 0-4/5"),
    ];
    let put = connection
        .call("PUT", &upload.path("/chunk"), &fields, b"12345")
        .await;
    assert_eq!(put.expect(204).offset(), 5);
    server.complete(&upload).await.expect(201);
    let content = connection
        .call("GET", &upload.path("/content"), &fields[..1], b"")
        .await;
    assert_eq!(content.expect(200).body, b"12345");

    let Server { running, .. } = server;
    running.drain();
    running.finished().await;
    assert!(connection.is_closed().await, "it is drained, too");
    assert!(!path.exists(), "the socket's file is gone");
}
