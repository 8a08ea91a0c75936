//! An answer that is given before the whole body was read reaches its client.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::http::Connection;
use crate::support::rig::MIB;
use crate::support::server::{Server, Upload};

/// More than the sockets between hold, and more than one piece of a body.
const LARGE: usize = 30 << 20;

/// Sends all of a large chunk, and only then looks at the answer.
async fn refused(connection: &mut Connection, upload: &Upload, fields: &[(&str, &str)]) {
    let length = LARGE.to_string();
    let range = format!("bytes 0-{}/*", LARGE - 1);
    let mut fields = fields.to_vec();
    fields.push(("Upload-Key", &upload.key));
    fields.push(("Content-Range", &range));
    fields.push(("Content-Length", &length));
    connection
        .head("PUT", &upload.path("/chunk"), &fields)
        .await;
    let piece = vec![0; 1 << 20];
    for at in 0..LARGE / piece.len() {
        let sent = connection.send(&piece).await;
        sent.unwrap_or_else(|error| panic!("after {at} MiB: {error}"));
    }
    connection
        .answer()
        .await
        .expect_problem(413, "upload_limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_lost() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 10 * MIB).await;
    let upload = server.create(&serde_json::json!({})).await;
    let mut kept = server.connect().await;
    refused(&mut kept, &upload, &[]).await;
    // The connection is good for more.
    kept.call("GET", "/healthz", &[], b"").await.expect(200);
    refused(&mut kept, &upload, &[]).await;
    let mut closing = server.connect().await;
    refused(&mut closing, &upload, &[("Connection", "close")]).await;
    assert!(closing.is_closed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_read_for_so_much_only() {
    let server = Server::with(|config| {
        config.uploads.max_size_bytes = 10 * MIB;
        config.server.refused_body_bytes = MIB;
    })
    .await;
    let upload = server.create(&serde_json::json!({})).await;
    let fields = [("Content-Length", "107374182400")];
    let mut connection = server
        .put_head(&upload, "bytes 0-107374182399/*", &fields)
        .await;
    connection
        .answer()
        .await
        .expect_problem(413, "upload_limit");
    let piece = vec![0; 1 << 20];
    for _ in 0..1000 {
        if connection.send(&piece).await.is_err() {
            return;
        }
    }
    panic!("a gigabyte was read of what nobody wants");
}

#[tokio::test]
async fn what_nobody_wants_is_waited_for_so_long_only() {
    let server = Server::with(|config| {
        config.uploads.max_size_bytes = 10;
        config.server.refused_body_secs = 1;
    })
    .await;
    let upload = server.create(&serde_json::json!({})).await;
    let mut connection = server
        .put_head(&upload, "bytes 0-99/*", &[("Content-Length", "100")])
        .await;
    connection
        .answer()
        .await
        .expect_problem(413, "upload_limit");
    let since = Instant::now();
    assert!(connection.is_closed().await);
    assert!(since.elapsed() < Duration::from_secs(10));
}
