//! HTTP: one module a protocol, and what they share.
//!
//! A protocol parses a request into a command of the engine (pure), lets the engine carry it out, and renders its outcome
//! (pure). No protocol looks at another's header fields. What every route shares stands beside them: the accept loop and
//! its limits, TLS, who is asking, problems, bodies, cross-origin requests, the log line.

pub mod admin;
pub mod asker;
pub mod audit;
pub mod body;
mod client_io;
pub mod content;
pub mod cors;
pub mod error;
pub mod fields;
pub mod forwarded;
pub mod gate;
pub mod ietf;
pub mod interim;
pub mod json;
pub mod link;
pub mod listener;
pub mod method;
pub mod native;
pub mod object;
pub mod objects;
pub mod observe;
pub mod oversee;
pub mod quota;
pub mod rate;
pub mod router;
pub mod s3;
pub mod server;
pub mod session;
pub mod tls;
pub mod tus;
