//! The native protocol: sessions and Content-Range.
//!
//! `parse` turns a request into a command, the engine carries it out, `render` turns the outcome into an answer. The
//! handlers here only pass on.

mod content_range;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod parse;
mod parts;
mod render;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use http::HeaderMap;

use super::body;
use super::content;
use super::error::Problem;
use super::gate::Gate;
use super::method::known;
use super::session::Advice;
use crate::engine::Engine;
use crate::model::{Scope, UploadId};
use parse::{Chunk, Credentials};

/// The most that a JSON body may have.
const MAX_JSON_BYTES: usize = 64 << 10;
/// The most that a question for URLs may have: a thousand parts with digests.
const MAX_URLS_JSON_BYTES: usize = 256 << 10;

/// The native protocol over an engine.
pub struct Native {
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
    /// How a client is advised to send.
    pub advice: Advice,
    /// How long a JSON body may take.
    pub json_timeout: Duration,
}

impl Settings {
    fn url_of(&self, id: UploadId) -> String {
        format!("{}{}/{id}", self.public_url, self.base)
    }
}

type Shared = State<Arc<Native>>;
/// A path that cannot even be decoded names no upload.
type Id = Result<Path<String>, PathRejection>;
type Answer = Result<Response, Problem>;

/// The routes, under the base path of the settings.
pub fn routes(native: Arc<Native>) -> Router {
    let base = native.settings.base.as_str();
    // HEAD is GET without its body, so that its Content-Length is GET's.
    let session = get(status).delete(abort);
    let stored = get(content).head(content);
    Router::new()
        .route(base, known(post(create), "POST,OPTIONS"))
        .route(
            &format!("{base}/{{id}}"),
            known(session, "GET,HEAD,DELETE,OPTIONS"),
        )
        .route(
            &format!("{base}/{{id}}/chunk"),
            known(put(chunk), "PUT,OPTIONS"),
        )
        .route(
            &format!("{base}/{{id}}/parts/urls"),
            known(post(part_urls), "POST,OPTIONS"),
        )
        .route(
            &format!("{base}/{{id}}/parts/{{number}}"),
            known(post(part_arrived), "POST,OPTIONS"),
        )
        .route(
            &format!("{base}/{{id}}/complete"),
            known(post(complete), "POST,OPTIONS"),
        )
        .route(
            &format!("{base}/{{id}}/content"),
            known(stored, "GET,HEAD,OPTIONS"),
        )
        .with_state(native)
}

fn id_of(id: Id) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| Problem::no_such_upload())
}

async fn create(State(native): Shared, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let engine = native.gate.enter(&parts.extensions, Scope::Upload)?;
    let json = body::read_small(body, MAX_JSON_BYTES, native.settings.json_timeout).await?;
    let command = parse::create(&parts.headers, &json)?;
    let created = engine.create(command).await?;
    let url = native.gate.links().to(created.upload.id);
    Ok(render::created(&created, url, &native.settings))
}

async fn chunk(State(native): Shared, id: Id, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let engine = native.gate.enter(&parts.extensions, Scope::Upload)?;
    let written = match parse::chunk(&id_of(id)?, &parts.headers)? {
        Chunk::Write(write) => {
            // Until it is admitted the body is not touched: a client that awaits `100 Continue` sends nothing for a refusal.
            let admission = engine.admit(write).await?;
            admission.run(body::for_engine(body)).await?
        }
        Chunk::Ask {
            credentials,
            length,
        } => {
            body::expect_none(body, native.settings.json_timeout).await?;
            engine
                .displace(credentials.id, &credentials.key, length)
                .await?
        }
    };
    Ok(render::written(written))
}

async fn part_urls(State(native): Shared, id: Id, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let engine = native.gate.enter(&parts.extensions, Scope::Upload)?;
    let credentials = parse::credentials(&id_of(id)?, &parts.headers)?;
    invite(&engine, &credentials, &parts.headers).await?;
    let json = body::read_small(body, MAX_URLS_JSON_BYTES, native.settings.json_timeout).await?;
    let ask = parts::urls(credentials, &parts.headers, &json)?;
    Ok(parts::signed(&engine.part_urls(ask).await?))
}

async fn part_arrived(
    State(native): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Answer {
    let Path((id, number)) = path.map_err(|_| Problem::no_such_upload())?;
    let (parts, body) = request.into_parts();
    let engine = native.gate.enter(&parts.extensions, Scope::Upload)?;
    let credentials = parse::credentials(&id, &parts.headers)?;
    invite(&engine, &credentials, &parts.headers).await?;
    let json = body::read_small(body, MAX_JSON_BYTES, native.settings.json_timeout).await?;
    let (number, etag) = (parts::number(&number)?, parts::etag(&parts.headers, &json)?);
    let written = engine
        .part_arrived(credentials.id, &credentials.key, number, etag.as_deref())
        .await?;
    Ok(render::written(written))
}

/// Nobody is invited to send a body about an upload that is not there.
async fn invite(
    engine: &Engine,
    credentials: &Credentials,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    if body::awaits_continue(headers) {
        let (id, key) = (credentials.id, &credentials.key);
        engine.status(id, key).await?;
    }
    Ok(())
}

async fn status(State(native): Shared, id: Id, request: Request) -> Answer {
    let engine = native.gate.enter(request.extensions(), Scope::Upload)?;
    let credentials = parse::credentials(&id_of(id)?, request.headers())?;
    let status = engine.status(credentials.id, &credentials.key).await?;
    let url = native.gate.links().to(credentials.id);
    Ok(render::status(&status, url))
}

async fn complete(State(native): Shared, id: Id, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let engine = native.gate.enter(&parts.extensions, Scope::Upload)?;
    let credentials = parse::credentials(&id_of(id)?, &parts.headers)?;
    let id = credentials.id;
    invite(&engine, &credentials, &parts.headers).await?;
    let json = body::read_small(body, MAX_JSON_BYTES, native.settings.json_timeout).await?;
    let command = parse::complete(credentials, &parts.headers, &json)?;
    let completion = engine.complete(command).await?;
    let url = native.gate.links().to(id);
    Ok(render::completion(id, &completion, url))
}

async fn abort(State(native): Shared, id: Id, request: Request) -> Answer {
    let engine = native.gate.enter(request.extensions(), Scope::Upload)?;
    let credentials = parse::credentials(&id_of(id)?, request.headers())?;
    engine.abort(credentials.id, &credentials.key).await?;
    Ok(render::aborted())
}

async fn content(State(native): Shared, id: Id, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let id = id_of(id)?.parse();
    let id = id.map_err(|_| Problem::no_such_upload())?;
    let key = parse::key(&parts.headers);
    content::of_upload(&native.gate, &parts, id, key.as_ref(), Problem::from).await
}
