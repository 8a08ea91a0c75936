//! Interop version 8: draft-ietf-httpbis-resumable-upload-09 to -11, and the core of this module.
//!
//! `Upload-Complete` in an answer says whose it is: `?1` if it is the outcome of the whole upload, well or badly, `?0` if it is
//! about this one request.

use http::StatusCode;

use super::dialect::{Completeness, Dialect, LengthOnHead};

pub(super) const DIALECT: Dialect = Dialect {
    version: 8,
    completeness: Completeness::Complete,
    append_has_media_type: true,
    not_on_head: &[],
    not_on_delete: &[],
    appended: StatusCode::NO_CONTENT,
    ended: StatusCode::GONE,
    busy: StatusCode::SERVICE_UNAVAILABLE,
    length_on_head: LengthOnHead::Known,
    time_left: Some("max-age"),
    tells_progress: true,
    refusal_says_complete: false,
};
