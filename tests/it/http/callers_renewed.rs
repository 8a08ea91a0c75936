//! A token that ends in the middle of an upload, and the one that goes on with it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::callers::closed;
use crate::support::http::Answer;
use crate::support::rig::noise;
use crate::support::server::{Server, range, uploaded};
use crate::support::tokens::secs;

const HALF: usize = 300_000;
const ALL: usize = 2 * HALF;

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Native,
    Tus,
    Ietf(&'static str),
}

const PROTOCOLS: [Protocol; 6] = [
    Protocol::Native,
    Protocol::Tus,
    Protocol::Ietf("3"),
    Protocol::Ietf("5"),
    Protocol::Ietf("6"),
    Protocol::Ietf("8"),
];

#[derive(Debug, Clone, Copy)]
enum End {
    Expired,
    Revoked,
    Narrowed,
}

struct Ongoing<'a> {
    server: &'a Server,
    protocol: Protocol,
    url: String,
    key: String,
}

impl<'a> Ongoing<'a> {
    async fn begin(server: &'a Server, protocol: Protocol, bearer: &str) -> Self {
        let (url, key) = match protocol {
            Protocol::Native => {
                let field = [("Authorization", bearer)];
                let created = server.post_with(&field, &json!({"length": ALL})).await;
                let upload = uploaded(created.expect(201));
                (upload.path(""), upload.key)
            }
            Protocol::Tus => {
                let length = ALL.to_string();
                let fields = [("Tus-Resumable", "1.0.0"), ("Upload-Length", &length)];
                let created = server.with_token(bearer, "POST", "/files", &fields, b"");
                let created = created.await;
                (
                    created.expect(201).header("Location").unwrap().to_owned(),
                    String::new(),
                )
            }
            Protocol::Ietf(version) => {
                let fields = [
                    ("Upload-Draft-Interop-Version", version),
                    complete(version, false),
                ];
                let created = server.with_token(bearer, "POST", "/resumable", &fields, b"");
                let created = created.await;
                (
                    created.expect(201).header("Location").unwrap().to_owned(),
                    String::new(),
                )
            }
        };
        let at = url.find(server.main.to_string().as_str());
        let path = at.map_or(url.as_str(), |at| {
            &url[at + server.main.to_string().len()..]
        });
        Self {
            server,
            protocol,
            url: path.to_owned(),
            key,
        }
    }

    async fn send(&self, bearer: &str, start: usize, bytes: &[u8]) -> Answer {
        let offset = start.to_string();
        let last = start + bytes.len() == ALL;
        let range = range(start as u64, bytes.len(), Some(ALL as u64));
        let chunk = format!("{}/chunk", self.url);
        let (method, url, fields) = match self.protocol {
            Protocol::Native => (
                "PUT",
                &chunk,
                vec![("Upload-Key", self.key.as_str()), ("Content-Range", &range)],
            ),
            Protocol::Tus => (
                "PATCH",
                &self.url,
                vec![
                    ("Tus-Resumable", "1.0.0"),
                    ("Content-Type", "application/offset+octet-stream"),
                    ("Upload-Offset", &offset),
                ],
            ),
            Protocol::Ietf(version) => (
                "PATCH",
                &self.url,
                vec![
                    ("Upload-Draft-Interop-Version", version),
                    ("Content-Type", "application/partial-upload"),
                    ("Upload-Offset", &offset),
                    complete(version, last),
                ],
            ),
        };
        self.server
            .with_token(bearer, method, url, &fields, bytes)
            .await
    }

    async fn offset(&self, bearer: &str) -> u64 {
        let fields = match self.protocol {
            Protocol::Native => [("Upload-Key", self.key.as_str())],
            Protocol::Tus => [("Tus-Resumable", "1.0.0")],
            Protocol::Ietf(version) => [("Upload-Draft-Interop-Version", version)],
        };
        let asked = self
            .server
            .with_token(bearer, "HEAD", &self.url, &fields, b"");
        asked.await.offset()
    }

    /// What the object's bytes are, once it is complete.
    async fn content(&self, bearer: &str) -> Vec<u8> {
        let (url, fields) = match self.protocol {
            Protocol::Native => {
                let fields = [("Upload-Key", self.key.as_str())];
                let complete = format!("{}/complete", self.url);
                let completed = self
                    .server
                    .with_token(bearer, "POST", &complete, &fields, b"{}");
                completed.await.expect(201);
                (format!("{}/content", self.url), fields)
            }
            Protocol::Tus => (self.url.clone(), [("Tus-Resumable", "1.0.0")]),
            Protocol::Ietf(version) => (
                self.url.clone(),
                [("Upload-Draft-Interop-Version", version)],
            ),
        };
        let content = self.server.with_token(bearer, "GET", &url, &fields, b"");
        content.await.expect(200).body.clone()
    }
}

fn complete(version: &str, last: bool) -> (&'static str, &'static str) {
    match (version, last) {
        ("3", true) => ("Upload-Incomplete", "?0"),
        ("3", false) => ("Upload-Incomplete", "?1"),
        (_, true) => ("Upload-Complete", "?1"),
        (_, false) => ("Upload-Complete", "?0"),
    }
}

async fn goes_on_after(end: End) {
    let server = Server::with(closed).await;
    let bytes = noise(ALL as u64, 3);
    for (number, protocol) in PROTOCOLS.into_iter().enumerate() {
        let name = |which: &str| format!("{which}-{number}");
        let short = secs(server.clock.now()) + 600;
        let claims = |jti: String, more: Value| {
            let mut claims = json!({"sub": "alice", "jti": jti});
            let more = more.as_object().unwrap().clone();
            claims.as_object_mut().unwrap().extend(more);
            server.bearer(&claims)
        };
        let first = claims(name("first"), json!({ "exp": short }));
        let upload = Ongoing::begin(&server, protocol, &first).await;
        let sent = upload.send(&first, 0, &bytes[..HALF]).await;
        assert!(sent.status < 300, "{protocol:?}: {sent:?}");
        let (ended, status, code) = match end {
            End::Expired => {
                // Beyond the clocks' difference.
                server.clock.advance(Duration::from_secs(661));
                (first, 401, "unauthorized")
            }
            End::Revoked => {
                server.revoke(&name("first"), &first).await;
                (first, 401, "unauthorized")
            }
            End::Narrowed => {
                let narrowed = claims(name("narrowed"), json!({"scope": "read"}));
                (narrowed, 403, "forbidden")
            }
        };
        let refused = upload.send(&ended, HALF, &bytes[HALF..]).await;
        assert_eq!(refused.status, status, "{protocol:?}: {}", refused.text());
        assert_eq!(refused.code(), code);
        let renewed = server.bearer(&json!({"sub": "alice", "jti": name("renewed")}));
        assert_eq!(upload.offset(&renewed).await, HALF as u64, "{protocol:?}");
        let sent = upload.send(&renewed, HALF, &bytes[HALF..]).await;
        assert!(sent.status < 300, "{protocol:?}: {sent:?}");
        assert!(upload.content(&renewed).await == bytes, "{protocol:?}");
    }
}

#[tokio::test]
async fn exact_bytes_after_a_token_that_expired() {
    goes_on_after(End::Expired).await;
}

#[tokio::test]
async fn exact_bytes_after_a_token_that_was_revoked() {
    goes_on_after(End::Revoked).await;
}

#[tokio::test]
async fn exact_bytes_after_a_token_that_allows_less() {
    goes_on_after(End::Narrowed).await;
}
