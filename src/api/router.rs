//! Puts routes together and around them what they all share.

use std::collections::HashSet;
use std::sync::Arc;

pub use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

use super::admin::{self, Health};
use super::asker::{self, Door};
use super::audit::{audit, note_asker};
use super::cors::{Cors, cors};
use super::error::{Code, Problem, method_not_allowed};
use super::ietf::{self, Ietf};
use super::native::{self, Native};
use super::objects::{self, Objects};
use super::observe::{HeadLimits, guard, observe};
use super::oversee::{self, Oversee};
use super::quota;
use super::rate::{self, RateLimits, limit, limit_failures};
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
    /// Looking after the server.
    pub oversee: Oversee,
    /// Where a caller is told what is left.
    pub quota: String,
}

/// The routes of the main listener.
pub fn main(
    protocols: Protocols,
    door: Door,
    rates: &rate::Settings,
    health: Health,
    origins: Cors,
    head: HeadLimits,
) -> Router {
    let rates = Arc::new(RateLimits::new(rates, creation_paths(&protocols)));
    let Protocols {
        native,
        tus,
        ietf,
        s3,
        objects,
        oversee,
        quota,
    } = protocols;
    let gate = oversee.gate.clone();
    let tus_base: Arc<str> = tus.settings.base.as_str().into();
    let routes = native::routes(Arc::new(native))
        .merge(tus::routes(Arc::new(tus)))
        .merge(ietf::routes(Arc::new(ietf)))
        .merge(s3::routes(Arc::new(s3)))
        .merge(objects::routes(Arc::new(objects)))
        .merge(oversee::routes(Arc::new(oversee)))
        .merge(quota::routes(gate, &quota))
        .merge(admin::health_routes(health));
    let routes = routes
        .layer(from_fn_with_state(Arc::clone(&rates), limit))
        .layer(from_fn(note_asker))
        .layer(from_fn_with_state(door, asker::find_out))
        .layer(from_fn_with_state(rates, limit_failures));
    let guarded = guarded(routes, head).layer(from_fn_with_state(tus_base, tus::stamp));
    open(guarded, origins)
}

/// The routes on which uploads are created by whatever changes something.
fn creation_paths(protocols: &Protocols) -> HashSet<String> {
    let tus = &protocols.tus.settings.base;
    let ietf = &protocols.ietf.settings.base;
    [
        protocols.native.settings.base.clone(),
        tus.clone(),
        format!("{tus}/"),
        ietf.clone(),
        format!("{ietf}/"),
        protocols.objects.settings.base.clone(),
        format!("{}/multipart", protocols.s3.settings.base),
    ]
    .into()
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
        .layer(from_fn(audit))
        .layer(from_fn(observe))
}

#[cfg(test)]
mod tests;
