//! Looking after the server, for whoever has the scope `admin`: what there is, whose, and ending it.
//!
//! `GET /v1/admin/uploads`, `GET` and `DELETE /v1/admin/uploads/{id}`, `GET /v1/admin/spaces`, `GET /v1/admin/prune`. A token of one
//! space looks after that one alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{Extensions, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::error::{Code, Problem};
use super::gate::{self, Gate};
use super::json::answer;
use super::method::known;
use super::session::pairs;
use crate::clock::Clock;
use crate::engine::{Engine, Filter};
use crate::model::caller::InvalidName;
use crate::model::digest::Digests;
use crate::model::quota::Device;
use crate::model::upload::Snapshot;
use crate::model::{Length, Scope, Subject, Timestamp, TokenId, Upload, UploadId, UploadState};

/// How many uploads are listed at a time if nothing is said, and at most.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// The routes over an engine.
pub struct Oversee {
    /// What stands before the engine.
    pub gate: Gate,
    /// What ages are reckoned from.
    pub clock: Clock,
    /// The path that all routes begin with.
    pub base: String,
}

/// An upload as those see it who look after the server. Nothing in it opens the upload.
#[derive(Debug, Serialize)]
pub struct UploadJson<'a> {
    upload_id: String,
    state: &'static str,
    protocol: &'static str,
    role: &'static str,
    space: &'a str,
    subject: Option<&'a str>,
    token: Option<&'a str>,
    device: Option<&'a str>,
    length: Option<Length>,
    filename: Option<&'a str>,
    content_type: Option<&'a str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<StoredJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct StoredJson<'a> {
    key: &'a str,
    size: Length,
    digest: &'a Digests,
}

/// Everything of one upload.
#[derive(Debug, Serialize)]
pub struct DetailsJson<'a> {
    #[serde(flatten)]
    upload: UploadJson<'a>,
    offset: u64,
    received: Vec<(u64, u64)>,
    metadata: &'a BTreeMap<String, String>,
    declared_digest: &'a Digests,
    store_key: &'a str,
    parts: usize,
}

impl<'a> UploadJson<'a> {
    /// An upload.
    #[must_use]
    pub fn new(upload: &'a Upload) -> Self {
        let owner = &upload.owner;
        let object = match &upload.state {
            UploadState::Completed { object, .. } => Some(StoredJson {
                key: object.key.as_str(),
                size: object.size,
                digest: &object.digests,
            }),
            _ => None,
        };
        Self {
            upload_id: upload.id.to_string(),
            state: upload.state.name(),
            protocol: upload.protocol.name(),
            role: upload.role.name(),
            space: owner.space.as_str(),
            subject: owner.subject.as_ref().map(Subject::as_str),
            token: owner.token.as_ref().map(TokenId::as_str),
            device: owner.device.as_ref().map(Device::as_str),
            length: upload.length,
            filename: upload.declared.filename.as_deref(),
            content_type: upload.declared.content_type.as_deref(),
            created_at: upload.created_at,
            updated_at: upload.updated_at,
            expires_at: upload.expires_at,
            object,
            failure_reason: match upload.state {
                UploadState::Failed { reason, .. } => Some(reason.name()),
                _ => None,
            },
        }
    }
}

impl<'a> DetailsJson<'a> {
    /// All of an upload.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let upload = &snapshot.upload;
        Self {
            upload: UploadJson::new(upload),
            offset: snapshot.received.contiguous().get(),
            received: pairs(&snapshot.received),
            metadata: &upload.declared.metadata,
            declared_digest: &upload.declared.digests,
            store_key: upload.store_key.as_str(),
            parts: snapshot.parts.len(),
        }
    }
}

#[derive(Serialize)]
struct PageJson<'a> {
    uploads: Vec<UploadJson<'a>>,
    /// What to go on with; `null` where that was all.
    cursor: Option<String>,
}

type Shared = State<Arc<Oversee>>;
type Answer = Result<Response, Problem>;

/// The routes, under their base path.
pub fn routes(oversee: Arc<Oversee>) -> Router {
    let base = oversee.base.clone();
    Router::new()
        .route(
            &format!("{base}/uploads"),
            known(get(list), "GET,HEAD,OPTIONS"),
        )
        .route(
            &format!("{base}/uploads/{{id}}"),
            known(get(inspect).delete(abort), "GET,HEAD,DELETE,OPTIONS"),
        )
        .route(
            &format!("{base}/spaces"),
            known(get(spaces), "GET,HEAD,OPTIONS"),
        )
        .route(
            &format!("{base}/prune"),
            known(get(last_prune), "GET,HEAD,OPTIONS"),
        )
        .with_state(oversee)
}

impl Oversee {
    fn enter(&self, request: &Extensions) -> Result<Engine, Problem> {
        let known = gate::caller(request)?;
        if known.token.is_none() {
            return Err(Problem::unauthorized(
                "a token with the scope admin is needed",
            ));
        }
        self.gate.enter(request, Scope::Admin)
    }
}

async fn list(State(oversee): Shared, request: Request) -> Answer {
    let engine = oversee.enter(request.extensions())?;
    let (filter, limit) = asked(request.uri(), oversee.clock.now())?;
    let uploads = engine.list(filter, limit).await?;
    let full = uploads.len() == limit as usize;
    let last = uploads.last().filter(|_| full);
    Ok(answer(
        StatusCode::OK,
        &PageJson {
            cursor: last.map(|upload| upload.id.to_string()),
            uploads: uploads.iter().map(UploadJson::new).collect(),
        },
    ))
}

async fn inspect(
    State(oversee): Shared,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Answer {
    let engine = oversee.enter(request.extensions())?;
    let snapshot = engine.inspect(id_of(id)?).await?;
    Ok(answer(StatusCode::OK, &DetailsJson::new(&snapshot)))
}

async fn abort(
    State(oversee): Shared,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Answer {
    let engine = oversee.enter(request.extensions())?;
    engine.abort_any(id_of(id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn spaces(State(oversee): Shared, request: Request) -> Answer {
    let engine = oversee.enter(request.extensions())?;
    let spaces = engine.spaces().await?;
    Ok(answer(
        StatusCode::OK,
        &serde_json::json!({ "spaces": spaces }),
    ))
}

async fn last_prune(State(oversee): Shared, request: Request) -> Answer {
    let engine = oversee.enter(request.extensions())?;
    let last = engine.last_prune().await?;
    let last = last.ok_or_else(|| Problem::new(Code::NotFound, "nothing was pruned yet"))?;
    Ok(answer(StatusCode::OK, &last))
}

fn id_of(id: Result<Path<String>, PathRejection>) -> Result<UploadId, Problem> {
    let id = id.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or_else(|| Problem::new(Code::NotFound, "there is no upload with this id"))
}

/// The names of all states.
const STATES: [&str; 7] = [
    "pending",
    "uploading",
    "assembling",
    "completed",
    "failed",
    "aborted",
    "expired",
];

/// A state by its name.
pub fn state_named(name: &str) -> Result<&'static str, String> {
    let found = STATES.into_iter().find(|state| *state == name);
    found.ok_or_else(|| format!("state has to be one of {}", STATES.join(", ")))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    state: Option<String>,
    space: Option<String>,
    older_than_secs: Option<u64>,
    cursor: Option<String>,
    limit: Option<u32>,
}

fn asked(uri: &Uri, now: Timestamp) -> Result<(Filter, u32), Problem> {
    let Query(asked) = Query::<Asked>::try_from_uri(uri)
        .map_err(|error| Problem::bad_request(format!("the query cannot be taken: {error}")))?;
    let state = asked.state.as_deref().map(state_named).transpose();
    let space = asked.space.as_deref().map(str::parse).transpose();
    let after = asked.cursor.as_deref().map(str::parse).transpose();
    let age = asked.older_than_secs.map(Duration::from_secs);
    let limit = asked.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "limit has to be between 1 and {LARGEST_PAGE}"
        )));
    }
    let filter = Filter {
        state: state.map_err(Problem::bad_request)?,
        space: space.map_err(|why: InvalidName| Problem::bad_request(format!("space: {why}")))?,
        created_until: age.map(|age| now.before(age)),
        after: after
            .map_err(|_| Problem::bad_request("cursor has to be what an earlier answer told"))?,
    };
    Ok((filter, limit))
}
