//! HEAD while something is away or going on: the moment where clients lose uploads. A client forgets the upload on any 4xx
//! but 423, begins anew on any 5xx, and takes a full offset for success.

use std::time::Duration;

use jumar::store::faulty::{Fault, When};
use tokio::time::Instant;

use super::kit::{
    DEFERRED, begin_patch, content, create, create_of, delete, finishing_fails, head, native,
    offset, patch, patch_with, post_bytes, wait_for_offset,
};
use crate::support::server::{Server, both};

/// How long HEAD waits, and some more for a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn head_waits_for_an_upload_that_is_being_completed() {
    for server in both().await {
        let url = create_of(&server, 5).await;
        finishing_fails(&server, When::Always, Fault::Hang);
        let mut last = begin_patch(&server, &url, 0, &[("Content-Length", "5")]).await;
        last.send(b"12345").await.unwrap();
        wait_for_offset(&server, &url, 5).await;
        drop(last);
        let healing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(server.status(&native(&url)).await["state"], "assembling");
            server.faults.heal();
        };
        let (told, ()) = tokio::join!(head(&server, &url), healing);
        assert_eq!(told.expect(200).offset(), 5);
        assert_eq!(server.status(&native(&url)).await["state"], "completed");
    }
}

#[tokio::test]
async fn head_is_423_when_completing_takes_too_long() {
    for server in both().await {
        let url = create_of(&server, 5).await;
        finishing_fails(&server, When::Always, Fault::Hang);
        let mut last = begin_patch(&server, &url, 0, &[("Content-Length", "5")]).await;
        last.send(b"12345").await.unwrap();
        wait_for_offset(&server, &url, 5).await;
        let since = Instant::now();
        let told = head(&server, &url).await;
        assert!((Duration::from_secs(9)..PATIENCE).contains(&since.elapsed()));
        assert_eq!(told.expect(423).header("upload-offset"), None);
        assert!(told.header("retry-after").is_some());
        server.faults.heal();
        assert_eq!(offset(&server, &url).await, 5);
    }
}

#[tokio::test]
async fn head_is_423_while_the_store_is_away_and_goes_on_when_it_is_back() {
    for server in both().await {
        let url = create_of(&server, 5).await;
        finishing_fails(&server, When::Always, Fault::Unavailable);
        let last = patch(&server, &url, 0, b"12345").await;
        last.expect_problem(503, "store_unavailable");
        assert!(last.header("retry-after").is_some());
        assert_eq!(last.header("upload-offset"), None);
        let since = Instant::now();
        let told = head(&server, &url).await;
        assert!(since.elapsed() < PATIENCE, "{:?}", since.elapsed());
        assert_eq!(told.expect(423).header("upload-offset"), None);
        assert!(told.header("retry-after").is_some());
        let again = patch(&server, &url, 5, b"").await;
        again.expect_problem(503, "store_unavailable");
        server.faults.heal();
        assert_eq!(offset(&server, &url).await, 5);
        let again = patch(&server, &url, 5, b"").await;
        assert_eq!(again.expect(204).offset(), 5);
        assert_eq!(content(&server, &url).await.body, b"12345");
    }
}

/// Nobody has to send the last byte again.
#[tokio::test]
async fn head_finishes_what_has_all_its_bytes() {
    for server in both().await {
        let url = create_of(&server, 5).await;
        let mut cut = begin_patch(&server, &url, 0, &[("Content-Length", "6")]).await;
        cut.answer().await.expect(413);
        let mut cut = begin_patch(&server, &url, 0, &[("Transfer-Encoding", "chunked")]).await;
        cut.send_coded(b"12345").await.unwrap();
        wait_for_offset(&server, &url, 5).await;
        drop(cut);
        assert_eq!(offset(&server, &url).await, 5);
        assert_eq!(server.status(&native(&url)).await["state"], "completed");
        // The same with an empty PATCH.
        let url = create_of(&server, 5).await;
        let mut cut = begin_patch(&server, &url, 0, &[("Transfer-Encoding", "chunked")]).await;
        cut.send_coded(b"12345").await.unwrap();
        wait_for_offset(&server, &url, 5).await;
        assert_eq!(patch(&server, &url, 5, b"").await.expect(204).offset(), 5);
        assert_eq!(content(&server, &url).await.body, b"12345");
    }
}

/// Many requests fight over one upload: whatever they are told lets a client go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_while_displaced_lets_the_client_go_on() {
    for server in both().await {
        let url = create_of(&server, 1000).await;
        let mut hanging = Vec::new();
        for round in 0..6 {
            let at = offset(&server, &url).await;
            let length = (1000 - at).to_string();
            let mut old = begin_patch(&server, &url, at, &[("Content-Length", &length)]).await;
            old.send(b"x").await.unwrap();
            wait_for_offset(&server, &url, at + 1).await;
            hanging.push(old);
            let (one, two, three) = tokio::join!(
                head(&server, &url),
                head(&server, &url),
                patch(&server, &url, at + 1, b"y")
            );
            for told in [one, two] {
                assert!(matches!(told.status, 200 | 423), "{round}: {told:?}");
            }
            assert!(
                matches!(three.status, 204 | 409 | 503),
                "{round}: {three:?}"
            );
        }
        let at = offset(&server, &url).await;
        let rest = vec![b'z'; 1000 - usize::try_from(at).unwrap()];
        assert_eq!(
            patch(&server, &url, at, &rest).await.expect(204).offset(),
            1000
        );
    }
}

#[tokio::test]
async fn head_of_what_failed_for_good_is_410_with_the_reason() {
    for server in both().await {
        let partial = [("Upload-Concat", "partial"), ("Upload-Length", "5")];
        let part = create(&server, &partial).await;
        let urls = format!("final;{part}");
        let whole = create(&server, &[("Upload-Concat", &urls)]).await;
        delete(&server, &part).await.expect(204);
        assert_eq!(
            head(&server, &whole)
                .await
                .expect(410)
                .header("upload-offset"),
            None
        );
        let told = content(&server, &whole).await;
        told.expect_problem(410, "upload_failed");
        assert_eq!(told.json()["failure_reason"], "part_gone");
        let told = patch(&server, &whole, 0, b"").await;
        assert!(matches!(told.status, 403 | 410), "{told:?}");
        delete(&server, &whole).await.expect(204);
        delete(&server, &whole)
            .await
            .expect_problem(410, "session_expired");
    }
}

#[tokio::test]
async fn head_is_answered_after_a_restart() {
    for server in both().await {
        let created = post_bytes(&server, &[("Upload-Length", "5")], b"123").await;
        let url = super::kit::location(&created);
        let open = create(&server, &[DEFERRED]).await;
        patch_with(&server, &open, 0, &[("Upload-Length", "9")], b"")
            .await
            .expect(204);
        let Server {
            running, ground, ..
        } = server;
        running.drain();
        running.finished().await;
        let server = Server::start(ground, |_| {}).await;
        let told = head(&server, &open).await;
        assert_eq!(
            told.header("upload-length"),
            Some("9"),
            "it was acknowledged"
        );
        assert_eq!(offset(&server, &url).await, 3);
        patch(&server, &url, 3, b"45").await.expect(204);
        assert_eq!(content(&server, &url).await.body, b"12345");
    }
}
