use std::io;
use std::sync::Mutex;

use axum::body::Body;
use axum::middleware::from_fn;
use axum::response::IntoResponse as _;
use axum::routing::{any, get};
use axum::{Extension, Router};
use http::Request as HttpRequest;
use http::uri::Scheme;
use serde_json::Value;
use tower::ServiceExt as _;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};

use super::*;
use crate::api::error::Problem;
use crate::model::UploadKey;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("whole");
        String::from_utf8(bytes.clone()).expect("text")
    }

    /// The fields of each entry.
    fn entries(&self) -> Vec<Value> {
        let lines = self.text();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let audits = lines.filter(|line: &Value| line["target"] == "audit");
        audits.map(|line| line["fields"].clone()).collect()
    }
}

const MADE: [u8; 16] = [7; 16];

fn routes() -> Router {
    let caller = Caller {
        subject: "alice".parse().ok(),
        token: "party-1".parse().ok(),
        device: "phone".parse().ok(),
        ..Caller::anonymous()
    };
    let client = Client {
        address: [192, 0, 2, 1].into(),
        scheme: Scheme::HTTP,
        host: None,
    };
    let refuse = async || Problem::no_such_upload();
    let make = async || {
        let made = Touched(UploadId::from_bytes(MADE));
        (Extension(made), "made").into_response()
    };
    Router::new()
        .route("/uploads", any(make))
        .route("/uploads/{id}", any(refuse))
        .route("/files/{handle}", any(async || "taken"))
        .route("/waits/{id}", any(std::future::pending::<()>))
        .route("/healthz", get(async || "ok"))
        .layer(from_fn(note_asker))
        .layer(Extension(Asker::known(caller)))
        .layer(from_fn(audit))
        .layer(Extension(client))
}

fn request(method: &str, path: &str, user_agent: &[u8]) -> Request {
    let request = HttpRequest::builder().method(method).uri(path);
    let request = request.header(USER_AGENT, user_agent);
    request.body(Body::empty()).expect("a request")
}

async fn logged(requests: Vec<Request>) -> Log {
    let log = Log::default();
    let json = SubscriberBuilder::default().json();
    ask_all(requests, json.with_writer(log.clone()).finish()).await;
    log
}

async fn ask_all(requests: Vec<Request>, subscriber: impl Into<Dispatch>) {
    let asking = async {
        for request in requests {
            let asked = routes().oneshot(request);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(50), asked).await;
        }
    };
    asking.with_subscriber(subscriber).await;
}

#[tokio::test]
async fn an_entry_says_who_what_where_and_how_it_went() {
    let id = UploadId::generate();
    let log = logged(vec![
        request("POST", "/uploads", b"curl/8"),
        request("DELETE", &format!("/uploads/{id}"), b"curl/8"),
    ])
    .await;
    let [made, refused] = &log.entries()[..] else {
        panic!("two entries: {}", log.text())
    };
    insta::assert_snapshot!(made, @r#"{"address":"192.0.2.1","device":"phone","message":"answered","method":"POST","received":0,"route":"/uploads","space":"default","status":200,"subject":"alice","token":"party-1","upload":"07070707-0707-0707-0707-070707070707","user_agent":"curl/8"}"#);
    assert_eq!(refused["upload"], id.to_string());
    assert_eq!(refused["status"], 404);
    assert_eq!(refused["code"], "not_found");
    assert_eq!(refused["route"], "/uploads/{id}");
}

#[tokio::test]
async fn what_only_reads_has_no_entry_unless_a_header_field_makes_it_write() {
    let log = logged(vec![
        request("GET", "/healthz", b""),
        request("HEAD", "/uploads/1", b""),
        request("OPTIONS", "/uploads/1", b""),
    ])
    .await;
    assert_eq!(log.text(), "");
    let mut disguised = request("GET", "/uploads/1", b"");
    let fields = disguised.headers_mut();
    fields.insert("x-http-method-override", "PATCH".parse().expect("a value"));
    let entries = logged(vec![disguised]).await.entries();
    assert_eq!(entries[0]["method"], "GET");
    assert_eq!(entries[0]["overridden"], "PATCH");
}

#[tokio::test]
async fn of_a_handle_only_the_id_is_written() {
    let handle = Handle {
        id: UploadId::generate(),
        key: UploadKey::generate(),
    };
    let path = format!("/files/{}", handle.reveal());
    let log = logged(vec![request("PATCH", &path, b"")]).await;
    assert_eq!(log.entries()[0]["upload"], handle.id.to_string());
    assert!(!log.text().contains(&handle.reveal()));
    let log = logged(vec![request("PATCH", "/files/nonsense", b"")]).await;
    assert_eq!(log.entries()[0]["upload"], Value::Null);
}

#[tokio::test]
async fn a_request_that_is_cut_has_an_entry_too() {
    let id = UploadId::generate();
    let log = logged(vec![request("PATCH", &format!("/waits/{id}"), b"")]).await;
    let entry = &log.entries()[0];
    assert_eq!(entry["message"], "cut");
    assert_eq!(entry["status"], Value::Null);
    assert_eq!(entry["subject"], "alice");
}

#[tokio::test]
async fn a_user_agent_cannot_pass_for_another_field_or_another_line() {
    const FORGED: &str = "curl\" status=200 \u{85}2026-01-01 INFO audit: forged";
    let forging = || {
        let mut request = request("PATCH", "/uploads/1", b"");
        let value = http::HeaderValue::from_bytes(FORGED.as_bytes());
        let fields = request.headers_mut();
        fields.insert(USER_AGENT, value.expect("a value"));
        vec![request]
    };
    let json = logged(forging()).await;
    assert_eq!(json.text().lines().count(), 1);
    assert_eq!(json.entries()[0]["status"], 404);
    let log = Log::default();
    let text = SubscriberBuilder::default().with_ansi(false);
    ask_all(forging(), text.with_writer(log.clone()).finish()).await;
    let line = log.text();
    assert_eq!(line.trim_end().split(['\n', '\u{85}']).count(), 1, "{line}");
    assert!(
        line.contains(r#"user_agent="curl\" status=200 2026"#),
        "{line}"
    );
}

#[test]
fn a_user_agent_is_cut_and_moves_no_cursor() {
    let agent = |bytes: &[u8]| {
        let value = http::HeaderValue::from_bytes(bytes).expect("a value");
        user_agent(&HeaderMap::from_iter([(USER_AGENT, value)])).expect("there")
    };
    assert_eq!(agent("a\u{9b}31m\tb".as_bytes()), "a31mb");
    assert_eq!(agent(b"\xff"), "\u{fffd}");
    let long = "é".repeat(150);
    assert_eq!(agent(long.as_bytes()), "é".repeat(100));
    assert_eq!(user_agent(&HeaderMap::new()), None);
}
