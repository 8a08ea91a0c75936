//! What a browser's page may do.

use crate::support::server::Server;

const PAGE: (&str, &str) = ("Origin", "https://page.example");

/// Every field of an answer is one that the page may read.
fn assert_readable(answer: &crate::support::http::Answer, origin: &str) {
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some(origin),
        "{answer:?}"
    );
    let exposed = answer.header("access-control-expose-headers").unwrap();
    let exposed: Vec<_> = exposed.split(", ").collect();
    for (name, _) in &answer.headers {
        let name = name.to_ascii_lowercase();
        let of_the_wire = name.starts_with("access-control-")
            || matches!(name.as_str(), "connection" | "vary" | "transfer-encoding");
        assert!(
            of_the_wire || exposed.contains(&name.as_str()),
            "{name} is not exposed: {exposed:?}"
        );
    }
}

#[tokio::test]
async fn a_preflight() {
    let server = Server::fs().await;
    for path in ["/v1/uploads", "/v1/uploads/x/chunk", "/nowhere"] {
        let asked = [
            PAGE,
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "upload-key"),
        ];
        let mut preflight = server.call("OPTIONS", path, &asked, b"").await;
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
        preflight.headers.retain(|(name, _)| name != "vary");
        insta::allow_duplicates! {
            insta::assert_snapshot!(preflight.shown(), @r#"
            204
            access-control-allow-headers: Authorization, Content-Type, Content-Disposition, Content-Range, Content-Digest, Content-MD5, Digest, Repr-Digest, Want-Repr-Digest, Idempotency-Key, Device-Id, Upload-Key, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Checksum, Upload-Concat, Upload-Complete, Upload-Incomplete, Upload-Draft-Interop-Version, Tus-Resumable, X-HTTP-Method-Override, X-Request-ID
            access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS
            access-control-max-age: 7200
            "#);
        }
    }
}

#[tokio::test]
async fn any_other_options_reaches_its_route() {
    let server = Server::fs().await;
    let options = server.call("OPTIONS", "/v1/uploads", &[PAGE], b"").await;
    assert_eq!(options.expect(204).header("allow"), Some("POST,OPTIONS"));
    assert_readable(&options, "*");
    let options = server.call("OPTIONS", "/nowhere", &[PAGE], b"").await;
    assert_eq!(options.status, 404);
}

#[tokio::test]
async fn every_answer_can_be_read_by_the_page() {
    let server = Server::fs().await;
    let upload = server
        .completed(serde_json::json!({"filename": "a"}), b"12345")
        .await;
    let open = server.create_of(5).await;
    let large = "x".repeat(70 << 10);
    let key = |upload: &crate::support::server::Upload| ("Upload-Key", upload.key.clone());
    let (done_key, open_key) = (key(&upload), key(&open));
    let done = (done_key.0, done_key.1.as_str());
    let open_key = (open_key.0, open_key.1.as_str());
    let text = ("Content-Type", "text/plain");
    let range = ("Content-Range", "bytes 0-2/5");
    for (method, path, fields, body, status) in [
        ("POST", "/v1/uploads".to_owned(), vec![], "", 201),
        ("POST", "/v1/uploads".to_owned(), vec![text], "{}", 415),
        ("POST", "/v1/uploads".to_owned(), vec![], "{", 400),
        ("GET", "/v1/uploads".to_owned(), vec![], "", 405),
        ("GET", "/nowhere".to_owned(), vec![], "", 404),
        (
            "GET",
            "/healthz".to_owned(),
            vec![("X-Large", large.as_str())],
            "",
            431,
        ),
        ("GET", upload.path(""), vec![], "", 404),
        ("GET", upload.path(""), vec![done], "", 200),
        ("HEAD", upload.path(""), vec![done], "", 200),
        ("GET", upload.path("/content"), vec![done], "", 200),
        (
            "GET",
            upload.path("/content"),
            vec![done, ("Range", "bytes=0-1")],
            "",
            206,
        ),
        (
            "GET",
            upload.path("/content"),
            vec![done, ("Range", "bytes=9-")],
            "",
            416,
        ),
        (
            "GET",
            upload.path("/content"),
            vec![done, ("If-None-Match", "*")],
            "",
            304,
        ),
        ("DELETE", upload.path(""), vec![done], "", 409),
        (
            "PUT",
            open.path("/chunk"),
            vec![open_key, range],
            "123",
            204,
        ),
        ("POST", open.path("/complete"), vec![open_key], "", 409),
        ("DELETE", open.path(""), vec![open_key], "", 204),
        (
            "PUT",
            open.path("/chunk"),
            vec![open_key, range],
            "123",
            410,
        ),
    ] {
        let mut fields = fields;
        fields.push(PAGE);
        let answer = server.call(method, &path, &fields, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_readable(&answer, "*");
    }
}

#[tokio::test]
async fn only_the_origins_that_are_named() {
    let server = Server::with(|config| {
        config.server.cors_origins = vec!["https://page.example".to_owned()];
    })
    .await;
    let own = server.call("GET", "/nowhere", &[PAGE], b"").await;
    assert_readable(&own, "https://page.example");
    assert_eq!(own.header("vary"), Some("origin"));
    for other in [
        "https://evil.example",
        "https://page.example.evil.example",
        "http://page.example",
        "null",
    ] {
        let answer = server
            .call("GET", "/nowhere", &[("Origin", other)], b"")
            .await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{other}"
        );
        assert_eq!(answer.header("vary"), Some("origin"));
        let asked = [("Origin", other), ("Access-Control-Request-Method", "PUT")];
        let preflight = server.call("OPTIONS", "/v1/uploads", &asked, b"").await;
        assert_eq!(
            preflight.header("access-control-allow-origin"),
            None,
            "{other}"
        );
    }
}
