//! Bodies in JSON, as everything that has some reads and writes them.

use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::error::{Code, Problem};

/// A JSON body; an empty one is an empty object.
pub fn json<T: Default + for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let is_json = headers.get(CONTENT_TYPE).is_none_or(|value| {
        value
            .to_str()
            .ok()
            .and_then(|value| value.split(';').next())
            .is_some_and(|name| name.trim().eq_ignore_ascii_case("application/json"))
    });
    if !is_json {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "the body has to be application/json",
        ));
    }
    // A struct could be read from an array as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad_request("the JSON has to be an object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the JSON cannot be taken: {error}")))
}

/// An answer in JSON that nobody may keep.
#[must_use]
pub fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let fields = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    let text = serde_json::to_string(body).expect("maps with text as keys serialise");
    (status, fields, text).into_response()
}
