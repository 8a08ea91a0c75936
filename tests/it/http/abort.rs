//! `DELETE /v1/uploads/{id}`

use serde_json::json;

use crate::support::rig::{MIB, noise};
use crate::support::server::both;

#[tokio::test]
async fn aborted_and_aborted_again() {
    for server in both().await {
        let bytes = noise(6 * MIB, 5);
        let upload = server.create_of(12 * MIB).await;
        server.put(&upload, 0, &bytes, 12 * MIB).await.expect(204);
        let aborted = server.abort(&upload).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(aborted.shown(), @r#"
            204
            cache-control: no-store
            "#);
        }
        assert_eq!(
            server.stored_files(),
            Vec::<String>::new(),
            "all it left is gone"
        );
        server.abort(&upload).await.expect(204);
        let gone = server.ask(&upload, "GET", "", &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(gone.shown(), @r#"
            410
            cache-control: no-store
            content-length: 162
            content-type: application/problem+json

            {"code":"session_expired","detail":"the upload has expired or was aborted","status":410,"title":"The upload has ended","type":"urn:jumar:problem:session_expired"}
            "#);
        }
    }
}

#[tokio::test]
async fn a_running_chunk_is_ended() {
    for server in both().await {
        let upload = server.create_of(100).await;
        let mut writer = server
            .put_head(&upload, "bytes 0-99/100", &[("Content-Length", "100")])
            .await;
        writer.send(&[1; 50]).await.unwrap();
        server.wait_for_offset(&upload, 50).await;
        server.abort(&upload).await.expect(204);
        let ended = writer.answer().await;
        assert!(
            matches!(ended.code().as_str(), "displaced" | "session_expired"),
            "{ended:?}"
        );
        assert_eq!(server.stored_files(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_completed_upload_stays() {
    for server in both().await {
        let upload = server.completed(json!({}), b"12345").await;
        let refused = server.abort(&upload).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(refused.shown(), @r#"
            409
            cache-control: no-store
            content-length: 175
            content-type: application/problem+json

            {"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":409,"title":"The upload is completed","type":"urn:jumar:problem:upload_completed"}
            "#);
        }
        assert_eq!(server.content(&upload, &[]).await.body, b"12345");
    }
}
