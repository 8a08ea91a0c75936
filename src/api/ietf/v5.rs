//! Interop version 5: draft-ietf-httpbis-resumable-upload-03. `URLSession` of iOS 18.0 and tus-js-client speak it.
//!
//! An append without `Upload-Complete` is the last by one sentence of the draft and not the last by another, so it is refused.
//! tus-js-client begins a new upload on any answer to a HEAD but 2xx and 423, so 423 is what it gets while something is
//! away. It takes an offset that is the length for a success, whatever `Upload-Complete` says; the draft has no length in that
//! answer, and none is given.

use http::StatusCode;

use super::dialect::{Completeness, Dialect, LengthOnHead};

pub(super) const DIALECT: Dialect = Dialect {
    version: 5,
    completeness: Completeness::Complete,
    append_has_media_type: false,
    not_on_head: &["upload-offset", "upload-complete"],
    not_on_delete: &["upload-offset", "upload-complete"],
    appended: StatusCode::CREATED,
    ended: StatusCode::NOT_FOUND,
    busy: StatusCode::LOCKED,
    length_on_head: LengthOnHead::Never,
    time_left: None,
    tells_progress: true,
    refusal_says_complete: true,
};
