//! Health and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::json::answer;
use crate::engine::{Engine, Readiness};
use crate::telemetry::Metrics;

/// What the health routes look at.
#[derive(Clone)]
pub struct Health {
    engine: Engine,
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Of a server over this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            draining: Arc::default(),
        }
    }

    /// From now on the server is not ready.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }
}

/// `/healthz` and `/readyz`.
pub fn health_routes(health: Health) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(async || answer(StatusCode::OK, &json!({"status": "ok"}))),
        )
        .route("/readyz", get(ready))
        .with_state(health)
}

/// `/metrics`.
pub fn metrics_routes(metrics: Metrics) -> Router {
    let render = async |State(metrics): State<Metrics>| {
        (
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            metrics.render(),
        )
    };
    Router::new()
        .route("/metrics", get(render))
        .with_state(metrics)
}

async fn ready(State(health): State<Health>) -> Response {
    if health.draining.load(Ordering::SeqCst) {
        return answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "draining"}),
        );
    }
    let (status, body) = readiness(&health.engine.ready().await);
    answer(status, &body)
}

/// A store that is away leaves the server ready: it would take every node out at once, and uploads go on in the spool.
fn readiness(ready: &Readiness) -> (StatusCode, Value) {
    let (status, word) = match (ready.catalog, ready.store) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let body = json!({"status": word, "catalog": ready.catalog, "store": ready.store});
    (status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_degrades_and_a_catalog_that_is_away_disables() {
        let of = |catalog, store| readiness(&Readiness { catalog, store });
        assert_eq!(of(true, true).0, StatusCode::OK);
        let (status, body) = of(true, false);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"], "degraded");
        assert_eq!(of(false, true).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
