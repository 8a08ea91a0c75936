//! What a request's method comes to.

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
