//! The content of a completed upload, as every protocol answers it: ranges and conditions of RFC 9110, and where it is
//! configured so, a redirect to the store itself.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error::{Code, Problem};
use super::fields::attachment;
use super::gate::Gate;
use crate::engine::{AnswerWith, Engine, EngineError, SignedRequest};
use crate::model::{ByteRange, Caller, DigestAlgorithm, Object, Upload, UploadId, UploadKey};

/// What of the content is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The asker has it.
    NotModified,
    /// All of it.
    Whole,
    /// A stretch of it.
    Part(ByteRange),
    /// A stretch that it does not have.
    Unsatisfiable,
}

/// The object's tag, without quotes: its SHA-256, so that it is strong and the same wherever the object lies.
#[must_use]
pub fn etag(object: &Object) -> String {
    object
        .digests
        .get(DigestAlgorithm::Sha256)
        .map_or_else(|| object.etag.clone(), crate::model::Digest::to_hex)
}

/// Reads the conditions and the range of a request. Only GET has ranges; several at once are answered with everything.
#[must_use]
pub fn select(method: &Method, headers: &HeaderMap, size: u64, etag: &str) -> Selection {
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|list| {
            list.split(',').map(str::trim).any(|tag| {
                tag == "*" || unquote(tag.strip_prefix("W/").unwrap_or(tag)) == Some(etag)
            })
        })
    });
    if known {
        return Selection::NotModified;
    }
    if method != Method::GET {
        return Selection::Whole;
    }
    // A date never matches: nothing here has one.
    let current = headers
        .get(IF_RANGE)
        .is_none_or(|tag| tag.to_str().ok().and_then(unquote) == Some(etag));
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if current => range
            .to_str()
            .ok()
            .and_then(|range| one_range(range, size))
            .unwrap_or(Selection::Whole),
        _ => Selection::Whole,
    }
}

fn unquote(tag: &str) -> Option<&str> {
    tag.strip_prefix('"')?.strip_suffix('"')
}

/// RFC 9110, section 14.1.2. `None`: it is malformed or more than one, and to be ignored.
fn one_range(text: &str, size: u64) -> Option<Selection> {
    let (unit, spec) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let range = if first.is_empty() {
        let suffix = number(last)?;
        ByteRange::new(size.saturating_sub(suffix), size)
    } else {
        let first = number(first)?;
        let last = if last.is_empty() {
            u64::MAX
        } else {
            number(last)?
        };
        if last < first {
            return None;
        }
        ByteRange::new(first, last.saturating_add(1).min(size))
    };
    Some(range.map_or(Selection::Unsatisfiable, Selection::Part))
}

/// Digits only. A number that is too large for us is larger than every object.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// What an answer says of the content beside the content itself.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The name that it is saved under.
    filename: Option<&'a str>,
    content_type: Option<&'a str>,
    /// Who may keep it, and for how long.
    cache_control: &'static str,
}

impl<'a> About<'a> {
    /// As an upload's client has declared it. What opens the upload is a secret, so only the asker may keep it.
    #[must_use]
    pub fn of_upload(upload: &'a Upload, object: &'a Object) -> Self {
        let declared = upload.declared.content_type.as_deref();
        Self {
            filename: upload.declared.filename.as_deref(),
            content_type: declared.or(object.content_type.as_deref()),
            cache_control: "private",
        }
    }

    /// Of what is found by its content: it never changes.
    #[must_use]
    pub fn of_address(object: &'a Object, caller: &Caller) -> Self {
        Self {
            filename: None,
            content_type: object.content_type.as_deref(),
            cache_control: if caller.token.is_none() {
                "public, max-age=31536000, immutable"
            } else {
                // Others may not have it without a token of their own.
                "private, max-age=31536000, immutable"
            },
        }
    }
}

/// Answers GET or HEAD with the content of an upload, for whoever may read it: who has its key and is the one whose it is, or whom
/// its space lets read without. `refuse`: how the protocol words what the engine refuses.
pub async fn of_upload(
    gate: &Gate,
    request: &Parts,
    id: UploadId,
    key: Option<&UploadKey>,
    refuse: fn(EngineError) -> Problem,
) -> Result<Response, Problem> {
    let (upload, object) = find(gate, request, id, key, refuse).await?;
    let about = About::of_upload(&upload, &object);
    let engine = gate.for_holder();
    answer(engine, about, &object, &request.method, &request.headers).await
}

async fn find(
    gate: &Gate,
    request: &Parts,
    id: UploadId,
    key: Option<&UploadKey>,
    refuse: fn(EngineError) -> Problem,
) -> Result<(Upload, Object), Problem> {
    if gate.links().open(id, request.uri.query()) {
        return gate.for_holder().linked_content(id).await.map_err(refuse);
    }
    match gate.enter_to_read(&request.extensions) {
        Ok(engine) => engine.content(id, key).await.map_err(refuse),
        // What everybody may read needs no token; of the rest nobody without one learns anything.
        Err(refusal) => gate
            .for_anybody()
            .content(id, None)
            .await
            .map_err(|_| refusal),
    }
}

/// Answers GET or HEAD with an object.
pub async fn answer(
    engine: &Engine,
    about: About<'_>,
    object: &Object,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let size = object.size.get();
    let selection = select(method, headers, size, &etag(object));
    let range = match selection {
        Selection::Part(range) => Some(range),
        Selection::Whole => None,
        Selection::NotModified => return Ok(head(about, object, selection)),
        Selection::Unsatisfiable => {
            return Err(Problem::new(
                Code::RangeMismatch,
                format!(
                    "the content has {size} bytes, none of them in the range that was asked for"
                ),
            )
            .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(CONTENT_RANGE, whole_size(size)));
        }
    };
    let mut response = head(about, object, selection);
    if method == Method::GET
        && let Some(signed) = engine
            .signed_read(object, &like(response.headers()))
            .await?
    {
        return Ok(redirect(&signed));
    }
    if method == Method::GET && size > 0 {
        let bytes = engine.read(object, range).await?;
        *response.body_mut() = Body::from_stream(bytes);
    }
    Ok(response)
}

/// How the store has to answer so that it is what we would have answered.
fn like(headers: &HeaderMap) -> AnswerWith {
    let text = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    AnswerWith {
        content_type: text(CONTENT_TYPE),
        content_disposition: text(CONTENT_DISPOSITION),
        cache_control: text(CACHE_CONTROL),
    }
}

/// To the store. Whoever has the URL can read the content, and it is good for a while only: nobody may keep it.
fn redirect(signed: &SignedRequest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(&signed.url) {
        headers.insert(LOCATION, location);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}

fn whole_size(size: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{size}")).expect("digits are ASCII")
}

/// The status and the header fields of the answer.
fn head(about: About<'_>, object: &Object, selection: Selection) -> Response {
    let size = object.size.get();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let tag = format!("\"{}\"", etag(object));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(about.cache_control));
    if selection == Selection::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let content_type = about
        .content_type
        .and_then(|name| HeaderValue::from_str(name).ok())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_DISPOSITION, attachment(about.filename));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let length = if let Selection::Part(range) = selection {
        let text = format!("bytes {}-{}/{size}", range.start(), range.end() - 1);
        headers.insert(
            CONTENT_RANGE,
            HeaderValue::try_from(text).expect("digits are ASCII"),
        );
        range.len()
    } else {
        size
    };
    headers.insert(CONTENT_LENGTH, length.into());
    if matches!(selection, Selection::Part(_)) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn selected(method: &Method, fields: &[(HeaderName, &str)], size: u64) -> Selection {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value")))
            .collect();
        select(method, &headers, size, "abc")
    }

    fn part(start: u64, end: u64) -> Selection {
        Selection::Part(ByteRange::new(start, end).expect("not empty"))
    }

    #[test]
    fn one_range_is_taken_and_nonsense_ignored() {
        for (range, size, expected) in [
            ("bytes=0-3", 10, part(0, 4)),
            ("bytes=4-", 10, part(4, 10)),
            ("bytes=-3", 10, part(7, 10)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=8-99999999999999999999999", 10, part(8, 10)),
            ("Bytes=0-0", 10, part(0, 1)),
            ("bytes=10-", 10, Selection::Unsatisfiable),
            ("bytes=-0", 10, Selection::Unsatisfiable),
            ("bytes=0-", 0, Selection::Unsatisfiable),
            ("bytes=3-1", 10, Selection::Whole),
            ("bytes=0-1,3-4", 10, Selection::Whole),
            ("bytes=-", 10, Selection::Whole),
            ("bytes=+1-2", 10, Selection::Whole),
            ("lines=1-2", 10, Selection::Whole),
        ] {
            assert_eq!(
                selected(&Method::GET, &[(RANGE, range)], size),
                expected,
                "{range}"
            );
        }
        assert_eq!(
            selected(&Method::HEAD, &[(RANGE, "bytes=0-3")], 10),
            Selection::Whole
        );
    }

    #[test]
    fn conditions_compare_tags() {
        let range = (RANGE, "bytes=0-3");
        let with = |if_range| selected(&Method::GET, &[range.clone(), (IF_RANGE, if_range)], 10);
        assert_eq!(with("\"abc\""), part(0, 4));
        for other in [
            "W/\"abc\"",
            "\"abd\"",
            "abc",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(with(other), Selection::Whole, "{other}");
        }
        let none = |tags| selected(&Method::GET, &[(IF_NONE_MATCH, tags)], 10);
        for same in ["\"abc\"", "*", "W/\"abc\"", "\"x\", \"abc\""] {
            assert_eq!(none(same), Selection::NotModified, "{same}");
        }
        assert_eq!(none("\"abd\""), Selection::Whole);
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_content(text in "(bytes=)?[-0-9, ]{0,24}", size in 0_u64..100) {
            if let Some(Selection::Part(range)) = one_range(&text, size) {
                prop_assert!(range.end() <= size);
            }
        }
    }
}
