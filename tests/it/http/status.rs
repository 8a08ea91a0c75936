//! `GET` and `HEAD /v1/uploads/{id}`

use serde_json::json;

use crate::support::rig::MIB;
use crate::support::server::{Server, both, range};

#[tokio::test]
async fn status_through_an_uploads_life() {
    for server in both().await {
        let upload = server.create(&json!({"filename": "a.txt"})).await;
        let head = server.ask(&upload, "HEAD", "", &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(head.shown(), @r#"
            200
            cache-control: no-store
            content-length: 198
            content-type: application/json
            upload-expires: Fri, 17 Nov 2023 22:13:20 GMT
            upload-offset: 0
            "#);
        }
        server.put(&upload, 2, b"3", 5).await.expect(204);
        server.put(&upload, 0, b"1", 5).await.expect(204);
        let open = server.ask(&upload, "GET", "", &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(open.shown(), @r#"
            200
            cache-control: no-store
            content-length: 208
            content-type: application/json
            upload-expires: Fri, 17 Nov 2023 22:13:20 GMT
            upload-length: 5
            upload-offset: 1

            {"upload_id":"<id>","state":"uploading","length":5,"offset":1,"received":[[0,1],[2,3]],"expires_at":"2023-11-17T22:13:20Z","filename":"a.txt","content_type":null,"metadata":{}}
            "#);
        }
        let head = server.ask(&upload, "HEAD", "", &[], b"").await;
        assert_eq!((head.status, head.offset(), head.body.len()), (200, 1, 0));
        assert_eq!(head.header("upload-length"), Some("5"));
        server.put(&upload, 1, b"2345", 5).await.expect(204);
        server.complete(&upload).await.expect(201);
        let completed = server.ask(&upload, "GET", "", &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(completed.shown(), @r#"
            200
            cache-control: no-store
            content-length: 628
            content-type: application/json
            upload-expires: Fri, 17 Nov 2023 22:13:20 GMT
            upload-length: 5
            upload-offset: 5

            {"upload_id":"<id>","state":"completed","length":5,"offset":5,"received":[[0,5]],"expires_at":"2023-11-17T22:13:20Z","filename":"a.txt","content_type":null,"metadata":{},"object":{"key":"<id>","size":5,"content_type":null,"digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
            "#);
        }
        let head = server.ask(&upload, "HEAD", "", &[], b"").await;
        assert_eq!((head.status, head.offset()), (200, 5));
    }
}

#[tokio::test]
async fn it_does_not_disturb_writers_and_has_what_they_have() {
    for server in both().await {
        let upload = server.create_of(MIB).await;
        let range = range(0, 1 << 20, Some(MIB));
        let mut writer = server
            .put_head(&upload, &range, &[("Content-Length", "1048576")])
            .await;
        for sent in [100_000, 200_000, 300_000] {
            writer.send(&vec![9; 100_000]).await.unwrap();
            server.wait_for_offset(&upload, sent).await;
        }
        writer.send(&vec![9; (1 << 20) - 300_000]).await.unwrap();
        assert_eq!(writer.answer().await.expect(204).offset(), MIB);
    }
}

#[tokio::test]
async fn many_ranges() {
    let server = Server::fs().await;
    let upload = server.create_of(1000).await;
    for start in (0..50).rev().map(|at| at * 20) {
        server
            .put(&upload, start, b"0123456789", 1000)
            .await
            .expect(204);
    }
    let received = server.status(&upload).await["received"].clone();
    let expected: Vec<_> = (0..1000)
        .step_by(20)
        .map(|at| json!([at, at + 10]))
        .collect();
    assert_eq!(received, json!(expected));
}
