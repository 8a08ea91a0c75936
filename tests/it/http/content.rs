//! `GET` and `HEAD /v1/uploads/{id}/content`

use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};
use serde_json::json;

use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

#[tokio::test]
async fn the_whole_and_its_head() {
    for server in both().await {
        let declared = json!({"filename": "a.txt", "content_type": "text/html"});
        let upload = server.completed(declared, b"0123456789").await;
        let whole = server.content(&upload, &[]).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(whole.shown(), @r#"
            200
            accept-ranges: bytes
            cache-control: private
            content-disposition: attachment; filename="a.txt"
            content-length: 10
            content-type: text/html
            etag: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
            x-content-type-options: nosniff

            0123456789
            "#);
        }
        let head = server.ask(&upload, "HEAD", "/content", &[], b"").await;
        let fields = |answer: &crate::support::http::Answer| {
            let mut fields = answer.headers.clone();
            fields.retain(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"));
            fields
        };
        assert_eq!((head.status, fields(&head)), (200, fields(&whole)));
        let object = server.status(&upload).await["object"].clone();
        let etag = format!("\"{}\"", object["etag"].as_str().unwrap());
        assert_eq!(whole.header("etag"), Some(etag.as_str()));
    }
}

#[tokio::test]
async fn ranges() {
    for server in both().await {
        let upload = server.completed(json!({}), b"0123456789").await;
        for (range, status, content_range, body) in [
            ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
            ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
            ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
            ("bytes=-30", 206, Some("bytes 0-9/10"), "0123456789"),
            ("bytes=8-99", 206, Some("bytes 8-9/10"), "89"),
            ("bytes=0-0", 206, Some("bytes 0-0/10"), "0"),
            // Several, and nonsense: the whole.
            ("bytes=0-1,4-5", 200, None, "0123456789"),
            ("bytes=4-2", 200, None, "0123456789"),
            ("lines=1-2", 200, None, "0123456789"),
        ] {
            let part = server.content(&upload, &[("Range", range)]).await;
            assert_eq!(
                (
                    part.status,
                    part.header("content-range"),
                    part.text().as_str()
                ),
                (status, content_range, body),
                "{range}"
            );
            let length = body.len().to_string();
            assert_eq!(part.header("content-length"), Some(length.as_str()));
            assert_eq!(part.header("accept-ranges"), Some("bytes"));
            assert_eq!(part.header("x-content-type-options"), Some("nosniff"));
        }
        for range in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
            let unsatisfiable = server.content(&upload, &[("Range", range)]).await;
            unsatisfiable.expect_problem(416, "range_mismatch");
            assert_eq!(unsatisfiable.header("content-range"), Some("bytes */10"));
        }
        let head = [("Range", "bytes=2-4")];
        let head = server.ask(&upload, "HEAD", "/content", &head, b"").await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("10"))
        );
    }
}

#[tokio::test]
async fn conditions() {
    for server in both().await {
        let upload = server.completed(json!({}), b"0123456789").await;
        let whole = server.content(&upload, &[]).await;
        let etag = whole.header("etag").unwrap();
        let get = async |fields: &[(&str, &str)]| server.content(&upload, fields).await;
        let same = get(&[("If-None-Match", etag)]).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(same.shown(), @r#"
            304
            cache-control: private
            etag: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
            "#);
        }
        get(&[("If-None-Match", "*")]).await.expect(304);
        get(&[("If-None-Match", "\"x\"")]).await.expect(200);
        get(&[("If-None-Match", etag), ("Range", "bytes=0-1")])
            .await
            .expect(304);
        get(&[("If-Range", etag), ("Range", "bytes=0-1")])
            .await
            .expect(206);
        get(&[("If-Range", "\"x\""), ("Range", "bytes=0-1")])
            .await
            .expect(200);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        get(&[("If-Range", date), ("Range", "bytes=0-1")])
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn names_come_back_quoted() {
    let server = Server::fs().await;
    for (name, disposition) in [
        ("plain.txt", r#"attachment; filename="plain.txt""#),
        (r#"a"b\c.txt"#, r#"attachment; filename="a\"b\\c.txt""#),
        (
            "50%.txt",
            r#"attachment; filename="50%.txt"; filename*=UTF-8''50%25.txt"#,
        ),
        (
            "Übung.mov",
            r#"attachment; filename="_bung.mov"; filename*=UTF-8''%C3%9Cbung.mov"#,
        ),
        (
            "a\u{202e}gpj.exe",
            r#"attachment; filename="a_gpj.exe"; filename*=UTF-8''a%E2%80%AEgpj.exe"#,
        ),
        (
            "日本",
            r#"attachment; filename="__"; filename*=UTF-8''%E6%97%A5%E6%9C%AC"#,
        ),
    ] {
        let upload = server.completed(json!({ "filename": name }), b"x").await;
        let content = server.content(&upload, &[]).await;
        assert_eq!(content.header("content-disposition"), Some(disposition));
    }
    let upload = server.completed(json!({}), b"x").await;
    let content = server.content(&upload, &[]).await;
    assert_eq!(content.header("content-disposition"), Some("attachment"));
    assert_eq!(
        content.header("content-type"),
        Some("application/octet-stream")
    );
}

#[tokio::test]
async fn a_large_one() {
    for server in both().await {
        let bytes = noise(12 * MIB + 5, 6);
        let upload = server.completed(json!({}), &bytes).await;
        assert!(server.content(&upload, &[]).await.body == bytes);
        let part = [("Range", "bytes=5000000-11000000")];
        let part = server.content(&upload, &part).await;
        assert!(part.expect(206).body == bytes[5_000_000..=11_000_000]);
    }
}

#[tokio::test]
async fn not_before_it_is_completed() {
    for server in both().await {
        let upload = server.create_of(2).await;
        server.put(&upload, 0, b"1", 2).await.expect(204);
        let early = server.content(&upload, &[]).await;
        early.expect_problem(409, "upload_incomplete");
        let head = server.ask(&upload, "HEAD", "/content", &[], b"").await;
        assert_eq!((head.status, head.body.len()), (409, 0));
    }
}

#[tokio::test]
async fn a_store_that_is_away() {
    for server in both().await {
        let upload = server.completed(json!({}), b"12345").await;
        server
            .faults
            .fail(Call::Read, When::Next(1), Fault::Unavailable);
        let away = server.content(&upload, &[]).await;
        away.expect_problem(503, "store_unavailable");
        assert!(away.header("retry-after").is_some());
        assert_eq!(server.content(&upload, &[]).await.body, b"12345");
    }
}

/// Where it is configured so, content comes from the bucket itself, and just as we would answer.
#[tokio::test]
async fn a_redirect_to_the_store() {
    use jumar::engine::Serve;

    use crate::support::http::try_call;
    use crate::support::rig::Ground;

    let server = Server::start(Ground::s3().await, |config| {
        config.objects.serve = Serve::Redirect;
        config.direct.url_ttl_secs = 60;
    })
    .await;
    // The bucket looks at its own clock.
    let now = jumar::clock::Clock::system().now();
    server.clock.advance(now.since(server.clock.now()));
    let declared = json!({"filename": "é.txt", "content_type": "text/html"});
    let upload = server.completed(declared, b"0123456789").await;
    let redirect = server.content(&upload, &[]).await;
    assert_eq!(redirect.expect(307).body, b"");
    let caching = redirect.header("cache-control");
    assert_eq!(caching, Some("private, no-store"));
    let url = redirect.header("location").unwrap();
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let (host, path) = (host.parse().unwrap(), format!("/{path}"));
    let stored = try_call(host, "GET", &path, &[], b"").await.unwrap();
    assert_eq!(stored.expect(200).body, b"0123456789");
    let head = server.ask(&upload, "HEAD", "/content", &[], b"").await;
    for name in ["content-type", "content-disposition", "cache-control"] {
        assert_eq!(stored.header(name), head.expect(200).header(name));
    }
    let part = [("Range", "bytes=2-4")];
    server.content(&upload, &part).await.expect(307);
    let stored = try_call(host, "GET", &path, &part, b"").await.unwrap();
    assert_eq!(stored.expect(206).body, b"234");
    // What can be answered without the content is.
    let same = [("If-None-Match", head.header("etag").unwrap())];
    server.content(&upload, &same).await.expect(304);
    let beyond = server.content(&upload, &[("Range", "bytes=10-")]).await;
    beyond.expect_problem(416, "range_mismatch");
}

#[tokio::test]
async fn no_redirect_where_the_store_cannot_sign() {
    let server = Server::with(|config| {
        config.objects.serve = jumar::engine::Serve::Redirect;
    })
    .await;
    let upload = server.completed(json!({}), b"0123456789").await;
    let content = server.content(&upload, &[]).await;
    assert_eq!(content.expect(200).body, b"0123456789");
}
