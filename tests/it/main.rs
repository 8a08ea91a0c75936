//! The integration tests, one binary: a file an operation.

#![expect(
    clippy::unwrap_used,
    reason = "everything here is a test, also what is no test function"
)]

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "what the tests share is offered before the last test uses it"
)]
mod support;

mod auth;
mod engine;
mod http;
mod ietf;
mod store;
mod store_browsers;
mod store_copies;
mod store_direct;
mod store_s3;
mod tus;
