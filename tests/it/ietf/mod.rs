//! draft-ietf-httpbis-resumable-upload, over sockets: a file an operation.

mod append;
mod cancel;
mod complete;
mod create;
mod digest;
mod interim;
mod offset;
pub(crate) mod secrets;
mod versions;

use std::time::Duration;

use crate::support::http::{Answer, Connection};
use crate::support::server::Server;

/// The media type of an append.
const PARTIAL: (&str, &str) = ("Content-Type", "application/partial-upload");
/// What the types of the drafts' problems begin with.
const PROBLEM_TYPES: &str = "https://iana.org/assignments/http-problem-types#";

/// A client that speaks one version of the drafts.
#[derive(Clone, Copy)]
struct Client<'a> {
    server: &'a Server,
    version: Option<&'static str>,
}

/// One that speaks the newest version and says so.
fn newest(server: &Server) -> Client<'_> {
    client(server, "8")
}

fn client<'a>(server: &'a Server, version: &'static str) -> Client<'a> {
    Client {
        server,
        version: Some(version),
    }
}

impl Client<'_> {
    /// The fields of every request of its version.
    fn fields<'f>(&self, fields: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
        let mut fields = fields.to_vec();
        fields.extend(
            self.version
                .map(|version| ("Upload-Draft-Interop-Version", version)),
        );
        fields
    }

    async fn call(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let fields = self.fields(fields);
        self.server.call(method, path, &fields, body).await
    }

    /// A connection on which a head was sent, and nothing of the body.
    async fn send_head(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Connection {
        let mut connection = self.server.connect().await;
        connection.head(method, path, &self.fields(fields)).await;
        connection
    }

    /// Whether an upload is complete, in the words of its version.
    fn complete(&self, complete: bool) -> (&'static str, &'static str) {
        match (self.version, complete) {
            (Some("3"), true) => ("Upload-Incomplete", "?0"),
            (Some("3"), false) => ("Upload-Incomplete", "?1"),
            (_, true) => ("Upload-Complete", "?1"),
            (_, false) => ("Upload-Complete", "?0"),
        }
    }

    async fn create(&self, last: bool, body: &[u8]) -> Answer {
        self.create_with(last, &[], body).await
    }

    async fn create_with(&self, last: bool, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(self.complete(last));
        self.call("POST", "/resumable", &fields, body).await
    }

    /// The URL of an upload that has these bytes and is not complete.
    async fn begun(&self, body: &[u8]) -> String {
        url_of(self.create(false, body).await.expect(201))
    }

    /// The URL of an upload of a known length that has these bytes and is not complete.
    async fn begun_of(&self, length: u64, body: &[u8]) -> String {
        let length = length.to_string();
        let fields = [("Upload-Length", length.as_str())];
        url_of(self.create_with(false, &fields, body).await.expect(201))
    }

    async fn append(&self, url: &str, offset: u64, last: bool, body: &[u8]) -> Answer {
        self.append_with(url, offset, last, &[], body).await
    }

    async fn append_with(
        &self,
        url: &str,
        offset: u64,
        last: bool,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let offset = offset.to_string();
        let mut fields = fields.to_vec();
        fields.extend([PARTIAL, ("Upload-Offset", &offset), self.complete(last)]);
        self.call("PATCH", url, &fields, body).await
    }

    /// A connection on which the head of an append was sent, and nothing of its body.
    async fn append_head(
        &self,
        url: &str,
        offset: u64,
        last: bool,
        fields: &[(&str, &str)],
    ) -> Connection {
        let offset = offset.to_string();
        let mut fields = fields.to_vec();
        fields.extend([PARTIAL, ("Upload-Offset", &offset), self.complete(last)]);
        self.send_head("PATCH", url, &fields).await
    }

    async fn head(&self, url: &str) -> Answer {
        self.call("HEAD", url, &[], b"").await
    }

    async fn get(&self, url: &str) -> Answer {
        self.call("GET", url, &[], b"").await
    }

    async fn delete(&self, url: &str) -> Answer {
        self.call("DELETE", url, &[], b"").await
    }

    /// Waits until the server has so many bytes of a request that runs, durably, without ending it.
    async fn wait_for(&self, created: &str, offset: u64) {
        let (id, key) = credentials(created);
        for _ in 0..600 {
            let status = self.server.running.engine().status(id, &key).await;
            if status.unwrap().received.contiguous().get() == offset {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{offset} bytes never came");
    }
}

/// What the URL of an upload holds.
fn credentials(url: &str) -> (jumar::model::UploadId, jumar::model::UploadKey) {
    let segment = url.rsplit('/').next().unwrap();
    let handle: jumar::model::Handle = segment.parse().expect("a handle");
    (handle.id, handle.key)
}

/// The URL of the upload that an answer is about.
#[track_caller]
fn url_of(answer: &Answer) -> String {
    let url = answer.header("Location");
    url.unwrap_or_else(|| panic!("no Location in {answer:?}"))
        .to_owned()
}

/// An answer as [`Answer::shown`], without handles.
fn shown(answer: &Answer) -> String {
    without_handles(&answer.shown())
}

fn without_handles(text: &str) -> String {
    let mut text = text.to_owned();
    let mut from = 0;
    while let Some(at) = text[from..].find("/resumable/") {
        let start = from + at + "/resumable/".len();
        let end = text[start..]
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
            .map_or(text.len(), |len| start + len);
        text.replace_range(start..end, "<handle>");
        from = start;
    }
    text
}

/// A problem whose type is one of the drafts.
#[track_caller]
fn expect_draft_problem(answer: &Answer, status: u16, kind: &str) -> serde_json::Value {
    answer.expect(status);
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/problem+json")
    );
    let json = answer.json();
    assert_eq!(json["type"], format!("{PROBLEM_TYPES}{kind}"), "{json}");
    assert_eq!(json["status"], status);
    json
}
