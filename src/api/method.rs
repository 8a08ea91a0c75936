//! What a request's method comes to.

use axum::response::IntoResponse as _;
use axum::routing::MethodRouter;
use http::StatusCode;
use http::header::ALLOW;
use http::{HeaderMap, HeaderName, Method};

/// Names another method than the request's own, where a protocol takes it from there.
pub const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// Whether a request may change something, in whichever protocol.
#[must_use]
pub fn changes_something(method: &Method, headers: &HeaderMap) -> bool {
    !method.is_safe() || overridden(headers).is_some_and(|method| !method.is_safe())
}

/// The method that the request says to take instead, if HTTP can name it.
#[must_use]
pub fn overridden(headers: &HeaderMap) -> Option<Method> {
    let name = headers.get(METHOD_OVERRIDE)?;
    Method::from_bytes(name.as_bytes()).ok()
}

/// Adds OPTIONS to a route, which says what there is.
pub fn known<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
    allow: &'static str,
) -> MethodRouter<S> {
    route.options(async move || (StatusCode::NO_CONTENT, [(ALLOW, allow)]).into_response())
}
