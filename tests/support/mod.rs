//! What the tests share.

pub(crate) mod callers;
pub(crate) mod direct;
pub(crate) mod h2;
pub(crate) mod http;
pub(crate) mod rig;
pub(crate) mod s3;
pub(crate) mod s3_backend;
pub(crate) mod s3_control;
pub(crate) mod s3_drip;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod tokens;
