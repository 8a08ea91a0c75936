//! jumar: a resumable chunked upload server.
//!
//! The map of the crate, from the wire to the disk. Dependencies run one way, `api → engine → {catalog, store} → model`;
//! a test keeps it so.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`config`] | the configuration file, one struct a section |
//! | [`app`] | wires everything together, once |
//! | [`api`] | HTTP: one module a protocol |
//! | [`auth`] | who brings a token |
//! | [`engine`] | what happens to uploads |
//! | [`catalog`] | what is known of them |
//! | [`store`] | where their bytes go |
//! | [`model`] | the vocabulary: ranges, plans, digests, states |
//! | [`jobs`] | what runs by the clock |
//! | [`telemetry`] | log and metrics |
//! | [`clock`] | the only source of time |
//! | [`failpoints`] | where the crash tests let the process die |

pub mod api;
pub mod app;
pub mod auth;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod failpoints;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod jobs;
pub mod model;
pub mod store;
pub mod telemetry;
