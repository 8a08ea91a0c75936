//! Rate limits over sockets, on every protocol.

use std::time::Duration;

use jumar::config::{AuthMode, Config, Limit};
use jumar::model::Timestamp;
use serde_json::json;

use crate::support::http::Answer;
use crate::support::server::{Server, uploaded};
use crate::support::tokens::{join_token, take_join_tokens};

/// Where tokens are required, and an address may create `creations` at once, and one a minute.
async fn closed(creations: u32, change: impl FnOnce(&mut Config)) -> Server {
    Server::with(|config| {
        config.auth.mode = AuthMode::Required;
        take_join_tokens(config);
        config.rate_limits.creations_per_minute = Limit::of(1);
        config.rate_limits.creations_burst = creations;
        change(config);
    })
    .await
}

fn bearer(server: &Server, id: &str) -> String {
    let claims = json!({"jti": id, "sub": id});
    format!("Bearer {}", join_token(server.clock.now(), &claims))
}

/// Method, path and header fields of a request that creates an upload.
type Creation = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const CREATIONS: [Creation; 7] = [
    (
        "POST",
        "/v1/uploads",
        &[("Content-Type", "application/json")],
    ),
    (
        "POST",
        "/files",
        &[("Tus-Resumable", "1.0.0"), ("Upload-Length", "3")],
    ),
    (
        "POST",
        "/files/",
        &[("Tus-Resumable", "1.0.0"), ("Upload-Length", "3")],
    ),
    (
        "POST",
        "/resumable",
        &[("Upload-Draft-Interop-Version", "8")],
    ),
    (
        "PUT",
        "/resumable/",
        &[("Upload-Draft-Interop-Version", "8")],
    ),
    (
        "POST",
        "/s3/multipart",
        &[("Content-Type", "application/json")],
    ),
    ("POST", "/v1/objects", &[("Content-Type", "text/plain")]),
];

const NATIVE: Creation = CREATIONS[0];
const TUS: Creation = CREATIONS[1];

async fn create(server: &Server, creation: Creation, token: &str) -> Answer {
    let (method, path, fields) = creation;
    let mut fields = fields.to_vec();
    fields.push(("Authorization", token));
    fields.push(("Origin", "https://pages.example"));
    server.call(method, path, &fields, b"").await
}

#[tokio::test]
async fn every_protocols_creations_share_one_bucket_and_the_refusal_can_be_read_by_pages() {
    let server = closed(2, |_| {}).await;
    let token = bearer(&server, "party");
    create(&server, NATIVE, &token).await.expect(201);
    create(&server, TUS, &token).await.expect(201);
    for creation in CREATIONS {
        let refused = create(&server, creation, &token).await;
        refused.expect_problem(429, "rate_limited");
        let path = creation.1;
        let of_tus = path.starts_with("/files").then_some("1.0.0");
        assert_eq!(refused.header("tus-resumable"), of_tus, "{path}");
        let exposed = refused.header("access-control-expose-headers");
        let exposed = exposed.expect("exposed fields");
        for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        let told = refused.json()["retry_after_secs"].to_string();
        assert_eq!(refused.header("retry-after"), Some(told.as_str()));
        let left = format!(r#""creations";r=0;t={told}"#);
        assert_eq!(refused.header("ratelimit"), Some(left.as_str()));
    }
}

#[tokio::test]
async fn waiting_as_long_as_is_told_lets_one_more_through() {
    let server = closed(1, |_| {}).await;
    let token = bearer(&server, "party");
    create(&server, NATIVE, &token).await.expect(201);
    let refused = create(&server, NATIVE, &token).await;
    let wait = refused.expect(429).header("retry-after").expect("a time");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(wait.parse().expect("seconds"))).await;
    tokio::time::resume();
    create(&server, NATIVE, &token).await.expect(201);
    create(&server, NATIVE, &token).await.expect(429);
}

#[tokio::test]
async fn chunks_and_what_reads_go_on_where_creations_are_used_up() {
    let server = closed(1, |_| {}).await;
    let token = bearer(&server, "party");
    let upload = uploaded(create(&server, NATIVE, &token).await.expect(201));
    create(&server, NATIVE, &token).await.expect(429);
    let authorization = [("Authorization", token.as_str())];
    let range = "bytes 0-2/3";
    let put = server.put_with(&upload, range, &authorization, b"123");
    let put = put.await;
    assert_eq!(
        put.expect(204).header("ratelimit"),
        Some(r#""chunks";r=1999;t=1, "token_chunks";r=9999;t=1"#)
    );
    for method in ["GET", "HEAD"] {
        let answer = server.ask(&upload, method, "", &authorization, b"").await;
        assert_eq!(answer.expect(200).header("ratelimit"), None);
    }
}

#[tokio::test]
async fn a_party_shares_the_bucket_of_its_token() {
    let server = closed(100, |config| {
        config.rate_limits.token_creations_per_minute = Limit::of(1);
        config.rate_limits.token_creations_burst = 1;
    })
    .await;
    let (one, other) = (bearer(&server, "one"), bearer(&server, "other"));
    create(&server, NATIVE, &one).await.expect(201);
    let refused = create(&server, NATIVE, &one).await;
    assert_eq!(refused.expect(429).json()["limit"], "token_creations");
    create(&server, NATIVE, &other).await.expect(201);
}

#[tokio::test]
async fn bad_tokens_wait_and_the_good_ones_behind_the_same_address_go_on() {
    let server = closed(100, |config| {
        config.rate_limits.failures_per_minute = Limit::of(1);
        config.rate_limits.failures_burst = 2;
    })
    .await;
    let good = bearer(&server, "party");
    let bad = format!("Bearer {}", join_token(Timestamp(0), &json!({})));
    let created = create(&server, TUS, &good).await;
    let url = created
        .expect(201)
        .header("location")
        .expect("a URL")
        .to_owned();
    for _ in 0..2 {
        create(&server, NATIVE, &bad).await.expect(401);
    }
    let refused = create(&server, NATIVE, &bad).await;
    assert_eq!(refused.expect(429).json()["limit"], "failures");
    create(&server, NATIVE, &good).await.expect(201);
    let fields = [("Authorization", good.as_str()), ("Tus-Resumable", "1.0.0")];
    let head = server.call("HEAD", &url, &fields, b"").await;
    head.expect(200);
    server.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn neither_preflights_nor_an_open_server_are_limited() {
    let server = closed(1, |_| {}).await;
    let preflight = [
        ("Origin", "https://pages.example"),
        ("Access-Control-Request-Method", "POST"),
    ];
    for _ in 0..5 {
        server
            .call("OPTIONS", "/files", &preflight, b"")
            .await
            .expect(204);
        server.call("OPTIONS", "/files", &[], b"").await.expect(204);
    }
    let open = Server::with(|config| config.rate_limits.creations_burst = 1).await;
    for _ in 0..5 {
        let created = open.post(&json!({})).await;
        assert_eq!(created.expect(201).header("ratelimit"), None);
    }
}
