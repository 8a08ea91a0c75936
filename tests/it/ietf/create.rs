//! Creating an upload.

use super::{Client, expect_draft_problem, newest, shown, url_of};
use crate::support::http::Connection;
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

#[tokio::test]
async fn a_whole_upload_in_one_request_gets_the_final_answer() {
    for server in both().await {
        let client = newest(&server);
        let fields = [
            ("Content-Type", "text/plain"),
            ("Content-Disposition", "inline; filename=\"a b.txt\""),
        ];
        let answer = client.create_with(true, &fields, b"12345").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&answer), @r#"
            201
            cache-control: no-store
            content-length: 486
            content-type: application/json
            location: /resumable/<handle>
            repr-digest: sha-256=:WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=:
            upload-complete: ?1
            upload-id: <id>
            upload-limit: max-size=53687091200, min-size=0
            upload-offset: 5

            {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":"text/plain","digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
            "#);
        }
        let url = url_of(&answer);
        let content = client.get(&url).await;
        assert_eq!(content.expect(200).body, b"12345");
        assert_eq!(
            content.header("Content-Disposition"),
            Some("attachment; filename=\"a b.txt\"")
        );
    }
}

#[tokio::test]
async fn a_part_gets_the_place_to_go_on_at() {
    for server in both().await {
        let answer = newest(&server).create(false, b"123").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&answer), @r#"
            201
            cache-control: no-store
            content-length: 0
            location: /resumable/<handle>
            upload-complete: ?0
            upload-id: <id>
            upload-limit: max-size=53687091200, min-size=0, max-age=259200
            upload-offset: 3
            "#);
        }
    }
}

#[tokio::test]
async fn many_requests_make_one_upload() {
    for server in both().await {
        let client = newest(&server);
        let bytes = noise(12 * MIB + 5, 3);
        let cuts = [0, 3_000_000, 3_000_001, 11_000_000];
        let url = client.begun(b"").await;
        for pair in cuts.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            let appended = client
                .append(&url, start as u64, false, &bytes[start..end])
                .await;
            assert_eq!(appended.expect(204).offset(), end as u64);
            assert_eq!(appended.header("Upload-Complete"), Some("?0"));
        }
        let last = client.append(&url, 11_000_000, true, &bytes[11_000_000..]);
        let last = last.await;
        assert_eq!(last.expect(201).header("Upload-Complete"), Some("?1"));
        assert_eq!(last.offset(), bytes.len() as u64);
        assert!(
            client.get(&url).await.body == bytes,
            "exactly what was sent"
        );
    }
}

#[tokio::test]
async fn any_method_with_content_creates_with_and_without_a_slash() {
    let server = Server::fs().await;
    for path in ["/resumable", "/resumable/"] {
        for method in ["POST", "PUT", "PATCH"] {
            let client = newest(&server);
            let fields = [("Upload-Complete", "?0")];
            let answer = client.call(method, path, &fields, b"12").await;
            assert_eq!(answer.expect(201).offset(), 2, "{method} {path}");
            client.head(&url_of(&answer)).await.expect(204);
        }
        let refused = server.call("DELETE", path, &[], b"").await;
        refused.expect_problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn an_empty_upload_and_an_empty_beginning() {
    for server in both().await {
        let client = newest(&server);
        let whole = client.create(true, b"").await;
        assert_eq!(whole.expect(201).json()["object"]["size"], 0);
        assert_eq!(whole.header("Upload-Complete"), Some("?1"));
        let begun = client.create(false, b"").await;
        assert_eq!(begun.expect(201).offset(), 0);
        assert_eq!(begun.header("Upload-Complete"), Some("?0"));
        let url = url_of(&begun);
        let last = client.append(&url, 0, true, b"").await;
        assert_eq!(last.expect(201).json()["object"]["size"], 0);
    }
}

#[tokio::test]
async fn without_upload_complete_it_is_a_conventional_upload() {
    for server in both().await {
        let whole = server.call("PUT", "/resumable", &[], b"12345").await;
        assert_eq!(whole.expect(201).json()["object"]["size"], 5);
        assert_eq!(whole.header("Upload-Complete"), Some("?1"));
        let mut cut = server.connect().await;
        let fields = [("Content-Length", "10")];
        cut.head("POST", "/resumable", &fields).await;
        cut.send(b"12345").await.unwrap();
        cut.half_close().await;
        let answer = cut.answer().await;
        answer.expect_problem(400, "bad_request");
        assert_eq!(answer.header("Location"), None, "nobody can go on with it");
        let open = server.running.engine().open_uploads().await;
        assert_eq!(open.unwrap(), 0, "and nothing of it is left");
    }
}

#[tokio::test]
async fn keep_what_came_when_a_creation_is_cut_in_the_middle() {
    for server in both().await {
        for (last, length) in [("?1", Some("1000")), ("?0", None)] {
            let client = newest(&server);
            let fields = [("Upload-Complete", last), ("Content-Length", "1000")];
            let mut cut = client.send_head("POST", "/resumable", &fields).await;
            cut.send(b"12345").await.unwrap();
            cut.half_close().await;
            let answer = cut.answer().await;
            answer.expect_problem(400, "bad_request");
            assert_eq!(answer.header("Upload-Complete"), Some("?0"));
            assert_eq!(answer.offset(), 5);
            let url = url_of(&answer);
            let head = client.head(&url).await;
            assert_eq!(head.expect(204).offset(), 5, "the prefix stays");
            assert_eq!(head.header("Upload-Complete"), Some("?0"));
            assert_eq!(head.header("Upload-Length"), length);
            let rest = noise(995, 1);
            let done = client.append(&url, 5, true, &rest).await;
            assert_eq!(done.expect(201).json()["object"]["size"], 1000);
        }
    }
}

#[tokio::test]
async fn lengths_that_disagree_in_a_creation() {
    let server = Server::fs().await;
    for (last, length) in [(true, "6"), (true, "4"), (false, "4")] {
        let fields = [("Upload-Length", length)];
        let answer = newest(&server).create_with(last, &fields, b"12345").await;
        expect_draft_problem(&answer, 400, "inconsistent-upload-length");
        assert_eq!(answer.header("Location"), None);
        assert_eq!(answer.informational, [0_u16; 0], "no upload was announced");
    }
    let open = server.running.engine().open_uploads().await;
    assert_eq!(open.unwrap(), 0);
}

#[tokio::test]
async fn a_creation_with_an_offset_was_meant_for_an_upload() {
    let server = Server::fs().await;
    let fields = [("Upload-Offset", "5")];
    let answer = newest(&server).create_with(true, &fields, b"12345").await;
    answer.expect_problem(400, "bad_request");
}

async fn expecting(client: Client<'_>, fields: &[(&str, &str)]) -> Connection {
    let mut fields = fields.to_vec();
    fields.push(("Expect", "100-continue"));
    client.send_head("POST", "/resumable", &fields).await
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_a_byte_is_sent() {
    let server = Server::with(|config| config.uploads.max_size_bytes = 100).await;
    let client = newest(&server);
    for fields in [
        [("Upload-Complete", "?1"), ("Content-Length", "101")].as_slice(),
        &[("Upload-Complete", "?0"), ("Content-Length", "101")],
        &[
            ("Upload-Complete", "?0"),
            ("Content-Length", "1"),
            ("Upload-Length", "101"),
        ],
        &[("Content-Length", "101")],
    ] {
        let refused = expecting(client, fields).await.answer().await;
        assert_eq!(refused.informational, [0_u16; 0], "{fields:?}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&refused), @r#"
            413
            cache-control: no-store
            content-length: 150
            content-type: application/problem+json
            upload-limit: max-size=100, min-size=0

            {"code":"upload_limit","detail":"at most 100 bytes are taken","max_size":100,"status":413,"title":"Too large","type":"urn:jumar:problem:upload_limit"}
            "#);
        }
    }
    let open = server.running.engine().open_uploads().await;
    assert_eq!(open.unwrap(), 0, "and no upload was made for it");
    let url = client.begun(&[1; 90]).await;
    let more = client.append(&url, 90, false, &[1; 20]).await;
    more.expect_problem(413, "upload_limit");
    assert_eq!(
        more.header("Upload-Limit"),
        Some("max-size=100, min-size=0")
    );
    assert_eq!(
        (more.offset(), more.header("Upload-Complete")),
        (90, Some("?0"))
    );
    let fields = [("Transfer-Encoding", "chunked")];
    let mut endless = client.append_head(&url, 90, false, &fields).await;
    endless.send_coded(&[1; 20]).await.unwrap();
    let answer = endless.answer().await;
    answer.expect_problem(413, "upload_limit");
    assert!(answer.header("Upload-Limit").is_some());
}

#[tokio::test]
async fn options_tell_the_limits_and_the_media_type() {
    let server = Server::with(|config| {
        config.uploads.max_size_bytes = 100 * MIB;
        config.server.max_request_bytes = MIB;
    })
    .await;
    for path in ["/resumable", "/resumable/"] {
        let options = server.call("OPTIONS", path, &[], b"").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&options), @r#"
            204
            accept-patch: application/partial-upload
            allow: POST,PUT,PATCH,OPTIONS
            cache-control: no-store
            upload-limit: max-size=104857600, min-size=0, max-append-size=1048576, max-age=259200
            "#);
        }
    }
    let url = newest(&server).begun(b"").await;
    let options = server.call("OPTIONS", &url, &[], b"").await;
    insta::assert_snapshot!(shown(&options), @r#"
    204
    accept-patch: application/partial-upload
    allow: GET,HEAD,PATCH,DELETE,OPTIONS
    cache-control: no-store
    "#);
}

#[tokio::test]
async fn urls_begin_with_the_public_one() {
    let server = Server::with(|config| {
        config.server.public_url = "https://up.example.org/jumar".to_owned();
        config.api.ietf = "/in".to_owned();
    })
    .await;
    let fields = [("Upload-Complete", "?1")];
    let answer = newest(&server).call("POST", "/in", &fields, b"1").await;
    let url = url_of(answer.expect(201));
    assert!(url.starts_with("https://up.example.org/jumar/in/"), "{url}");
    let link = answer.json()["object"]["url"].as_str().unwrap().to_owned();
    assert!(
        link.starts_with("https://up.example.org/jumar/v1/uploads/"),
        "{link}"
    );
}
