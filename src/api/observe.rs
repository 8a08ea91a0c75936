//! What every request has around it: an id, a span and a line in the log, its place in the metrics; and inside of what
//! browsers need, limits of its head and an answer if the handler panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body::Body as _;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::body::Arrived;
use super::error::{Code, Problem};
use crate::model::handle::correlation_id;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request's head may have.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// In bytes.
    pub bytes: usize,
    /// In fields.
    pub fields: usize,
}

/// Around everything: the id, the span, the line and the figures.
pub async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
    let mut line = Line {
        begun: Instant::now(),
        method: request.method().clone(),
        route: request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned()),
        arrived: request
            .extensions()
            .get::<Arrived>()
            .cloned()
            .unwrap_or_default(),
        span: span.clone(),
        written: false,
    };
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    line.answered(&response);
    response
}

/// Inside of what lets pages read an answer: refuses heads that are too large or name no one host, and answers if a handler
/// panics.
pub async fn guard(State(limits): State<HeadLimits>, request: Request, next: Next) -> Response {
    let problem = too_large(&request, limits)
        .or_else(|| wrong_host(&request))
        .or_else(|| wrong_coding(&request));
    if let Some(problem) = problem {
        return problem.into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => Problem::internal(&Panicked::from(panic)).into_response(),
    }
}

/// RFC 9112, section 3.2: whoever stands in front and we have to mean the same host.
fn wrong_host(request: &Request) -> Option<Problem> {
    let hosts = request.headers().get_all(HOST).iter().count();
    let wrong = hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11);
    wrong.then(|| Problem::bad_request("a request has to have one Host"))
}

/// RFC 9112, section 6.1: a body is in chunks once or not at all. Whoever stands in front may see another end of it than we do, so
/// that nothing after it is taken for a request.
fn wrong_coding(request: &Request) -> Option<Problem> {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let wrong = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(only), None) => !is_chunked(only),
        (Some(_), Some(_)) => true,
    };
    wrong.then(|| {
        Problem::bad_request("the only Transfer-Encoding that a request may have is chunked, once")
            .close()
    })
}

/// A request's line in the log, and its place in the metrics.
struct Line {
    begun: Instant,
    method: Method,
    route: String,
    arrived: Arrived,
    span: Span,
    written: bool,
}

impl Line {
    fn answered(&mut self, response: &Response) {
        self.written = true;
        let status = response.status();
        let took = self.begun.elapsed();
        metrics::histogram!(
            "jumar_request_duration_seconds",
            "route" => self.route.clone(),
            "status" => status.as_str().to_owned()
        )
        .record(took);
        let (method, route, status) = (&self.method, self.route.as_str(), status.as_u16());
        let took_ms = took.as_millis();
        let received = self.arrived.get();
        // Unknown for a body of a length that only its end tells.
        let sent = response.body().size_hint().exact();
        self.span.in_scope(|| {
            if matches!(route, "/healthz" | "/readyz" | "/metrics") {
                tracing::debug!(%method, route, status, took_ms, received, sent, "answered");
            } else {
                tracing::info!(%method, route, status, took_ms, received, sent, "answered");
            }
        });
    }
}

impl Drop for Line {
    /// The connection went before there was an answer.
    fn drop(&mut self) {
        if self.written {
            return;
        }
        let (method, route) = (&self.method, self.route.as_str());
        let took_ms = self.begun.elapsed().as_millis();
        let received = self.arrived.get();
        self.span
            .in_scope(|| tracing::info!(%method, route, took_ms, received, "cut"));
    }
}

/// The client's own id if it is one that can stand in a log, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| {
            (1..=128).contains(&id.len())
                && id
                    .as_bytes()
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
        })
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::try_from(correlation_id()).expect("hex can stand in a header field")
        })
}

fn too_large(request: &Request, limits: HeadLimits) -> Option<Problem> {
    let headers = request.headers();
    // Name, colon, space, value and line end, as on the wire of HTTP/1.
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if fields + target > limits.bytes {
        Some(Problem::new(
            Code::HeadTooLarge,
            format!("a request's head may have at most {} bytes", limits.bytes),
        ))
    } else if headers.len() > limits.fields {
        Some(Problem::new(
            Code::HeadTooLarge,
            format!("a request may have at most {} header fields", limits.fields),
        ))
    } else {
        None
    }
}

/// A handler panicked.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
struct Panicked(String);

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(panic: Box<dyn Any + Send>) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "no message".to_owned()))
    }
}
