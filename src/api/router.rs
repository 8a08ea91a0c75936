//! Puts routes together and around them what they all share.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

use super::admin::{self, Health};
use super::asker::{self, Door};
use super::cors::{Cors, cors};
use super::error::{Code, Problem, method_not_allowed};
use super::ietf::{self, Ietf};
use super::native::{self, Native};
use super::objects::{self, Objects};
use super::observe::{HeadLimits, guard, observe};
use super::s3::{self, S3};
use super::tus::{self, Tus};
use crate::telemetry::Metrics;

/// What the server speaks.
pub struct Protocols {
    /// Sessions and Content-Range.
    pub native: Native,
    /// tus 1.0.0.
    pub tus: Tus,
    /// The IETF's resumable uploads.
    pub ietf: Ietf,
    /// What Uppy's S3 plugin speaks.
    pub s3: S3,
    /// Files in one request.
    pub objects: Objects,
}

/// The routes of the main listener.
pub fn main(
    protocols: Protocols,
    door: Door,
    health: Health,
    origins: Cors,
    head: HeadLimits,
) -> Router {
    let Protocols {
        native,
        tus,
        ietf,
        s3,
        objects,
    } = protocols;
    let tus_base: Arc<str> = tus.settings.base.as_str().into();
    let routes = native::routes(Arc::new(native))
        .merge(tus::routes(Arc::new(tus)))
        .merge(ietf::routes(Arc::new(ietf)))
        .merge(s3::routes(Arc::new(s3)))
        .merge(objects::routes(Arc::new(objects)))
        .merge(admin::health_routes(health))
        .layer(from_fn_with_state(door, asker::find_out));
    let guarded = guarded(routes, head).layer(from_fn_with_state(tus_base, tus::stamp));
    open(guarded, origins)
}

/// The routes of the admin listener.
pub fn admin(health: Health, metrics: Metrics, head: HeadLimits) -> Router {
    let routes = admin::health_routes(health).merge(admin::metrics_routes(metrics));
    shell(routes, Cors::new(&[]), head)
}

/// What every route has around it, and what answers where there is none.
pub fn shell(routes: Router, origins: Cors, head: HeadLimits) -> Router {
    open(guarded(routes, head), origins)
}

fn guarded(routes: Router, head: HeadLimits) -> Router {
    routes
        .fallback(async || Problem::new(Code::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || method_not_allowed(None))
        .layer(from_fn_with_state(head, guard))
}

fn open(guarded: Router, origins: Cors) -> Router {
    guarded
        .layer(from_fn_with_state(origins, cors))
        .layer(from_fn(observe))
}

#[cfg(test)]
mod tests;
