//! What goes wrong, with the statuses that tus fixes. The words stay those of every protocol.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::api::error::Problem;
use crate::engine::{Conflict, EngineError};

/// Checksum Mismatch, tus's own.
const CHECKSUM_MISMATCH: u16 = 460;

/// After how long a HEAD that could not be answered may come again, where nothing better is known.
const ASK_AGAIN_SECS: u64 = 5;

/// A refusal of a request.
#[derive(Debug)]
pub(super) struct Refusal(Problem);

impl Refusal {
    /// Of a HEAD. A client forgets the upload on any 4xx but 423, and begins anew on any 5xx, so that only an upload that is
    /// not there, or never will be complete, is answered with anything else.
    pub(super) fn of_head(error: EngineError) -> Self {
        let forget = matches!(
            error,
            EngineError::NotFound | EngineError::Gone | EngineError::Failed { .. }
        );
        let says_when = matches!(error, EngineError::Unavailable { .. });
        let Self(problem) = Self::from(error);
        Self(match (forget, says_when) {
            (true, _) => problem,
            (false, true) => problem.with_status(StatusCode::LOCKED),
            (false, false) => problem
                .with_status(StatusCode::LOCKED)
                .retry_after(ASK_AGAIN_SECS),
        })
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let status = status(&error);
        let problem = Problem::from(error);
        Self(match status {
            Some(status) => problem.with_status(status),
            None => problem,
        })
    }
}

/// Where tus says another status than the word's own.
fn status(error: &EngineError) -> Option<StatusCode> {
    match error {
        EngineError::RangeMismatch { conflict, .. } => Some(match conflict {
            Conflict::Lengths | Conflict::Short => StatusCode::BAD_REQUEST,
            Conflict::Beyond => StatusCode::PAYLOAD_TOO_LARGE,
        }),
        EngineError::DigestMismatch { .. } => StatusCode::from_u16(CHECKSUM_MISMATCH).ok(),
        // The status on which clients begin anew.
        EngineError::Failed { .. } => Some(StatusCode::GONE),
        EngineError::NotFound
        | EngineError::Gone
        | EngineError::OutOfOrder { .. }
        | EngineError::Displaced
        | EngineError::Incomplete { .. }
        | EngineError::Completed
        | EngineError::InUse
        | EngineError::IdempotencyMismatch
        | EngineError::TooLarge { .. }
        | EngineError::DigestMissing { .. }
        | EngineError::Unwritable
        | EngineError::BadParts { .. }
        | EngineError::TooManyChunks { .. }
        | EngineError::BodyBroken { .. }
        | EngineError::Unavailable { .. }
        | EngineError::Internal(_) => None,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}
