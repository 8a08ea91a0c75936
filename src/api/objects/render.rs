//! From outcomes to answers. Pure.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::Settings;
use super::take::{Outcome, Taken};
use crate::api::audit::Touched;
use crate::api::content::etag;
use crate::api::error::{Code, Problem};
use crate::api::object::CompletedJson;
use crate::api::session::SessionJson;
use crate::engine::{BodyError, Conflict, EngineError};
use crate::model::{DigestAlgorithm, Handle, Length, Object};

/// With the upload's key: the content is read with it, and an object that is still being made is asked for.
#[derive(Serialize)]
struct WithKey<T> {
    #[serde(flatten)]
    body: T,
    upload_key: String,
}

#[derive(Serialize)]
struct WorkingJson {
    upload_id: String,
    state: &'static str,
}

/// After how long a file is sent again that came when the server was about to end.
const RESTARTED_WITHIN: Duration = Duration::from_secs(1);

/// The answer to a file that was taken.
pub(super) fn taken(taken: &Taken, link: String, settings: &Settings) -> Response {
    let handle = &taken.handle;
    let mut response = match &taken.outcome {
        Outcome::Done(object) => done(handle, object, link, settings),
        Outcome::Staged(status) => {
            let (upload, received) = (&status.upload, &status.received);
            let body = SessionJson::new(upload, &handle.key, received, settings.advice);
            json(StatusCode::CREATED, settings.url_of(handle.id), &body)
        }
        Outcome::Working { retry_after } => {
            let body = WithKey {
                upload_key: handle.key.reveal(),
                body: WorkingJson {
                    upload_id: handle.id.to_string(),
                    state: "assembling",
                },
            };
            let mut response = json(StatusCode::ACCEPTED, settings.url_of(handle.id), &body);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
            response
        }
    };
    response.extensions_mut().insert(Touched(handle.id));
    response
}

fn done(handle: &Handle, object: &Object, link: String, settings: &Settings) -> Response {
    let url = match object.digests.get(DigestAlgorithm::Sha256) {
        Some(sha256) if object.shared => settings.url_of_content(sha256),
        _ => format!("{}/content", settings.url_of(handle.id)),
    };
    // What everybody may read who knows its address needs no link that expires.
    let lasting = settings.open && object.shared;
    let body = WithKey {
        upload_key: handle.key.reveal(),
        body: CompletedJson::new(handle.id, object, if lasting { url.clone() } else { link }),
    };
    let mut response = json(StatusCode::CREATED, url, &body);
    // The content's, as RFC 9110 has it for what was created; Uppy's S3 plugin takes a file without it for lost.
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", etag(object))) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn json(status: StatusCode, location: String, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("maps with text as keys serialise");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    response
}

/// The answer to a file that was not taken. There is no upload to go on with, so nothing is said of how far it got.
pub(super) fn refusal(error: EngineError) -> Problem {
    match error {
        EngineError::BodyBroken { source, .. } => {
            broken(source).header(CONNECTION, HeaderValue::from_static("close"))
        }
        EngineError::RangeMismatch {
            conflict, length, ..
        } => {
            let size = length.map_or_else(String::new, |length| format!(" the {length} bytes"));
            let detail = match conflict {
                Conflict::Short => format!("the file ended before{size} that were announced"),
                Conflict::Beyond | Conflict::Lengths => {
                    format!("the file has more than{size} that were announced")
                }
            };
            let problem = Problem::new(Code::RangeMismatch, kept_nothing(&detail));
            match length.map(Length::get) {
                Some(length) => problem.member("length", length),
                None => problem,
            }
        }
        // Nobody else knows of it; it was ended from within.
        EngineError::Displaced | EngineError::Gone | EngineError::NotFound => unavailable(
            EngineError::unavailable("the upload of a file was ended while it came"),
        ),
        error @ EngineError::Unavailable { .. } => unavailable(error),
        error => error.into(),
    }
}

/// The answer to an address where nothing is.
pub(super) fn no_such_object() -> Problem {
    Problem::new(Code::NotFound, "there is no object with this SHA-256")
}

fn unavailable(error: EngineError) -> Problem {
    let mut problem = Problem::from(error);
    problem.detail = kept_nothing("it cannot be taken now");
    problem
}

fn broken(source: BodyError) -> Problem {
    match source {
        // Where the wire broke is nothing that a client has to be told the inside of.
        BodyError::Cut(_) => Problem::bad_request(kept_nothing("the body ended early")),
        BodyError::Stalled(_) | BodyError::Slow(_) => {
            let detail = format!("the body ended early: {source}");
            Problem::bad_request(kept_nothing(&detail))
        }
        BodyError::Malformed(_) => Problem::bad_request(kept_nothing(&source.to_string())),
        BodyError::ShuttingDown => unavailable(EngineError::Unavailable {
            retry_after: RESTARTED_WITHIN,
            source: source.into(),
        }),
    }
}

fn kept_nothing(detail: &str) -> String {
    format!("{detail}; nothing of it is kept")
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
