//! From outcomes of the engine to answers. Pure.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{AtPath, Settings, TUS_VERSION, VERSION, checksum, concat};
use crate::api::audit::Touched;
use crate::api::error::UPLOAD_OFFSET;
use crate::api::fields::http_date;
use crate::engine::{Secret, Status, Written};
use crate::model::upload::Role;
use crate::model::{Handle, Offset, Timestamp, Upload, UploadId, UploadState};

const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_ID: HeaderName = HeaderName::from_static("upload-id");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,termination,concatenation,concatenation-unfinished";

/// How far a new upload is when its creation is answered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// How many bytes are there, if some came with the creation and it is certain how many.
    pub(super) offset: Option<Offset>,
    /// Whether it is completed already.
    pub(super) completed: bool,
}

/// `204` with what the server can do.
pub(super) fn discovery(at: AtPath, max_size: u64) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let algorithms = checksum::ALGORITHMS.map(|(name, _)| name).join(",");
    headers.insert(ALLOW, HeaderValue::from_static(at.allow()));
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_MAX_SIZE, max_size.into());
    insert(headers, TUS_CHECKSUM_ALGORITHM, &algorithms);
    response
}

/// `201` with where the upload is found from now on.
pub(super) fn created(
    upload: &Upload,
    handle: &Handle,
    progress: Progress,
    settings: &Settings,
) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    insert(headers, LOCATION, &settings.url_of(handle));
    insert(headers, UPLOAD_ID, &handle.id.to_string());
    if let Some(offset) = progress.offset {
        headers.insert(UPLOAD_OFFSET, offset.get().into());
    }
    if !progress.completed {
        expires(headers, upload.expires_at);
    }
    response.extensions_mut().insert(Touched(handle.id));
    response
}

/// `204` with how far the upload got; with its last byte, which one it was.
pub(super) fn written(id: UploadId, written: &Written) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, written.offset.get().into());
    if written.is_full() {
        insert(headers, UPLOAD_ID, &id.to_string());
    } else {
        expires(headers, written.expires_at);
    }
    response
}

/// `200` with how an upload stands that nobody writes to and nobody finishes.
pub(super) fn status(status: &Status) -> Response {
    let upload = &status.upload;
    let completed = matches!(upload.state, UploadState::Completed { .. });
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    // What is put together has no offset before it is there.
    if completed || upload.role != Role::Final {
        headers.insert(UPLOAD_OFFSET, status.received.contiguous().get().into());
    }
    match upload.length {
        Some(length) => {
            headers.insert(UPLOAD_LENGTH, length.get().into());
        }
        None if upload.role == Role::Final => {}
        None => {
            headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1"));
        }
    }
    if let Some(metadata) = &upload.declared.metadata_field {
        insert(headers, UPLOAD_METADATA, metadata);
    }
    match upload.role {
        Role::Whole => {}
        Role::Partial => insert(headers, UPLOAD_CONCAT, concat::PARTIAL),
        Role::Final => {
            if let Some(Secret(urls)) = &status.sealed {
                insert(headers, UPLOAD_CONCAT, urls);
            }
        }
    }
    if !completed {
        expires(headers, upload.expires_at);
    }
    response
}

/// `204`: the upload is gone.
pub(super) fn terminated() -> Response {
    empty(StatusCode::NO_CONTENT)
}

fn expires(headers: &mut HeaderMap, at: Timestamp) {
    headers.insert(UPLOAD_EXPIRES, http_date(at));
}

/// Of a value that came in a header field, or was made of such and of ASCII.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
