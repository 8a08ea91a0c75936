//! The end of a server. That of the process is in `tests/e2e`.

use crate::support::http::Connection;
use crate::support::server::{Server, both};

#[tokio::test]
async fn not_ready_while_connections_are_still_taken() {
    let server = Server::with(|config| config.server.drain_delay_secs = 2).await;
    let mut kept = server.connect().await;
    kept.call("GET", "/readyz", &[], b"").await.expect(200);
    server.running.drain();
    let mut draining = kept.call("GET", "/readyz", &[], b"").await;
    for _ in 0..50 {
        if draining.status == 503 {
            break;
        }
        draining = kept.call("GET", "/readyz", &[], b"").await;
    }
    insta::assert_snapshot!(draining.shown(), @r#"
    503
    cache-control: no-store
    content-length: 21
    content-type: application/json

    {"status":"draining"}
    "#);
    server.get("/healthz").await.expect(200);
    let upload = server.create_of(1).await;
    server.put(&upload, 0, b"1", 1).await.expect(204);
    let admin = server.admin;
    let Server { running, main, .. } = server;
    running.finished().await;
    assert!(kept.is_closed().await, "an idle connection ends");
    assert!(tokio::net::TcpStream::connect(main).await.is_err());
    assert!(tokio::net::TcpStream::connect(admin).await.is_err());
}

#[tokio::test]
async fn requests_that_run_are_finished() {
    let server = Server::with(|config| config.server.drain_secs = 30).await;
    let upload = server.create_of(10).await;
    let mut writer = begin(&server, &upload).await;
    server.running.drain();
    while tokio::net::TcpStream::connect(server.main).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    writer.send(b"67890").await.unwrap();
    let finished = writer.answer().await;
    assert_eq!(finished.expect(204).offset(), 10);
    assert_eq!(finished.header("connection"), Some("close"));
    let Server { running, .. } = server;
    running.finished().await;
}

#[tokio::test]
async fn requests_that_run_too_long_are_cut_and_saved() {
    for server in both().await {
        let upload = server.create_of(10).await;
        let mut writer = begin(&server, &upload).await;
        server.running.drain();
        let cut = writer.answer().await;
        cut.expect_problem(503, "store_unavailable");
        assert_eq!(cut.offset(), 5, "what came is saved");
        assert!(cut.header("retry-after").is_some());
        let Server { running, .. } = server;
        running.finished().await;
    }
}

/// Sends the first half of ten bytes.
async fn begin(server: &Server, upload: &crate::support::server::Upload) -> Connection {
    let mut writer = server
        .put_head(upload, "bytes 0-9/10", &[("Content-Length", "10")])
        .await;
    writer.send(b"12345").await.unwrap();
    server.wait_for_offset(upload, 5).await;
    writer
}
