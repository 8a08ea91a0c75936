//! `POST /v1/uploads`

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::rig::{Ground, MIB};
use crate::support::server::{Server, both, uploaded};

const KEY: &str = "0123456789abcdef-guess-me-not";

#[tokio::test]
async fn nothing_has_to_be_told() {
    for server in both().await {
        let created = server.call("POST", "/v1/uploads", &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(created.shown(), @r#"
        201
        cache-control: no-store
        content-length: 220
        content-type: application/json
        location: /v1/uploads/<id>
        upload-expires: Fri, 17 Nov 2023 22:13:20 GMT

        {"upload_id":"<id>","upload_key":"…","chunk_size":5242880,"max_parallel_chunks":4,"length":null,"expires_at":"2023-11-17T22:13:20Z","received":[]}
        "#);
        }
        let upload = uploaded(&created);
        assert_eq!(created.header("location"), Some(upload.path("").as_str()));
        assert_eq!(upload.key.len(), 43, "32 bytes in base64url");
        assert_eq!(server.status(&upload).await["state"], "pending");
    }
}

#[tokio::test]
async fn everything_that_is_told_comes_back() {
    for server in both().await {
        let upload = server
            .create(&json!({
                "filename": "Übung \"1\".mov",
                "length": 3,
                "content_type": "video/quicktime",
                "metadata": {"album": "wedding", "": ""},
                "digest": {"sha-256": "00".repeat(32)},
                "sequential": true,
            }))
            .await;
        let status = server.ask(&upload, "GET", "", &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(status.shown(), @r#"
        200
        cache-control: no-store
        content-length: 330
        content-type: application/json
        upload-expires: Fri, 17 Nov 2023 22:13:20 GMT
        upload-length: 3
        upload-offset: 0

        {"upload_id":"<id>","state":"pending","length":3,"offset":0,"received":[],"expires_at":"2023-11-17T22:13:20Z","filename":"Übung \"1\".mov","content_type":"video/quicktime","metadata":{"":"","album":"wedding"},"digest":{"sha-256":"0000000000000000000000000000000000000000000000000000000000000000"}}
        "#);
        }
    }
}

#[tokio::test]
async fn what_is_advised_follows_the_configuration() {
    let server = Server::with(|config| {
        config.server.public_url = "https://up.example.org".to_owned();
        config.server.max_request_bytes = MIB;
        config.uploads.max_parallel_chunks = 7;
    })
    .await;
    let created = server.post(&json!({})).await;
    let upload = uploaded(&created);
    let location = format!("https://up.example.org{}", upload.path(""));
    assert_eq!(created.header("location"), Some(location.as_str()));
    assert_eq!(created.json()["chunk_size"], MIB);
    assert_eq!(created.json()["max_parallel_chunks"], 7);
    // Chunks that overtake each other would be refused.
    let created = server.post(&json!({"sequential": true})).await;
    assert_eq!(created.json()["max_parallel_chunks"], 1);
}

#[tokio::test]
async fn another_base_path() {
    let server = Server::with(|config| config.api.native = "/up/loads".to_owned()).await;
    let created = server.call("POST", "/up/loads", &[], b"").await;
    let location = created.expect(201).header("location").unwrap().to_owned();
    assert!(location.starts_with("/up/loads/"), "{location}");
    let upload = uploaded(&created);
    let key = [("Upload-Key", upload.key.as_str())];
    server.call("GET", &location, &key, b"").await.expect(200);
    let usual = server.call("POST", "/v1/uploads", &[], b"").await;
    usual.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    for server in both().await {
        let declared = json!({"length": 5, "filename": "a"});
        let repeat = async || {
            server
                .post_with(&[("Idempotency-Key", KEY)], &declared)
                .await
        };
        let first = uploaded(repeat().await.expect(201));
        let second = uploaded(repeat().await.expect(201));
        assert_eq!(first.id, second.id);
        assert_ne!(
            first.key, second.key,
            "the first key may have been seen by others"
        );
        let dead = server.ask(&first, "GET", "", &[], b"").await;
        dead.expect_problem(404, "not_found");
        let put = server.put(&first, 0, b"12345", 5).await;
        put.expect_problem(404, "not_found");
        server.put(&second, 0, b"1", 5).await.expect(204);
        let third = repeat().await;
        third.expect_problem(409, "session_in_use");
        insta::allow_duplicates! {
            insta::assert_snapshot!(third.shown(), @r#"
        409
        cache-control: no-store
        content-length: 167
        content-type: application/problem+json

        {"code":"session_in_use","detail":"the upload of this idempotency key is in use","status":409,"title":"The upload is in use","type":"urn:jumar:problem:session_in_use"}
        "#);
        }
        server.put(&second, 1, b"2345", 5).await.expect(204);
        server.complete(&second).await.expect(201);
        repeat().await.expect_problem(409, "session_in_use");
    }
}

/// An upload that has expired is gone, whether it was pruned or not: the same creation makes a new one.
#[tokio::test]
async fn a_creation_repeated_after_its_upload_expired_makes_a_new_one() {
    for pruned in [false, true] {
        for ground in [Ground::fs(), Ground::s3().await] {
            let server = Server::start(ground, |config| {
                config.uploads.session_ttl_secs = 3600;
            })
            .await;
            let repeat = async || {
                let asked = json!({"length": 5});
                let answer = server.post_with(&[("Idempotency-Key", KEY)], &asked).await;
                answer.expect(201);
                (answer.json()["expires_at"].clone(), uploaded(&answer))
            };
            let (first_expires, first) = repeat().await;
            server.put(&first, 0, b"12", 5).await.expect(204);
            server.clock.advance(Duration::from_secs(3601));
            if pruned {
                server.prune().await;
            }
            let (second_expires, second) = repeat().await;
            assert_ne!(first.id, second.id);
            assert_ne!(first_expires, second_expires);
            let gone = server.ask(&first, "GET", "", &[], b"").await;
            gone.expect_problem(410, "session_expired");
            let (third_expires, third) = repeat().await;
            assert_eq!((third_expires, &third.id), (second_expires, &second.id));
            server.put(&third, 0, b"12345", 5).await.expect(204);
            server.complete(&third).await.expect(201);
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_is_of_one_request_and_hard_to_guess() {
    let server = Server::fs().await;
    let of = async |key: &str, declared: Value| {
        server
            .post_with(&[("Idempotency-Key", key)], &declared)
            .await
    };
    of(KEY, json!({"length": 5})).await.expect(201);
    for other in [
        json!({"length": 6}),
        json!({}),
        json!({"length": 5, "filename": "b"}),
        json!({"length": 5, "metadata": {"a": "b"}}),
        json!({"length": 5, "sequential": true}),
    ] {
        of(KEY, other)
            .await
            .expect_problem(422, "idempotency_mismatch");
    }
    let short = of("only-21-characters-xx", json!({})).await;
    short.expect_problem(400, "bad_request");
    assert!(short.text().contains("Idempotency-Key"), "{}", short.text());
    of("only-22-characters-xxx", json!({})).await.expect(201);
    of(&"x".repeat(256), json!({}))
        .await
        .expect_problem(400, "bad_request");
    of("with a space in the middle", json!({}))
        .await
        .expect_problem(400, "bad_request");
    let twice = [("Idempotency-Key", KEY), ("Idempotency-Key", KEY)];
    let twice = server.post_with(&twice, &json!({"length": 5})).await;
    twice.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn json_that_cannot_be_taken() {
    let server = Server::fs().await;
    let deep = format!("{{\"metadata\":{}", "[".repeat(60_000));
    let deep_object = r#"{"a":"#.repeat(10_000);
    for (body, code, told) in [
        ("{", "bad_request", "EOF"),
        ("[]", "bad_request", "object"),
        ("null", "bad_request", "object"),
        ("\"text\"", "bad_request", "object"),
        ("{} {}", "bad_request", "trailing"),
        (r#"{"lenght":1}"#, "bad_request", "lenght"),
        (r#"{"length":1,"length":2}"#, "bad_request", "length"),
        (r#"{"length":-1}"#, "bad_request", "-1"),
        (r#"{"length":1.5}"#, "bad_request", "1.5"),
        (r#"{"length":"1"}"#, "bad_request", "u64"),
        (r#"{"length":18446744073709551616}"#, "bad_request", "u64"),
        (r#"{"sequential":1}"#, "bad_request", "boolean"),
        (r#"{"metadata":{"a":{"b":"c"}}}"#, "bad_request", "string"),
        (r#"{"digest":{"sha-3":"00"}}"#, "bad_request", "digest"),
        (r#"{"digest":{"sha-256":"00"}}"#, "bad_request", "sha-256"),
        (r#"{"digest":{"sha-256":"zz"}}"#, "bad_request", "sha-256"),
        (
            r#"{"content_type":"no type"}"#,
            "bad_request",
            "content_type",
        ),
        (
            r#"{"content_type":"a/b\r\nX: y"}"#,
            "bad_request",
            "content_type",
        ),
        ("{\"filename\":\"\u{1}\"}", "bad_request", "control"),
        (&deep, "bad_request", "JSON"),
        (&deep_object, "bad_request", "JSON"),
    ] {
        let fields = [("Content-Type", "application/json")];
        let answer = server
            .call("POST", "/v1/uploads", &fields, body.as_bytes())
            .await;
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{shown}"
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(told), "{shown}: {detail}");
    }
    let bytes = [b"{\"filename\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat();
    let answer = server.call("POST", "/v1/uploads", &[], &bytes).await;
    answer.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn only_json_and_not_much_of_it() {
    let server = Server::fs().await;
    for other in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let fields = [("Content-Type", other)];
        let answer = server.call("POST", "/v1/uploads", &fields, b"{}").await;
        answer.expect_problem(415, "unsupported_media_type");
    }
    for fine in ["application/json", "Application/JSON; charset=utf-8"] {
        let fields = [("Content-Type", fine)];
        let answer = server.call("POST", "/v1/uploads", &fields, b"{}").await;
        answer.expect(201);
    }
    let large = format!("{{{}}}", " ".repeat(64 << 10));
    let answer = server
        .call("POST", "/v1/uploads", &[], large.as_bytes())
        .await;
    answer.expect_problem(413, "upload_limit");
}

#[tokio::test]
async fn names_and_metadata_have_limits_and_are_data() {
    let server = Server::fs().await;
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "C:\\autoexec.bat",
        "photo\u{202e}gpj.exe",
        "\u{2068}a\u{2069}",
        &"é".repeat(512),
    ] {
        let upload = server.completed(json!({ "filename": name }), b"x").await;
        let status = server.status(&upload).await;
        assert_eq!(status["filename"], name);
        let key = status["object"]["key"].as_str().unwrap();
        assert_eq!(key, upload.id, "a name is never part of a path");
    }
    for name in [
        "a\0b",
        "a\nb",
        "a\rb",
        "\u{7f}",
        "\u{85}",
        &"x".repeat(10_000),
    ] {
        let answer = server.post(&json!({ "filename": name })).await;
        answer.expect_problem(400, "bad_request");
        assert!(answer.text().contains("filename"), "{}", answer.text());
    }
    let upload = server.create(&json!({"filename": ""})).await;
    assert_eq!(server.status(&upload).await["filename"], Value::Null);
    for (bytes, status) in [(4095, 201), (4096, 400)] {
        let declared = json!({"metadata": {"k": "v".repeat(bytes)}});
        server.post(&declared).await.expect(status);
    }
}

#[tokio::test]
async fn a_length_has_a_limit() {
    for ground in [Ground::fs(), Ground::s3().await] {
        let server = Server::start(ground, |config| {
            config.uploads.max_size_bytes = 10 * MIB;
        })
        .await;
        server.create_of(10 * MIB).await;
        for length in [10 * MIB + 1, u64::MAX, i64::MAX as u64, i64::MAX as u64 + 1] {
            let answer = server.post(&json!({ "length": length })).await;
            answer.expect_problem(413, "upload_limit");
            assert_eq!(answer.json()["max_size"], 10 * MIB);
        }
    }
}

#[tokio::test]
async fn json_that_never_ends() {
    let server = Server::with(|config| config.server.body_stall_secs = 1).await;
    let mut connection = server.connect().await;
    connection
        .head("POST", "/v1/uploads", &[("Content-Length", "20")])
        .await;
    connection.send(b"{").await.unwrap();
    connection.answer().await.expect_problem(400, "bad_request");
}
