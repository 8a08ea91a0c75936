//! What the versions of the drafts say differently.

use super::{Client, client, newest, shown, url_of};
use crate::support::server::{Server, both};

/// One upload in three requests, and what was answered.
async fn course(client: Client<'_>) -> String {
    let begun = client
        .create_with(false, &[("Upload-Length", "5")], b"12")
        .await;
    let url = url_of(&begun);
    let answers = [
        begun,
        client.append(&url, 2, false, b"34").await,
        client.head(&url).await,
        client.append(&url, 3, false, b"").await,
        client.append(&url, 4, true, b"5").await,
        client.head(&url).await,
        client.append(&url, 5, false, b"").await,
    ];
    assert_eq!(client.get(&url).await.body, b"12345");
    answers.map(|answer| shown(&answer)).join("\n---\n")
}

#[tokio::test]
async fn version_3() {
    let server = Server::fs().await;
    insta::assert_snapshot!(course(client(&server, "3")).await, @r#"
    201
    cache-control: no-store
    content-length: 0
    location: /resumable/<handle>
    upload-id: <id>
    upload-incomplete: ?1
    upload-offset: 2


    ---
    201
    cache-control: no-store
    content-length: 0
    upload-incomplete: ?1
    upload-offset: 4


    ---
    204
    cache-control: no-store
    upload-incomplete: ?1
    upload-offset: 4


    ---
    409
    cache-control: no-store
    content-length: 271
    content-type: application/problem+json
    upload-incomplete: ?1
    upload-offset: 4

    {"code":"chunk_out_of_order","detail":"the upload goes on at byte 4, not at 3","expected-offset":4,"expected_offset":4,"provided-offset":3,"status":409,"title":"The chunk is out of order","type":"https://iana.org/assignments/http-problem-types#mismatching-upload-offset"}
    ---
    201
    cache-control: no-store
    content-length: 478
    content-type: application/json
    repr-digest: sha-256=:WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=:
    upload-id: <id>
    upload-incomplete: ?0
    upload-offset: 5

    {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":null,"digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
    ---
    204
    cache-control: no-store
    upload-incomplete: ?0
    upload-offset: 5


    ---
    400
    cache-control: no-store
    content-length: 205
    content-type: application/problem+json
    upload-incomplete: ?0
    upload-offset: 5

    {"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":400,"title":"The upload is completed","type":"https://iana.org/assignments/http-problem-types#completed-upload"}
    "#);
}

#[tokio::test]
async fn version_5() {
    let server = Server::fs().await;
    insta::assert_snapshot!(course(client(&server, "5")).await, @r#"
    201
    cache-control: no-store
    content-length: 0
    location: /resumable/<handle>
    upload-complete: ?0
    upload-id: <id>
    upload-offset: 2


    ---
    201
    cache-control: no-store
    content-length: 0
    upload-complete: ?0
    upload-offset: 4


    ---
    204
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 4


    ---
    409
    cache-control: no-store
    content-length: 271
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 4

    {"code":"chunk_out_of_order","detail":"the upload goes on at byte 4, not at 3","expected-offset":4,"expected_offset":4,"provided-offset":3,"status":409,"title":"The chunk is out of order","type":"https://iana.org/assignments/http-problem-types#mismatching-upload-offset"}
    ---
    201
    cache-control: no-store
    content-length: 478
    content-type: application/json
    repr-digest: sha-256=:WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=:
    upload-complete: ?1
    upload-id: <id>
    upload-offset: 5

    {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":null,"digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
    ---
    204
    cache-control: no-store
    upload-complete: ?1
    upload-offset: 5


    ---
    400
    cache-control: no-store
    content-length: 205
    content-type: application/problem+json
    upload-complete: ?1
    upload-offset: 5

    {"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":400,"title":"The upload is completed","type":"https://iana.org/assignments/http-problem-types#completed-upload"}
    "#);
}

#[tokio::test]
async fn version_6() {
    let server = Server::fs().await;
    insta::assert_snapshot!(course(client(&server, "6")).await, @r#"
    201
    cache-control: no-store
    content-length: 0
    location: /resumable/<handle>
    upload-complete: ?0
    upload-id: <id>
    upload-limit: max-size=53687091200, min-size=0, expires=259200
    upload-offset: 2


    ---
    201
    cache-control: no-store
    content-length: 0
    upload-complete: ?0
    upload-offset: 4


    ---
    204
    cache-control: no-store
    upload-complete: ?0
    upload-length: 5
    upload-limit: max-size=53687091200, min-size=0, expires=259200
    upload-offset: 4


    ---
    409
    cache-control: no-store
    content-length: 271
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 4

    {"code":"chunk_out_of_order","detail":"the upload goes on at byte 4, not at 3","expected-offset":4,"expected_offset":4,"provided-offset":3,"status":409,"title":"The chunk is out of order","type":"https://iana.org/assignments/http-problem-types#mismatching-upload-offset"}
    ---
    201
    cache-control: no-store
    content-length: 478
    content-type: application/json
    repr-digest: sha-256=:WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=:
    upload-complete: ?1
    upload-id: <id>
    upload-offset: 5

    {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":null,"digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
    ---
    204
    cache-control: no-store
    upload-complete: ?1
    upload-length: 5
    upload-limit: max-size=53687091200, min-size=0
    upload-offset: 5


    ---
    400
    cache-control: no-store
    content-length: 205
    content-type: application/problem+json
    upload-complete: ?1
    upload-offset: 5

    {"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":400,"title":"The upload is completed","type":"https://iana.org/assignments/http-problem-types#completed-upload"}
    "#);
}

#[tokio::test]
async fn version_8() {
    let server = Server::fs().await;
    insta::assert_snapshot!(course(client(&server, "8")).await, @r#"
    201
    cache-control: no-store
    content-length: 0
    location: /resumable/<handle>
    upload-complete: ?0
    upload-id: <id>
    upload-limit: max-size=53687091200, min-size=0, max-age=259200
    upload-offset: 2


    ---
    204
    cache-control: no-store
    upload-complete: ?0
    upload-offset: 4


    ---
    204
    cache-control: no-store
    upload-complete: ?0
    upload-length: 5
    upload-limit: max-size=53687091200, min-size=0, max-age=259200
    upload-offset: 4


    ---
    409
    cache-control: no-store
    content-length: 271
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 4

    {"code":"chunk_out_of_order","detail":"the upload goes on at byte 4, not at 3","expected-offset":4,"expected_offset":4,"provided-offset":3,"status":409,"title":"The chunk is out of order","type":"https://iana.org/assignments/http-problem-types#mismatching-upload-offset"}
    ---
    201
    cache-control: no-store
    content-length: 478
    content-type: application/json
    repr-digest: sha-256=:WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=:
    upload-complete: ?1
    upload-id: <id>
    upload-offset: 5

    {"upload_id":"<id>","object":{"key":"<id>","size":5,"content_type":null,"digest":{"sha-256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},"etag":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5","url":"/v1/uploads/<id>/content?<signed>","verified":"stream","store_checked":true}}
    ---
    204
    cache-control: no-store
    upload-complete: ?1
    upload-length: 5
    upload-limit: max-size=53687091200, min-size=0
    upload-offset: 5


    ---
    400
    cache-control: no-store
    content-length: 205
    content-type: application/problem+json
    upload-complete: ?0
    upload-offset: 5

    {"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":400,"title":"The upload is completed","type":"https://iana.org/assignments/http-problem-types#completed-upload"}
    "#);
}

#[tokio::test]
async fn without_a_version_and_with_an_unknown_one_the_newest_is_spoken() {
    let server = Server::fs().await;
    let expected = course(client(&server, "8")).await;
    let none = Client {
        server: &server,
        version: None,
    };
    assert_eq!(course(none).await, expected);
    for other in ["4", "7", "9", "99", "-1", "x", "?1", "8.0", "\"8\""] {
        assert_eq!(course(client(&server, other)).await, expected, "{other}");
    }
}

#[tokio::test]
async fn an_append_of_version_3_without_upload_incomplete_is_the_last() {
    for server in both().await {
        let client = client(&server, "3");
        let url = client.begun(b"123").await;
        let done = client
            .call("PATCH", &url, &[("Upload-Offset", "3")], b"45")
            .await;
        done.expect(201);
        assert_eq!(done.header("Upload-Incomplete"), Some("?0"));
        assert_eq!(done.offset(), 5);
    }
}

#[tokio::test]
async fn a_media_type_is_required_from_version_6_on() {
    let server = Server::fs().await;
    for (version, status) in [("3", 201), ("5", 201), ("6", 415), ("8", 415)] {
        let client = client(&server, version);
        let url = client.begun(b"123").await;
        let fields = [("Upload-Offset", "3"), client.complete(false)];
        let answer = client.call("PATCH", &url, &fields, b"45").await;
        answer.expect(status);
        if status == 415 {
            let accepted = answer.header("Accept-Patch");
            assert_eq!(accepted, Some("application/partial-upload"));
            assert_eq!(answer.offset(), 3);
        }
    }
}

#[tokio::test]
async fn fields_that_a_version_forbids_are_refused() {
    let server = Server::fs().await;
    let offset = ("Upload-Offset", "3");
    let complete = ("Upload-Complete", "?0");
    let incomplete = ("Upload-Incomplete", "?1");
    let length = ("Upload-Length", "3");
    for (version, method, field, refused) in [
        ("3", "HEAD", offset, true),
        ("3", "HEAD", incomplete, true),
        ("3", "HEAD", complete, false),
        ("3", "HEAD", length, false),
        ("5", "HEAD", offset, true),
        ("5", "HEAD", complete, true),
        ("5", "HEAD", length, false),
        ("6", "HEAD", offset, true),
        ("6", "HEAD", complete, true),
        ("6", "HEAD", length, true),
        ("8", "HEAD", offset, false),
        ("8", "HEAD", complete, false),
        ("8", "HEAD", length, false),
        ("3", "DELETE", offset, true),
        ("3", "DELETE", incomplete, true),
        ("5", "DELETE", complete, true),
        ("6", "DELETE", offset, true),
        ("6", "DELETE", length, false),
        ("8", "DELETE", complete, false),
    ] {
        let client = client(&server, version);
        let url = client.begun(b"123").await;
        let answer = client.call(method, &url, &[field], b"").await;
        let expected = if refused { 400 } else { 204 };
        assert_eq!(answer.status, expected, "{version} {method} {field:?}");
        if refused {
            client.head(&url).await.expect(204);
        }
    }
}

#[tokio::test]
async fn malformed_fields_are_as_good_as_absent() {
    let server = Server::fs().await;
    let client = newest(&server);
    let fields = [
        ("Upload-Complete", "?0;why=\"not\""),
        ("Upload-Length", "five"),
        ("Upload-Offset", "-7"),
    ];
    let begun = client.call("POST", "/resumable", &fields, b"12").await;
    begun.expect(201);
    assert_eq!(begun.header("Upload-Complete"), Some("?0"));
    let head = client.head(&url_of(&begun)).await;
    assert_eq!(head.header("Upload-Length"), None);
    for complete in ["false", "0", "?2", "", "?0, ?0"] {
        let fields = [("Upload-Complete", complete)];
        let conventional = client.call("POST", "/resumable", &fields, b"12").await;
        conventional.expect(201);
        assert_eq!(
            conventional.header("Upload-Complete"),
            Some("?1"),
            "{complete}"
        );
    }
}
