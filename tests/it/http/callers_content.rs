//! Who may read.

use std::time::Duration;

use jumar::config::{Config, Space};
use jumar::engine::Readers;
use jumar::model::Scope;
use serde_json::{Value, json};

use crate::support::callers::closed;
use crate::support::http::Answer;
use crate::support::server::{Server, Upload, uploaded};

/// Spaces that let different people read.
fn spaces(config: &mut Config) {
    for (name, read) in [
        ("shared", Readers::Space),
        ("open", Readers::Public),
        ("other", Readers::Owner),
    ] {
        let space = Space {
            read,
            ..Space::default()
        };
        config.spaces.insert(name.to_owned(), space);
    }
    closed(config);
}

/// A completed upload of Alice's, and its answer to the completion.
async fn completed(server: &Server, space: &str) -> (Upload, Value) {
    let alice = server.bearer(&json!({"sub": "alice", "space": space}));
    let mine = ("Authorization", alice.as_str());
    let created = server.post_with(&[mine], &json!({"length": 3})).await;
    let upload = uploaded(created.expect(201));
    let put = server
        .put_with(&upload, "bytes 0-2/3", &[mine], b"123")
        .await;
    put.expect(204);
    let done = server
        .ask(&upload, "POST", "/complete", &[mine], b"{}")
        .await;
    (upload, done.expect(201).json())
}

fn link(server: &Server, completion: &Value) -> String {
    let url = completion["object"]["url"].as_str().expect("a URL");
    let host = format!("http://{}", server.main);
    url.strip_prefix(&host).unwrap_or(url).to_owned()
}

async fn read(server: &Server, upload: &Upload, bearer: &str) -> Answer {
    let path = upload.path("/content");
    server.with_token(bearer, "GET", &path, &[], b"").await
}

#[tokio::test]
async fn a_token_with_the_scope_read_needs_no_key() {
    let server = Server::with(spaces).await;
    let (upload, _) = completed(&server, "default").await;
    let as_bob = |claims: Value| {
        let mut all = json!({"sub": "bob", "jti": claims.to_string().replace(' ', "")});
        let claims = claims.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(claims);
        server.bearer(&all)
    };
    let reader = as_bob(json!({"scope": "read"}));
    let content = read(&server, &upload, &reader).await;
    assert_eq!(content.expect(200).text(), "123");
    let admin = server.api_key(Scope::Admin, None).await;
    let content = read(&server, &upload, &admin).await;
    assert_eq!(content.expect(200).text(), "123");
    let key = [("Upload-Key", upload.key.as_str())];
    let path = upload.path("/content");
    for (claims, status) in [
        (json!({"scope": "upload"}), 404),
        (json!({"scope": "read", "space": "other"}), 404),
    ] {
        let bob = as_bob(claims.clone());
        let refused = read(&server, &upload, &bob).await;
        assert_eq!(refused.status, status, "{claims}: {}", refused.text());
        let unknown = Upload {
            id: "00000000-0000-4000-8000-000000000000".to_owned(),
            key: String::new(),
        };
        let same = read(&server, &unknown, &bob).await;
        assert_eq!(same.status, status, "as for one that is not there");
        let refused = server.with_token(&bob, "GET", &path, &key, b"").await;
        refused.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_signed_link_needs_nothing_else_and_ends() {
    let server = Server::with(|config| {
        spaces(config);
        config.auth.link_ttl_secs = 600;
    })
    .await;
    let (upload, completion) = completed(&server, "default").await;
    let (other, _) = completed(&server, "default").await;
    let link = link(&server, &completion);
    for method in ["GET", "HEAD"] {
        server.call(method, &link, &[], b"").await.expect(200);
    }
    let part = [("Range", "bytes=1-1")];
    let part = server.call("GET", &link, &part, b"").await;
    assert_eq!(part.expect(206).text(), "2");
    let (path, query) = link.split_once('?').expect("a query");
    let elsewhere = link.replace(&upload.id, &other.id);
    let expires = query.split('&').next().unwrap();
    let later: u64 = expires.strip_prefix("expires=").unwrap().parse().unwrap();
    let later = link.replace(expires, &format!("expires={}", later + 1));
    let unsigned = format!("{path}?{expires}");
    for wrong in [&elsewhere, &later, &unsigned, &format!("{link}A")] {
        let refused = server.get(wrong).await;
        refused.expect_problem(401, "unauthorized");
    }
    // Whoever may read may do nothing else.
    for (method, below) in [("GET", ""), ("DELETE", ""), ("POST", "/complete")] {
        let path = format!("{}?{query}", upload.path(below));
        let refused = server.call(method, &path, &[], b"").await;
        refused.expect_problem(401, "unauthorized");
    }
    server.clock.advance(Duration::from_secs(599));
    server.get(&link).await.expect(200);
    server.clock.advance(Duration::from_secs(601));
    server.get(&link).await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_space_says_who_else_may_read() {
    let server = Server::with(spaces).await;
    let of = |space: &str| {
        let jti = format!("of-{space}");
        server.bearer(&json!({"sub": "bob", "space": space, "jti": jti}))
    };
    for (space, nobody, same, other) in [
        ("default", 401, 404, 404),
        ("shared", 401, 200, 404),
        ("open", 200, 200, 200),
    ] {
        let (upload, _) = completed(&server, space).await;
        let answer = server.get(&upload.path("/content")).await;
        assert_eq!(answer.status, nobody, "{space}: {}", answer.text());
        let answer = read(&server, &upload, &of(space)).await;
        assert_eq!(answer.status, same, "{space}: {}", answer.text());
        let answer = read(&server, &upload, &of("other")).await;
        assert_eq!(answer.status, other, "{space}: {}", answer.text());
    }
}

#[tokio::test]
async fn nobody_learns_whether_an_upload_is_there() {
    let server = Server::with(spaces).await;
    let (upload, _) = completed(&server, "default").await;
    let nowhere = "/v1/uploads/00000000-0000-4000-8000-000000000000/content";
    let key = [("Upload-Key", upload.key.as_str())];
    let there = server
        .call("GET", &upload.path("/content"), &key, b"")
        .await;
    let not_there = server.call("GET", nowhere, &key, b"").await;
    there.expect_problem(401, "unauthorized");
    assert_eq!(
        there.header("www-authenticate"),
        Some("Bearer realm=\"jumar\"")
    );
    assert_eq!(there.shown(), not_there.shown());
}
