//! What the tests share.

pub(crate) mod rig;
pub(crate) mod s3;
pub(crate) mod s3_backend;
pub(crate) mod s3_control;
