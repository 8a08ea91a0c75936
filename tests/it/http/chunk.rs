//! `PUT /v1/uploads/{id}/chunk`

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use md5::Md5;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::rig::{Ground, MIB, noise};
use crate::support::server::{Server, Upload, both, range};

/// `Content-Digest` with the SHA-256 of these bytes.
fn sha256(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

async fn offset(server: &Server, upload: &Upload) -> u64 {
    server.status(upload).await["offset"].as_u64().unwrap()
}

#[tokio::test]
async fn chunks_of_any_size_in_any_order() {
    for server in both().await {
        let bytes = noise(6 * MIB + 11, 1);
        let whole = bytes.len() as u64;
        let upload = server.create_of(whole).await;
        let put = async |start: usize, end: usize| {
            let put = server.put(&upload, start as u64, &bytes[start..end], whole);
            put.await.expect(204).offset()
        };
        assert_eq!(put(100, 5_500_000).await, 0, "there is a hole before it");
        assert_eq!(put(6_000_000, bytes.len()).await, 0);
        assert_eq!(put(0, 1).await, 1);
        assert_eq!(put(1, 100).await, 5_500_000, "the hole is filled");
        assert_eq!(put(0, 6_000_000).await, whole, "what is there is skipped");
        server.complete(&upload).await.expect(201);
        let content = server.content(&upload, &[]).await;
        assert!(content.expect(200).body == bytes, "exactly what was sent");
    }
}

#[tokio::test]
async fn the_answer_has_the_offset_and_the_expiry() {
    for server in both().await {
        let upload = server.create_of(5).await;
        let put = server.put(&upload, 0, b"123", 5).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(put.shown(), @r#"
            204
            cache-control: no-store
            upload-expires: Fri, 17 Nov 2023 22:13:20 GMT
            upload-offset: 3
            "#);
        }
        server.clock.advance(Duration::from_mins(1));
        let put = server.put(&upload, 3, b"45", 5).await;
        let expires = put.header("upload-expires").unwrap();
        assert!(
            expires.contains("22:14:20"),
            "slides with each byte: {expires}"
        );
    }
}

#[tokio::test]
async fn a_length_is_fixed_by_the_first_number_and_stays() {
    for server in both().await {
        let upload = server.create(&json!({})).await;
        let put =
            async |range: &str, bytes: &[u8]| server.put_with(&upload, range, &[], bytes).await;
        put("bytes 0-2/*", b"123").await.expect(204);
        assert!(server.status(&upload).await["length"].is_null());
        put("bytes 3-3/2", b"4")
            .await
            .expect_problem(409, "range_mismatch");
        put("bytes */2", b"")
            .await
            .expect_problem(409, "range_mismatch");
        put("bytes 3-3/6", b"4").await.expect(204);
        assert_eq!(server.status(&upload).await["length"], 6);
        let other = put("bytes 4-4/7", b"5").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(other.shown(), @r#"
            409
            cache-control: no-store
            content-length: 167
            content-type: application/problem+json

            {"code":"range_mismatch","detail":"the upload's length is 6, not 7","length":6,"status":409,"title":"The range does not fit","type":"urn:jumar:problem:range_mismatch"}
            "#);
        }
        put("bytes */7", b"")
            .await
            .expect_problem(409, "range_mismatch");
        put("bytes 4-6/*", b"567")
            .await
            .expect_problem(409, "range_mismatch");
        assert_eq!(offset(&server, &upload).await, 4);
        put("bytes 4-5/*", b"56").await.expect(204);
        server.complete(&upload).await.expect(201);
    }
}

#[tokio::test]
async fn asking_fixes_the_length_too() {
    for server in both().await {
        let upload = server.create(&json!({})).await;
        let ask = async |range| server.put_with(&upload, range, &[], b"").await;
        assert_eq!(ask("bytes */*").await.expect(204).offset(), 0);
        assert_eq!(ask("bytes */9").await.expect(204).offset(), 0);
        assert_eq!(server.status(&upload).await["length"], 9);
        let body = server.put_with(&upload, "bytes */9", &[], b"x").await;
        body.expect_problem(409, "range_mismatch");
        let mut connection = server
            .put_head(&upload, "bytes */9", &[("Transfer-Encoding", "chunked")])
            .await;
        connection.send_coded(b"x").await.unwrap();
        connection.send_coded(b"").await.unwrap();
        let body = connection.answer().await;
        body.expect_problem(409, "range_mismatch");
    }
}

#[tokio::test]
async fn ranges_that_are_none() {
    let server = Server::fs().await;
    let upload = server.create_of(10).await;
    for (range, status, code) in [
        ("", 400, "bad_request"),
        ("bytes", 400, "bad_request"),
        ("bytes=0-2/10", 400, "bad_request"),
        ("bytes 0-2", 400, "bad_request"),
        ("bytes -2/10", 400, "bad_request"),
        ("bytes 0-/10", 400, "bad_request"),
        ("bytes 0-2/ten", 400, "bad_request"),
        ("bytes 0-2,4-5/10", 400, "bad_request"),
        ("items 0-2/10", 400, "bad_request"),
        ("bytes 2-0/10", 409, "range_mismatch"),
        ("bytes 8-10/10", 409, "range_mismatch"),
        ("bytes 0-2/2", 409, "range_mismatch"),
        ("bytes 8-10/*", 409, "range_mismatch"),
        ("bytes 0-3/10", 409, "range_mismatch"),
        ("bytes 0-1/10", 409, "range_mismatch"),
        (
            "bytes 18446744073709551613-18446744073709551615/*",
            409,
            "range_mismatch",
        ),
        (
            "bytes 9223372036854775805-9223372036854775807/*",
            409,
            "range_mismatch",
        ),
        (
            "bytes 0-2/99999999999999999999999999",
            409,
            "range_mismatch",
        ),
        (
            "bytes 18446744073709551616-18446744073709551618/*",
            409,
            "range_mismatch",
        ),
    ] {
        let put = server.put_with(&upload, range, &[], b"123").await;
        assert_eq!((put.status, put.code().as_str()), (status, code), "{range}");
    }
    let none = server.ask(&upload, "PUT", "/chunk", &[], b"123").await;
    none.expect_problem(400, "bad_request");
    let twice = [("Content-Range", "bytes 0-2/10")];
    let twice = server
        .put_with(&upload, "bytes 0-2/10", &twice, b"123")
        .await;
    twice.expect_problem(400, "bad_request");
    assert_eq!(server.status(&upload).await["received"], json!([]));
    let far = server.create(&json!({})).await;
    let put = server
        .put_with(&far, "bytes 53687091199-53687091201/*", &[], b"123")
        .await;
    put.expect_problem(413, "upload_limit");
    assert_eq!(put.json()["max_size"], 53_687_091_200_u64);
}

#[tokio::test]
async fn bodies_of_unknown_length() {
    for server in both().await {
        let upload = server.create_of(10).await;
        let send = async |fields: &[(&str, &str)], pieces: &[&[u8]]| {
            let mut connection = server.connect().await;
            let mut fields = fields.to_vec();
            fields.push(("Upload-Key", &upload.key));
            fields.push(("Transfer-Encoding", "chunked"));
            connection
                .head("PUT", &upload.path("/chunk"), &fields)
                .await;
            for piece in pieces {
                connection.send_coded(piece).await.unwrap();
            }
            connection.send_coded(b"").await.unwrap();
            connection.answer().await
        };
        let ranged = [("Content-Range", "bytes 0-4/10")];
        let short = send(&ranged, &[b"12"]).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(short.shown(), @r#"
            409
            cache-control: no-store
            content-length: 222
            content-type: application/problem+json
            upload-offset: 2

            {"code":"range_mismatch","detail":"the body ended at byte 2, before its range did; what came is kept","expected_offset":2,"length":10,"status":409,"title":"The range does not fit","type":"urn:jumar:problem:range_mismatch"}
            "#);
        }
        assert_eq!(offset(&server, &upload).await, 2, "what came is kept");
        let long = send(&ranged, &[b"1234", b"567"]).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(long.shown(), @r#"
            409
            cache-control: no-store
            content-length: 228
            content-type: application/problem+json
            upload-offset: 5

            {"code":"range_mismatch","detail":"the body has more bytes than its range; those within the range are kept","expected_offset":5,"length":10,"status":409,"title":"The range does not fit","type":"urn:jumar:problem:range_mismatch"}
            "#);
        }
        assert_eq!(
            offset(&server, &upload).await,
            5,
            "what is within the range is kept"
        );
        send(&[], &[b"67890"])
            .await
            .expect_problem(400, "bad_request");
        let ranged = [("Content-Range", "bytes 5-9/*")];
        assert_eq!(
            send(&ranged, &[b"67", b"890"]).await.expect(204).offset(),
            10
        );
        server.complete(&upload).await.expect(201);
        assert_eq!(server.content(&upload, &[]).await.body, b"1234567890");
    }
}

#[tokio::test]
async fn a_cut_body_keeps_what_came() {
    for server in both().await {
        let bytes = noise(6 * MIB, 2);
        let upload = server.create_of(6 * MIB).await;
        let range = range(0, bytes.len(), Some(6 * MIB));
        let begin = async || {
            let length = [("Content-Length", "6291456")];
            server.put_head(&upload, &range, &length).await
        };
        let mut cut = begin().await;
        cut.send(&bytes[..5_300_000]).await.unwrap();
        drop(cut);
        server.wait_for_offset(&upload, 5_300_000).await;
        let mut half = begin().await;
        half.send(&bytes[..5_400_000]).await.unwrap();
        half.half_close().await;
        server.wait_for_offset(&upload, 5_400_000).await;
        server
            .put(&upload, 5_400_000, &bytes[5_400_000..], 6 * MIB)
            .await
            .expect(204);
        server.complete(&upload).await.expect(201);
        assert!(server.content(&upload, &[]).await.body == bytes);
    }
}

#[tokio::test]
async fn a_client_that_sends_no_more_is_answered() {
    let server = Server::fs().await;
    let upload = server.create_of(3).await;
    let mut connection = server
        .put_head(&upload, "bytes 0-2/3", &[("Content-Length", "3")])
        .await;
    connection.send(b"123").await.unwrap();
    connection.half_close().await;
    connection.answer().await.expect(204);
}

#[tokio::test]
async fn a_stalled_body_is_cut_and_kept() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| config.server.body_stall_secs = 1).await;
        let upload = server.create_of(100).await;
        let mut connection = server
            .put_head(&upload, "bytes 0-99/100", &[("Content-Length", "100")])
            .await;
        connection.send(&[7; 40]).await.unwrap();
        let stalled = connection.answer().await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(stalled.shown(), @r#"
            400
            cache-control: no-store
            connection: close
            content-length: 184
            content-type: application/problem+json
            upload-offset: 40

            {"code":"bad_request","detail":"the body ended early: nothing came for 1 s","expected_offset":40,"status":400,"title":"The request is malformed","type":"urn:jumar:problem:bad_request"}
            "#);
        }
        assert_eq!(offset(&server, &upload).await, 40);
        assert!(connection.is_closed().await, "it waited long enough");
    }
}

#[tokio::test]
async fn bounded_a_body_that_trickles_is_cut_and_kept() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| {
            config.server.body_stall_secs = 1;
            config.server.min_body_bytes_per_sec = 100;
        })
        .await;
        let upload = server.create_of(1000).await;
        let mut connection = server
            .put_head(&upload, "bytes 0-999/1000", &[("Content-Length", "1000")])
            .await;
        for _ in 0..60 {
            let _ = connection.send(b"a").await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let refused = connection.answer().await;
        refused.expect_problem(400, "bad_request");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("less than 100 bytes/s"), "{detail}");
        assert!(offset(&server, &upload).await < 100);
    }
}

#[tokio::test]
async fn digests_of_a_chunk() {
    for server in both().await {
        let upload = server.create_of(9).await;
        let put = async |start: u64, bytes: &[u8], fields: &[(&str, &str)]| {
            let range = range(start, bytes.len(), Some(9));
            server.put_with(&upload, &range, fields, bytes).await
        };
        let md5 = |bytes: &[u8]| STANDARD.encode(Md5::digest(bytes));
        let wrong = put(0, b"123", &[("Content-Digest", &sha256(b"124"))]).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(wrong.shown(), @r#"
            422
            cache-control: no-store
            content-length: 198
            content-type: application/problem+json

            {"algorithm":"sha-256","code":"digest_mismatch","detail":"the sha-256 digest is not that of the bytes that came","status":422,"title":"The digest differs","type":"urn:jumar:problem:digest_mismatch"}
            "#);
        }
        let wrong = put(0, b"123", &[("Content-MD5", &md5(b"124"))]).await;
        wrong.expect_problem(422, "digest_mismatch");
        for (name, value) in [
            ("Content-Digest", "sha-3=:AAAA:"),
            ("Content-Digest", "sha-256=:AAAA:"),
            ("Content-Digest", "sha-256=123"),
            ("Content-Digest", "sha-256"),
            ("Content-Digest", ";;;"),
            ("Content-MD5", "AAAA"),
            ("Content-MD5", "not base64"),
            ("Content-MD5", ""),
        ] {
            let malformed = put(0, b"123", &[(name, value)]).await;
            assert_eq!(
                (malformed.status, malformed.code().as_str()),
                (400, "bad_request"),
                "{value}"
            );
        }
        assert_eq!(
            server.status(&upload).await["received"],
            json!([]),
            "nothing counts"
        );
        put(0, b"123", &[("Content-Digest", &sha256(b"123"))])
            .await
            .expect(204);
        put(3, b"456", &[("Content-MD5", &md5(b"456"))])
            .await
            .expect(204);
        let beside = format!("sha-3=:AAAA:, {}", sha256(b"789"));
        put(6, b"789", &[("Content-Digest", &beside)])
            .await
            .expect(204);
        server.complete(&upload).await.expect(201);
        assert_eq!(server.content(&upload, &[]).await.body, b"123456789");
    }
}

#[tokio::test]
async fn a_cut_body_with_a_digest_counts_not_at_all() {
    for server in both().await {
        let upload = server.create_of(6).await;
        let digest = sha256(b"123456");
        let fields = [("Content-Length", "6"), ("Content-Digest", &digest)];
        let mut connection = server.put_head(&upload, "bytes 0-5/6", &fields).await;
        connection.send(b"123").await.unwrap();
        connection.half_close().await;
        assert!(connection.is_closed().await || connection.try_answer().await.is_ok());
        let ask = server.put_with(&upload, "bytes */6", &[], b"").await;
        assert_eq!(ask.expect(204).offset(), 0);
    }
}

#[tokio::test]
async fn a_chunk_with_a_digest_has_a_limit() {
    let server = Server::with(|config| config.uploads.max_checksummed_chunk_bytes = 2).await;
    let upload = server.create_of(3).await;
    let digest = [("Content-Digest", sha256(b"123"))];
    let digest = digest
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let large = server
        .put_with(&upload, "bytes 0-2/3", &digest, b"123")
        .await;
    large.expect_problem(413, "upload_limit");
    assert_eq!(large.json()["max_size"], 2);
    server.put(&upload, 0, b"123", 3).await.expect(204);
}

#[tokio::test]
async fn a_sequential_upload_takes_no_holes() {
    for server in both().await {
        let declared = json!({"length": 6, "sequential": true});
        let upload = server.create(&declared).await;
        let hole = server.put(&upload, 3, b"456", 6).await;
        hole.expect_problem(409, "chunk_out_of_order");
        assert_eq!(
            (hole.offset(), &hole.json()["expected_offset"]),
            (0, &json!(0))
        );
        server.put(&upload, 0, b"1234", 6).await.expect(204);
        let overlap = server.put(&upload, 2, b"3456", 6).await;
        assert_eq!(overlap.expect(204).offset(), 6);
    }
}

/// A chunk that hangs: its head and half of it were sent.
async fn hanging(server: &Server, upload: &Upload, start: u64) -> crate::support::http::Connection {
    let fields = [("Content-Length", "10"), ("Expect", "100-continue")];
    let range = range(start, 10, None);
    let mut connection = server.put_head(upload, &range, &fields).await;
    // It was let in when it is invited to go on.
    connection.send(b"12345").await.unwrap();
    server.wait_for_bytes(upload, start, 5).await;
    connection
}

#[tokio::test]
async fn so_many_chunks_at_once() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| config.uploads.max_parallel_chunks = 2).await;
        let upload = server.create_of(100).await;
        let first = hanging(&server, &upload, 0).await;
        let _second = hanging(&server, &upload, 20).await;
        let third = server.put(&upload, 40, b"12345", 100).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(third.shown(), @r#"
            429
            cache-control: no-store
            content-length: 220
            content-type: application/problem+json
            retry-after: 1

            {"code":"too_many_chunks","detail":"2 chunks of this upload are in flight already","max_parallel_chunks":2,"retry_after_secs":1,"status":429,"title":"Too many chunks in flight","type":"urn:jumar:problem:too_many_chunks"}
            "#);
        }
        drop(first);
        let mut again = server.put(&upload, 40, b"12345", 100).await;
        for _ in 0..100 {
            if again.status == 204 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            again = server.put(&upload, 40, b"12345", 100).await;
        }
        again.expect(204);
    }
}

#[tokio::test]
async fn a_newer_chunk_takes_over() {
    for server in both().await {
        let upload = server.create_of(20).await;
        let mut old = hanging(&server, &upload, 0).await;
        let new = server.put(&upload, 0, b"1234512345", 20).await;
        assert_eq!(new.expect(204).offset(), 10);
        let displaced = old.answer().await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(displaced.shown(), @r#"
            409
            cache-control: no-store
            connection: close
            content-length: 154
            content-type: application/problem+json

            {"code":"displaced","detail":"a newer request took over this range","status":409,"title":"A newer request took over","type":"urn:jumar:problem:displaced"}
            "#);
        }
        let mut old = hanging(&server, &upload, 10).await;
        let ask = server.put_with(&upload, "bytes */20", &[], b"").await;
        assert_eq!(
            ask.expect(204).offset(),
            15,
            "what hangs is displaced, and counts"
        );
        old.answer().await.expect_problem(409, "displaced");
    }
}

#[tokio::test]
async fn a_completed_upload_takes_its_own_bytes_again() {
    for server in both().await {
        let upload = server.completed(json!({}), b"1234567890").await;
        assert_eq!(
            server
                .put(&upload, 0, b"1234567890", 10)
                .await
                .expect(204)
                .offset(),
            10
        );
        assert_eq!(
            server
                .put(&upload, 3, b"456", 10)
                .await
                .expect(204)
                .offset(),
            10
        );
        let ask = server.put_with(&upload, "bytes */10", &[], b"").await;
        assert_eq!(ask.expect(204).offset(), 10);
        let other = server.put(&upload, 3, b"457", 10).await;
        other.expect_problem(409, "upload_completed");
        for (range, bytes) in [
            ("bytes 9-10/*", &b"01"[..]),
            ("bytes 10-10/11", b"1"),
            ("bytes 0-0/11", b"1"),
        ] {
            let other = server.put_with(&upload, range, &[], bytes).await;
            assert_eq!(other.code(), "upload_completed", "{range}");
        }
        assert_eq!(server.content(&upload, &[]).await.body, b"1234567890");
    }
}

/// A body has to be as long as its range, on a completed upload like on any other.
#[tokio::test]
async fn a_completed_upload_looks_at_the_length_of_a_repeated_body() {
    for server in both().await {
        let upload = server.completed(json!({}), b"1234567890").await;
        for (pieces, refused) in [
            (&[&b"34"[..], b"567"][..], None),
            (&[&b"34"[..], b"56"], Some("range_mismatch")),
            (&[], Some("range_mismatch")),
            (&[&b"34"[..], b"5678"], Some("range_mismatch")),
            (&[&b"34"[..], b"56x"], Some("upload_completed")),
        ] {
            let mut connection = server.connect().await;
            let fields = [
                ("Upload-Key", upload.key.as_str()),
                ("Content-Range", "bytes 2-6/10"),
                ("Transfer-Encoding", "chunked"),
            ];
            connection
                .head("PUT", &upload.path("/chunk"), &fields)
                .await;
            for piece in pieces {
                connection.send_coded(piece).await.unwrap();
            }
            connection.send_coded(b"").await.unwrap();
            let answer = connection.answer().await;
            match refused {
                None => assert_eq!(answer.expect(204).offset(), 10),
                Some(code) => {
                    answer.expect_problem(409, code);
                    if code == "range_mismatch" {
                        assert_eq!(answer.json()["expected_offset"], 10);
                    }
                }
            }
        }
        assert_eq!(server.content(&upload, &[]).await.body, b"1234567890");
    }
}

#[tokio::test]
async fn continue_is_said_to_what_is_let_in() {
    for server in both().await {
        let upload = server.create_of(3).await;
        let fields = [("Content-Length", "3"), ("Expect", "100-continue")];
        let mut connection = server.put_head(&upload, "bytes 0-2/3", &fields).await;
        connection.expect_continue().await;
        connection.send(b"123").await.unwrap();
        connection.answer().await.expect(204);
    }
}

#[tokio::test]
async fn a_refusal_invites_no_bytes() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 10 * MIB).await;
    let upload = server.create_of(3).await;
    let sequential = server.create(&json!({"sequential": true})).await;
    let ended = server.create(&json!({})).await;
    server.abort(&ended).await.expect(204);
    let unknown = Upload {
        id: upload.id.clone(),
        key: ended.key.clone(),
    };
    for (upload, range, code) in [
        (&unknown, "bytes 0-2/3", "not_found"),
        (&upload, "nonsense", "bad_request"),
        (&upload, "bytes 0-2/4", "range_mismatch"),
        (&upload, "bytes 20971520-20971522/*", "upload_limit"),
        (&sequential, "bytes 1-3/*", "chunk_out_of_order"),
        (&ended, "bytes 0-2/3", "session_expired"),
    ] {
        let fields = [("Content-Length", "3"), ("Expect", "100-continue")];
        let mut connection = server.put_head(upload, range, &fields).await;
        let refused = connection.answer().await;
        assert_eq!(refused.code(), code);
        assert_eq!(refused.informational, [0_u16; 0], "{code}");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_or_broken() {
    let server = Server::with(|config| config.spool.min_free_bytes = u64::MAX / 2).await;
    let upload = server.create_of(3).await;
    let full = server.put(&upload, 0, b"123", 3).await;
    insta::assert_snapshot!(full.shown(), @r#"
    503
    cache-control: no-store
    content-length: 242
    content-type: application/problem+json
    retry-after: 5

    {"code":"store_unavailable","detail":"it cannot be taken now; nothing is lost, try again later","incident":"…","retry_after_secs":5,"status":503,"title":"It cannot be taken now","type":"urn:jumar:problem:store_unavailable"}
    "#);
    assert_eq!(full.header("retry-after"), Some("5"));

    let server = Server::fs().await;
    let upload = server.create_of(3).await;
    server
        .faults
        .fail(Call::WriteAt, When::Always, Fault::Unavailable);
    let broken = server.put(&upload, 0, b"123", 3).await;
    broken.expect_problem(503, "store_unavailable");
    server.faults.heal();
    server.put(&upload, 0, b"123", 3).await.expect(204);
    server.complete(&upload).await.expect(201);
}
