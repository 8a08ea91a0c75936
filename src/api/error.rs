//! What goes wrong, as `application/problem+json` (RFC 9457).
//!
//! Owns the words of the contract and the one place where an [`EngineError`] becomes a status, a word and its members. A
//! failure of this server is logged here, once, with its cause; its client is told an incident's id and nothing else.

use std::error::Error;
use std::fmt::Write as _;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::engine::{BodyError, EngineError};
use crate::model::handle::correlation_id;
use crate::model::{LimitHit, PartNumber};

/// `Upload-Offset`: how far an upload reaches without a hole.
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// How many missing ranges are told.
const MISSING_SHOWN: usize = 100;

/// After how long a refused chunk may be tried again.
const CHUNK_RETRY_SECS: u64 = 1;

/// After how long whoever waited for a place in vain may ask again.
const PLACE_RETRY_SECS: u64 = 10;

/// The words of the contract. They never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A malformed header, JSON or parameter.
    BadRequest,
    /// No token, or none that is good.
    Unauthorized,
    /// It is not allowed.
    Forbidden,
    /// No such upload, or not its key.
    NotFound,
    /// The route does not know the method.
    MethodNotAllowed,
    /// It expired or was aborted.
    SessionExpired,
    /// A range contradicts a length.
    RangeMismatch,
    /// A chunk would leave a hole.
    ChunkOutOfOrder,
    /// A newer request took over.
    Displaced,
    /// Bytes are missing.
    UploadIncomplete,
    /// It is completed and stays so.
    UploadCompleted,
    /// It failed for good.
    UploadFailed,
    /// A creation was repeated too late.
    SessionInUse,
    /// The store, or a part, cannot be written directly now.
    DirectUnavailable,
    /// Too large.
    UploadLimit,
    /// A digest differs.
    DigestMismatch,
    /// The idempotency key was used for something else.
    IdempotencyMismatch,
    /// The body is of a type that is not taken.
    UnsupportedMediaType,
    /// Too many chunks in flight.
    TooManyChunks,
    /// Too many requests.
    RateLimited,
    /// The request's head is too large.
    HeadTooLarge,
    /// The store, the disk or the catalog cannot take it now.
    StoreUnavailable,
    /// A fault of this server.
    Internal,
}

impl Code {
    /// The word itself.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::SessionExpired => "session_expired",
            Self::RangeMismatch => "range_mismatch",
            Self::ChunkOutOfOrder => "chunk_out_of_order",
            Self::Displaced => "displaced",
            Self::UploadIncomplete => "upload_incomplete",
            Self::UploadCompleted => "upload_completed",
            Self::UploadFailed => "upload_failed",
            Self::SessionInUse => "session_in_use",
            Self::DirectUnavailable => "direct_unavailable",
            Self::UploadLimit => "upload_limit",
            Self::DigestMismatch => "digest_mismatch",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyChunks => "too_many_chunks",
            Self::RateLimited => "rate_limited",
            Self::HeadTooLarge => "head_too_large",
            Self::StoreUnavailable => "store_unavailable",
            Self::Internal => "internal",
        }
    }

    /// The status that goes with it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::SessionExpired => StatusCode::GONE,
            Self::RangeMismatch
            | Self::ChunkOutOfOrder
            | Self::Displaced
            | Self::UploadIncomplete
            | Self::UploadCompleted
            | Self::UploadFailed
            | Self::SessionInUse
            | Self::DirectUnavailable => StatusCode::CONFLICT,
            Self::UploadLimit => StatusCode::PAYLOAD_TOO_LARGE,
            Self::DigestMismatch | Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyChunks | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::Unauthorized => "A token is needed",
            Self::Forbidden => "It is not allowed",
            Self::NotFound => "There is nothing here",
            Self::MethodNotAllowed => "The method is not allowed",
            Self::SessionExpired => "The upload has ended",
            Self::RangeMismatch => "The range does not fit",
            Self::ChunkOutOfOrder => "The chunk is out of order",
            Self::Displaced => "A newer request took over",
            Self::UploadIncomplete => "The upload is incomplete",
            Self::UploadCompleted => "The upload is completed",
            Self::UploadFailed => "The upload has failed",
            Self::SessionInUse => "The upload is in use",
            Self::DirectUnavailable => "It cannot go directly",
            Self::UploadLimit => "Too large",
            Self::DigestMismatch => "The digest differs",
            Self::IdempotencyMismatch => "The idempotency key was used for another request",
            Self::UnsupportedMediaType => "The media type is not taken",
            Self::TooManyChunks => "Too many chunks in flight",
            Self::RateLimited => "Too many requests",
            Self::HeadTooLarge => "The request's head is too large",
            Self::StoreUnavailable => "It cannot be taken now",
            Self::Internal => "A fault of this server",
        }
    }
}

/// An answer that says what went wrong. Protocols that fix other statuses for the same word change the status.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The word.
    pub code: Code,
    /// The status; the word's own unless a protocol says otherwise.
    pub status: StatusCode,
    /// What went wrong this time.
    pub detail: String,
    /// What helps a client go on. Boxed with the header fields, as results that carry a problem are passed on a lot.
    extra: Box<Extra>,
}

#[derive(Debug, Clone, Default)]
struct Extra {
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with the status of its word.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            extra: Box::default(),
        }
    }

    /// Something in the request is malformed.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// A token is needed, or another one.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(Code::Unauthorized, detail).header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"jumar\""),
        )
    }

    /// What an unknown upload, a missing, malformed or wrong key and a name that is none all look like.
    #[must_use]
    pub fn no_such_upload() -> Self {
        Self::new(Code::NotFound, "there is no upload with this id and key")
    }

    /// A fault of this server: logged here.
    #[must_use]
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        let incident = correlation_id();
        tracing::error!(%incident, cause = chain(cause), "a request failed by a fault of this server");
        Self::new(Code::Internal, "this server could not carry it out").member("incident", incident)
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with a type that a specification has given it.
    #[must_use]
    pub fn with_type(self, uri: &'static str) -> Self {
        self.member("type", uri)
    }

    /// Adds a member, or puts it in the place of another.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.extra.headers.push((name, value.into()));
        self
    }

    /// Says when to try again, in the header and in the body.
    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        self.member("retry_after_secs", secs)
            .header(RETRY_AFTER, secs)
    }

    fn offset(self, offset: u64) -> Self {
        self.member("expected_offset", offset)
            .header(UPLOAD_OFFSET, offset)
    }

    fn part_numbers(self, parts: &[PartNumber]) -> Self {
        let numbers: Vec<u32> = parts.iter().map(|number| number.0).collect();
        self.member("part_numbers", numbers)
    }

    /// The connection is closed with it.
    pub(super) fn close(self) -> Self {
        self.header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// The body alone, for protocols that put more into it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:jumar:problem:{}", self.code.word()),
            "title": self.code.title(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code.word(),
        });
        if let Some(body) = body.as_object_mut() {
            body.extend(self.extra.members.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        // For the audit log.
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        );
        headers.extend(
            self.extra
                .headers
                .into_iter()
                .map(|(name, value)| (Some(name), value)),
        );
        response
    }
}

/// The answer to a method that a route does not know. `allow` is what it knows.
#[must_use]
pub fn method_not_allowed(allow: Option<&'static str>) -> Problem {
    let problem = Problem::new(
        Code::MethodNotAllowed,
        "the route does not know this method; Allow says which it knows",
    );
    match allow {
        Some(allow) => problem.header(ALLOW, HeaderValue::from_static(allow)),
        None => problem,
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let detail = error.to_string();
        match error {
            EngineError::NotFound => Self::no_such_upload(),
            EngineError::Gone => Self::new(Code::SessionExpired, detail),
            EngineError::RangeMismatch {
                length,
                expected_offset,
                ..
            } => {
                let mut problem = Self::new(Code::RangeMismatch, detail);
                if let Some(length) = length {
                    problem = problem.member("length", length.get());
                }
                match expected_offset {
                    Some(offset) => problem.offset(offset.get()),
                    None => problem,
                }
            }
            EngineError::OutOfOrder { expected } => {
                Self::new(Code::ChunkOutOfOrder, detail).offset(expected.get())
            }
            EngineError::DigestMissing { .. } | EngineError::BadParts { .. } => {
                Self::bad_request(detail)
            }
            EngineError::Unwritable | EngineError::NotYours => Self::new(Code::Forbidden, detail),
            EngineError::Displaced => Self::new(Code::Displaced, detail).close(),
            EngineError::Incomplete { missing, truncated } => {
                let shown: Vec<Value> = missing
                    .iter()
                    .take(MISSING_SHOWN)
                    .map(|range| json!([range.start(), range.end()]))
                    .collect();
                Self::new(Code::UploadIncomplete, detail)
                    .member("truncated", truncated || missing.len() > MISSING_SHOWN)
                    .member("missing", shown)
            }
            EngineError::Completed => Self::new(Code::UploadCompleted, detail),
            EngineError::Failed { reason } => {
                Self::new(Code::UploadFailed, detail).member("failure_reason", reason.name())
            }
            EngineError::DirectUnavailable { parts, .. } => {
                let problem = Self::new(Code::DirectUnavailable, detail);
                if parts.is_empty() {
                    problem
                } else {
                    problem.part_numbers(&parts)
                }
            }
            EngineError::NotPut { number, range } => Self::new(Code::UploadIncomplete, detail)
                .member("part_numbers", json!([number.0]))
                .member("missing", json!([[range.start(), range.end()]]))
                .member("truncated", false),
            EngineError::PartsMissing { parts } => {
                Self::new(Code::UploadIncomplete, detail).part_numbers(&parts)
            }
            EngineError::PartsMismatch { parts, .. } => {
                Self::new(Code::RangeMismatch, detail).part_numbers(&parts)
            }
            EngineError::InUse => Self::new(Code::SessionInUse, detail),
            EngineError::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch, detail),
            EngineError::TooLarge { max } => {
                Self::new(Code::UploadLimit, detail).member("max_size", max.get())
            }
            EngineError::DigestMismatch { algorithm } => {
                Self::new(Code::DigestMismatch, detail).member("algorithm", algorithm.name())
            }
            EngineError::WrongType { .. } => Self::new(Code::UnsupportedMediaType, detail),
            EngineError::Limited(hit) => limited(hit, detail),
            EngineError::TooManyChunks { max } => Self::new(Code::TooManyChunks, detail)
                .member("max_parallel_chunks", max)
                .retry_after(CHUNK_RETRY_SECS),
            EngineError::BodyBroken { offset, source } => match source {
                BodyError::ShuttingDown => {
                    unavailable(&source, CHUNK_RETRY_SECS, "the server is shutting down")
                        .offset(offset.get())
                        .close()
                }
                // Where the wire broke is nothing that a client has to be told the inside of.
                BodyError::Cut(_) => Self::bad_request("the body ended early; what came is kept")
                    .offset(offset.get())
                    .close(),
                BodyError::Stalled(_) | BodyError::Slow(_) | BodyError::Malformed(_) => {
                    Self::bad_request(detail).offset(offset.get()).close()
                }
            },
            EngineError::Unavailable {
                retry_after,
                source,
            } => unavailable(
                source.as_ref(),
                retry_after.as_secs().max(1),
                "it cannot be taken now; nothing is lost, try again later",
            ),
            EngineError::Internal(source) => Self::internal(source.as_ref()),
        }
    }
}

/// Too much, or too many for now.
fn limited(hit: LimitHit, detail: String) -> Problem {
    let LimitHit {
        limit,
        allowed,
        left,
        resets_at,
    } = hit;
    let problem = Problem::new(Code::UploadLimit, detail)
        .member("limit", limit.as_str())
        .member("allowed", allowed)
        .member("left", left)
        .member("resets_at", json!(resets_at));
    if limit.is_of_bytes() {
        return problem;
    }
    let problem = problem.with_status(StatusCode::TOO_MANY_REQUESTS);
    if limit.is_of_open() {
        problem.retry_after(PLACE_RETRY_SECS)
    } else {
        problem
    }
}

fn unavailable(cause: &(dyn Error + 'static), retry_after_secs: u64, detail: &str) -> Problem {
    let incident = correlation_id();
    tracing::warn!(%incident, cause = chain(cause), "a request cannot be taken now");
    Problem::new(Code::StoreUnavailable, detail)
        .member("incident", incident)
        .retry_after(retry_after_secs)
}

/// An error with all that it came from.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors print their source too; saying it twice helps nobody.
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Conflict;
    use crate::model::upload::FailureReason;
    use crate::model::{ByteRange, DigestAlgorithm, Length, Offset, PartNumber};

    /// Status, header fields of interest and body, without the incident's id.
    fn shown(error: EngineError) -> String {
        let problem = Problem::from(error);
        let mut json = problem.to_json();
        if let Some(incident) = json.get_mut("incident") {
            *incident = json!("…");
        }
        for constant in ["type", "title"] {
            json.as_object_mut().expect("a map").remove(constant);
        }
        let headers: Vec<String> = problem
            .extra
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().expect("ASCII")))
            .collect();
        format!("{} {json}", headers.join(" ")).trim().to_owned()
    }

    #[test]
    fn each_error_of_the_engine_has_its_status_word_and_members() {
        insta::assert_snapshot!(shown(EngineError::NotFound), @r#"{"code":"not_found","detail":"there is no upload with this id and key","status":404}"#);
        insta::assert_snapshot!(shown(EngineError::Gone), @r#"{"code":"session_expired","detail":"the upload has expired or was aborted","status":410}"#);
        insta::assert_snapshot!(shown(EngineError::RangeMismatch { conflict: Conflict::Beyond, detail: "it does not fit".to_owned(), length: Some(Length(10)), expected_offset: Some(Offset(4)) }), @r#"upload-offset=4 {"code":"range_mismatch","detail":"it does not fit","expected_offset":4,"length":10,"status":409}"#);
        insta::assert_snapshot!(shown(EngineError::OutOfOrder { expected: Offset(7) }), @r#"upload-offset=7 {"code":"chunk_out_of_order","detail":"the upload takes its chunks in order: the next byte is 7","expected_offset":7,"status":409}"#);
        insta::assert_snapshot!(shown(EngineError::Displaced), @r#"connection=close {"code":"displaced","detail":"a newer request took over this range","status":409}"#);
        let missing = ByteRange::new(3, 5).into_iter().collect();
        insta::assert_snapshot!(shown(EngineError::Incomplete { missing, truncated: false }), @r#"{"code":"upload_incomplete","detail":"bytes are missing","missing":[[3,5]],"status":409,"truncated":false}"#);
        insta::assert_snapshot!(shown(EngineError::Completed), @r#"{"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":409}"#);
        insta::assert_snapshot!(shown(EngineError::Failed { reason: FailureReason::StoreLost }), @r#"{"code":"upload_failed","detail":"the upload failed: store_lost","failure_reason":"store_lost","status":409}"#);
        let detail = "bytes are there".to_owned();
        insta::assert_snapshot!(shown(EngineError::DirectUnavailable { detail: detail.clone(), parts: Vec::new() }), @r#"{"code":"direct_unavailable","detail":"bytes are there","status":409}"#);
        insta::assert_snapshot!(shown(EngineError::DirectUnavailable { detail, parts: vec![PartNumber(2), PartNumber(5)] }), @r#"{"code":"direct_unavailable","detail":"bytes are there","part_numbers":[2,5],"status":409}"#);
        insta::assert_snapshot!(shown(EngineError::PartsMissing { parts: vec![PartNumber(2)] }), @r#"{"code":"upload_incomplete","detail":"the store does not have all of these parts: put the missing ones by their URLs, then complete it again","part_numbers":[2],"status":409}"#);
        insta::assert_snapshot!(shown(EngineError::PartsMismatch { detail: "they differ".to_owned(), parts: vec![PartNumber(1), PartNumber(3)] }), @r#"{"code":"range_mismatch","detail":"they differ","part_numbers":[1,3],"status":409}"#);
        insta::assert_snapshot!(shown(EngineError::NotPut { number: PartNumber(2), range: ByteRange::new(5, 8).expect("not empty") }), @r#"{"code":"upload_incomplete","detail":"the store does not have part 2: put it by its URL, or send its bytes through the server","missing":[[5,8]],"part_numbers":[2],"status":409,"truncated":false}"#);
        insta::assert_snapshot!(shown(EngineError::InUse), @r#"{"code":"session_in_use","detail":"the upload of this idempotency key is in use","status":409}"#);
        insta::assert_snapshot!(shown(EngineError::IdempotencyMismatch), @r#"{"code":"idempotency_mismatch","detail":"the idempotency key was used for another request","status":422}"#);
        insta::assert_snapshot!(shown(EngineError::TooLarge { max: Length(9) }), @r#"{"code":"upload_limit","detail":"at most 9 bytes are taken","max_size":9,"status":413}"#);
        insta::assert_snapshot!(shown(EngineError::DigestMismatch { algorithm: DigestAlgorithm::Sha256 }), @r#"{"algorithm":"sha-256","code":"digest_mismatch","detail":"the sha-256 digest is not that of the bytes that came","status":422}"#);
        insta::assert_snapshot!(shown(EngineError::TooManyChunks { max: 4 }), @r#"retry-after=1 {"code":"too_many_chunks","detail":"4 chunks of this upload are in flight already","max_parallel_chunks":4,"retry_after_secs":1,"status":429}"#);
        insta::assert_snapshot!(shown(EngineError::BodyBroken { offset: Offset(5), source: BodyError::Cut("reset by 10.0.0.1".into()) }), @r#"upload-offset=5 connection=close {"code":"bad_request","detail":"the body ended early; what came is kept","expected_offset":5,"status":400}"#);
        insta::assert_snapshot!(shown(EngineError::BodyBroken { offset: Offset(5), source: BodyError::Stalled(Duration::from_mins(1)) }), @r#"upload-offset=5 connection=close {"code":"bad_request","detail":"the body ended early: nothing came for 60 s","expected_offset":5,"status":400}"#);
        insta::assert_snapshot!(shown(EngineError::BodyBroken { offset: Offset(5), source: BodyError::ShuttingDown }), @r#"retry-after=1 upload-offset=5 connection=close {"code":"store_unavailable","detail":"the server is shutting down","expected_offset":5,"incident":"…","retry_after_secs":1,"status":503}"#);
    }

    #[test]
    fn a_fault_of_ours_says_nothing_of_the_inside() {
        insta::assert_snapshot!(shown(EngineError::unavailable("disk /dev/sda full")), @r#"retry-after=5 {"code":"store_unavailable","detail":"it cannot be taken now; nothing is lost, try again later","incident":"…","retry_after_secs":5,"status":503}"#);
        insta::assert_snapshot!(shown(EngineError::Internal("row 7 is torn".into())), @r#"{"code":"internal","detail":"this server could not carry it out","incident":"…","status":500}"#);
    }

    #[test]
    fn only_the_first_missing_ranges_are_told() {
        let missing = (0..150)
            .filter_map(|n| ByteRange::new(n * 10, n * 10 + 1))
            .collect();
        let json = Problem::from(EngineError::Incomplete {
            missing,
            truncated: false,
        })
        .to_json();
        assert_eq!(json["missing"].as_array().map(Vec::len), Some(100));
        assert_eq!(json["truncated"], true);
    }
}
