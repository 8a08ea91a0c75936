//! A client of tus.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jumar::model::Handle;
use jumar::store::call::Call;
use jumar::store::faulty::{Fault, When};

use crate::support::http::{Answer, Connection};
use crate::support::server::{Server, Upload};

pub(super) const VERSION: (&str, &str) = ("Tus-Resumable", "1.0.0");
pub(super) const BYTES: (&str, &str) = ("Content-Type", "application/offset+octet-stream");
pub(super) const DEFERRED: (&str, &str) = ("Upload-Defer-Length", "1");
pub(super) const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

type Fields<'a> = [(&'a str, &'a str)];

/// What every answer has in common.
#[track_caller]
pub(super) fn sound(answer: Answer) -> Answer {
    assert_eq!(answer.header("tus-resumable"), Some("1.0.0"), "{answer:?}");
    answer
}

pub(super) async fn ask(
    server: &Server,
    method: &str,
    url: &str,
    fields: &Fields<'_>,
    body: &[u8],
) -> Answer {
    let mut fields = fields.to_vec();
    fields.push(VERSION);
    let answer = sound(server.call(method, url, &fields, body).await);
    if let Some(handle) = url
        .strip_prefix("/files/")
        .filter(|handle| handle.len() > 60)
    {
        assert!(!answer.text().contains(handle), "{}", answer.text());
    }
    answer
}

/// A request whose head was sent and nothing of its body.
pub(super) async fn begin(
    server: &Server,
    method: &str,
    url: &str,
    fields: &Fields<'_>,
) -> Connection {
    let mut fields = fields.to_vec();
    fields.push(VERSION);
    let mut connection = server.connect().await;
    connection.head(method, url, &fields).await;
    connection
}

/// A PATCH whose head was sent and nothing of its body.
pub(super) async fn begin_patch(
    server: &Server,
    url: &str,
    offset: u64,
    fields: &Fields<'_>,
) -> Connection {
    let offset = offset.to_string();
    let mut fields = fields.to_vec();
    fields.extend([("Upload-Offset", offset.as_str()), BYTES]);
    begin(server, "PATCH", url, &fields).await
}

pub(super) async fn post(server: &Server, fields: &Fields<'_>) -> Answer {
    ask(server, "POST", "/files", fields, b"").await
}

/// A creation that brings bytes.
pub(super) async fn post_bytes(server: &Server, fields: &Fields<'_>, bytes: &[u8]) -> Answer {
    let mut fields = fields.to_vec();
    fields.push(BYTES);
    ask(server, "POST", "/files", &fields, bytes).await
}

/// The URL of a new upload.
pub(super) async fn create(server: &Server, fields: &Fields<'_>) -> String {
    location(post(server, fields).await.expect(201))
}

pub(super) async fn create_of(server: &Server, length: u64) -> String {
    create(server, &[("Upload-Length", &length.to_string())]).await
}

#[track_caller]
pub(super) fn location(answer: &Answer) -> String {
    answer.header("location").expect("a URL").to_owned()
}

pub(super) async fn head(server: &Server, url: &str) -> Answer {
    ask(server, "HEAD", url, &[], b"").await
}

/// The offset that HEAD tells.
pub(super) async fn offset(server: &Server, url: &str) -> u64 {
    head(server, url).await.expect(200).offset()
}

pub(super) async fn patch(server: &Server, url: &str, offset: u64, bytes: &[u8]) -> Answer {
    patch_with(server, url, offset, &[], bytes).await
}

pub(super) async fn patch_with(
    server: &Server,
    url: &str,
    offset: u64,
    fields: &Fields<'_>,
    bytes: &[u8],
) -> Answer {
    let offset = offset.to_string();
    let mut fields = fields.to_vec();
    fields.extend([("Upload-Offset", offset.as_str()), BYTES]);
    ask(server, "PATCH", url, &fields, bytes).await
}

pub(super) async fn delete(server: &Server, url: &str) -> Answer {
    ask(server, "DELETE", url, &[], b"").await
}

pub(super) async fn content(server: &Server, url: &str) -> Answer {
    sound(server.get(url).await)
}

/// A completed upload with this content.
pub(super) async fn completed(server: &Server, fields: &Fields<'_>, bytes: &[u8]) -> String {
    let length = bytes.len().to_string();
    let mut fields = fields.to_vec();
    fields.push(("Upload-Length", &length));
    location(post_bytes(server, &fields, bytes).await.expect(201))
}

/// The same upload as the native protocol names it, whose status disturbs nobody.
pub(super) fn native(url: &str) -> Upload {
    let handle = url.rsplit('/').next().expect("a segment");
    let handle: Handle = handle.parse().expect("a handle");
    Upload {
        id: handle.id.to_string(),
        key: handle.key.reveal(),
    }
}

/// Waits until the upload reaches so far, without ending who writes.
pub(super) async fn wait_for_offset(server: &Server, url: &str, offset: u64) {
    server.wait_for_offset(&native(url), offset).await;
}

/// What makes the object of a small upload strikes, whatever the store.
pub(super) fn finishing_fails(server: &Server, when: When, fault: Fault) {
    for call in [Call::Publish, Call::Put, Call::Finish] {
        server.faults.fail(call, when, fault);
    }
}

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}
