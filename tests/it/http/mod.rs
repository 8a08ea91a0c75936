//! The wire contract, over sockets: a file an operation.

mod abort;
mod auth;
mod by_content;
mod chunk;
mod complete;
mod content;
mod cors;
mod create;
mod direct;
mod errors;
mod forwarded;
mod health;
mod http2;
mod limits;
mod metrics;
mod objects;
mod objects_forms;
mod rate;
mod refusals;
mod s3_plugin;
mod secrets;
mod shutdown;
mod status;
mod tls;
mod unix;
