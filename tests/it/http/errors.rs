//! What every operation refuses, and how: unknown uploads and routes, ended uploads, faults of the server.

use serde_json::json;
use uuid::Uuid;

use crate::support::http::Answer;
use crate::support::rig::noise;
use crate::support::server::{Server, Upload, both};

/// Every operation on an upload: method, path below it, further fields and body.
type Operation = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [u8],
);

const OPERATIONS: [Operation; 8] = [
    ("GET", "", &[], b""),
    ("HEAD", "", &[], b""),
    ("PUT", "/chunk", &[("Content-Range", "bytes 0-2/3")], b"123"),
    ("PUT", "/chunk", &[("Content-Range", "bytes */3")], b""),
    ("POST", "/complete", &[], b"{}"),
    ("DELETE", "", &[], b""),
    ("GET", "/content", &[], b""),
    ("HEAD", "/content", &[], b""),
];

/// Everything of an answer but for what differs from one answer to the next in any case.
fn comparable(mut answer: Answer) -> Answer {
    answer
        .headers
        .retain(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"));
    answer
}

#[tokio::test]
async fn sealed_uploads_cannot_be_told_from_none() {
    for server in both().await {
        let upload = server.create_of(3).await;
        server.put(&upload, 0, b"1", 3).await.expect(204);
        let completed = server.completed(json!({}), b"123").await;
        let aborted = server.create_of(3).await;
        server.abort(&aborted).await.expect(204);
        let nobody = Uuid::from_u128(0x0123_4567_89ab_7def_8123_4567_89ab_cdef).to_string();
        for (method, below, fields, body) in OPERATIONS {
            let ask = async |id: &str, keys: &[&str]| {
                let mut fields = fields.to_vec();
                fields.extend(keys.iter().map(|key| ("Upload-Key", *key)));
                let path = format!("/v1/uploads/{id}{below}");
                comparable(server.call(method, &path, &fields, body).await)
            };
            let expected = ask(&nobody, &[&upload.key]).await;
            assert_eq!(expected.status, 404, "{method} {below}");
            if method != "HEAD" {
                expected.expect_problem(404, "not_found");
            }
            let wrong = "A".repeat(43);
            for (id, keys) in [
                (upload.id.as_str(), &[completed.key.as_str()][..]),
                (&upload.id, &[]),
                (&upload.id, &[""]),
                (&upload.id, &["short"]),
                (&upload.id, &[&wrong]),
                (&upload.id, &[&upload.key, &upload.key]),
                (&completed.id, &[&upload.key]),
                (&completed.id, &[]),
                (&aborted.id, &[&upload.key]),
                (&aborted.id, &[]),
                ("not-a-uuid", &[&upload.key]),
                ("%ff%fe", &[&upload.key]),
                ("..", &[&upload.key]),
                ("%2e%2e%2f", &[&upload.key]),
                (&upload.id.replace('-', ""), &[&upload.key]),
                (&upload.id.to_uppercase(), &[&upload.key]),
                (&"x".repeat(5000), &[&upload.key]),
            ] {
                assert_eq!(
                    ask(id, keys).await,
                    expected,
                    "{method} {below} of {id} with {keys:?}"
                );
            }
        }
        assert_eq!(
            server.status(&upload).await["received"],
            json!([[0, 1]]),
            "untouched"
        );
    }
}

/// The words that each operation answers with, in the order of [`OPERATIONS`]; the status where there is no body.
async fn words(server: &Server, upload: &Upload) -> Vec<String> {
    let mut words = Vec::new();
    for (method, below, fields, body) in OPERATIONS {
        let answer = server.ask(upload, method, below, fields, body).await;
        words.push(if answer.status < 400 || method == "HEAD" {
            answer.status.to_string()
        } else {
            answer.code()
        });
    }
    words
}

#[tokio::test]
async fn ended_uploads_touched_again() {
    for server in both().await {
        let completed = server.completed(json!({}), b"123").await;
        let failed = server
            .create(&json!({"length": 3, "digest": {"sha-256": "00".repeat(32)}}))
            .await;
        server.put(&failed, 0, b"123", 3).await.expect(204);
        server.complete(&failed).await.expect(422);
        let aborted = server.create_of(3).await;
        server.put(&aborted, 0, b"1", 3).await.expect(204);
        server.abort(&aborted).await.expect(204);
        let expired = server.create_of(3).await;
        server.put(&expired, 0, b"1", 3).await.expect(204);
        server.let_expire();
        assert_eq!(
            words(&server, &completed).await,
            [
                "200",
                "200",
                "204",
                "204",
                "200",
                "upload_completed",
                "200",
                "200"
            ]
        );
        assert_eq!(
            words(&server, &failed).await,
            [
                "200",
                "200",
                "upload_failed",
                "upload_failed",
                "upload_failed",
                "upload_failed",
                "upload_failed",
                "409"
            ]
        );
        let gone = "session_expired";
        assert_eq!(
            words(&server, &aborted).await,
            [gone, "410", gone, gone, gone, "204", gone, "410"]
        );
        let all_gone = [gone, "410", gone, gone, gone, gone, gone, "410"];
        assert_eq!(words(&server, &expired).await, all_gone);
        // Whether cron has come by or not makes no difference.
        server.prune().await;
        assert_eq!(words(&server, &expired).await, all_gone);
        assert_eq!(words(&server, &aborted).await[0], gone);
    }
}

#[tokio::test]
async fn methods_that_a_route_does_not_know() {
    let server = Server::fs().await;
    let upload = server.create_of(3).await;
    for (path, wrong, allow) in [
        ("/v1/uploads", "GET", "POST,OPTIONS"),
        (&upload.path(""), "PUT", "GET,HEAD,DELETE,OPTIONS"),
        (&upload.path(""), "PATCH", "GET,HEAD,DELETE,OPTIONS"),
        (&upload.path("/chunk"), "GET", "PUT,OPTIONS"),
        (&upload.path("/complete"), "GET", "POST,OPTIONS"),
        (&upload.path("/parts/urls"), "GET", "POST,OPTIONS"),
        (&upload.path("/parts/1"), "PUT", "POST,OPTIONS"),
        (&upload.path("/content"), "DELETE", "GET,HEAD,OPTIONS"),
        ("/healthz", "POST", "GET,HEAD"),
        ("/readyz", "PUT", "GET,HEAD"),
    ] {
        let refused = server.call(wrong, path, &[], b"").await;
        refused.expect_problem(405, "method_not_allowed");
        let mut allowed: Vec<_> = refused.header("allow").unwrap().split(',').collect();
        let mut expected: Vec<_> = allow.split(',').collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allowed, expected, "{path}");
        if allow.contains("OPTIONS") {
            let options = server.call("OPTIONS", path, &[], b"").await;
            let mut allowed: Vec<_> = options
                .expect(204)
                .header("allow")
                .unwrap()
                .split(',')
                .collect();
            allowed.sort_unstable();
            assert_eq!(allowed, expected, "OPTIONS {path}");
        }
    }
}

#[tokio::test]
async fn routes_that_are_none() {
    let server = Server::fs().await;
    let upload = server.create_of(3).await;
    for path in [
        "/",
        "/v1",
        "/v1/uploads/",
        "/v1/Uploads",
        "//v1/uploads",
        "/v1/uploads/../uploads",
        &upload.path("/"),
        &upload.path("/nothing"),
        &upload.path("/chunk/more"),
        "/metrics",
        "/Files",
        "/resumable/nothing/more",
        "/%00",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = server.call(method, path, &[], b"").await;
            answer.expect_problem(404, "not_found");
        }
    }
    let unknown = server.get("/nowhere").await;
    insta::assert_snapshot!(unknown.shown(), @r#"
    404
    cache-control: no-store
    content-length: 136
    content-type: application/problem+json

    {"code":"not_found","detail":"there is no such route","status":404,"title":"There is nothing here","type":"urn:jumar:problem:not_found"}
    "#);
}

#[tokio::test]
async fn every_answer_has_the_requests_id() {
    let server = Server::fs().await;
    for path in ["/healthz", "/nowhere", "/v1/uploads"] {
        let answer = server.get(path).await;
        assert_eq!(
            answer.header("x-request-id").map(str::len),
            Some(20),
            "{path}"
        );
        let own = [("X-Request-ID", "abc-1.2:3_X")];
        let answer = server.call("GET", path, &own, b"").await;
        assert_eq!(answer.header("x-request-id"), Some("abc-1.2:3_X"));
        let bad = [("X-Request-ID", "a b")];
        let answer = server.call("GET", path, &bad, b"").await;
        assert_ne!(answer.header("x-request-id"), Some("a b"));
    }
}

/// A connection of the test's own to the catalog's file.
fn database(server: &Server) -> rusqlite::Connection {
    let path = server.ground.folder.path().join("jumar.db");
    rusqlite::Connection::open(path).expect("the catalog's file")
}

#[tokio::test]
async fn a_fault_of_the_server_says_nothing_of_the_inside() {
    let server = Server::fs().await;
    let upload = server.completed(json!({}), b"123").await;
    let changed = database(&server)
        .execute("UPDATE upload_sessions SET plan = 'torn'", [])
        .expect("torn");
    assert_eq!(changed, 1);
    let fault = server.ask(&upload, "GET", "", &[], b"").await;
    insta::assert_snapshot!(fault.shown(), @r#"
    500
    cache-control: no-store
    content-length: 181
    content-type: application/problem+json

    {"code":"internal","detail":"this server could not carry it out","incident":"…","status":500,"title":"A fault of this server","type":"urn:jumar:problem:internal"}
    "#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_cannot_be_written() {
    let server = Server::fs().await;
    let upload = server.create_of(1000).await;
    let database = database(&server);
    database.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let ready = server.get("/readyz").await;
    insta::assert_snapshot!(ready.shown(), @r#"
    503
    cache-control: no-store
    content-length: 53
    content-type: application/json

    {"catalog":false,"status":"unavailable","store":true}
    "#);
    let refused = server.post(&json!({})).await;
    refused.expect_problem(503, "store_unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        server.status(&upload).await["state"],
        "pending",
        "reading goes on"
    );
    database.execute_batch("ROLLBACK").expect("unlocked");
    let bytes = noise(1000, 1);
    server.put(&upload, 0, &bytes, 1000).await.expect(204);
    assert_eq!(server.get("/readyz").await.status, 200);
}
