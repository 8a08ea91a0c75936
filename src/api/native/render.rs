//! From outcomes of the engine to answers. Pure.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::Settings;
use crate::api::audit::Touched;
use crate::api::error::UPLOAD_OFFSET;
use crate::api::fields::http_date;
use crate::api::object::{CompletedJson, ObjectJson};
use crate::api::session::{SessionJson, pairs};
use crate::engine::{Completion, Created, Status, Written};
use crate::model::digest::Digests;
use crate::model::{ByteRange, Timestamp, UploadId, UploadState};

const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// An HTTP date, as tus defined the field; times in JSON are RFC 3339.
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

#[derive(Serialize)]
struct CreatedJson<'a> {
    #[serde(flatten)]
    session: SessionJson,
    /// Where the content was there already, so that nothing has to be sent.
    #[serde(flatten)]
    completed: Option<InstantJson<'a>>,
}

#[derive(Serialize)]
struct InstantJson<'a> {
    state: &'static str,
    object: ObjectJson<'a>,
    deduplicated: bool,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    upload_id: String,
    state: &'static str,
    length: Option<u64>,
    offset: u64,
    received: Vec<(u64, u64)>,
    expires_at: Timestamp,
    filename: Option<&'a str>,
    content_type: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Digests::is_empty")]
    digest: &'a Digests,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<ObjectJson<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deduplicated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct WorkingJson {
    upload_id: String,
    state: &'static str,
}

/// `201` with the session and its key.
pub(super) fn created(created: &Created, url: String, settings: &Settings) -> Response {
    let upload = &created.upload;
    let completed = match &upload.state {
        UploadState::Completed { object, .. } => Some(InstantJson {
            state: upload.state.name(),
            object: ObjectJson::new(object, url),
            deduplicated: upload.is_deduplicated(),
        }),
        _ => None,
    };
    let there = upload.length.filter(|_| completed.is_some());
    let received = there.and_then(|length| ByteRange::new(0, length.get()));
    let received = received.into_iter().collect();
    let body = CreatedJson {
        session: SessionJson::new(upload, &created.key, &received, settings.advice),
        completed,
    };
    let mut response = json(StatusCode::CREATED, &body);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(settings.url_of(upload.id)) {
        headers.insert(LOCATION, location);
    }
    headers.insert(UPLOAD_EXPIRES, http_date(upload.expires_at));
    response.extensions_mut().insert(Touched(upload.id));
    response
}

/// `204` with how far the upload got.
pub(super) fn written(written: Written) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, written.offset.get().into());
    headers.insert(UPLOAD_EXPIRES, http_date(written.expires_at));
    response
}

/// `200` with all that is known.
pub(super) fn status(status: &Status, url: String) -> Response {
    let upload = &status.upload;
    let (object, failure_reason) = match &upload.state {
        UploadState::Completed { object, .. } => (Some(ObjectJson::new(object, url)), None),
        UploadState::Failed { reason, .. } => (None, Some(reason.name())),
        _ => (None, None),
    };
    let body = StatusJson {
        upload_id: upload.id.to_string(),
        state: upload.state.name(),
        length: upload.length.map(crate::model::Length::get),
        offset: status.received.contiguous().get(),
        received: pairs(&status.received),
        expires_at: upload.expires_at,
        filename: upload.declared.filename.as_deref(),
        content_type: upload.declared.content_type.as_deref(),
        metadata: &upload.declared.metadata,
        digest: &upload.declared.digests,
        object,
        deduplicated: upload.is_deduplicated(),
        failure_reason,
    };
    with_progress(json(StatusCode::OK, &body), status)
}

fn with_progress(mut response: Response, status: &Status) -> Response {
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, status.received.contiguous().get().into());
    if let Some(length) = status.upload.length {
        headers.insert(UPLOAD_LENGTH, length.get().into());
    }
    headers.insert(UPLOAD_EXPIRES, http_date(status.upload.expires_at));
    response
}

/// `201`, repeated `200`, with the object; or `202` while it is being made.
pub(super) fn completion(id: UploadId, completion: &Completion, url: String) -> Response {
    match completion {
        Completion::Done { object, repeated } => {
            let status = if *repeated {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            json(status, &CompletedJson::new(id, object, url))
        }
        Completion::Working { retry_after } => {
            let body = WorkingJson {
                upload_id: id.to_string(),
                state: "assembling",
            };
            let mut response = json(StatusCode::ACCEPTED, &body);
            response
                .headers_mut()
                .insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
            response
        }
    }
}

/// `204`: it is aborted.
pub(super) fn aborted() -> Response {
    empty(StatusCode::NO_CONTENT)
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("maps with text as keys serialise");
    let mut response = empty(status);
    *response.body_mut() = Body::from(text);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
