//! What comes of the last request.

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use super::{client, newest, url_of};
use crate::support::rig::{Ground, MIB, noise};
use crate::support::server::{Server, both};

#[tokio::test]
async fn a_store_that_is_away_keeps_the_offset_and_an_empty_append_finishes_it() {
    for (ground, call) in [
        (Ground::fs(), Call::Publish),
        (Ground::s3().await, Call::Put),
    ] {
        let server = Server::start(ground, |_| {}).await;
        let client = newest(&server);
        server.faults.fail(call, When::Next(1), Fault::Unavailable);
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
async fn a_client_that_hangs_up_after_its_last_byte_has_its_upload_completed() {
    for server in both().await {
        let client = newest(&server);
        let bytes = noise(6 * MIB, 4);
        let length = bytes.len().to_string();
        let url = client.begun(b"").await;
        let fields = [("Content-Length", length.as_str())];
        let mut hasty = client.append_head(&url, 0, true, &fields).await;
        hasty.send(&bytes).await.unwrap();
        drop(hasty);
        for _ in 0..200 {
            let head = client.head(&url).await;
            if head.expect(204).header("Upload-Complete") == Some("?1") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let content = client.get(&url).await;
        assert!(content.expect(200).body == bytes);
    }
}

#[tokio::test]
async fn lost_state_deactivates_the_upload() {
    let server = Server::fs().await;
    let upload = newest(&server);
    let url = upload.begun(b"12345").await;
    server.faults.fail(Call::Publish, When::Always, Fault::NotFound);
    let away = upload.append(&url, 5, true, b"").await;
    away.expect_problem(503, "store_unavailable");
    server.clock.advance(std::time::Duration::from_secs(61));
    let lost = upload.append(&url, 5, true, b"").await;
    lost.expect_problem(410, "upload_failed");
    assert_eq!(lost.header("Upload-Offset"), None);
    upload.head(&url).await.expect(410);
    upload.append(&url, 5, true, b"").await.expect(410);
    client(&server, "6").head(&url).await.expect(404);
}
