//! Objects at the address of their content: `/v1/objects/sha256/{hex}`, and what uploads of the same bytes are told.

use jumar::config::Config;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::http::Answer;
use crate::support::rig::Ground;
use crate::support::server::{Server, Upload, uploaded};

const BYTES: &[u8] = b"0123456789";

fn by_content(config: &mut Config) {
    "{sha256}".clone_into(&mut config.store.key);
}

async fn both(change: impl Fn(&mut Config)) -> [Server; 2] {
    [
        Server::start(Ground::fs(), &change).await,
        Server::start(Ground::s3().await, &change).await,
    ]
}

fn address(bytes: &[u8]) -> String {
    format!("/v1/objects/sha256/{}", hex::encode(Sha256::digest(bytes)))
}

async fn read(server: &Server, method: &str, fields: &[(&str, &str)]) -> Answer {
    server.call(method, &address(BYTES), fields, b"").await
}

#[tokio::test]
async fn an_object_is_read_at_its_address() {
    for server in both(by_content).await {
        read(&server, "GET", &[])
            .await
            .expect_problem(404, "not_found");
        let declared = json!({"filename": "a.txt", "content_type": "text/plain"});
        server.completed(declared, BYTES).await;
        let whole = read(&server, "GET", &[]).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(whole.shown(), @r#"
            200
            accept-ranges: bytes
            cache-control: public, max-age=31536000, immutable
            content-disposition: attachment
            content-length: 10
            content-type: text/plain
            etag: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
            x-content-type-options: nosniff

            0123456789
            "#);
        }
        let head = read(&server, "HEAD", &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("10"));
        let part = read(&server, "GET", &[("Range", "bytes=2-4")]).await;
        assert_eq!((part.status, part.text().as_str()), (206, "234"));
        let several = read(&server, "GET", &[("Range", "bytes=0-1,4-5")]).await;
        assert_eq!((several.status, several.body.len()), (200, 10));
        read(&server, "GET", &[("Range", "bytes=10-")])
            .await
            .expect(416);
        let tag = whole.header("etag").unwrap();
        let known = read(&server, "GET", &[("If-None-Match", tag)]).await;
        known.expect(304);
        assert_eq!(
            known.header("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        let upper = address(BYTES)
            .to_uppercase()
            .replace("/V1/OBJECTS/SHA256/", "/v1/objects/sha256/");
        server.get(&upper).await.expect(200);
        for wrong in ["abc", "%ff", &"g".repeat(64)] {
            let wrong = server.get(&format!("/v1/objects/sha256/{wrong}")).await;
            wrong.expect_problem(400, "bad_request");
        }
    }
}

#[tokio::test]
async fn sealed_an_object_under_another_key_is_not_found_by_its_content() {
    for server in both(|_| {}).await {
        server.completed(json!({}), BYTES).await;
        read(&server, "GET", &[])
            .await
            .expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn the_second_upload_of_the_same_bytes_gets_the_same_object() {
    for server in both(by_content).await {
        let bring = async |path: &str| server.call("POST", path, &[], BYTES).await;
        let first = bring("/v1/objects?filename=a.txt").await;
        let first_object = first.expect(201).json()["object"].clone();
        assert_eq!(first.json().get("deduplicated"), None);
        assert_eq!(first_object["url"], address(BYTES));
        assert_eq!(first.header("location"), Some(address(BYTES).as_str()));

        let second = bring("/v1/objects?filename=b.txt").await;
        assert_eq!(second.expect(201).json()["object"], first_object);
        assert_eq!(second.json()["deduplicated"], true);
        let named = server.content(&uploaded(&second), &[]).await;
        assert_eq!(
            named.header("content-disposition"),
            Some("attachment; filename=\"b.txt\"")
        );

        let third = server.create_of(10).await;
        server.put(&third, 0, BYTES, 10).await.expect(204);
        let done = server.complete(&third).await;
        assert_eq!(done.expect(201).json()["deduplicated"], true);
        assert_eq!(done.json()["object"]["key"], first_object["key"]);
        assert_eq!(
            server.complete(&third).await.expect(200).json(),
            done.json()
        );
        assert_eq!(server.status(&third).await["deduplicated"], true);
        assert_eq!(server.stored_files().len(), 1);
    }
}

/// Whatever the API offers, tried on an object that is there.
#[tokio::test]
async fn an_object_cannot_be_overwritten() {
    for server in both(by_content).await {
        let upload = server.completed(json!({"length": 10}), BYTES).await;
        let other = b"abcdefghij";
        server
            .put(&upload, 0, other, 10)
            .await
            .expect_problem(409, "upload_completed");
        server
            .abort(&upload)
            .await
            .expect_problem(409, "upload_completed");
        for method in ["PUT", "POST", "PATCH", "DELETE"] {
            let refused = server.call(method, &address(BYTES), &[], other).await;
            refused.expect_problem(405, "method_not_allowed");
        }
        let digest = hex::encode(Sha256::digest(BYTES));
        let lie = format!("/v1/objects?digest=sha-256:{digest}");
        let lied = server.call("POST", &lie, &[], other).await;
        lied.expect_problem(422, "digest_mismatch");
        let declared = json!({"digest": {"sha-256": digest}, "length": 10});
        let liar = server.create(&declared).await;
        server.put(&liar, 0, other, 10).await.expect(204);
        server
            .complete(&liar)
            .await
            .expect_problem(422, "digest_mismatch");
        for key in [digest.as_str(), "../x", "staging/x"] {
            let named = format!("/v1/objects?filename={}", key.replace('/', "%2F"));
            server.call("POST", &named, &[], other).await.expect(201);
        }
        assert_eq!(
            read(&server, "GET", &[])
                .await
                .expect(200)
                .text()
                .as_bytes(),
            BYTES
        );
    }
}

#[tokio::test]
async fn what_is_there_need_not_be_sent_where_that_is_on() {
    let on = |config: &mut Config| {
        by_content(config);
        config.uploads.instant = true;
    };
    for server in both(on).await {
        server.completed(json!({}), BYTES).await;
        let digest = hex::encode(Sha256::digest(BYTES));
        let declared = json!({"digest": {"sha-256": digest}, "length": 10});
        let created = server.post(&declared).await;
        let json = created.expect(201).json();
        assert_eq!(json["state"], "completed");
        assert_eq!(json["received"], json!([[0, 10]]));
        assert_eq!(json["deduplicated"], true);
        assert_eq!(json["object"]["digest"]["sha-256"], digest);
        let upload: Upload = uploaded(&created);
        server.complete(&upload).await.expect(200);
        assert_eq!(
            server
                .content(&upload, &[])
                .await
                .expect(200)
                .text()
                .as_bytes(),
            BYTES
        );
        let wrong = server
            .post(&json!({"digest": {"sha-256": digest}, "length": 11}))
            .await;
        assert_eq!(wrong.expect(201).json().get("state"), None);
    }
}
