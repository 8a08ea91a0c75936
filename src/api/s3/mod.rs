//! What Uppy's S3 plugin (`@uppy/aws-s3`) asks of a server.
//!
//! `parse` turns a request into a command, the engine carries it out, `render` turns the outcome into an answer. The handlers
//! here only pass on. The plugin cuts a file into parts as it likes, puts them into the store by URLs from here, and takes
//! any success of the completion for a finished upload. A small file it sends in a form, to where `params` says: to this
//! server, never to the bucket. What the plugin calls an upload's id is its handle here, and all that opens it.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod parse;
mod render;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::Uri;

use super::body;
use super::content;
use super::error::Problem;
use super::gate::Gate;
use super::method::known;
use crate::engine::{CompleteWith, Completion, Created, Engine, SignedRequest, ToldPart};
use crate::model::{Handle, Object, PartNumber, Scope};

/// The most that a JSON body may have: 10,000 parts with their etags.
const MAX_JSON_BYTES: usize = 2 << 20;
/// The most that the JSON of a creation may have.
const MAX_CREATE_JSON_BYTES: usize = 64 << 10;

/// The plugin's routes over an engine.
pub struct S3 {
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
    /// Where a form with a file is taken.
    pub objects: String,
    /// What URLs begin with; empty: what the request was sent to.
    pub public_url: String,
    /// How long a JSON body may take.
    pub json_timeout: Duration,
    /// How long a signed request is good for.
    pub url_ttl: Duration,
}

type Shared = State<Arc<S3>>;
/// A path that cannot even be decoded names no upload.
type Segment = Result<Path<String>, PathRejection>;
type Answer = Result<Response, Problem>;

/// The routes, under the base path of the settings.
pub fn routes(s3: Arc<S3>) -> Router {
    let base = s3.settings.base.clone();
    let upload = format!("{base}/multipart/{{handle}}");
    // HEAD is GET without its body, so that its Content-Length is GET's.
    let stored = get(content).head(content);
    Router::new()
        .route(
            &format!("{base}/params"),
            known(get(params), "GET,HEAD,OPTIONS"),
        )
        .route(
            &format!("{base}/multipart"),
            known(post(create), "POST,OPTIONS"),
        )
        .route(
            &upload,
            known(get(list).delete(abort), "GET,HEAD,DELETE,OPTIONS"),
        )
        .route(
            &format!("{upload}/batch"),
            known(get(sign_batch), "GET,HEAD,OPTIONS"),
        )
        .route(
            &format!("{upload}/complete"),
            known(post(complete), "POST,OPTIONS"),
        )
        .route(
            &format!("{upload}/content"),
            known(stored, "GET,HEAD,OPTIONS"),
        )
        .route(
            &format!("{upload}/{{number}}"),
            known(get(sign), "GET,HEAD,OPTIONS"),
        )
        .with_state(s3)
}

/// The upload that a path names. What goes with it in the query has to be of the same upload.
fn handle_of(segment: Segment, uri: &Uri) -> Result<Handle, Problem> {
    let Path(segment) = segment.map_err(|_| Problem::no_such_upload())?;
    parse::handle(&segment, uri)
}

async fn params(State(s3): Shared, request: Request) -> Answer {
    s3.gate.enter(request.extensions(), Scope::Upload)?;
    let filename = parse::form(request.uri())?;
    let origin = parse::origin(&request, &s3.settings.public_url)?;
    Ok(render::form(&filename, &origin, &s3.settings))
}

async fn create(State(s3): Shared, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let engine = s3.gate.enter(&parts.extensions, Scope::Upload)?;
    let json = body::read_small(body, MAX_CREATE_JSON_BYTES, s3.settings.json_timeout).await?;
    let Created { upload, key } = engine.create(parse::create(&parts.headers, &json)?).await?;
    Ok(render::created(&Handle { id: upload.id, key }))
}

async fn sign(
    State(s3): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Answer {
    let Path((segment, number)) = path.map_err(|_| Problem::no_such_upload())?;
    let engine = s3.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = parse::handle(&segment, request.uri())?;
    let number = parse::number(&number)?;
    let signed = urls(&engine, &handle, vec![number]).await?;
    let (_, signed) = signed.first().ok_or_else(Problem::no_such_upload)?;
    Ok(render::signed(signed, s3.settings.url_ttl))
}

async fn sign_batch(State(s3): Shared, segment: Segment, request: Request) -> Answer {
    let engine = s3.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = handle_of(segment, request.uri())?;
    let numbers = parse::numbers(request.uri())?;
    let signed = urls(&engine, &handle, numbers).await?;
    Ok(render::signed_batch(&signed))
}

async fn list(State(s3): Shared, segment: Segment, request: Request) -> Answer {
    let engine = s3.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = handle_of(segment, request.uri())?;
    let parts = engine.adopted_parts(handle.id, &handle.key).await?;
    Ok(render::parts(&parts))
}

async fn complete(State(s3): Shared, segment: Segment, request: Request) -> Answer {
    let engine = s3.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = handle_of(segment, request.uri())?;
    let origin = parse::origin(&request, &s3.settings.public_url)?;
    let (parts, body) = request.into_parts();
    if body::awaits_continue(&parts.headers) {
        // Nobody is invited to send a body about an upload that is not there.
        engine.status(handle.id, &handle.key).await?;
    }
    let json = body::read_small(body, MAX_JSON_BYTES, s3.settings.json_timeout).await?;
    let told = parse::parts(&parts.headers, &json)?;
    let object = finish(&engine, &handle, told).await?;
    let link = s3.gate.links().to(handle.id);
    let link = if s3.settings.public_url.is_empty() {
        format!("{origin}{link}")
    } else {
        link
    };
    Ok(render::completed(
        &handle,
        &object,
        &origin,
        link,
        &s3.settings,
    ))
}

async fn abort(State(s3): Shared, segment: Segment, request: Request) -> Answer {
    let engine = s3.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = handle_of(segment, request.uri())?;
    engine.abort(handle.id, &handle.key).await?;
    Ok(render::aborted())
}

async fn content(State(s3): Shared, segment: Segment, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let handle = handle_of(segment, &parts.uri)?;
    content::of_upload(
        &s3.gate,
        &parts,
        handle.id,
        Some(&handle.key),
        Problem::from,
    )
    .await
}

async fn urls(
    engine: &Engine,
    handle: &Handle,
    numbers: Vec<PartNumber>,
) -> Result<Vec<(PartNumber, SignedRequest)>, Problem> {
    let signed = engine.adopted_urls(handle.id, &handle.key, numbers);
    Ok(signed.await?)
}

/// Completes an upload, however long that takes: whatever else was said, the plugin would take for the end of it.
async fn finish(engine: &Engine, handle: &Handle, parts: Vec<ToldPart>) -> Result<Object, Problem> {
    let complete = CompleteWith {
        id: handle.id,
        key: handle.key.clone(),
        parts,
    };
    loop {
        match engine.complete_with(complete.clone()).await? {
            Completion::Done { object, .. } => return Ok(object),
            Completion::Working { retry_after } => tokio::time::sleep(retry_after).await,
        }
    }
}
