//! Tokens over sockets: what comes before and beside finding out who asks.

use jumar::config::AuthMode;

use crate::support::server::Server;

async fn closed() -> Server {
    Server::with(|config| config.auth.mode = AuthMode::Required).await
}

#[tokio::test]
async fn what_needs_no_token_is_answered_without_one() {
    let server = closed().await;
    for path in ["/healthz", "/readyz"] {
        server.get(path).await.expect(200);
    }
    for path in ["/files", "/resumable", "/v1/uploads"] {
        let answer = server.call("OPTIONS", path, &[], b"").await;
        answer.expect(204);
    }
    let preflight = [
        ("Origin", "https://a.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization"),
    ];
    let answer = server.call("OPTIONS", "/files", &preflight, b"").await;
    answer.expect(204);
}

#[tokio::test]
async fn a_token_of_100_kilobytes_is_a_head_that_is_too_large() {
    let server = closed().await;
    let field = format!("Bearer {}", "x".repeat(100_000));
    let fields = [("Authorization", field.as_str())];
    let answer = server.call("GET", "/healthz", &fields, b"").await;
    answer.expect(431);
}
