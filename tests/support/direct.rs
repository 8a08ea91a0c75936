//! A client that goes past the server with what was signed for it, and knows nothing of S3.

use std::net::SocketAddr;

use jumar::engine::SignedRequest;

use super::http::{Answer, try_call};

/// Sends a signed request.
pub(crate) async fn send_signed(request: &SignedRequest, body: &[u8]) -> Answer {
    let headers = request.headers.iter();
    let fields: Vec<_> = headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    send(request.method, &request.url, &fields, body).await
}

/// Sends a request to a URL. The length comes of the body.
pub(crate) async fn send(method: &str, url: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (host, path) = rest.split_once('/').expect("a path");
    let server: SocketAddr = host.parse().expect("an address");
    let fields: Vec<_> = (fields.iter().copied())
        .filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"))
        .collect();
    let answer = try_call(server, method, &format!("/{path}"), &fields, body).await;
    answer.expect("an answer")
}
