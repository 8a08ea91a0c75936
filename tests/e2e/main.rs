//! End to end: the real binary, real sockets, a real disk, a real S3, and `kill -9`.
//!
//! The S3 tests take their server from `JUMAR_TEST_S3_*` and fail without: `scripts/test` starts one and sets them. A kill
//! test goes through `JUMAR_E2E_ROUNDS` rounds a store, 10 if it is not set; 50 make a thorough run.

mod activation;
mod callers;
mod cli;
#[path = "../support/http.rs"]
#[allow(dead_code, reason = "what only the other tests use")]
mod client;
mod cut;
mod direct;
mod drain;
#[cfg(feature = "failpoints")]
mod failpoints;
mod harness;
mod hostile;
mod kill;
mod objects;
mod random;
mod ranges;
mod session;
mod token;
mod trouble;
