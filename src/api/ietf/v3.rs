//! Interop version 3: draft-ietf-httpbis-resumable-upload-01. `URLSession` of iOS 17 speaks it.
//!
//! It has `Upload-Incomplete` where later ones have `Upload-Complete`, and an append without it is the last. It knows no
//! limits and no progress, and asks for no media type. `Upload-Length` is of later versions; a client that sends it is
//! held to it all the same.

use http::StatusCode;

use super::dialect::{Completeness, Dialect, LengthOnHead};

pub(super) const DIALECT: Dialect = Dialect {
    version: 3,
    completeness: Completeness::Incomplete,
    append_has_media_type: false,
    not_on_head: &["upload-offset", "upload-incomplete"],
    not_on_delete: &["upload-offset", "upload-incomplete"],
    appended: StatusCode::CREATED,
    ended: StatusCode::NOT_FOUND,
    busy: StatusCode::SERVICE_UNAVAILABLE,
    length_on_head: LengthOnHead::Never,
    time_left: None,
    tells_progress: false,
    refusal_says_complete: true,
};
