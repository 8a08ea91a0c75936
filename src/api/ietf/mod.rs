//! Resumable uploads as the IETF drafts them: draft-ietf-httpbis-resumable-upload.
//!
//! `parse` turns a request into a command, the engine carries it out, `render` turns the outcome into an answer, each in the
//! dialect of the version that the request names. The handlers here only pass on.
//!
//! A request to the base that does not say whether its content is the whole is a conventional upload: it is taken whole or
//! not at all, and gets no interim answers.

mod announce;
mod dialect;
mod disposition;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod parse;
mod problem;
mod render;
mod take;
mod v3;
mod v5;
mod v6;
mod v8;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, head, post};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::body;
use super::content::{self, About};
use super::error::Problem;
use super::gate::Gate;
use crate::clock::Clock;
use crate::engine::{Engine, EngineError, Status};
use crate::model::{Handle, Length, Scope, UploadState};
use announce::Announcer;
use dialect::Dialect;
use fields::Limits;
use parse::{Content, Creation};
use render::{Place, Wording};
use take::Taken;

/// The protocol over an engine.
pub struct Ietf {
    /// What stands before the engine.
    pub gate: Gate,
    /// What tells how long an upload has left.
    pub clock: Clock,
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
    /// How many bytes a request may have, if that is limited.
    pub max_request_bytes: Option<u64>,
}

impl Ietf {
    fn url_of(&self, handle: &Handle) -> String {
        let Settings {
            base, public_url, ..
        } = &self.settings;
        format!("{public_url}{base}/{}", handle.reveal())
    }

    /// The words for an answer that is given now.
    fn wording(&self, dialect: &'static Dialect) -> Wording {
        Wording {
            dialect,
            limits: Limits {
                max_size: self.gate.settings().max_size_bytes,
                max_append_size: self.settings.max_request_bytes,
            },
            now: self.clock.now(),
        }
    }

    /// The answer to a request with content. `appended`: its status if more content is to come.
    async fn answer(
        &self,
        engine: &Engine,
        dialect: &'static Dialect,
        handle: &Handle,
        content: &Content,
        appended: StatusCode,
        taken: Result<Taken, EngineError>,
    ) -> Response {
        match taken {
            Ok(Taken::Part(offset)) => self.wording(dialect).part(appended, offset),
            Ok(Taken::Whole(object)) => {
                let url = self.gate.links().to(handle.id);
                self.wording(dialect).whole(handle.id, &object, url)
            }
            Ok(Taken::Working {
                offset,
                retry_after,
            }) => self.wording(dialect).working(offset, retry_after),
            Err(error) => {
                let problem = problem::of(error, dialect, Some(content.start));
                self.refuse(engine, dialect, handle, problem).await
            }
        }
    }

    /// Refuses a request with content, and says how far the upload got if it is there.
    async fn refuse(
        &self,
        engine: &Engine,
        dialect: &'static Dialect,
        handle: &Handle,
        problem: Problem,
    ) -> Response {
        let status = engine.status(handle.id, &handle.key).await.ok();
        self.wording(dialect).refusal(problem, status.as_ref())
    }
}

type Shared = State<Arc<Ietf>>;
/// A path that cannot even be decoded names no upload.
type Segment = Result<Path<String>, PathRejection>;
type Answer = Result<Response, Problem>;

const ALLOW_AT_BASE: &str = "POST,PUT,PATCH,OPTIONS";
const ALLOW_AT_UPLOAD: &str = "GET,HEAD,PATCH,DELETE,OPTIONS";

/// The routes, under the base path of the settings.
pub fn routes(ietf: Arc<Ietf>) -> Router {
    let base = ietf.settings.base.as_str();
    let creation =
        || -> MethodRouter<Arc<Ietf>> { post(create).put(create).patch(create).options(discover) };
    let upload = head(retrieve)
        .get(fetch)
        .patch(append)
        .delete(cancel)
        .options(discover_upload);
    Router::new()
        .route(base, creation())
        .route(&format!("{base}/"), creation())
        .route(&format!("{base}/{{handle}}"), upload)
        .with_state(ietf)
}

fn handle_of(segment: Segment) -> Result<Handle, Problem> {
    let Path(segment) = segment.map_err(|_| Problem::no_such_upload())?;
    parse::handle(&segment)
}

async fn discover(State(ietf): Shared, headers: HeaderMap) -> Response {
    let time_to_live = ietf.gate.settings().session_ttl;
    ietf.wording(Dialect::of(&headers))
        .options(ALLOW_AT_BASE, Some(time_to_live))
}

async fn discover_upload(State(ietf): Shared, headers: HeaderMap) -> Response {
    ietf.wording(Dialect::of(&headers))
        .options(ALLOW_AT_UPLOAD, None)
}

async fn create(State(ietf): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let dialect = Dialect::of(&parts.headers);
    let engine = match ietf.gate.enter(&parts.extensions, Scope::Upload) {
        Ok(engine) => engine,
        Err(problem) => return ietf.wording(dialect).refusal(problem, None),
    };
    let Begun {
        handle,
        mut place,
        content,
        resumable,
    } = match begin(&ietf, &engine, dialect, &parts.headers).await {
        Ok(begun) => begun,
        Err(problem) => return ietf.wording(dialect).refusal(problem, None),
    };
    let announcer = Announcer::of(&parts).filter(|_| resumable);
    if let Some(announcer) = &announcer {
        let fields = ietf.wording(dialect).announcement(&place);
        announcer.announce(&fields).await;
    }
    let body = body::for_engine(body);
    let taken = take::take(&engine, &handle, &content, body, announcer).await;
    match &taken {
        Ok(Taken::Whole(_)) => place.expires_at = None,
        // Nobody knows of the upload who could come back for it.
        Err(_) if !resumable => drop(engine.abort(handle.id, &handle.key).await),
        _ => {}
    }
    let answer = ietf.answer(
        &engine,
        dialect,
        &handle,
        &content,
        StatusCode::CREATED,
        taken,
    );
    ietf.wording(dialect).created(answer.await, &place)
}

/// An upload that was created, before its first content is taken.
struct Begun {
    handle: Handle,
    place: Place,
    content: Content,
    resumable: bool,
}

async fn begin(
    ietf: &Ietf,
    engine: &Engine,
    dialect: &Dialect,
    headers: &HeaderMap,
) -> Result<Begun, Problem> {
    let Creation {
        create,
        content,
        resumable,
    } = parse::creation(dialect, headers)?;
    let max = Length(ietf.gate.settings().max_size_bytes);
    if content.end.is_some_and(|end| end.get() > max.get()) {
        return Err(EngineError::TooLarge { max }.into());
    }
    let created = engine.create(create).await?;
    let handle = Handle {
        id: created.upload.id,
        key: created.key,
    };
    let location = HeaderValue::try_from(ietf.url_of(&handle));
    let place = Place {
        location: location.expect("the configuration's URLs and base64 are ASCII"),
        id: handle.id,
        expires_at: Some(created.upload.expires_at),
    };
    Ok(Begun {
        handle,
        place,
        content,
        resumable,
    })
}

async fn append(State(ietf): Shared, segment: Segment, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let dialect = Dialect::of(&parts.headers);
    let entered = ietf.gate.enter(&parts.extensions, Scope::Upload);
    let (engine, handle) = match entered.and_then(|engine| Ok((engine, handle_of(segment)?))) {
        Ok(both) => both,
        Err(problem) => return ietf.wording(dialect).refusal(problem, None),
    };
    let content = match parse::append(dialect, &parts.headers) {
        Ok(content) => content,
        Err(problem) => return ietf.refuse(&engine, dialect, &handle, problem).await,
    };
    let body = body::for_engine(body);
    let announcer = Announcer::of(&parts);
    let taken = take::take(&engine, &handle, &content, body, announcer).await;
    ietf.answer(&engine, dialect, &handle, &content, dialect.appended, taken)
        .await
}

async fn retrieve(State(ietf): Shared, segment: Segment, request: Request) -> Answer {
    let dialect = Dialect::of(request.headers());
    let engine = ietf.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = handle_of(segment)?;
    let status = halt(&engine, dialect, &handle, request.headers()).await?;
    Ok(ietf.wording(dialect).retrieval(&status))
}

/// Browsers and other clients that just want the file have it by the upload's URL.
async fn fetch(State(ietf): Shared, segment: Segment, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let (method, headers) = (&parts.method, &parts.headers);
    let dialect = Dialect::of(headers);
    let handle = handle_of(segment)?;
    let entered = ietf.gate.enter(&parts.extensions, Scope::Upload);
    let halted = match &entered {
        Ok(engine) => halt(engine, dialect, &handle, headers).await,
        Err(refusal) => Err(refusal.clone()),
    };
    let (Ok(engine), Ok(status)) = (entered, &halted) else {
        // It may be another's, whom its space lets be read.
        let (gate, key) = (&ietf.gate, Some(&handle.key));
        let read = content::of_upload(gate, &parts, handle.id, key, Problem::from).await;
        return read.map_err(|refusal| halted.err().unwrap_or(refusal));
    };
    let wording = ietf.wording(dialect);
    let UploadState::Completed { object, .. } = &status.upload.state else {
        return Ok(wording.retrieval(status));
    };
    let mut response = content::answer(
        &engine,
        About::of_upload(&status.upload, object),
        object,
        method,
        headers,
    )
    .await?;
    wording.state(response.headers_mut(), status);
    Ok(response)
}

async fn halt(
    engine: &Engine,
    dialect: &Dialect,
    handle: &Handle,
    headers: &HeaderMap,
) -> Result<Status, Problem> {
    parse::retrieval(dialect, headers)?;
    let halted = take::halt(engine, handle).await;
    halted.map_err(|error| problem::of_question(error, dialect))
}

async fn cancel(State(ietf): Shared, segment: Segment, request: Request) -> Answer {
    let dialect = Dialect::of(request.headers());
    let engine = ietf.gate.enter(request.extensions(), Scope::Upload)?;
    let handle = handle_of(segment)?;
    parse::cancellation(dialect, request.headers())?;
    let ended = engine.terminate(handle.id, &handle.key).await;
    ended.map_err(|error| problem::of(error, dialect, None))?;
    Ok(render::cancelled())
}
