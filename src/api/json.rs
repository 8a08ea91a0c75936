//! Bodies in JSON, as every protocol that has some reads them.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

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
