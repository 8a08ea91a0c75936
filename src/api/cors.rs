//! Cross-origin requests: what a browser's page may do.
//!
//! Written out here as `tower-http`'s layer answers every OPTIONS itself, while the protocols' own discovery has to reach
//! their routes; and as its list of exposed fields is fixed, while every field of an answer is to be exposed.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    ORIGIN, VARY,
};
use http::{HeaderValue, Method, StatusCode};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

const HEADERS: &str = "Authorization, Content-Type, Content-Disposition, Content-Range, Content-Digest, Content-MD5, Digest, Repr-Digest, Want-Repr-Digest, Idempotency-Key, Device-Id, Upload-Key, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Checksum, Upload-Concat, Upload-Complete, Upload-Incomplete, Upload-Draft-Interop-Version, Tus-Resumable, X-HTTP-Method-Override, X-Request-ID";

const MAX_AGE: &str = "7200";

/// Which origins may use the server.
#[derive(Debug, Clone)]
pub struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// From `server.cors_origins`.
    #[must_use]
    pub fn new(origins: &[String]) -> Self {
        Self {
            any: origins.iter().any(|origin| origin == "*"),
            origins: origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok())
                .collect(),
        }
    }

    /// Whether the pages of an origin may.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || self.origins.contains(origin)
    }

    fn answer(&self, origin: Option<&HeaderValue>, response: &mut Response) {
        let headers = response.headers_mut();
        if self.any {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return;
        }
        // Caches have to keep the answers to different origins apart, also those that were let in by none.
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.origins.contains(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
}

/// Answers preflights, and lets pages read every other answer.
pub async fn cors(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        cors.answer(origin.as_ref(), &mut response);
        return response;
    }
    let mut response = next.run(request).await;
    expose(&mut response);
    cors.answer(origin.as_ref(), &mut response);
    response
}

/// Lets a page read every field of the answer. Named one by one: `*` is not understood by all browsers.
fn expose(response: &mut Response) {
    let mut names: Vec<&str> = response
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    // These are put on after this layer.
    names.extend(["content-length", "date", "x-request-id"]);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        names.push(ALLOW.as_str());
    }
    names.sort_unstable();
    names.dedup();
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        response
            .headers_mut()
            .insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}
