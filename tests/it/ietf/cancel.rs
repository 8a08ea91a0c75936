//! `DELETE` of an upload.

use super::{client, newest, shown, url_of};
use crate::support::server::both;

#[tokio::test]
async fn an_upload_is_deactivated_and_nothing_is_left() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"12345").await;
        let deleted = client.delete(&url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&deleted), @r#"
            204
            cache-control: no-store
            "#);
        }
        assert_eq!(server.stored_files(), Vec::<String>::new());
        client.head(&url).await.expect(410);
        let again = client.delete(&url).await;
        again.expect_problem(410, "session_expired");
    }
}

#[tokio::test]
async fn a_running_append_is_stopped() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"").await;
        let fields = [("Content-Length", "100")];
        let mut running = client.append_head(&url, 0, true, &fields).await;
        running.send(b"12345").await.unwrap();
        client.wait_for(&url, 5).await;
        client.delete(&url).await.expect(204);
        let stopped = running.answer().await;
        let code = stopped.code();
        assert!(
            matches!(code.as_str(), "displaced" | "session_expired"),
            "{stopped:?}"
        );
        assert_eq!(stopped.header("Upload-Offset"), None);
        assert_eq!(server.stored_files(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_completed_upload_goes_with_its_object() {
    for server in both().await {
        let client = newest(&server);
        let url = url_of(&client.create(true, b"12345").await);
        client.delete(&url).await.expect(204);
        client
            .get(&url)
            .await
            .expect_problem(410, "session_expired");
        assert_eq!(server.stored_files(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn old_versions_say_that_it_is_not_there() {
    for server in both().await {
        for version in ["3", "5", "6"] {
            let client = client(&server, version);
            let url = client.begun(b"12345").await;
            client.delete(&url).await.expect(204);
            client.head(&url).await.expect(404);
            client.delete(&url).await.expect(404);
            client.append(&url, 5, true, b"").await.expect(404);
        }
    }
}
