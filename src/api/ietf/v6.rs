//! Interop version 6: draft-ietf-httpbis-resumable-upload-04 and -05. `URLSession` from iOS 18.1 on and tus-js-client speak
//! it.
//!
//! It adds the media type of appends, the length and the limits. The draft wants the length in every answer to a HEAD; while
//! all bytes are there and the upload is not complete it is left out here, since tus-js-client would take the upload for
//! finished. Without it the client sends the last, empty append that completes the upload.

use http::StatusCode;

use super::dialect::{Completeness, Dialect, LengthOnHead};

pub(super) const DIALECT: Dialect = Dialect {
    version: 6,
    completeness: Completeness::Complete,
    append_has_media_type: true,
    not_on_head: &["upload-offset", "upload-complete", "upload-length"],
    not_on_delete: &["upload-offset", "upload-complete"],
    appended: StatusCode::CREATED,
    ended: StatusCode::NOT_FOUND,
    busy: StatusCode::LOCKED,
    length_on_head: LengthOnHead::KnownUnlessFull,
    time_left: Some("expires"),
    tells_progress: true,
    refusal_says_complete: true,
};
