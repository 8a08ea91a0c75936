//! `PATCH` of an upload.

use super::{PARTIAL, expect_draft_problem, newest, shown};
use crate::support::rig::{MIB, noise};
use crate::support::server::{Server, both};

#[tokio::test]
async fn a_part_says_how_far_it_got() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"123").await;
        let answer = client.append(&url, 3, false, b"45").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&answer), @r#"
            204
            cache-control: no-store
            upload-complete: ?0
            upload-offset: 5
            "#);
        }
    }
}

#[tokio::test]
async fn the_last_part_gets_the_final_answer() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"123").await;
        let answer = client.append(&url, 3, true, b"45").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&answer), @r#"
            201
            cache-control: no-store
            content-length: 478
            content-type: application/json
            repr-digest: sha-256=:WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=:
            upload-complete: ?1
            upload-id: <id>
            upload-offset: 5

            {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":null,"digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
            "#);
        }
        assert_eq!(client.get(&url).await.body, b"12345");
    }
}

#[tokio::test]
async fn a_wrong_offset_is_a_conflict_that_tells_the_right_one() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"12345").await;
        for wrong in [0, 4, 6, 1000] {
            for last in [false, true] {
                let answer = client.append(&url, wrong, last, b"x").await;
                let json = expect_draft_problem(&answer, 409, "mismatching-upload-offset");
                assert_eq!(json["expected-offset"], 5, "{json}");
                assert_eq!(json["provided-offset"], wrong, "{json}");
                assert_eq!(json["code"], "chunk_out_of_order");
                assert_eq!(answer.offset(), 5);
                assert_eq!(answer.header("Upload-Complete"), Some("?0"));
            }
        }
        let answer = client.append(&url, 5, true, b"67").await;
        assert_eq!(answer.expect(201).json()["object"]["size"], 7);
    }
}

#[tokio::test]
async fn lengths_that_disagree_are_refused_and_the_upload_stays() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun_of(10, b"123").await;
        let told = [("Upload-Length", "11")];
        let chunked = [("Transfer-Encoding", "chunked")];
        for answer in [
            client.append_with(&url, 3, false, &told, b"45").await,
            client.append(&url, 3, true, b"45").await,
            client.append(&url, 3, true, &[0; 8]).await,
            client.append_with(&url, 3, true, &told, &[0; 7]).await,
        ] {
            let json = expect_draft_problem(&answer, 400, "inconsistent-upload-length");
            assert_eq!(json["code"], "range_mismatch");
            assert_eq!(answer.header("Upload-Complete"), Some("?0"));
            assert_eq!(answer.offset(), 3);
        }
        let mut short = client.append_head(&url, 3, true, &chunked).await;
        short.send_coded(b"45").await.unwrap();
        short.send_coded(b"").await.unwrap();
        let answer = short.answer().await;
        expect_draft_problem(&answer, 400, "inconsistent-upload-length");
        assert_eq!(answer.offset(), 5, "what came is kept");
        client.append(&url, 5, true, b"67890").await.expect(201);
        assert_eq!(client.get(&url).await.body, b"1234567890");
    }
}

#[tokio::test]
async fn a_length_is_remembered_from_the_request_that_tells_it() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"123").await;
        assert_eq!(client.head(&url).await.header("Upload-Length"), None);
        let told = [("Upload-Length", "10")];
        let answer = client.append_with(&url, 3, false, &told, b"45").await;
        answer.expect(204);
        assert_eq!(client.head(&url).await.header("Upload-Length"), Some("10"));
        let url = client.begun(b"123").await;
        let fields = [("Content-Length", "7")];
        let mut cut = client.append_head(&url, 3, true, &fields).await;
        cut.send(b"4").await.unwrap();
        client.wait_for(&url, 4).await;
        drop(cut);
        let head = client.head(&url).await;
        assert_eq!(head.header("Upload-Length"), Some("10"), "offset and rest");
    }
}

#[tokio::test]
async fn more_than_the_length_ends_the_upload() {
    for server in both().await {
        let client = newest(&server);
        let announced = client.begun_of(10, b"12345").await;
        let answer = client.append(&announced, 5, false, b"678901").await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown(&answer), @r#"
            400
            cache-control: no-store
            content-length: 258
            content-type: application/problem+json

            {"code":"range_mismatch","detail":"the range ends at byte 11, beyond the upload's length of 10","expected_offset":5,"length":10,"status":400,"title":"The range does not fit","type":"https://iana.org/assignments/http-problem-types#inconsistent-upload-length"}
            "#);
        }
        let endless = client.begun_of(10, b"12345").await;
        let fields = [("Transfer-Encoding", "chunked")];
        let mut connection = client.append_head(&endless, 5, false, &fields).await;
        connection.send_coded(b"678").await.unwrap();
        connection.send_coded(b"901").await.unwrap();
        connection.send_coded(b"").await.unwrap();
        let answer = connection.answer().await;
        expect_draft_problem(&answer, 400, "inconsistent-upload-length");
        assert_eq!(answer.header("Upload-Offset"), None);
        for url in [announced, endless] {
            client.head(&url).await.expect(410);
            let more = client.append(&url, 10, true, b"").await;
            more.expect_problem(410, "session_expired");
            assert_eq!(more.header("Upload-Offset"), None);
        }
        assert_eq!(server.stored_files(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_wrong_offset_never_ends_an_upload() {
    let server = Server::fs().await;
    let client = newest(&server);
    let url = client.begun_of(10, b"12345").await;
    let answer = client.append(&url, 6, false, b"7890123").await;
    expect_draft_problem(&answer, 409, "mismatching-upload-offset");
    client.append(&url, 5, true, b"67890").await.expect(201);
}

#[tokio::test]
async fn a_full_offset_alone_completes_nothing() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun_of(5, b"123").await;
        let full = client.append(&url, 3, false, b"45").await;
        assert_eq!(full.expect(204).offset(), 5);
        assert_eq!(full.header("Upload-Complete"), Some("?0"));
        let head = client.head(&url).await;
        assert_eq!(head.expect(204).header("Upload-Complete"), Some("?0"));
        assert_eq!(
            (head.offset(), head.header("Upload-Length")),
            (5, Some("5"))
        );
        client.get(&url).await.expect(204);
        let last = client.append(&url, 5, true, b"").await;
        assert_eq!(last.expect(201).header("Upload-Complete"), Some("?1"));
        assert_eq!(
            client.get(&url).await.body,
            b"12345",
            "an empty one completes it"
        );
    }
}

#[tokio::test]
async fn a_completed_upload_takes_nothing_more() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"123").await;
        client.append(&url, 3, true, b"45").await.expect(201);
        for (offset, last, body) in [
            (3, true, b"45".as_slice()),
            (5, true, b"6"),
            (5, false, b"6"),
            (5, false, b""),
            (9, true, b""),
            (0, false, b"123"),
        ] {
            let answer = client.append(&url, offset, last, body).await;
            let json = expect_draft_problem(&answer, 400, "completed-upload");
            assert_eq!(json["code"], "upload_completed", "{offset} {last}");
            assert_eq!(
                answer.header("Upload-Complete"),
                Some("?0"),
                "not its outcome"
            );
            assert_eq!(answer.offset(), 5);
        }
        assert_eq!(client.get(&url).await.body, b"12345");
    }
}

#[tokio::test]
async fn told_once_the_final_answer_is_given_again() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"123").await;
        let first = client.append(&url, 3, true, b"45").await;
        let again = client.append(&url, 5, true, b"").await;
        assert_eq!(shown(&again), shown(first.expect(201)));
    }
}

#[tokio::test]
async fn an_upload_that_is_aborted_is_gone() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"123").await;
        client.delete(&url).await.expect(204);
        let answer = client.append(&url, 3, true, b"45").await;
        answer.expect_problem(410, "session_expired");
        assert_eq!(answer.header("Upload-Offset"), None);
        assert_eq!(answer.header("Upload-Complete"), None);
    }
}

#[tokio::test]
async fn an_append_names_its_media_type_its_offset_and_whether_it_is_the_last() {
    let server = Server::fs().await;
    let client = newest(&server);
    let url = client.begun(b"123").await;
    let (offset, last) = (("Upload-Offset", "3"), ("Upload-Complete", "?1"));
    let plain = ("Content-Type", "application/octet-stream");
    for (fields, status, code) in [
        (
            [plain, offset, last].as_slice(),
            415,
            "unsupported_media_type",
        ),
        (&[offset, last], 415, "unsupported_media_type"),
        (&[PARTIAL, last], 400, "bad_request"),
        (&[PARTIAL, offset], 400, "bad_request"),
        (
            &[PARTIAL, ("Upload-Offset", "three"), last],
            400,
            "bad_request",
        ),
        (
            &[PARTIAL, ("Upload-Offset", "-3"), last],
            400,
            "bad_request",
        ),
        (&[PARTIAL, offset, offset, last], 400, "bad_request"),
        (
            &[PARTIAL, offset, ("Upload-Complete", "1")],
            400,
            "bad_request",
        ),
        (&[PARTIAL, offset, last, last], 400, "bad_request"),
    ] {
        let answer = client.call("PATCH", &url, fields, b"45").await;
        answer.expect_problem(status, code);
        assert_eq!(answer.offset(), 3, "{fields:?}");
        assert_eq!(answer.header("Upload-Complete"), Some("?0"));
    }
    let with_parameters = [
        ("Content-Type", "application/Partial-Upload; a=b"),
        ("Upload-Offset", "3;a"),
        ("Upload-Complete", "?1;b=1"),
        ("Upload-Length", "none"),
    ];
    let answer = client.call("PATCH", &url, &with_parameters, b"45").await;
    answer.expect(201);
}

#[tokio::test]
async fn keep_what_came_when_an_append_is_cut_in_the_middle() {
    for server in both().await {
        let client = newest(&server);
        let bytes = noise(7 * MIB, 2);
        let url = client.begun(&bytes[..3]).await;
        let fields = [("Content-Length", "7340029")];
        let mut cut = client.append_head(&url, 3, true, &fields).await;
        cut.send(&bytes[3..6_000_000]).await.unwrap();
        client.wait_for(&url, 6_000_000).await;
        drop(cut);
        let head = client.head(&url).await;
        assert_eq!(head.expect(204).offset(), 6_000_000, "the prefix stays");
        assert_eq!(head.header("Upload-Complete"), Some("?0"));
        let rest = client
            .append(&url, 6_000_000, true, &bytes[6_000_000..])
            .await;
        assert_eq!(rest.expect(201).offset(), bytes.len() as u64);
        assert!(client.get(&url).await.body == bytes);
    }
}

#[tokio::test]
async fn one_writer_a_newer_append_displaces_an_older_one() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"").await;
        let fields = [("Content-Length", "100")];
        let mut older = client.append_head(&url, 0, true, &fields).await;
        older.send(b"12345").await.unwrap();
        client.wait_for(&url, 5).await;
        let newer = client.append(&url, 5, false, b"67890").await;
        assert_eq!(newer.expect(204).offset(), 10);
        let displaced = older.answer().await;
        displaced.expect_problem(409, "displaced");
        assert_eq!(displaced.header("Connection"), Some("close"));
        assert!((5..=10).contains(&displaced.offset()), "{displaced:?}");
    }
}

#[tokio::test]
async fn never_back_an_offset_only_grows() {
    for server in both().await {
        let client = newest(&server);
        let url = client.begun(b"").await;
        let mut reached = 0;
        for round in 0..8 {
            let fields = [("Content-Length", "1000")];
            let mut cut = client.append_head(&url, reached, false, &fields).await;
            cut.send(&noise(round * 50, round)).await.unwrap();
            drop(cut);
            let offset = client.head(&url).await.expect(204).offset();
            assert!(offset >= reached, "{offset} after {reached}");
            reached = offset;
        }
    }
}
