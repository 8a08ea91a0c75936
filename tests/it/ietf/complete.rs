//! What comes of the last request.

use std::time::Duration;

use bytes::Bytes;
use jumar::model::UploadState;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::{PARTIAL, client, credentials, newest, url_of};
use crate::support::h2::H2;
use crate::support::rig::Ground;
use crate::support::server::Server;

#[tokio::test]
async fn a_store_that_is_away_keeps_the_offset_and_an_empty_append_finishes_it() {
    for (ground, call) in [
        (Ground::fs(), Call::Publish),
        (Ground::s3().await, Call::Put),
    ] {
        let server = Server::start(ground, |_| {}).await;
        let client = newest(&server);
        server.faults.fail(call, When::Always, Fault::Unavailable);
        let away = client.create(true, b"12345").await;
        away.expect_problem(503, "store_unavailable");
        assert!(away.header("Retry-After").is_some());
        assert_eq!(away.header("Upload-Complete"), Some("?0"));
        assert_eq!(away.offset(), 5);
        let url = url_of(&away);
        assert_eq!(client.head(&url).await.expect(204).offset(), 5);
        server.faults.heal();
        let done = client.append(&url, 5, true, b"").await;
        assert_eq!(done.expect(201).json()["object"]["size"], 5);
        assert_eq!(client.get(&url).await.body, b"12345");
    }
}

#[tokio::test]
async fn an_upload_is_completed_though_its_client_hangs_up_after_the_last_byte() {
    let server = Server::fs().await;
    let client = newest(&server);
    let url = client.begun(b"").await;
    server.faults.fail(Call::WriteAt, When::Always, Fault::Hang);
    // On HTTP/2 the request's handler ends when its client goes.
    let hasty = H2::open(server.main).await;
    let fields = [PARTIAL, ("Upload-Offset", "0"), ("Upload-Complete", "?1")];
    let (feed, answer) = hasty.begin("PATCH", &url, &fields);
    feed.send(Bytes::from_static(b"12345")).unwrap();
    drop(feed);
    while server.faults.count(Call::WriteAt) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answer.abort();
    drop(hasty);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.faults.heal();
    let (id, key) = credentials(&url);
    for _ in 0..100 {
        let status = server.running.engine().status(id, &key).await.unwrap();
        if matches!(status.upload.state, UploadState::Completed { .. }) {
            assert_eq!(client.get(&url).await.expect(200).body, b"12345");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody completed it");
}

#[tokio::test]
async fn lost_state_deactivates_the_upload() {
    let server = Server::fs().await;
    let upload = newest(&server);
    let url = upload.begun(b"12345").await;
    server
        .faults
        .fail(Call::Publish, When::Always, Fault::NotFound);
    let away = upload.append(&url, 5, true, b"").await;
    away.expect_problem(503, "store_unavailable");
    server.clock.advance(Duration::from_secs(61));
    let lost = upload.append(&url, 5, true, b"").await;
    lost.expect_problem(410, "upload_failed");
    assert_eq!(lost.header("Upload-Offset"), None);
    upload.head(&url).await.expect(410);
    upload.append(&url, 5, true, b"").await.expect(410);
    client(&server, "6").head(&url).await.expect(404);
}
