//! The tus protocol, version 1.0.0, with every extension of it.
//!
//! `parse` turns a request into a command, the engine carries it out, `render` turns the outcome into an answer, `refusal`
//! what went wrong. The handlers here only pass on. An upload is completed with its last byte, and its URL is all that a
//! client keeps of it: whoever has it has the key.

mod checksum;
mod concat;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod metadata;
mod parse;
mod refusal;
mod render;
mod settled;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument as _;

use super::body;
use super::content;
use super::error::{Code, Problem, method_not_allowed};
use super::gate::Gate;
use crate::engine::{Created, Engine, EngineError, Expected, Written};
use crate::model::upload::Role;
use crate::model::{Handle, Length, Offset, Scope, Upload, UploadState};
use parse::{Chunk, Creation};
use refusal::Refusal;
use render::Progress;
use settled::{finish, settled};

const VERSION: &str = "1.0.0";
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");

/// The protocol over an engine.
pub struct Tus {
    /// What stands before the engine.
    pub gate: Gate,
    /// What answers say of the server.
    pub settings: Settings,
}

/// What answers say of the server, and where it is found.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The path that all routes begin with.
    pub base: String,
    /// What URLs begin with; empty: they are paths.
    pub public_url: String,
    /// How long it may take to see that a body has nothing in it.
    pub body_timeout: Duration,
}

impl Settings {
    fn url_of(&self, handle: &Handle) -> String {
        format!("{}{}/{}", self.public_url, self.base, handle.reveal())
    }
}

/// The two kinds of URLs.
#[derive(Debug, Clone, Copy)]
enum AtPath {
    /// Where uploads are created.
    Base,
    /// An upload.
    Upload,
}

impl AtPath {
    fn allow(self) -> &'static str {
        match self {
            Self::Base => "POST,OPTIONS",
            Self::Upload => "HEAD,PATCH,GET,DELETE,OPTIONS",
        }
    }

    fn refuse(self) -> Answer {
        Err(method_not_allowed(Some(self.allow())).into())
    }
}

type Shared = State<Arc<Tus>>;
/// A path that cannot even be decoded names no upload.
type Segment = Result<Path<String>, PathRejection>;
type Answer = Result<Response, Refusal>;

/// The routes, under the base path of the settings. Which method counts is seen from the header, so each takes all.
pub fn routes(tus: Arc<Tus>) -> Router {
    let base = tus.settings.base.clone();
    Router::new()
        .route(&base, any(at_base))
        .route(&format!("{base}/"), any(at_base))
        .route(&format!("{base}/{{handle}}"), any(at_upload))
        .with_state(tus)
}

/// Puts the protocol's version on every answer below the base path, whoever gives it.
pub async fn stamp(State(base): State<Arc<str>>, request: Request, next: Next) -> Response {
    let below = request.uri().path().strip_prefix(&*base);
    let ours = below.is_some_and(|below| below.is_empty() || below.starts_with('/'));
    let mut response = next.run(request).await;
    if ours {
        response
            .headers_mut()
            .insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    }
    response
}

async fn at_base(State(tus): Shared, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    match parse::method(&parts.method, &parts.headers) {
        Some(Method::OPTIONS) => Ok(tus.discovery(AtPath::Base)),
        Some(Method::POST) => {
            parse::version(&parts.headers)?;
            let engine = tus.gate.enter(&parts.extensions, Scope::Upload)?;
            tus.create(&engine, &parts.headers, body).await
        }
        _ => AtPath::Base.refuse(),
    }
}

async fn at_upload(State(tus): Shared, segment: Segment, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let Some(method) = parse::method(&parts.method, &parts.headers) else {
        return AtPath::Upload.refuse();
    };
    match method {
        Method::OPTIONS => return Ok(tus.discovery(AtPath::Upload)),
        // A browser's link names no version.
        Method::GET => {}
        Method::HEAD | Method::PATCH | Method::DELETE => parse::version(&parts.headers)?,
        _ => return AtPath::Upload.refuse(),
    }
    let segment = segment.map_err(|_| Problem::no_such_upload())?;
    let handle = parse::handle(&segment)?;
    match method {
        // Clients lose their upload when it is refused, and it tells nothing but how far they got.
        Method::HEAD => tus.status(&handle).await,
        Method::GET => {
            let refuse = |error| Refusal::from(error).0;
            Ok(content::of_upload(&tus.gate, &parts, handle.id, Some(&handle.key), refuse).await?)
        }
        method => {
            let engine = tus.gate.enter(&parts.extensions, Scope::Upload)?;
            if method == Method::PATCH {
                patch(&engine, &handle, &parts.headers, body).await
            } else {
                terminate(&engine, &handle).await
            }
        }
    }
}

impl Tus {
    fn discovery(&self, at: AtPath) -> Response {
        render::discovery(at, self.gate.settings().max_size_bytes)
    }

    async fn create(&self, engine: &Engine, headers: &HeaderMap, body: Body) -> Answer {
        let Creation { create, chunk } = parse::creation(headers)?;
        let body = if chunk.is_some() {
            body
        } else {
            let empty = body::read_small(body, 0, self.settings.body_timeout).await;
            empty.map_err(|problem| match problem.code {
                Code::UploadLimit => parse::unwanted_body(&create.role),
                _ => problem,
            })?;
            Body::empty()
        };
        let Created { upload, key } = engine.create(create).await?;
        let handle = Handle { id: upload.id, key };
        let progress = match chunk {
            Some(chunk) => take_first(engine, &handle, chunk, body).await?,
            None => begin_empty(engine, &handle, &upload).await?,
        };
        Ok(render::created(&upload, &handle, progress, &self.settings))
    }

    async fn status(&self, handle: &Handle) -> Answer {
        let status = settled(self.gate.for_holder(), handle).await;
        Ok(render::status(&status.map_err(Refusal::of_head)?))
    }
}

/// Takes the bytes that came with a creation. Whatever happens to the server on the way, the client is to learn its
/// upload's URL, and how far it got if that is certain.
async fn take_first(
    engine: &Engine,
    handle: &Handle,
    chunk: Chunk,
    body: Body,
) -> Result<Progress, Refusal> {
    match append(engine, handle, chunk, body).await {
        Ok(written) => {
            return Ok(Progress {
                offset: Some(written.offset),
                completed: written.is_full(),
            });
        }
        Err(
            error @ (EngineError::DigestMismatch { .. }
            | EngineError::DigestMissing { .. }
            | EngineError::RangeMismatch { .. }
            | EngineError::TooLarge { .. }
            | EngineError::WrongType { .. }
            | EngineError::Limited(_)),
        ) => {
            // A refusal has no URL, so nobody would come back to it. What cannot be removed now expires.
            let _ = engine.terminate(handle.id, &handle.key).await;
            return Err(error.into());
        }
        Err(error) => {
            tracing::warn!(upload = %handle.id, %error, "not all first bytes of an upload could be taken");
        }
    }
    match settled(engine, handle).await {
        Ok(status) => Ok(Progress {
            offset: Some(status.received.contiguous()),
            completed: status.upload.state.has_ended(),
        }),
        Err(EngineError::Unavailable { .. }) => Ok(Progress::default()),
        Err(error) => Err(error.into()),
    }
}

/// Completes a new upload that needs no bytes.
async fn begin_empty(
    engine: &Engine,
    handle: &Handle,
    upload: &Upload,
) -> Result<Progress, Refusal> {
    let assembling = matches!(upload.state, UploadState::Assembling { .. });
    let completed = if upload.role == Role::Final {
        assembling && put_together(engine, handle).await?
    } else {
        let empty = upload.length == Some(Length(0));
        if empty {
            finish(engine, handle).await?;
        }
        empty
    };
    Ok(Progress {
        offset: None,
        completed,
    })
}

/// Waits for a final upload whose parts are there; whether it is completed. It exists and is finished by itself, so that
/// only a failure for good is one.
async fn put_together(engine: &Engine, handle: &Handle) -> Result<bool, EngineError> {
    match finish(engine, handle).await {
        Ok(()) => Ok(true),
        Err(EngineError::Unavailable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn patch(engine: &Engine, handle: &Handle, headers: &HeaderMap, body: Body) -> Answer {
    let chunk = parse::chunk(headers)?;
    let written = append(engine, handle, chunk, body).await?;
    Ok(render::written(handle.id, &written))
}

async fn terminate(engine: &Engine, handle: &Handle) -> Answer {
    engine.terminate(handle.id, &handle.key).await?;
    Ok(render::terminated())
}

/// Writes a body where the upload's bytes end; with the last of them the upload is completed, or it is no success. The
/// body is not touched before it is admitted: a client that awaits `100 Continue` sends nothing for a refusal.
async fn append(
    engine: &Engine,
    handle: &Handle,
    chunk: Chunk,
    body: Body,
) -> Result<Written, EngineError> {
    let start = chunk.start;
    let body = match &chunk.digests {
        Expected::Known(_) => body::for_engine(body),
        Expected::Trailing(trailing) => {
            let trailing = trailing.clone();
            body::with_trailers(body, move |trailers| {
                trailing.tell(checksum::the_one_in(trailers));
            })
        }
    };
    let admission = match engine.admit(chunk.into_write(handle)).await {
        Ok(admission) => admission,
        Err(error) => return Err(or_wrong_offset(engine, error, handle, start).await),
    };
    let (engine, handle) = (engine.clone(), handle.clone());
    let writing = async move {
        let written = admission.run(body).await?;
        if written.is_full() {
            finish(&engine, &handle).await?;
        }
        Ok(written)
    };
    // A task of its own: a client that hangs up after its last byte may never come back to have it completed.
    let written = tokio::spawn(writing.in_current_span()).await;
    written.unwrap_or_else(|error| Err(EngineError::Internal(error.into())))
}

/// A wrong offset is told as such, whatever else does not fit.
async fn or_wrong_offset(
    engine: &Engine,
    error: EngineError,
    handle: &Handle,
    start: Offset,
) -> EngineError {
    let sizes = matches!(
        error,
        EngineError::RangeMismatch { .. } | EngineError::TooLarge { .. }
    );
    if sizes && let Ok(status) = engine.status(handle.id, &handle.key).await {
        let expected = status.received.contiguous();
        if expected != start {
            return EngineError::OutOfOrder { expected };
        }
    }
    error
}
