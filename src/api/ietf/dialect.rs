//! What the versions of the drafts say differently.
//!
//! The core speaks the newest one. Each version has a module with its own [`Dialect`], which says how its requests are
//! read and its answers are worded; nothing else asks for a version.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::fields::{INTEROP_VERSION, UPLOAD_COMPLETE, UPLOAD_INCOMPLETE, boolean, integer};
use super::{v3, v5, v6, v8};

/// How one version of the drafts words what all of them mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// The interop version.
    pub(super) version: u8,
    /// The field that tells whether an upload is complete.
    pub(super) completeness: Completeness,
    /// Whether an append has to be `application/partial-upload`.
    pub(super) append_has_media_type: bool,
    /// Fields that a HEAD is refused with.
    pub(super) not_on_head: &'static [&'static str],
    /// Fields that a DELETE is refused with.
    pub(super) not_on_delete: &'static [&'static str],
    /// The answer to an append that is not the last.
    pub(super) appended: StatusCode,
    /// The answer for an upload that has ended without an object.
    pub(super) ended: StatusCode,
    /// The answer to a HEAD that cannot be answered just now.
    pub(super) busy: StatusCode,
    /// Whether the answer to a HEAD has the length.
    pub(super) length_on_head: LengthOnHead,
    /// What `Upload-Limit` calls the time that is left. `None`: the version does not know the field.
    pub(super) time_left: Option<&'static str>,
    /// Whether interim answers tell how far the upload got.
    pub(super) tells_progress: bool,
    /// Whether a refusal to append to a completed upload says that it is complete: the field is about the upload then, and
    /// about whose answer it is otherwise.
    pub(super) refusal_says_complete: bool,
}

/// The field that tells whether an upload is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completeness {
    /// `Upload-Complete`, which an append has to carry.
    Complete,
    /// `Upload-Incomplete`, its inverse. An append without it is the last.
    Incomplete,
}

/// Whether the answer to a HEAD has the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LengthOnHead {
    /// If it is known.
    Known,
    /// If it is known, unless all bytes are there and the upload is not complete yet.
    KnownUnlessFull,
    /// Never.
    Never,
}

const SERVED: [&Dialect; 4] = [&v3::DIALECT, &v5::DIALECT, &v6::DIALECT, &v8::DIALECT];

impl Dialect {
    /// The one that a request names, if it is served here.
    pub(super) fn named(headers: &HeaderMap) -> Option<&'static Self> {
        let version = integer(headers, &INTEROP_VERSION)?;
        SERVED
            .into_iter()
            .find(|dialect| u64::from(dialect.version) == version)
    }

    /// The one that a request is read in: the newest if it names none that is served.
    pub(super) fn of(headers: &HeaderMap) -> &'static Self {
        Self::named(headers).unwrap_or(&v8::DIALECT)
    }

    /// Whether a request says that its content is the end of the upload. `None`: it does not say.
    pub(super) fn says_last(&self, headers: &HeaderMap) -> Option<bool> {
        match self.completeness {
            Completeness::Complete => boolean(headers, &UPLOAD_COMPLETE),
            Completeness::Incomplete => boolean(headers, &UPLOAD_INCOMPLETE).map(|more| !more),
        }
    }

    /// The same of an append.
    pub(super) fn says_last_append(&self, headers: &HeaderMap) -> Option<bool> {
        let by_default = match self.completeness {
            Completeness::Complete => None,
            Completeness::Incomplete => Some(true),
        };
        self.says_last(headers).or(by_default)
    }

    /// Says whether an upload is complete.
    pub(super) fn complete(&self, complete: bool) -> (HeaderName, HeaderValue) {
        let (name, value) = match self.completeness {
            Completeness::Complete => (UPLOAD_COMPLETE, complete),
            Completeness::Incomplete => (UPLOAD_INCOMPLETE, !complete),
        };
        let value = if value { "?1" } else { "?0" };
        (name, HeaderValue::from_static(value))
    }
}
