//! A file in one request, and objects by their content.
//!
//! `POST /v1/objects` brings a file, raw or as a form.
//! `parse` turns a request into commands, `form` finds the file in a form (`feed`: a
//! frame at a time), the engine carries the commands out (`take`),
//! `render` turns the outcome into an answer. An upload of the engine is made for the file, and what came of it when the
//! request has not worked out is removed at once: nobody could go on with it.
//!
//! `GET /v1/objects/sha256/{hex}` reads an object that is addressed by its content: whoever knows the address may read it, and what
//! is there never changes. Objects under other keys are not found so.

mod feed;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod parse;
mod render;
mod take;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::ALLOW;

use super::body;
use super::content::{self, About};
use super::error::Problem;
use super::gate::{self, Gate};
use super::session::Advice;
use crate::model::{Digest, Length, Scope, UploadId};
use parse::Kind;

/// Files in one request, over an engine.
pub struct Objects {
    /// What stands before the engine.
    pub gate: Gate,
    /// What answers say of the server.
    pub settings: Settings,
}

/// What is allowed, and what answers say of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The path that all routes begin with.
    pub base: String,
    /// The base path of the native protocol, where an upload is found that a request has left.
    pub sessions: String,
    /// What URLs begin with; empty: they are paths.
    pub public_url: String,
    /// Whether whoever knows the address of content may read it.
    pub open: bool,
    /// The most that a file may have.
    pub max_size: Length,
    /// How a client is advised to go on with what was staged.
    pub advice: Advice,
    /// How long what comes before the file in a form may take.
    pub form_timeout: Duration,
}

impl Settings {
    /// Where an object is found by its content.
    fn url_of_content(&self, sha256: &Digest) -> String {
        format!(
            "{}{}/sha256/{}",
            self.public_url,
            self.base,
            sha256.to_hex()
        )
    }

    fn url_of(&self, id: UploadId) -> String {
        format!("{}{}/{id}", self.public_url, self.sessions)
    }
}

type Shared = State<Arc<Objects>>;

/// The routes, under the base path of the settings.
pub fn routes(objects: Arc<Objects>) -> Router {
    let known = post(bring).options(async || {
        let allow = [(ALLOW, "POST,OPTIONS")];
        (StatusCode::NO_CONTENT, allow).into_response()
    });
    let stored = get(by_content).head(by_content).options(async || {
        let allow = [(ALLOW, "GET,HEAD,OPTIONS")];
        (StatusCode::NO_CONTENT, allow).into_response()
    });
    let base = &objects.settings.base;
    Router::new()
        .route(base, known)
        .route(&format!("{base}/sha256/{{sha256}}"), stored)
        .with_state(objects)
}

async fn by_content(
    State(objects): Shared,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let sha256 = parse::address(path.as_deref().map_or("", String::as_str))?;
    let engine = objects.gate.enter_to_read(request.extensions())?;
    let found = engine.object_with(&sha256).await?;
    let object = found.ok_or_else(render::no_such_object)?;
    let (method, headers) = (request.method(), request.headers());
    let about = About::of_address(&object, gate::caller(request.extensions())?);
    content::answer(&engine, about, &object, method, headers).await
}

async fn bring(State(objects): Shared, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let settings = &objects.settings;
    let engine = objects.gate.enter(&parts.extensions, Scope::Upload)?;
    let mut asked = parse::request(parts.uri.query(), &parts.headers, settings.max_size)?;
    let body = body::for_engine(body);
    let body = match asked.kind.clone() {
        Kind::Raw => body,
        Kind::Form { boundary } => {
            form::find_file(&mut asked, body, boundary, settings.form_timeout).await?
        }
    };
    let file = asked.file(settings.max_size)?;
    let taken = take::take(&engine, file, body).await;
    match taken {
        Ok(taken) => {
            let link = objects.gate.links().to(taken.handle.id);
            Ok(render::taken(&taken, link, settings))
        }
        Err(error) => Err(render::refusal(error)),
    }
}
