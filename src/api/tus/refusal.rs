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
pub(super) struct Refusal(pub(super) Problem);

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
        | EngineError::DirectUnavailable { .. }
        | EngineError::NotPut { .. }
        | EngineError::PartsMissing { .. }
        | EngineError::PartsMismatch { .. }
        | EngineError::NotYours
        | EngineError::WrongType { .. }
        | EngineError::Limited(_)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upload::FailureReason;
    use crate::model::{DigestAlgorithm, Length, Offset};

    fn mismatch(conflict: Conflict) -> EngineError {
        EngineError::RangeMismatch {
            conflict,
            detail: "it does not fit".to_owned(),
            length: Some(Length(10)),
            expected_offset: Some(Offset(4)),
        }
    }

    fn failed() -> EngineError {
        EngineError::Failed {
            reason: FailureReason::StoreLost,
        }
    }

    fn shown(refusal: &Refusal) -> (u16, &'static str) {
        (refusal.0.status.as_u16(), refusal.0.code.word())
    }

    #[test]
    fn tus_has_statuses_of_its_own() {
        let algorithm = DigestAlgorithm::Sha1;
        for (error, expected) in [
            (mismatch(Conflict::Lengths), (400, "range_mismatch")),
            (mismatch(Conflict::Short), (400, "range_mismatch")),
            (mismatch(Conflict::Beyond), (413, "range_mismatch")),
            (
                EngineError::DigestMismatch { algorithm },
                (460, "digest_mismatch"),
            ),
            (failed(), (410, "upload_failed")),
            (EngineError::Gone, (410, "session_expired")),
            (EngineError::Unwritable, (403, "forbidden")),
            (EngineError::Displaced, (409, "displaced")),
            (EngineError::unavailable("away"), (503, "store_unavailable")),
        ] {
            assert_eq!(shown(&error.into()), expected);
        }
    }

    #[test]
    fn a_head_lets_clients_forget_only_what_is_lost() {
        for (error, expected) in [
            (EngineError::NotFound, 404),
            (EngineError::Gone, 410),
            (failed(), 410),
            (EngineError::unavailable("away"), 423),
            (EngineError::Internal("torn".into()), 423),
            (EngineError::Displaced, 423),
            (EngineError::Completed, 423),
        ] {
            let response = Refusal::of_head(error).into_response();
            let status = response.status().as_u16();
            assert_eq!(status, expected);
            let says_when = response.headers().get_all("retry-after").iter().count();
            assert_eq!(says_when, usize::from(status == 423));
        }
    }
}
