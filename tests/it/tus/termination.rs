//! Ending uploads.

use super::kit::{
    begin_patch, completed, content, create_of, delete, head, patch, sound, wait_for_offset,
};
use crate::support::rig::Ground;
use crate::support::server::{Server, both};

#[tokio::test]
async fn termination_is_204_and_afterwards_it_is_gone() {
    for server in both().await {
        let url = create_of(&server, 5).await;
        patch(&server, &url, 0, b"123").await.expect(204);
        let ended = delete(&server, &url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(ended.shown(), @r"
            204
            cache-control: no-store
            tus-resumable: 1.0.0
            ");
        }
        let again = delete(&server, &url).await;
        again.expect_problem(410, "session_expired");
        head(&server, &url).await.expect(410);
        patch(&server, &url, 3, b"45").await.expect(410);
        assert_eq!(server.stored_files(), [""; 0]);
    }
}

#[tokio::test]
async fn termination_stops_a_running_patch() {
    for server in both().await {
        let url = create_of(&server, 10).await;
        let mut running = begin_patch(&server, &url, 0, &[("Content-Length", "10")]).await;
        running.send(b"12345").await.unwrap();
        wait_for_offset(&server, &url, 5).await;
        delete(&server, &url).await.expect(204);
        let stopped = sound(running.answer().await);
        assert!((400..500).contains(&stopped.status), "{stopped:?}");
        head(&server, &url).await.expect(410);
        assert_eq!(server.stored_files(), [""; 0]);
    }
}

#[tokio::test]
async fn termination_of_a_completed_upload_removes_its_object_too() {
    for server in both().await {
        let url = completed(&server, &[], b"12345").await;
        delete(&server, &url).await.expect(204);
        head(&server, &url).await.expect(410);
        content(&server, &url).await.expect(410);
        assert_eq!(server.stored_files(), [""; 0]);
    }
}

#[tokio::test]
async fn termination_leaves_objects_where_it_is_not_to_delete_them() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| config.uploads.delete_completed = false).await;
        let url = completed(&server, &[], b"12345").await;
        delete(&server, &url).await.expect(204);
        head(&server, &url).await.expect(410);
        assert_eq!(server.stored_files().len(), 1);
    }
}
