//! The integration tests, one binary: a file an operation.

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "what the tests share is offered before the last test uses it"
)]
mod support;

mod engine;
mod store;
mod store_s3;
