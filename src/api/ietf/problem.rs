//! The problems whose types the drafts fix, and what an error of the engine is in this protocol. Pure.

use http::{HeaderValue, StatusCode};

use super::dialect::Dialect;
use super::fields::ACCEPT_PATCH;
use crate::api::error::{Code, Problem};
use crate::engine::{Conflict, EngineError};
use crate::model::Offset;

/// The media type of an append.
pub(super) const PARTIAL_UPLOAD: &str = "application/partial-upload";

const MISMATCHING_OFFSET: &str =
    "https://iana.org/assignments/http-problem-types#mismatching-upload-offset";
const INCONSISTENT_LENGTH: &str =
    "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";
const COMPLETED: &str = "https://iana.org/assignments/http-problem-types#completed-upload";

/// Lengths of an upload contradict each other, or what was sent contradicts the length.
pub(super) fn inconsistent_length(detail: impl Into<String>) -> Problem {
    inconsistent(Problem::new(Code::RangeMismatch, detail))
}

/// The content of an append is of another type, or of none.
pub(super) fn not_partial_upload() -> Problem {
    Problem::new(
        Code::UnsupportedMediaType,
        format!("an append has to be {PARTIAL_UPLOAD}"),
    )
    .header(ACCEPT_PATCH, HeaderValue::from_static(PARTIAL_UPLOAD))
}

/// The upload is complete, and takes nothing more.
pub(super) fn completed() -> Problem {
    Problem::from(EngineError::Completed)
        .with_status(StatusCode::BAD_REQUEST)
        .with_type(COMPLETED)
}

/// An upload's bytes do not end where an append begins, which is at `provided`.
pub(super) fn mismatching_offset(expected: Offset, provided: Offset) -> Problem {
    Problem::new(
        Code::ChunkOutOfOrder,
        format!("the upload goes on at byte {expected}, not at {provided}"),
    )
    .with_type(MISMATCHING_OFFSET)
    .member("expected-offset", expected.get())
    .member("provided-offset", provided.get())
    .member("expected_offset", expected.get())
}

/// What an error of the engine is. `provided`: where the request's content begins, if it has any.
pub(super) fn of(error: EngineError, dialect: &Dialect, provided: Option<Offset>) -> Problem {
    match (error, provided) {
        (EngineError::OutOfOrder { expected }, Some(provided)) => {
            mismatching_offset(expected, provided)
        }
        (EngineError::Completed, Some(_)) => completed(),
        // It is not the upload's length that is exceeded, but what is taken here at all.
        (
            error @ EngineError::RangeMismatch {
                conflict: Conflict::Beyond,
                length: None,
                ..
            },
            _,
        ) => Problem::new(Code::UploadLimit, error.to_string()),
        (error @ EngineError::RangeMismatch { .. }, _) => inconsistent(Problem::from(error)),
        (error @ (EngineError::Gone | EngineError::Failed { .. }), _) => {
            Problem::from(error).with_status(dialect.ended)
        }
        (error, _) => Problem::from(error),
    }
}

/// What an error of the engine is that kept a question for the offset from being answered.
pub(super) fn of_question(error: EngineError, dialect: &Dialect) -> Problem {
    let problem = of(error, dialect, None);
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        problem.with_status(dialect.busy)
    } else {
        problem
    }
}

fn inconsistent(problem: Problem) -> Problem {
    problem
        .with_status(StatusCode::BAD_REQUEST)
        .with_type(INCONSISTENT_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ietf::{v3, v8};
    use crate::model::Length;
    use crate::model::upload::FailureReason;

    fn shown(error: EngineError) -> String {
        of(error, &v8::DIALECT, Some(Offset(3)))
            .to_json()
            .to_string()
    }

    fn beyond(length: Option<Length>) -> EngineError {
        EngineError::RangeMismatch {
            conflict: Conflict::Beyond,
            detail: "too much".to_owned(),
            length,
            expected_offset: None,
        }
    }

    #[test]
    fn types_and_members_are_the_drafts_own() {
        insta::assert_snapshot!(shown(EngineError::OutOfOrder { expected: Offset(7) }), @r#"{"code":"chunk_out_of_order","detail":"the upload goes on at byte 7, not at 3","expected-offset":7,"expected_offset":7,"provided-offset":3,"status":409,"title":"The chunk is out of order","type":"https://iana.org/assignments/http-problem-types#mismatching-upload-offset"}"#);
        insta::assert_snapshot!(shown(EngineError::Completed), @r#"{"code":"upload_completed","detail":"the upload is completed and cannot be changed","status":400,"title":"The upload is completed","type":"https://iana.org/assignments/http-problem-types#completed-upload"}"#);
        insta::assert_snapshot!(shown(beyond(Some(Length(5)))), @r#"{"code":"range_mismatch","detail":"too much","length":5,"status":400,"title":"The range does not fit","type":"https://iana.org/assignments/http-problem-types#inconsistent-upload-length"}"#);
        insta::assert_snapshot!(shown(beyond(None)), @r#"{"code":"upload_limit","detail":"too much","status":413,"title":"Too large","type":"urn:jumar:problem:upload_limit"}"#);
        insta::assert_snapshot!(not_partial_upload().to_json().to_string(), @r#"{"code":"unsupported_media_type","detail":"an append has to be application/partial-upload","status":415,"title":"The media type is not taken","type":"urn:jumar:problem:unsupported_media_type"}"#);
    }

    #[test]
    fn an_upload_that_has_ended_is_gone_or_was_never_there() {
        let failed = || EngineError::Failed {
            reason: FailureReason::StoreLost,
        };
        for error in [EngineError::Gone, failed()] {
            assert_eq!(of(error, &v3::DIALECT, None).status, 404);
        }
        for error in [EngineError::Gone, failed()] {
            assert_eq!(of(error, &v8::DIALECT, None).status, 410);
        }
    }
}
