//! `HEAD` and `GET` of an upload.

use std::time::Duration;

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use tokio::time::Instant;

use super::{client, newest, shown};
use crate::support::server::{Server, both};

#[tokio::test]
async fn the_offset_and_all_that_belongs_to_it() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun_of(100, b"12345").await;
        let head = client.head(&url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&head), @r#"
            204
            cache-control: no-store
            upload-complete: ?0
            upload-length: 100
            upload-limit: max-size=53687091200, min-size=0, max-age=259200
            upload-offset: 5
            "#);
        }
        assert_eq!(shown(&client.get(&url).await), shown(&head));
        server.clock.advance(Duration::from_mins(1));
        let later = client.head(&url).await;
        assert_ne!(later.header("Upload-Limit"), head.header("Upload-Limit"));
    }
}

#[tokio::test]
async fn a_completed_upload_is_told_as_such() {
    for server in both().await {
        let client = newest(&server);
        let created = client.create(true, b"12345").await;
        let url = super::url_of(&created);
        let head = client.head(&url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&head), @r#"
            204
            cache-control: no-store
            upload-complete: ?1
            upload-length: 5
            upload-limit: max-size=53687091200, min-size=0
            upload-offset: 5
            "#);
        }
    }
}

#[tokio::test]
async fn the_content_of_a_completed_upload() {
    for server in both().await {
        let client = newest(&server);
        let created = client.create(true, b"12345").await;
        let url = super::url_of(&created);
        let content = client.get(&url).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&content), @r#"
            200
            accept-ranges: bytes
            cache-control: private
            content-disposition: attachment
            content-length: 5
            content-type: application/octet-stream
            etag: "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
            upload-complete: ?1
            upload-length: 5
            upload-limit: max-size=53687091200, min-size=0
            upload-offset: 5
            x-content-type-options: nosniff

            12345
            "#);
        }
        let range = [("Range", "bytes=1-2")];
        let part = client.call("GET", &url, &range, b"").await;
        assert_eq!(part.expect(206).body, b"23");
    }
}

#[tokio::test]
async fn a_running_append_is_stopped_so_that_the_offset_is_final() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"").await;
        let fields = [("Content-Length", "100")];
        let mut running = client.append_head(&url, 0, false, &fields).await;
        running.send(b"12345").await.unwrap();
        client.wait_for(&url, 5).await;
        let since = Instant::now();
        let head = client.head(&url).await;
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "it was waited for"
        );
        assert_eq!(head.expect(204).offset(), 5);
        assert_eq!(head.header("Upload-Complete"), Some("?0"));
        // What still comes on the old connection is of no use and does no harm.
        let _ = running.send(&[b'x'; 95]).await;
        let displaced = running.try_answer().await;
        if let Ok(displaced) = displaced {
            displaced.expect_problem(409, "displaced");
            assert_eq!(displaced.header("Connection"), Some("close"));
        }
        assert_eq!(client.head(&url).await.offset(), 5, "it was final");
        client.append(&url, 5, true, b"67890").await.expect(201);
        assert_eq!(client.get(&url).await.body, b"1234567890");
    }
}

#[tokio::test]
async fn a_running_creation_is_stopped_too() {
    for server in both().await {
        let client = newest(&server);
        let fields = [("Upload-Complete", "?1"), ("Content-Length", "100")];
        let mut running = client.send_head("POST", "/resumable", &fields).await;
        let url = super::url_of(&running.interim().await);
        running.send(b"12345").await.unwrap();
        client.wait_for(&url, 5).await;
        let head = client.head(&url).await;
        assert_eq!(head.expect(204).offset(), 5);
        let displaced = running.answer().await;
        displaced.expect_problem(409, "displaced");
        assert_eq!(super::url_of(&displaced), url);
    }
}

#[tokio::test]
async fn sealed_what_is_not_there_is_not_found() {
    let server = Server::fs().await;
    let client = newest(&server);
    let url = client.begun(b"12345").await;
    let other = client.begun(b"").await;
    let (ours, theirs) = (url.strip_prefix("/resumable/").unwrap(), other.len() - 43);
    let mixed = format!(
        "/resumable/{}{}",
        &ours[..ours.len() - 42],
        &other[theirs + 1..]
    );
    let unknown = format!("/resumable/{}", "A".repeat(64));
    for path in [mixed.as_str(), &unknown, "/resumable/abc", "/resumable/%ff"] {
        for method in ["HEAD", "GET", "DELETE", "PATCH"] {
            let fields = [
                super::PARTIAL,
                ("Upload-Offset", "5"),
                ("Upload-Complete", "?1"),
            ];
            let answer = client.call(method, path, &fields, b"").await;
            answer.expect(404);
            assert_eq!(answer.header("Upload-Offset"), None, "{method} {path}");
        }
        client.get(path).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn an_upload_that_expired_is_gone() {
    for server in both().await {
        let upload = newest(&server);
        let url = upload.begun(b"12345").await;
        server.let_expire();
        upload.head(&url).await.expect(410);
        upload
            .get(&url)
            .await
            .expect_problem(410, "session_expired");
        for old in ["3", "5", "6"] {
            client(&server, old).head(&url).await.expect(404);
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_being_completed_is_full_and_not_complete() {
    let server = Server::with(|config| config.uploads.complete_wait_secs = 1).await;
    let client = newest(&server);
    let url = client.begun(b"12345").await;
    server
        .faults
        .fail(Call::Publish, When::Next(1), Fault::Hang);
    let working = client.append(&url, 5, true, b"").await;
    insta::assert_snapshot!(shown(&working), @r#"
    503
    cache-control: no-store
    content-length: 255
    content-type: application/problem+json
    retry-after: 2
    upload-complete: ?0
    upload-offset: 5

    {"code":"store_unavailable","detail":"every byte is there, and the upload is being completed; repeat an empty append to hear what comes of it","retry_after_secs":2,"status":503,"title":"It cannot be taken now","type":"urn:jumar:problem:store_unavailable"}
    "#);
    let head = client.head(&url).await;
    assert_eq!(head.expect(204).offset(), 5);
    assert_eq!(head.header("Upload-Complete"), Some("?0"));
    assert_eq!(head.header("Upload-Length"), Some("5"));
    for (old, length) in [("3", None), ("5", None), ("6", None)] {
        let head = super::client(&server, old).head(&url).await;
        assert_eq!(head.expect(204).header("Upload-Length"), length, "{old}");
    }
    server.faults.heal();
    let mut done = client.append(&url, 5, true, b"").await;
    while done.status == 503 {
        done = client.append(&url, 5, true, b"").await;
    }
    assert_eq!(done.expect(201).header("Upload-Complete"), Some("?1"));
    for (old, length) in [("3", None), ("5", None), ("6", Some("5"))] {
        let head = super::client(&server, old).head(&url).await;
        assert_eq!(head.expect(204).header("Upload-Length"), length, "{old}");
    }
}

#[tokio::test]
async fn what_cannot_be_told_at_once_is_waited_for() {
    let told = async |version, status| {
        let server = Server::fs().await;
        let client = client(&server, version);
        let url = client.begun(b"12345").await;
        server.faults.fail(Call::WriteAt, When::Always, Fault::Hang);
        let fields = [("Content-Length", "100")];
        let mut stuck = client.append_head(&url, 5, false, &fields).await;
        stuck.send(&[1; 50]).await.unwrap();
        while server.faults.count(Call::WriteAt) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let since = Instant::now();
        let busy = client.head(&url).await;
        let waited = since.elapsed();
        let (head, ()) = tokio::join!(client.head(&url), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            server.faults.heal();
        });
        busy.expect(status);
        assert!(busy.header("Retry-After").is_some());
        assert_eq!(busy.header("Upload-Offset"), None);
        assert!(waited >= Duration::from_secs(10), "{waited:?}");
        assert_eq!(head.expect(204).offset(), 55);
    };
    tokio::join!(
        told("8", 503),
        told("3", 503),
        told("5", 423),
        told("6", 423)
    );
}
