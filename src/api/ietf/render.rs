//! From outcomes of the engine to answers. Pure.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::dialect::{Dialect, LengthOnHead};
use super::fields::{
    ACCEPT_PATCH, INTEROP_VERSION, Limits, UPLOAD_ID, UPLOAD_LENGTH, UPLOAD_LIMIT,
};
use super::problem::{self, PARTIAL_UPLOAD};
use crate::api::audit::Touched;
use crate::api::error::{Code, Problem, UPLOAD_OFFSET};
use crate::api::fields::{REPR_DIGEST, digest_value};
use crate::api::object::CompletedJson;
use crate::engine::Status;
use crate::model::{Object, Offset, Timestamp, UploadId, UploadState};

/// How the answers to a request are worded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wording {
    /// In which version.
    pub(super) dialect: &'static Dialect,
    /// What the limits are.
    pub(super) limits: Limits,
    /// When.
    pub(super) now: Timestamp,
}

/// Where a new upload is found.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its URL.
    pub(super) location: HeaderValue,
    /// Which it is.
    pub(super) id: UploadId,
    /// When it expires, unless bytes arrive. `None`: it is complete, and does not.
    pub(super) expires_at: Option<Timestamp>,
}

impl Wording {
    fn limit(&self, headers: &mut HeaderMap, time_left: Option<Duration>) {
        if let Some(limit) = self.limits.field(self.dialect, time_left) {
            headers.insert(UPLOAD_LIMIT, limit);
        }
    }

    fn standing(&self, headers: &mut HeaderMap, complete: bool, offset: Offset) {
        let (name, value) = self.dialect.complete(complete);
        headers.insert(name, value);
        headers.insert(UPLOAD_OFFSET, offset.get().into());
    }

    /// The fields of the `104` that tells where an upload is.
    pub(super) fn announcement(&self, place: &Place) -> HeaderMap {
        let mut headers = interim(self.dialect);
        headers.insert(LOCATION, place.location.clone());
        self.limit(&mut headers, place.expires_at.map(|at| at.since(self.now)));
        headers
    }

    /// What can be done here, and where uploads are created, the limits.
    pub(super) fn options(&self, allow: &'static str, time_to_live: Option<Duration>) -> Response {
        let mut response = empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(allow));
        headers.insert(ACCEPT_PATCH, HeaderValue::from_static(PARTIAL_UPLOAD));
        if time_to_live.is_some() {
            self.limit(headers, time_to_live);
        }
        response
    }

    /// Adds to the answer to a creation where the upload is, if it says how far it got: otherwise it is not there any more.
    pub(super) fn created(&self, mut response: Response, place: &Place) -> Response {
        response.extensions_mut().insert(Touched(place.id));
        let headers = response.headers_mut();
        if headers.contains_key(UPLOAD_OFFSET) {
            headers.insert(LOCATION, place.location.clone());
            headers.insert(UPLOAD_ID, id_value(place.id));
            let time_left = place.expires_at.map(|at| at.since(self.now));
            self.limit(headers, time_left);
        }
        response
    }

    /// The content was taken, and more is to come.
    pub(super) fn part(&self, status: StatusCode, offset: Offset) -> Response {
        let mut response = empty(status);
        self.standing(response.headers_mut(), false, offset);
        response
    }

    /// The final answer: the upload is complete, and this is its object, whose content is at `url`.
    pub(super) fn whole(&self, id: UploadId, object: &Object, url: String) -> Response {
        let body = CompletedJson::new(id, object, url);
        let text = serde_json::to_string(&body).expect("maps with text as keys serialise");
        let mut response = empty(StatusCode::CREATED);
        *response.body_mut() = Body::from(text);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(UPLOAD_ID, id_value(id));
        headers.insert(REPR_DIGEST, digest_value(&object.digests));
        self.standing(headers, true, Offset(object.size.get()));
        response
    }

    /// Every byte is there, and the object is still being made.
    pub(super) fn working(&self, offset: Offset, retry_after: Duration) -> Response {
        let problem = Problem::new(
            Code::StoreUnavailable,
            "every byte is there, and the upload is being completed; repeat an empty append to hear what comes of it",
        )
        .retry_after(retry_after.as_secs().max(1));
        let mut response = problem.into_response();
        self.standing(response.headers_mut(), false, offset);
        response
    }

    /// How far an upload got.
    pub(super) fn retrieval(&self, status: &Status) -> Response {
        let mut response = empty(StatusCode::NO_CONTENT);
        self.state(response.headers_mut(), status);
        response
    }

    /// Adds how far an upload got.
    pub(super) fn state(&self, headers: &mut HeaderMap, status: &Status) {
        let upload = &status.upload;
        let complete = matches!(upload.state, UploadState::Completed { .. });
        let offset = status.received.contiguous();
        self.standing(headers, complete, offset);
        let full = upload
            .length
            .is_some_and(|length| length.get() == offset.get());
        let tells_length = match self.dialect.length_on_head {
            LengthOnHead::Known => true,
            LengthOnHead::KnownUnlessFull => complete || !full,
            LengthOnHead::Never => false,
        };
        if let Some(length) = upload.length.filter(|_| tells_length) {
            headers.insert(UPLOAD_LENGTH, length.get().into());
        }
        // Only what takes bytes expires.
        let time_left = upload
            .state
            .takes_bytes()
            .then(|| upload.expires_at.since(self.now));
        self.limit(headers, time_left);
    }

    /// A request was refused. `upload`: what is known of its upload, if it is there.
    pub(super) fn refusal(&self, problem: Problem, upload: Option<&Status>) -> Response {
        let too_large = problem.status == StatusCode::PAYLOAD_TOO_LARGE;
        let standing = upload.and_then(|upload| self.standing_after(problem.code, upload));
        let completed = upload
            .is_some_and(|status| matches!(status.upload.state, UploadState::Completed { .. }));
        let about_bytes = matches!(
            problem.code,
            Code::ChunkOutOfOrder | Code::RangeMismatch | Code::UploadCompleted
        );
        let problem = if completed && about_bytes {
            problem::completed()
        } else {
            problem
        };
        let mut response = problem.into_response();
        let headers = response.headers_mut();
        // What the engine said of the offset may be from before the upload ended.
        headers.remove(UPLOAD_OFFSET);
        if let Some((complete, offset)) = standing {
            let (name, value) = self.dialect.complete(complete);
            headers.insert(name, value);
            if let Some(offset) = offset {
                headers.insert(UPLOAD_OFFSET, offset.get().into());
            }
        }
        if too_large {
            self.limit(headers, None);
        }
        response
    }

    /// Whether a refusal says that the upload is complete, and how far it got. `None`: it has ended, and nothing is said.
    fn standing_after(&self, code: Code, status: &Status) -> Option<(bool, Option<Offset>)> {
        let offset = Some(status.received.contiguous());
        match &status.upload.state {
            UploadState::Completed { .. } => Some((self.dialect.refusal_says_complete, offset)),
            // It was taken whole, and this is what came of it: there is nothing to go on with.
            UploadState::Failed { .. } if code == Code::DigestMismatch => Some((true, None)),
            state if state.has_ended() => None,
            _ => Some((false, offset)),
        }
    }
}

/// The fields of a `104` that tells how far an upload got.
pub(super) fn progress(dialect: &Dialect, offset: Offset) -> HeaderMap {
    let mut headers = interim(dialect);
    headers.insert(UPLOAD_OFFSET, offset.get().into());
    headers
}

/// The upload is deactivated.
pub(super) fn cancelled() -> Response {
    empty(StatusCode::NO_CONTENT)
}

fn interim(dialect: &Dialect) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(INTEROP_VERSION, u16::from(dialect.version).into());
    headers
}

fn id_value(id: UploadId) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("an id is ASCII")
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    if status == StatusCode::NO_CONTENT {
        // axum would tell the length of a body that it knows, and a 204 must not have Content-Length.
        *response.body_mut() = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    }
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
