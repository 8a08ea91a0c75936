//! `POST /v1/uploads/{id}/complete`

use std::time::Duration;

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::rig::{Ground, MIB, noise};
use crate::support::server::{Server, both};

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test]
async fn the_object_and_the_same_again() {
    for server in both().await {
        let declared = json!({"content_type": "text/plain", "filename": "a.txt"});
        let upload = server.create(&declared).await;
        server.put(&upload, 0, b"12345", 5).await.expect(204);
        let first = server.complete(&upload).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(first.shown(), @r#"
            201
            cache-control: no-store
            content-length: 486
            content-type: application/json

            {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":"text/plain","digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
            "#);
        }
        for again in [
            server.complete(&upload).await,
            server.ask(&upload, "POST", "/complete", &[], b"").await,
        ] {
            assert_eq!(again.expect(200).body, first.body, "the same answer");
        }
        assert_eq!(
            server.status(&upload).await["object"],
            first.json()["object"]
        );
        let url = first.json()["object"]["url"].as_str().unwrap().to_owned();
        assert_eq!(server.call("GET", &url, &[], b"").await.body, b"12345");
    }
}

#[tokio::test]
async fn urls_begin_with_the_public_one() {
    let server = Server::with(|config| {
        config.server.public_url = "https://up.example.org/jumar".to_owned();
    })
    .await;
    let upload = server.completed(json!({}), b"1").await;
    let status = server.status(&upload).await;
    let expected = format!("https://up.example.org/jumar{}", upload.path("/content"));
    let url = status["object"]["url"].as_str().unwrap();
    assert!(url.starts_with(&expected), "{url}");
}

#[tokio::test]
async fn empty_files() {
    for server in both().await {
        for (declared, told) in [
            (json!({"length": 0}), json!({})),
            (json!({}), json!({"length": 0})),
            (json!({}), json!({})),
        ] {
            let upload = server.create(&declared).await;
            let completed = server.complete_with(&upload, &told).await;
            let object = &completed.expect(201).json()["object"];
            assert_eq!(object["size"], 0);
            assert_eq!(object["digest"]["sha-256"], sha256(b""));
            let content = server.content(&upload, &[]).await;
            assert_eq!(
                (content.status, content.header("content-length")),
                (200, Some("0"))
            );
            let range = server.content(&upload, &[("Range", "bytes=0-")]).await;
            range.expect_problem(416, "range_mismatch");
            let ask = server.put_with(&upload, "bytes */0", &[], b"").await;
            assert_eq!(ask.expect(204).offset(), 0);
        }
        let upload = server.create_of(0).await;
        let ask = server.put_with(&upload, "bytes */0", &[], b"").await;
        assert_eq!(ask.expect(204).offset(), 0);
        let put = server.put_with(&upload, "bytes 0-0/0", &[], b"1").await;
        put.expect_problem(409, "range_mismatch");
    }
}

#[tokio::test]
async fn missing_bytes_are_named() {
    for server in both().await {
        let upload = server.create_of(1000).await;
        server
            .put(&upload, 10, b"0123456789", 1000)
            .await
            .expect(204);
        let incomplete = server.complete(&upload).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(incomplete.shown(), @r#"
            409
            cache-control: no-store
            content-length: 197
            content-type: application/problem+json

            {"code":"upload_incomplete","detail":"bytes are missing","missing":[[0,10],[20,1000]],"status":409,"title":"The upload is incomplete","truncated":false,"type":"urn:jumar:problem:upload_incomplete"}
            "#);
        }
        let unknown = server.create(&json!({})).await;
        server
            .put_with(&unknown, "bytes 5-5/*", &[], b"x")
            .await
            .expect(204);
        let incomplete = server.complete(&unknown).await;
        incomplete.expect_problem(409, "upload_incomplete");
        assert_eq!(incomplete.json()["missing"], json!([[0, 5]]));
        let longer = server.complete_with(&unknown, &json!({"length": 7})).await;
        assert_eq!(longer.json()["missing"], json!([[0, 5], [6, 7]]));
        assert_eq!(server.status(&unknown).await["state"], "uploading");
    }
}

#[tokio::test]
async fn no_more_than_a_hundred_missing_ranges() {
    let server = Server::fs().await;
    let upload = server.create_of(1000).await;
    for start in (0..204).step_by(2) {
        server.put(&upload, start + 1, b"x", 1000).await.expect(204);
    }
    let incomplete = server.complete(&upload).await;
    let json = incomplete.expect_problem(409, "upload_incomplete").json();
    assert_eq!(json["missing"].as_array().map(Vec::len), Some(100));
    assert_eq!(json["truncated"], true);
}

#[tokio::test]
async fn a_length_that_is_told_at_the_end() {
    for server in both().await {
        let upload = server.create(&json!({})).await;
        server
            .put_with(&upload, "bytes 0-4/*", &[], b"12345")
            .await
            .expect(204);
        for length in [4, 6] {
            let wrong = server
                .complete_with(&upload, &json!({ "length": length }))
                .await;
            let code = if length == 4 {
                "range_mismatch"
            } else {
                "upload_incomplete"
            };
            wrong.expect_problem(409, code);
        }
        server
            .complete_with(&upload, &json!({"length": 5}))
            .await
            .expect(201);
        let other = server.complete_with(&upload, &json!({"length": 6})).await;
        other.expect_problem(409, "range_mismatch");
        server
            .complete_with(&upload, &json!({"length": 5}))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a_declared_digest_that_is_not_the_bytes() {
    for server in both().await {
        let wrong = json!({"sha-256": sha256(b"other")});
        let at_creation = server.create(&json!({"length": 5, "digest": wrong})).await;
        let at_the_end = server.create_of(5).await;
        for (upload, told) in [
            (&at_creation, json!({})),
            (&at_the_end, json!({"digest": wrong})),
        ] {
            server.put(upload, 0, b"12345", 5).await.expect(204);
            let failed = server.complete_with(upload, &told).await;
            failed.expect_problem(422, "digest_mismatch");
            insta::allow_duplicates! {
                insta::assert_snapshot!(failed.text(), @r#"{"algorithm":"sha-256","code":"digest_mismatch","detail":"the sha-256 digest is not that of the bytes that came","status":422,"title":"The digest differs","type":"urn:jumar:problem:digest_mismatch"}"#);
            }
            let status = server.status(upload).await;
            assert_eq!(status["state"], "failed");
            assert_eq!(status["failure_reason"], "digest_mismatch");
            assert_eq!(status.get("object"), None);
            let again = server.complete_with(upload, &told).await;
            insta::allow_duplicates! {
                insta::assert_snapshot!(again.text(), @r#"{"code":"upload_failed","detail":"the upload failed: digest_mismatch","failure_reason":"digest_mismatch","status":409,"title":"The upload has failed","type":"urn:jumar:problem:upload_failed"}"#);
            }
            server
                .content(upload, &[])
                .await
                .expect_problem(409, "upload_failed");
        }
        assert_eq!(
            server.stored_files(),
            Vec::<String>::new(),
            "its bytes are gone"
        );
    }
}

#[tokio::test]
async fn right_digests_of_any_algorithm() {
    for server in both().await {
        let digest =
            json!({"sha-256": sha256(b"12345"), "md5": hex::encode(md5::Md5::digest(b"12345"))});
        let upload = server.create(&json!({ "digest": digest })).await;
        server.put(&upload, 0, b"12345", 5).await.expect(204);
        let sha1 = hex::encode(sha1::Sha1::digest(b"12345"));
        let completed = server
            .complete_with(&upload, &json!({"digest": {"sha": sha1}}))
            .await;
        let object = completed.expect(201).json()["object"].clone();
        assert_eq!(object["digest"]["sha-256"], digest["sha-256"]);
        assert_eq!(object["digest"]["md5"], digest["md5"]);
        assert_eq!(object["digest"]["sha"], sha1);
        let conflict = json!({"digest": {"md5": "00".repeat(16)}});
        let conflict = server.complete_with(&upload, &conflict).await;
        conflict.expect_problem(422, "digest_mismatch");
        assert_eq!(server.status(&upload).await["state"], "completed");
    }
}

#[tokio::test]
async fn json_of_a_completion() {
    let server = Server::fs().await;
    let upload = server.create_of(1).await;
    server.put(&upload, 0, b"1", 1).await.expect(204);
    let ask = async |fields: &[(&str, &str)], body: &[u8]| {
        server.ask(&upload, "POST", "/complete", fields, body).await
    };
    for body in [
        "{",
        "[]",
        r#"{"filename":"a"}"#,
        r#"{"length":-1}"#,
        r#"{"digest":{"sha-256":"1"}}"#,
    ] {
        ask(&[], body.as_bytes())
            .await
            .expect_problem(400, "bad_request");
    }
    ask(&[("Content-Type", "text/xml")], b"{}")
        .await
        .expect_problem(415, "unsupported_media_type");
    ask(&[], &vec![b' '; 65 << 10])
        .await
        .expect_problem(413, "upload_limit");
    ask(&[], b"").await.expect(201);
}

#[tokio::test]
async fn a_refusal_invites_no_json() {
    let server = Server::fs().await;
    let upload = server.completed(json!({}), b"1").await;
    let ended = server.create(&json!({})).await;
    server.abort(&ended).await.expect(204);
    let ask = async |id: &str, key: &str, length: &str| {
        let path = format!("/v1/uploads/{id}/complete");
        let fields = [
            ("Upload-Key", key),
            ("Content-Length", length),
            ("Expect", "100-continue"),
        ];
        let mut connection = server.connect().await;
        connection.head("POST", &path, &fields).await;
        connection
    };
    for (id, key, length, code) in [
        (&upload.id, "nonsense", "2", "not_found"),
        (&upload.id, &ended.key, "2", "not_found"),
        (&ended.id, &ended.key, "2", "session_expired"),
        (&upload.id, &upload.key, "65537", "upload_limit"),
    ] {
        let refused = ask(id, key, length).await.answer().await;
        assert_eq!(refused.code(), code);
        assert_eq!(refused.informational, [0_u16; 0], "{code}");
    }
    let mut connection = ask(&upload.id, &upload.key, "2").await;
    connection.expect_continue().await;
    connection.send(b"{}").await.unwrap();
    connection.answer().await.expect(200);
}

/// Which call makes the object.
fn finishing(server: &Server) -> Call {
    if server.ground.s3.is_some() {
        Call::Finish
    } else {
        Call::Publish
    }
}

#[tokio::test]
async fn a_long_assembly_is_asked_for_again() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| config.uploads.complete_wait_secs = 1).await;
        let bytes = noise(6 * MIB, 3);
        let upload = server.create_of(6 * MIB).await;
        server.put(&upload, 0, &bytes, 6 * MIB).await.expect(204);
        server
            .faults
            .fail(finishing(&server), When::Always, Fault::Hang);
        let working = server.complete(&upload).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(working.shown(), @r#"
            202
            cache-control: no-store
            content-length: 73
            content-type: application/json
            retry-after: 2

            {"upload_id":"<id>","state":"assembling"}
            "#);
        }
        assert_eq!(server.status(&upload).await["state"], "assembling");
        server
            .abort(&upload)
            .await
            .expect_problem(409, "upload_completed");
        let content = server.content(&upload, &[]).await;
        assert_eq!(content.code(), "upload_incomplete");
        server.complete(&upload).await.expect(202);
        server.faults.heal();
        for _ in 0..200 {
            if server.status(&upload).await["state"] == "completed" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server.complete(&upload).await.expect(200);
        assert!(server.content(&upload, &[]).await.body == bytes);
    }
}

#[tokio::test]
async fn a_store_that_is_away_at_the_end() {
    for server in both().await {
        let bytes = noise(6 * MIB, 4);
        let upload = server.create_of(6 * MIB).await;
        server.put(&upload, 0, &bytes, 6 * MIB).await.expect(204);
        server
            .faults
            .fail(finishing(&server), When::Next(1), Fault::Unavailable);
        let away = server.complete(&upload).await;
        away.expect_problem(503, "store_unavailable");
        let secs = away.json()["retry_after_secs"].as_u64().unwrap();
        assert_eq!(away.header("retry-after"), Some(secs.to_string().as_str()));
        assert_ne!(away.json()["incident"], Value::Null);
        server.complete(&upload).await.expect(201);
        assert!(server.content(&upload, &[]).await.body == bytes);
    }
}
