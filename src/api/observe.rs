//! What every request has around it: an id, a span and a line in the log, its place in the metrics, limits of its head, and
//! an answer if the handler panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::Instrument as _;

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

/// Wraps a request; see the module.
pub async fn observe(
    State(limits): State<HeadLimits>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let arrived = request.extensions_mut().remove::<Arrived>();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());

    let mut response = async {
        if let Some(problem) = too_large(&request, limits) {
            return problem.into_response();
        }
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => Problem::internal(&Panicked::from(panic)).into_response(),
        }
    }
    .instrument(span.clone())
    .await;

    response.headers_mut().insert(REQUEST_ID, id);
    let took = begun.elapsed();
    let status = response.status();
    metrics::histogram!(
        "jumar_request_duration_seconds",
        "route" => route.clone(),
        "status" => status.as_str().to_owned()
    )
    .record(took);
    let received = arrived.map_or(0, |arrived| arrived.get());
    let sent = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .unwrap_or("-");
    let took_ms = took.as_millis();
    span.in_scope(|| {
        if matches!(route.as_str(), "/healthz" | "/readyz" | "/metrics") {
            tracing::debug!(%method, route, status = status.as_u16(), took_ms, "answered");
        } else {
            tracing::info!(%method, route, status = status.as_u16(), took_ms, received, sent, "answered");
        }
    });
    response
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
