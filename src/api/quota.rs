//! `GET /v1/quota`: what the caller is held to, and how much of it is left.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde_json::json;

use super::error::Problem;
use super::gate::{self, Gate};
use super::json::answer;
use crate::model::{DeviceId, Subject};

/// The route over an engine.
pub fn routes(gate: Gate, path: &str) -> Router {
    Router::new().route(path, get(quota)).with_state(gate)
}

async fn quota(State(gate): State<Gate>, request: Request) -> Result<Response, Problem> {
    let caller = gate::caller(request.extensions())?;
    let engine = gate.enter_to_read(request.extensions())?;
    let body = json!({
        "space": caller.space.as_str(),
        "subject": caller.subject.as_ref().map(Subject::as_str),
        "device": caller.device.as_ref().map(DeviceId::as_str),
        "max_size": engine.max_size(),
        "limits": engine.used().await?,
    });
    Ok(answer(StatusCode::OK, &body))
}
