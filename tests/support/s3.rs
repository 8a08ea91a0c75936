//! An S3 server inside the test: as strict as AWS, and told to misbehave.
//!
//! `s3s` speaks the protocol and checks signatures, [`super::s3_backend`] keeps the objects, [`super::s3_control`] is the
//! test's handle. Faults strike between the wire and the backend, so the client sees what it would see of a broken store.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use jumar::store::s3::{S3Config, S3Store};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::s3_backend::Backend;
pub(crate) use super::s3_control::{Call, Control, Fault, Op, Quirks, When};
use super::s3_drip::{Dripping, Drips};

/// The bucket that is there.
pub(crate) const BUCKET: &str = "test-bucket";

/// A running server; it ends when this is dropped.
pub(crate) struct S3Server {
    address: SocketAddr,
    control: Control,
    backend: Backend,
    accepting: JoinHandle<()>,
    _folder: TempDir,
}

impl S3Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let control = Control::new();
        let backend = Backend::new(folder.path(), BUCKET, control.clone());
        let service = {
            let mut builder = S3ServiceBuilder::new(backend.clone());
            builder.set_auth(SimpleAuth::from_single("test-key", "test-secret"));
            builder.build()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(accept(listener, service, control.clone()));
        Self {
            address,
            control,
            backend,
            accepting,
            _folder: folder,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// What is stored, without asking over the wire.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// How a store reaches it: few and quick attempts.
    pub(crate) fn config(&self) -> S3Config {
        S3Config {
            bucket: BUCKET.into(),
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".into()),
            force_path_style: true,
            access_key_id: Some("test-key".into()),
            secret_access_key: Some("test-secret".into()),
            attempt_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            max_attempts: 2,
            ..S3Config::default()
        }
    }

    pub(crate) async fn store(&self) -> S3Store {
        S3Store::open(self.config()).await
    }
}

/// How a store reaches the real S3 server of `JUMAR_TEST_S3_*`, if there is one. `scripts/dev-s3 start --env FILE` gives the
/// variables. Each call has a prefix of its own: the clocks of some tests run ahead, and what they prune is old for them alone.
pub(crate) fn real_config() -> Option<S3Config> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let variable = |name: &str| std::env::var(format!("JUMAR_TEST_S3_{name}")).ok();
    let Some(endpoint) = variable("ENDPOINT") else {
        // Not by a macro: those are captured, and this should be seen.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no real S3 server; JUMAR_TEST_S3_ENDPOINT is not set (scripts/dev-s3)"
        );
        return None;
    };
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    Some(S3Config {
        bucket: variable("BUCKET").expect("JUMAR_TEST_S3_BUCKET"),
        endpoint: Some(endpoint),
        region: variable("REGION"),
        prefix: format!("jumar-tests-{}-{call}", std::process::id()),
        force_path_style: true,
        access_key_id: variable("ACCESS_KEY_ID"),
        secret_access_key: variable("SECRET_ACCESS_KEY"),
        ..S3Config::default()
    })
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.control.release();
    }
}

async fn accept(listener: TcpListener, service: S3Service, control: Control) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let service = service.clone();
        let control = control.clone();
        connections.spawn(async move {
            let dripping = Dripping::default();
            let handler = {
                let dripping = dripping.clone();
                hyper::service::service_fn(move |request| {
                    answer(request, service.clone(), control.clone(), dripping.clone())
                })
            };
            let socket = Drips::over(socket, dripping);
            // A connection that is cut is what some tests ask for.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), handler)
                .await;
        });
    }
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut, as the test wishes")]
struct Cut;

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    service: S3Service,
    control: Control,
    dripping: Dripping,
) -> Result<HttpResponse, Cut> {
    let (head, mut body) = request.into_parts();
    let mut released = control.watch();
    let fault = control.arrived(call_of(&head));
    if matches!(
        &fault,
        Some(Fault::Status(..) | Fault::Pretended | Fault::Generic404)
    ) {
        // A client that is answered while it sends may only see that the connection ends.
        while let Some(Ok(_)) = body.frame().await {}
    }
    match &fault {
        Some(Fault::Status(status, code)) => return Ok(error_response(*status, code)),
        Some(Fault::Pretended) => return Ok(HttpResponse::new(Body::empty())),
        Some(Fault::Generic404) => {
            let mut response = HttpResponse::new(Body::from(String::from("nothing here")));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return Ok(response);
        }
        Some(Fault::ResetBefore) => return Err(Cut),
        Some(Fault::Hang) => {
            let _ = released.changed().await;
        }
        Some(Fault::Slow(delay)) => tokio::time::sleep(*delay).await,
        _ => {}
    }
    let is_silent = fault == Some(Fault::Silence);
    let body = if is_silent {
        Body::from(body.collect().await.map_err(|_| Cut)?.to_bytes())
    } else {
        Body::from(body)
    };
    let request = http::Request::from_parts(head, body);
    let mut silence = released.clone();
    // On its own: a client that hangs up does not undo what it asked for.
    let done = tokio::spawn(async move {
        if is_silent {
            let _ = silence.changed().await;
        }
        service.call(request).await
    });
    let mut response = done.await.map_err(|_| Cut)?.map_err(|_| Cut)?;
    match fault {
        Some(Fault::StatusAfter(status, code)) => Ok(error_response(status, code)),
        Some(Fault::ResetAfter) => Err(Cut),
        Some(Fault::HangAfter) => {
            let _ = released.changed().await;
            Ok(response)
        }
        Some(Fault::Drip) => {
            dripping.begin(released);
            Ok(response)
        }
        Some(Fault::WrongEtag) => {
            if response.headers().contains_key(http::header::ETAG) {
                let wrong = http::HeaderValue::from_str(&format!("\"{WRONG_ETAG}\""));
                let wrong = wrong.expect("letters");
                response.headers_mut().insert(http::header::ETAG, wrong);
            }
            rewritten(response, |xml| replaced(xml, "ETag", WRONG_ETAG)).await
        }
        Some(Fault::StaleList) => {
            rewritten(response, |xml| without(&without(xml, "Upload"), "Part")).await
        }
        _ => Ok(response),
    }
}

/// A tag that nothing has.
const WRONG_ETAG: &str = "00000000000000000000000000000000";

/// The answer with its XML changed, if it has any.
async fn rewritten(
    response: HttpResponse,
    change: impl FnOnce(&str) -> String,
) -> Result<HttpResponse, Cut> {
    let is_xml = response.headers().get(http::header::CONTENT_TYPE);
    if is_xml.is_none_or(|kind| kind != "application/xml") {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let body = change(std::str::from_utf8(&body).expect("XML"));
    head.headers.remove(http::header::CONTENT_LENGTH);
    Ok(HttpResponse::from_parts(head, Body::from(body)))
}

/// The text with what is in these elements replaced.
fn replaced(xml: &str, element: &str, by: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let mut pieces = xml.split(&begin);
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.split_once(&end).map_or("", |(_, rest)| rest);
        text.extend([&begin, by, &end, rest]);
    }
    text
}

/// The text without these elements.
fn without(xml: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    replaced(xml, element, "").replace(&(begin + &end), "")
}

fn call_of(head: &http::request::Parts) -> Call {
    let (_, key) = head
        .uri
        .path()
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_default();
    let part = head.uri.query().and_then(|query| {
        let pair = query.split('&').find_map(|p| p.strip_prefix("partNumber="));
        pair?.parse().ok()
    });
    let size = head.headers.get(http::header::CONTENT_LENGTH);
    Call {
        op: Op::of(head),
        key: key.to_owned(),
        part,
        size: size
            .and_then(|size| size.to_str().ok()?.parse().ok())
            .unwrap_or(0),
        signed_payload: head
            .headers
            .get("x-amz-content-sha256")
            .and_then(|hash| Some(hash.to_str().ok()?.to_owned())),
    }
}

fn error_response(status: u16, code: &str) -> HttpResponse {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as the test wishes</Message></Error>"
    );
    let mut response = HttpResponse::new(Body::from(xml));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response
}
